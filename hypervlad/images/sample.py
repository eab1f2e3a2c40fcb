"""One door for all that looks for objects: the part of an image that shows the sample, as grey."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import (
    Any,
    Concatenate,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    overload,
)

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hypervlad.common.constraints import OneOf, check_value
from hypervlad.common.progress import announced, is_announced, note_doubt, warn_of_image
from hypervlad.common.wording import name_some
from hypervlad.images.annotations import (
    Annotation,
    annotation_mask,
    annotations_in,
    fill_annotations,
    margin_mask,
    note_annotations,
)
from hypervlad.images.banner import as_8bit_grey
from hypervlad.images.errors import ImageReadError
from hypervlad.images.faults import note_faults
from hypervlad.images.light import (
    stretched,
    without_dead_lines,
    without_hot_pixels,
    without_seams,
    without_uneven_light,
)
from hypervlad.images.options import PixelSizes, ReadOptions, check_read_options
from hypervlad.images.reading import (
    Micrograph,
    check_image_list,
    image_name,
    name_within,
    read_named,
)
from hypervlad.images.resampling import areas_of

P = ParamSpec("P")
T = TypeVar("T")
Annotations: TypeAlias = Literal["leave_out", "keep"]

_SQUARE = 4  # pixels, of which colours are averaged
_ALIKE, _STEADY = 0.3, 0.1  # correlation of colours; their deviation, by that of the one with most
_NOISE = 0.4  # of the deviation of single pixels, that squares have; of noise, a quarter
_PLAIN, _FEW = 0.1, 0.1  # of the range, by which colours differ; of the squares, in which they do
_OF_DICT = "give [{0}.get(name) for name in the images' names in its table]"
#: Note of an image with a scale bar, if one size was given for all; in tables, so for all readers.
GIVEN_SIZE = (
    "the pixel size that was given is used, not the scale bar of this image: if that says another "
    "one, lengths in nm are wrong, so give the table of 'hypervlad scale', or put such images into "
    "a folder of their own"
)


class Sample(NamedTuple):
    """A grey image (H, W) of a sample: where it shows none, it is as what is next to that."""

    grey: NDArray[np.float32]
    mask: NDArray[np.bool_]  # where it shows the sample, and is not left out by a mask
    pixel_size: float | None  # nanometres per pixel
    annotations: list[Annotation]  # what was left out, as it is no sample
    digest: str = ""  # of the image; "" if a mask leaves out some of it

    @property
    def margin(self) -> NDArray[np.bool_]:
        """Where the sample is cut off by margins and information bars, as by the image's edge."""
        return margin_mask(self.annotations, (self.grey.shape[0], self.grey.shape[1]))

    def at_twice_the_size(self) -> Sample:
        """Return the sample enlarged, in which small objects have more pixels."""
        grey = ndimage.zoom(self.grey, 2, order=3, mode="nearest", grid_mode=True).clip(0, 1)
        annotations = list[Annotation]()
        for each in self.annotations:
            top, left, bottom, right = (2 * side for side in each.box)
            own = None if each.mask is None else _doubled(each.mask)
            annotations.append(Annotation(each.kind, (top, left, bottom, right), own))
        return Sample(
            grey, _doubled(self.mask), self.pixel_size and self.pixel_size / 2, annotations
        )


def _doubled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask.repeat(2, axis=0).repeat(2, axis=1)


class _OneOrMany(Protocol[P, T]):
    @overload
    def __call__(
        self, image: list[Any] | tuple[Any, ...], *args: P.args, **kwargs: P.kwargs
    ) -> list[T]: ...
    @overload
    def __call__(self, image: Any, *args: P.args, **kwargs: P.kwargs) -> T: ...


def one_or_many(*paired: str) -> Callable[[Callable[Concatenate[Any, P], T]], _OneOrMany[P, T]]:
    """Let a function that finds things in an image also take a list of images.

    The decorated function is written for one image, its first argument. Given a list, tuple, array
    or column of paths, or a list of arrays, it returns the list of results in the same order; all
    images share the other arguments, except those of the names in `paired`, of which each image has
    its own. An error names the image that failed. Warnings are those of `note_found`, one for all
    images, unless a larger call, such as for a folder, gives them.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        signature = inspect.signature(function)
        first = next(iter(signature.parameters))

        @wraps(function)
        def of_one_or_many(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            image = given[first]
            is_of_paths = hasattr(image, "dtype") and image.dtype.kind in "OUST" and image.ndim == 1
            if not (isinstance(image, list | tuple) or is_of_paths or hasattr(image, "iloc")):
                result = function(**given)
                if not is_announced():
                    note_found(image_name(image), result)
                return result
            images = check_image_list(image)
            own = {name: given[name] for name in paired if given.get(name) is not None}
            for name, values in own.items():
                if not isinstance(values, list | tuple) or len(values) != len(images):
                    raise ValueError(
                        f"{name}: expected a list of {len(images)}, one for each image, got "
                        f"{type(values).__name__}"
                        + (f" of {len(values)}" if hasattr(values, "__len__") else "")
                        + ("; " + _OF_DICT.format(name) if isinstance(values, Mapping) else "")
                    )

            def of_image(image: Any, *values: Any) -> Any:
                return function(**given | {first: image} | dict(zip(own, values, strict=True)))

            return for_each_image(of_image, images, *own.values())

        return of_one_or_many

    return decorate


def for_each_image(
    function: Callable[..., T], images: Sequence[Any], *others: Sequence[Any]
) -> list[T]:
    """Return what a function makes of each image, and of what else is its; errors name it."""
    found = []
    is_within = is_announced()  # a larger call, which says itself what was left out
    with announced():
        for number, (image, *own) in enumerate(zip(images, *others, strict=True)):
            name = image_name(image, number)
            with errors_of(name):
                found.append(function(image, *own))
            if not is_within:
                note_found(name, found[-1])
    return found


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Name an image in errors, and in warnings if it has no name of its own."""
    token = name_within.set(name)
    try:
        yield
    except ValueError as error:
        reason = str(error).removeprefix("image: ")
        if name in reason:
            raise
        raise type(error)(f"{name}: {reason}") from error
    finally:
        name_within.reset(token)


def note_found(name: str, found: Any) -> None:
    """Say in UserWarnings what was left out of an image, and what is doubtful, or why all is."""
    note_annotations(name, getattr(found, "annotations", []), getattr(found, "n_beside", 0))
    reason = getattr(found, "reason", None)
    note_doubt(name, f"nothing is measured: {reason}" if reason else getattr(found, "note", ""))


def drop_hidden(labels: NDArray[np.int32], sample: Sample, min_area: int) -> int:
    """Remove the objects that annotations cover in part; return how many.

    Margins cut objects off, as the image's edge does; what is left of these has the least area or
    is removed. Objects that are wholly below other annotations, which may have been drawn, are not
    counted. The labels, (H, W), are changed in place, and keep their order.
    """
    mask, margin, n = sample.mask, sample.margin, int(labels.max(initial=0))
    is_cut = np.bincount(labels[margin], minlength=n + 1) > 0
    labels[margin] = 0
    areas, hidden = areas_of(labels, n), np.bincount(labels[~mask], minlength=n + 1)
    is_hidden, is_seen = hidden > 0, areas > hidden
    is_hidden[0] = is_cut[0] = False
    kept = ~is_hidden & (~is_cut | (areas >= min_area))
    if not kept[1:].all():
        numbers = np.where(kept, np.cumsum(kept) - 1, 0).astype(labels.dtype)
        labels[...] = numbers[labels]
    return int((is_hidden & is_seen).sum())


def read_grey(image: Any, options: ReadOptions, name: str | None = None) -> Micrograph:
    """Read an image as grey (H, W), the mean of its colours; errors use the name.

    UserWarnings, one of each kind for all images of a run, say that pixels are not square, when the
    pixel size is None, or that colours show different things.
    """
    name = image_name(image) if name is None else name
    micrograph = read_named(image, options, name, with_digest=False)
    _warn_of_pixels(micrograph, name)
    return replace(micrograph, pixels=_as_grey(micrograph.pixels))


def _warn_of_pixels(micrograph: Micrograph, name: str) -> None:
    if sides := micrograph.metadata.get("pixel_sides_nm"):
        warn_of_image(_not_square, name, sides)
    if micrograph.pixels.ndim == 3 and _least_correlation(micrograph.pixels) < _ALIKE:
        warn_of_image(_not_grey, name, None)


def _least_correlation(pixels: NDArray[np.float32]) -> float:
    """Return the least correlation of two colours, of squares of pixels, as single ones are noisy.

    Colours that hardly vary, or are noise, do not count, nor do those of few marks.
    """
    coarse = ndimage.uniform_filter(pixels, (_SQUARE, _SQUARE, 0))[::_SQUARE, ::_SQUARE]
    colours = coarse.reshape(-1, pixels.shape[2])
    deviations, fine = colours.std(axis=0), pixels.std(axis=(0, 1))
    colours = colours[:, deviations > np.maximum(_STEADY * fine.max(initial=0), _NOISE * fine)]
    if colours.shape[1] < 2 or (np.ptp(colours, axis=1) > _PLAIN * np.ptp(colours)).mean() < _FEW:
        return 1.0
    return float(np.corrcoef(colours.T).min())


def _as_grey(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return pixels if pixels.ndim == 2 else pixels.mean(axis=2)


def _not_square(facts: Mapping[str, Sequence[float]]) -> str:
    each = [f"{name} ({high:.4g} x {wide:.4g} nm)" for name, (high, wide) in facts.items()]
    return (
        "pixels are not square, so lengths are in pixels and directions those of the image as "
        f"stored: {name_some(each)}; resample to square pixels"
    )


def _not_grey(facts: Mapping[str, Any]) -> str:
    return (
        f"colours show different things, and are averaged: {name_some(list(facts))}; --set "
        'channel=0 reads one (in Python, read_options={"channel": 0}); of a scale of colours, '
        "export grey values"
    )


def read_sample(
    image: Any,
    *,
    annotations: Annotations = "leave_out",
    read_options: Mapping[str, Any] | ReadOptions | None = None,
    pixel_size: float | PixelSizes | None = None,
    mask: ArrayLike | None = None,
    auto: str = "minmax",
) -> Sample:
    """Read an image for finding objects: colours averaged, without what `find_annotations` finds.

    Where grey levels are scaled from the darkest to the brightest, which ``scaling="auto"`` of
    `read_options` means here unless `auto` says otherwise, hot pixels are clipped, dead lines are
    replaced, and steps between tiles and uneven light that hides the contrast are taken out, as
    notes say. `pixel_size` is of images that state none. `mask`, bool (H, W), is where to look;
    what is elsewhere has no influence, and may be NaN in arrays. ValueError if a parameter is out
    of range or the image cannot be read; UserWarnings if its pixels are not square, colours show
    different things, or faults change what is measured.
    """
    check_value("annotations", annotations, [OneOf("leave_out", "keep")])
    options = check_read_options(read_options)
    is_stretched = options.scaling == "auto" and auto == "minmax"
    if options.scaling == "auto":
        options = replace(options, scaling=auto)
    if pixel_size is not None:
        options = replace(options, pixel_size=pixel_size)
    if mask is not None and hasattr(type(image), "__array__"):
        image = _bounded(np.asarray(image), np.asarray(mask))
    name, is_searched = image_name(image), annotations == "leave_out"
    micrograph = read_named(image, options, name, with_bars=is_searched, with_marks=is_searched)
    _warn_of_pixels(micrograph, name)
    grey = _as_grey(micrograph.pixels)
    shown = _checked_mask(mask, grey.shape)
    if is_stretched:
        grey = without_hot_pixels(without_dead_lines(grey))
    found = annotations_of(micrograph, grey) if is_searched else []
    is_given = micrograph.metadata.get("pixel_size_from") == "reading options"
    is_given &= not isinstance(options.pixel_size, PixelSizes)
    if is_given and any(each.kind == "scale bar" for each in found):
        note_doubt(name, GIVEN_SIZE)
    seen = ~annotation_mask(found, (grey.shape[0], grey.shape[1]))
    note_faults(name, grey, seen & shown)
    if found and seen.any():
        grey = fill_annotations(grey, seen, found)
        if is_stretched:
            grey = stretched(grey)
    if is_stretched:
        for even in (without_seams, without_uneven_light):
            grey = even(grey, seen & shown, name)
    digest = micrograph.digest if mask is None else ""
    return Sample(grey, seen & shown, micrograph.pixel_size, found, digest)


def annotations_of(
    micrograph: Micrograph, grey: NDArray[np.float32] | None = None, *, only_edges: bool = False
) -> list[Annotation]:
    """Find annotations in what `read_named` read with bars and marks; `grey` are its levels.

    See `annotations_in`.
    """
    known = micrograph.metadata
    above, below = known.get("bar_rows", (0, 0))  # a particle has neither bars nor marks
    bars = above, below - known.get("banner_rows", 0)
    grey = _as_grey(micrograph.pixels) if grey is None else grey
    marks = known.get("coloured_marks", [])
    return annotations_in(as_8bit_grey(grey), bars, marks, only_edges=only_edges)


def _bounded(pixels: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    """Clip what a mask, if it is one, leaves out, to the range of the rest; it may be NaN."""
    if mask.dtype != bool or mask.shape != pixels.shape[:2] or not mask.any():
        return pixels
    if pixels.dtype.kind not in "iuf" or not np.isfinite(inside := pixels[mask]).all():
        return pixels
    outside = np.nan_to_num(pixels, nan=inside.flat[0], posinf=inside.max(), neginf=inside.min())
    outside = outside.clip(inside.min(), inside.max()).astype(pixels.dtype)
    return np.where(mask.reshape(mask.shape + (1,) * (pixels.ndim - 2)), pixels, outside)


def _checked_mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    allowed = np.ones(shape, bool) if mask is None else np.array(mask)
    if allowed.shape != shape or allowed.dtype != bool:
        raise ImageReadError(
            f"mask: got {allowed.dtype} of shape {allowed.shape}; expected bool of the image's "
            f"shape {shape}."
        )
    return allowed
