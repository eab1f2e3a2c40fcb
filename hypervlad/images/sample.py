"""One door for all that looks for objects: the part of an image that shows the sample, as grey."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
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
    note_annotations,
)
from hypervlad.images.banner import as_8bit_grey
from hypervlad.images.errors import ImageReadError
from hypervlad.images.faults import note_faults
from hypervlad.images.letters import extreme
from hypervlad.images.options import PixelSizes, ReadOptions, check_read_options
from hypervlad.images.reading import (
    Micrograph,
    check_image_list,
    image_name,
    name_within,
    read_named,
)
from hypervlad.images.resampling import by_rows

P = ParamSpec("P")
T = TypeVar("T")
Annotations: TypeAlias = Literal["leave_out", "keep"]

_REACH = 1  # pixels, from the middle of squares, whose levels are no hot pixels
_MAX_RANGE = 5.0  # of grey levels, by that of squares: of noise alone, at most 4
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
_MAX_HOT, _MAX_HOT_SHARE = 4, 0.01  # pixels of a cluster; of the image, as fine stripes have more
# Lines of a detector's dead or hot pixels: how many of the pixels are beyond both neighbours, of at
# most how many that are compared; by how many times as much as these are beyond the next ones,
# which they are in real lines; share of all lines, as fine stripes are more.
_OF_LINE, _ALONG, _ALONE, _MAX_LINES = 0.95, 512, 4, 0.01
# A surface of this degree is uneven light if its range is so many standard deviations of what is
# left, whose coarse part varies by less than this share of the range. With slopes and vignettes of
# three and five times the contrast, 56 of 56 drawn images have it, of twice 14 of 28; with steps,
# discs and spheres of 60 to 260 pixels instead, none of 140 of 480. Narrower beams are not
# recognised. With 2.5 instead of 6, two of 400 empty fields more have a false particle.
_DEGREE, _MIN_LIGHT, _MAX_LEFT = 2, 6.0, 0.06
_COARSE, _MAX_SAMPLE = 16, 2**16  # parts of a side; pixels that are looked at
# Fewer levels of grey are steps, and more pixels of the first or the last one are saturated.
_MIN_LEVELS, _MAX_SATURATED = 64, 0.01
_UNEVEN_LIGHT = (
    "brightness changes smoothly across the image, {:.2g} times as much as what is left varies: "
    "taken out as uneven light; if it is of the sample, --set scaling=percentile (in Python, "
    'read_options={{"scaling": "percentile"}}) keeps it'
)


class Sample(NamedTuple):
    """A grey image of a sample.

    Attributes
    ----------
    grey : ndarray of float32, shape (H, W)
        The image where it shows the sample, and what is next to it elsewhere.
    mask : ndarray of bool, shape (H, W)
        Where it shows the sample, and is not left out by a mask.
    pixel_size : float or None
        Nanometres per pixel.
    annotations : list of Annotation
        What was left out, as it is no sample.
    """

    grey: NDArray[np.float32]
    mask: NDArray[np.bool_]
    pixel_size: float | None
    annotations: list[Annotation]


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
            if not _is_list(given[first]):
                result = function(**given)
                if not is_announced():
                    note_found(image_name(given[first]), result)
                return result
            images = check_image_list(given[first])
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
    with announced(len(images)):
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


def _is_list(image: Any) -> bool:
    is_of_paths = hasattr(image, "dtype") and image.dtype.kind in "OUST" and image.ndim == 1
    return isinstance(image, list | tuple) or is_of_paths or hasattr(image, "iloc")


def drop_hidden(labels: NDArray[np.int32], mask: NDArray[np.bool_]) -> int:
    """Remove the objects that reach beyond a mask, as annotations cover them; return how many.

    Those that are wholly beyond it, which may have been drawn, are not counted. The labels, (H, W),
    are changed in place, and keep their order.
    """
    hidden = np.unique(labels[~mask])
    hidden = hidden[hidden > 0]
    if not len(hidden):
        return 0
    n_seen = int(np.isin(hidden, labels[mask]).sum())
    numbers = np.arange(labels.max() + 1, dtype=labels.dtype)
    numbers[hidden] = 0
    kept = numbers > 0
    numbers[kept] = np.arange(1, kept.sum() + 1)
    labels[...] = numbers[labels]
    return n_seen


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


def _not_square(facts: Mapping[str, Sequence[float]], _n_images: int) -> str:
    each = [f"{name} ({high:.4g} x {wide:.4g} nm)" for name, (high, wide) in facts.items()]
    return (
        "pixels are not square, so lengths are in pixels and directions those of the image as "
        f"stored: {name_some(each)}; resample to square pixels"
    )


def _not_grey(facts: Mapping[str, Any], _n_images: int) -> str:
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
    replaced, and uneven light that hides the contrast is taken out, as a note says. `pixel_size` is
    of images that state none. `mask`, bool (H, W), is where to look; what is elsewhere has no
    influence, and may be NaN in arrays. ValueError if a parameter is out of range or the image
    cannot be read; UserWarnings if its pixels are not square, colours show different things, or
    faults change what is measured.
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
    micrograph = read_named(
        image, options, name, with_digest=False, with_bars=is_searched, with_marks=is_searched
    )
    _warn_of_pixels(micrograph, name)
    grey = _as_grey(micrograph.pixels)
    shown = _checked_mask(mask, grey.shape)
    if is_stretched:
        grey = _without_hot_pixels(_without_dead_lines(grey))
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
            grey = _stretched(grey)
    if is_stretched:
        grey = _without_uneven_light(grey, seen & shown, name)
    return Sample(grey, seen & shown, micrograph.pixel_size, found)


def annotations_of(
    micrograph: Micrograph, grey: NDArray[np.float32] | None = None
) -> list[Annotation]:
    """Find annotations in what `read_named` read with bars and marks; `grey` are its levels."""
    known = micrograph.metadata
    above, below = known.get("bar_rows", (0, 0))  # a particle has neither bars nor marks
    bars = above, below - known.get("banner_rows", 0)
    grey = _as_grey(micrograph.pixels) if grey is None else grey
    return annotations_in(as_8bit_grey(grey), bars, known.get("coloured_marks", []))


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


def _without_dead_lines(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace rows and columns that are darker or brighter than both neighbours all along."""
    for axis in (0, 1):
        lines = np.moveaxis(grey, axis, 0)
        some = np.pad(lines[:, :: max(1, lines.shape[1] // _ALONG)], ((2, 2), (0, 0)), "edge")
        own, (after, before) = some[2:-2], (some[3:-1], some[1:-3])
        beyond = [(own > np.maximum(after, before)), (own < np.minimum(after, before))]
        nearest, next_ = (after + before) / 2, (some[4:] + some[:-4]) / 2
        apart = [np.abs(np.median(each, axis=1)) for each in (own - nearest, nearest - next_)]
        is_dead = np.max([each.mean(axis=1) for each in beyond], axis=0) > _OF_LINE
        dead = np.flatnonzero(is_dead[1:-1] & (apart[0] > _ALONE * apart[1])[1:-1]) + 1
        if 0 < len(dead) <= max(1, _MAX_LINES * len(lines)):
            grey = grey.copy()
            np.moveaxis(grey, axis, 0)[dead] = (lines[dead - 1] + lines[dead + 1]) / 2
            grey = _stretched(grey)
    return grey


def _without_hot_pixels(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip pixels and small clusters far beyond all others, beside which no contrast counts."""
    squares = partial(extreme, reach=_REACH)
    # The range that squares reach.
    low = float(by_rows(partial(squares, pick=np.maximum), grey, _REACH).min())
    high = float(by_rows(partial(squares, pick=np.minimum), grey, _REACH).max())
    reach = _MAX_RANGE * (high - low)
    if not 0 < reach < np.ptp(grey):
        return grey
    far = (grey > low + reach) | (grey < high - reach)
    clusters, _ = ndimage.label(far, np.ones((3, 3), bool))
    is_hot = far & (np.bincount(clusters.ravel())[clusters] <= _MAX_HOT)
    if not 0 < is_hot.mean() <= _MAX_HOT_SHARE:
        return grey
    return _stretched(np.where(is_hot, grey.clip(low, high), grey))


def _without_uneven_light(
    grey: NDArray[np.float32], mask: NDArray[np.bool_], name: str
) -> NDArray[np.float32]:
    """Subtract a smooth change of brightness that hides the contrast, and note it."""
    step = max(1, int((grey.size / _MAX_SAMPLE) ** 0.5))
    values, seen = grey[::step, ::step], mask[::step, ::step]
    levels, counts = np.unique(values[seen], return_counts=True)
    if min(grey.shape) < _COARSE or len(levels) < _MIN_LEVELS:
        return grey
    if max(counts[0], counts[-1]) > _MAX_SATURATED * counts.sum():
        return grey
    terms = [(i, j) for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
    powers = [np.polynomial.legendre.legvander(np.linspace(-1, 1, n), _DEGREE) for n in grey.shape]
    rows, across = (own[::step] for own in powers)
    columns = np.stack([np.outer(rows[:, i], across[:, j])[seen] for i, j in terms], axis=1)
    weights, *_ = np.linalg.lstsq(columns, values[seen], rcond=None)
    left, range_ = np.zeros(seen.shape), np.ptp(columns @ weights)
    left[seen] = values[seen] - columns @ weights
    rounding = np.ptp(levels) / (len(levels) - 1) / 2
    if not rounding < (deviation := left[seen].std()) < range_ / _MIN_LIGHT:
        return grey
    sigma = min(seen.shape) / _COARSE
    near = np.maximum(ndimage.gaussian_filter(seen.astype(float), sigma), 0.05)
    if (ndimage.gaussian_filter(left, sigma) / near)[seen].std() >= _MAX_LEFT * range_:
        return grey
    note_doubt(name, _UNEVEN_LIGHT.format(range_ / deviation))
    surface = np.zeros((_DEGREE + 1, _DEGREE + 1))
    surface[tuple(np.transpose(terms))] = weights
    down, right = (each.astype(np.float32) for each in (powers[0] @ surface, powers[1]))
    even = grey - down @ right.T
    return _stretched(even.clip(even[mask].min(), even[mask].max()))


def _stretched(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale an image from its darkest and its brightest pixel."""
    range_ = np.ptp(grey)
    return np.asarray((grey - grey.min()) / range_ if range_ > 0 else grey, np.float32)
