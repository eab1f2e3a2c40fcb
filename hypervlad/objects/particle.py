"""One particle of a micrograph, which is accepted wherever an image is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hypervlad.common.constraints import Number, check_points, check_value
from hypervlad.common.limits import MAX_LABEL
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.images import Annotation, ImageReadError, Micrograph, ReadOptions
from hypervlad.images.annotations import annotation_mask, margin_mask
from hypervlad.images.morphology import EIGHT, grown
from hypervlad.images.options import check_read_options
from hypervlad.images.reading import image_name, read_named

_MAX_TABLE = 2**16  # values of labels that are looked up in a table
NOT_A_PARTICLE = "not a particle"  # the class of a wrong outline
_MANY = 4  # masks are not so many times as high as wide and fewer than that: (H, W, n)
_MARGIN = 0.1  # of the longer side of its box, around a particle in its own image


@dataclass(frozen=True, eq=False)
class Outline:
    """The pixels of one particle in a field; outlines of a field may overlap.

    Attributes
    ----------
    label : int
        Its number in the field, from 1.
    box : (int, int, int, int)
        Top, left, bottom, right in pixels of the field; bottom and right are the first beyond it.
    mask : ndarray of bool, shape (bottom - top, right - left)
    class_name : str
        The class that a file gives it, or "".
    given_name : str
        Its name in a file, if that is not its label, or "".
    confidence : float
        Probability that it is an object by itself; NaN if what found it gives none.
    """

    label: int
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    class_name: str = field(default="", kw_only=True)
    given_name: str = field(default="", kw_only=True)
    confidence: float = field(default=float("nan"), kw_only=True)

    def __post_init__(self) -> None:
        top, left, bottom, right = self.box
        _check_mask(self.mask, (bottom - top, right - left), f"outline {self.label}")

    @property
    def shown_name(self) -> str:
        """Its name in files: the given one, or its label."""
        return self.given_name or str(self.label)

    @property
    def window(self) -> tuple[slice, slice]:
        """The box as slices of the field."""
        top, left, bottom, right = self.box
        return slice(top, bottom), slice(left, right)

    def holds(self, row: int, column: int) -> bool:
        """Return whether a pixel of the field is in it."""
        top, left, bottom, right = self.box
        inside = top <= row < bottom and left <= column < right
        return inside and bool(self.mask[row - top, column - left])


def _check_mask(mask: Any, shape: tuple[int, ...], name: str) -> None:
    """Numbers would be taken for the places of pixels, and not for a mask."""
    if mask.dtype != bool or mask.shape != shape:
        raise ImageReadError(
            f"{name}: expected a mask of True and False of shape {shape}, got {mask.dtype} of "
            f"{mask.shape}"
        )


def _numbered(labels: NDArray[Any], values: NDArray[Any]) -> NDArray[np.int32]:
    """Return labels of such sorted values, and 0, as numbers from 1; labels that are so already."""
    ends = np.concatenate([[0], values])
    if labels.dtype == np.int32 and ends[-1] == len(values):
        return labels
    numbers = np.empty(labels.shape, np.int32)
    of_value = None  # a table, which is faster than a search
    if labels.dtype.kind in "iu" and ends[-1] < _MAX_TABLE:
        of_value = np.zeros(1 + int(ends[-1]), np.int32)
        of_value[values] = np.arange(1, len(ends))
    for number_row, row in zip(numbers, labels, strict=True):  # searchsorted has 64 bits
        number_row[:] = np.searchsorted(ends, row) if of_value is None else of_value[row]
    return numbers


def cropped(mask: NDArray[np.bool_], top: int = 0, left: int = 0, label: int = 1) -> Outline | None:
    """Return the outline of a mask whose first pixel lies there; None if it is empty."""
    windows = ndimage.find_objects(mask.astype(np.uint8)) if mask.size else []
    if not windows:
        return None
    rows, columns = windows[0]
    box = top + rows.start, left + columns.start, top + rows.stop, left + columns.stop
    return Outline(label, box, mask[rows, columns].copy())


@dataclass(frozen=True, eq=False)
class Outlines:
    """The outlines of a field, in the order of their labels; ``np.asarray`` is its label image.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the field in pixels.
    outlines : tuple of Outline
    pixel_size : float or None
        Nanometres per pixel, if they were read from a file that contains it, or found in one.
    annotations : list of Annotation
        What was left out, as it is no sample.
    n_beside : int
        Number of outlines that were left out, as an annotation covers a part of them.
    note : str
        What is doubtful about them, for a person to read.
    """

    shape: tuple[int, int]
    outlines: tuple[Outline, ...]
    pixel_size: float | None = None
    annotations: list[Annotation] = field(default_factory=list)
    n_beside: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        for each in self:
            if min(each.box[:2]) < 0 or np.greater(each.box[2:], self.shape).any():
                raise ImageReadError(
                    f"outline {each.label}: its box {each.box} reaches beyond the field of "
                    f"{self.shape[0]} x {self.shape[1]} pixels; cut the outline off there"
                )

    def __len__(self) -> int:
        return len(self.outlines)

    def __getitem__(self, chosen: Any) -> Any:
        """Return one outline, or those of a slice, numbers or a mask (n,) as `Outlines`."""
        if np.ndim(chosen) == 0 and not isinstance(chosen, slice):
            return self.outlines[chosen]
        numbers = np.arange(len(self))[chosen]
        return replace(self, outlines=tuple(map(self.outlines.__getitem__, numbers)))

    def __iter__(self) -> Iterator[Outline]:
        return iter(self.outlines)

    def __repr__(self) -> str:
        n_particles = counted(len(self), "particle")
        return f"Outlines({n_particles} in {self.shape[0]} x {self.shape[1]} pixels)"

    @property
    def annotation_share(self) -> float:
        """Share of the field that `annotations` cover."""
        return float(annotation_mask(self.annotations, self.shape).mean())

    @cached_property
    def do_overlap(self) -> bool:
        """Whether a pixel is in two outlines, of which a label image has the last."""
        n_pixels = sum(np.count_nonzero(outline.mask) for outline in self)
        return n_pixels != np.count_nonzero(self.label_image())

    def as_particles(self, name: str = "") -> list[Particle]:
        """Return particles to be measured, without pixels: `cut_particles` reads these as well."""
        return [
            Particle(
                o.label,
                o.box,
                o.mask,
                np.zeros(o.mask.shape, np.float32),
                name,
                self.shape,
                self.pixel_size,
                is_cut,
                class_name=o.class_name,
                given_name=o.given_name,
                confidence=o.confidence,
            )
            for o, is_cut in zip(self, self.cut_off(), strict=True)
        ]

    def cut_off(self) -> list[bool]:
        """Return which outlines end at a margin or an information bar."""
        margin = margin_mask(self.annotations, self.shape)
        if not margin.any():
            return [False] * len(self)
        beside = grown(margin, corners=True)
        return [bool(beside[each.window][each.mask].any()) for each in self]

    def label_image(self) -> NDArray[np.int32]:
        """Return the label at each pixel, 0 for background; of overlapping outlines the last."""
        labels = np.zeros(self.shape, np.int32)
        for outline in self:
            labels[outline.window][outline.mask] = outline.label
        return labels

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.label_image().astype(dtype or np.int32, copy=False)

    @classmethod
    def of(cls, outlines: Any, name: str = "outlines") -> Outlines:
        """Return `Outlines`, a label image (H, W), or n masks (H, W) as `Outlines`.

        A label image has whole numbers, 0 for background. One with a single label is a mask, which
        is split into its separate regions, if there are several, with a warning. An
        `ImageReadError` with the `name` for what is none of these.
        """
        if isinstance(outlines, Outlines):
            return outlines
        try:
            array = np.asarray(outlines)
        except ValueError as error:
            raise ImageReadError(f"{name}: masks that differ in size ({error})") from error
        if array.ndim == 3 and array.dtype == bool:
            if _MANY * array.shape[2] < min(array.shape[:2]):
                raise ImageReadError(
                    f"{name}: expected masks (n, H, W), but the shape {array.shape} looks like "
                    "(H, W, n); save np.moveaxis(array, -1, 0)"
                )
            masks = [cropped(mask, label=number) for number, mask in enumerate(array, start=1)]
            if n_empty := masks.count(None):
                n_masks = counted(len(masks), "mask")
                warn_user(f"{name}: {n_empty} of {n_masks} left out, without a pixel")
            return cls((array.shape[1], array.shape[2]), tuple(filter(None, masks)))
        if array.ndim != 2 or array.dtype.kind not in "biuf":
            raise ImageReadError(
                f"{name}: expected a label image (H, W) of whole numbers, 0 for background, or a "
                f"stack (n, H, W) of True and False with a mask per particle; got {array.dtype} of "
                f"shape {array.shape}. read_outlines reads files. If these are colours, save "
                "labels as grey values of 16 bits (in Fiji: Image > Lookup Tables > Grays)"
            )
        if array.dtype.kind == "f":
            top = float(np.abs(array).max(initial=0))
            if not (array == np.rint(array)).all() or top > 2**53:
                raise ImageReadError(
                    f"{name}: labels must be whole numbers, 0 for background; is it the image "
                    "itself, or a map of probabilities?"
                )
            array = array.astype(np.int64)
        labels = array.astype(np.uint8) if array.dtype == bool else array
        values = np.unique(labels)
        if len(values) == 2 and values[0] == 0:
            regions, n_regions = ndimage.label(labels, EIGHT)
            if n_regions > 1:
                warn_user(
                    f"{name}: a mask (0 and {values[1]}), not a label image: each of its "
                    f"{n_regions:,} separate regions is one particle; particles that touch are not "
                    "separated"
                )
                labels = regions
        return cls.of_labels(labels, name)

    @classmethod
    def of_labels(cls, labels: NDArray[Any], name: str = "outlines") -> Outlines:
        """Return a label image (H, W) of whole numbers as `Outlines`; it is never a mask."""
        # By rows: sorting all of a large image takes its size in memory.
        values = np.unique(np.concatenate([labels[:0].ravel(), *map(np.unique, labels)]))
        if len(wrong := values[(values < 0) | (values > MAX_LABEL)]):
            raise ImageReadError(
                f"{name}: labels must be from 0 to {MAX_LABEL:,}, not {wrong[0]}; number the "
                "particles from 1"
            )
        # Labels may be any numbers, such as identifiers of another program.
        values = values[values > 0]
        numbers = _numbered(labels, values)
        windows = ndimage.find_objects(numbers) if len(values) else []
        found = [
            cropped(numbers[window] == number, window[0].start, window[1].start, int(value))
            for number, (value, window) in enumerate(zip(values, windows, strict=True), start=1)
        ]
        return cls((labels.shape[0], labels.shape[1]), tuple(filter(None, found)))


@dataclass(frozen=True, eq=False)
class Particle(Outline):
    """One particle of a micrograph, accepted wherever an image is.

    Estimators see it alone, in a square without background, of which only its positions count.

    Attributes
    ----------
    label, box, mask
        As of its :class:`Outline`; the mask has a pixel.
    image : ndarray of float32, shape (h, w) or (h, w, 3)
        The micrograph's pixels in the box, in [0, 1].
    micrograph : str
        The micrograph's path or, for an array, the beginning of its digest; by default the group
        of a particle.
    field_shape : (int, int)
        Height and width of the micrograph in pixels.
    pixel_size : float or None
        Nanometres per pixel.
    is_cut : bool
        Whether it ends at a margin or an information bar.
    """

    image: NDArray[np.float32]
    micrograph: str
    field_shape: tuple[int, int]
    pixel_size: float | None = None
    is_cut: bool = False

    def __post_init__(self) -> None:
        _check_mask(self.mask, self.image.shape[:2], self.name)
        if not self.mask.any():
            raise ImageReadError(f"{self.name}: its mask has no pixel; leave the particle out")

    def __repr__(self) -> str:
        size = f"{self.mask.shape[0]} x {self.mask.shape[1]} pixels, pixel_size={self.pixel_size}"
        return f"Particle({self.label} of {self.micrograph!r}, {size})"

    @property
    def name(self) -> str:
        return f"{self.micrograph}, particle {self.label}"

    @property
    def touches_edge(self) -> bool:
        """Whether the particle touches an edge or a margin, and may go on beyond it."""
        at_edge = min(self.box[:2]) == 0 or any(np.equal(self.box[2:], self.field_shape))
        return self.is_cut or at_edge

    def as_micrograph(self) -> Micrograph:
        """Return the particle in the middle of a square, without its background.

        The background has the mean value of the particle, so that it neither adds contrast nor
        takes a side: particles may be brighter or darker than what surrounds them.
        """
        height, width = self.mask.shape
        longer = max(height, width)
        side = longer + 2 * (1 + round(_MARGIN * longer))
        top, left = (side - height) // 2, (side - width) // 2
        window = slice(top, top + height), slice(left, left + width)
        mask = np.zeros((side, side), bool)
        mask[window] = self.mask
        pixels = np.empty((side, side, *self.image.shape[2:]), np.float32)
        pixels[:] = self.image[self.mask].mean(axis=0)
        pixels[window][self.mask] = self.image[self.mask]
        digest = hashlib.sha256(repr(pixels.shape).encode())
        digest.update(pixels.tobytes())
        digest.update(np.packbits(mask).tobytes())
        return Micrograph(
            pixels=pixels,
            pixel_size=self.pixel_size,
            digest=digest.hexdigest(),
            metadata={"format": "particle", "dtype": "float32", "banner_rows": 0},
            source=self.name,
            mask=mask,
        )


def cut_particles(
    image: Any,
    outlines: ArrayLike | Outlines,
    *,
    pixel_size: float | None = None,
    read_options: Mapping[str, Any] | ReadOptions | None = None,
    name: str | None = None,
) -> list[Particle]:
    """Cut the outlined particles out of a micrograph.

    Parameters
    ----------
    image : path or array
        As in :func:`hypervlad.read_micrograph`.
    outlines : Outlines, array (H, W) of int, or array or sequence of n masks (H, W)
        From :func:`read_outlines`, :func:`find_particles` or another program; see
        :meth:`Outlines.of`. They may overlap.
    pixel_size : float, optional
        Nanometres per pixel, by default those that the file contains, or else the outlines.
    read_options : dict or ReadOptions, optional
        The fields of :class:`hypervlad.images.ReadOptions`.
    name : str, optional
        Of the micrograph, by default its path or, of an array, the beginning of its digest.

    Returns
    -------
    list of n Particle
        In the order of their labels; empty if nothing is outlined.

    Raises
    ------
    ImageReadError
        If the image cannot be read, or the outlines have another size.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.particles import cut_particles
    >>> image, labels = np.full((8, 8), 0.2), np.zeros((8, 8), int)
    >>> image[2:5, 3:6], labels[2:5, 3:6] = 0.9, 1
    >>> (particle,) = cut_particles(image, labels)
    >>> particle.box, int(particle.mask.sum())
    ((2, 3, 5, 6), 9)
    """
    shown = image_name(image)
    check_value("pixel_size", pixel_size, [None, Number(above=0, meaning="nanometres per pixel")])
    found = Outlines.of(outlines, f"outlines of {shown}")
    micrograph = read_named(image, check_read_options(read_options), shown)
    pixels = micrograph.pixels
    check_same_size(found, pixels, shown)
    if name is None:
        source = micrograph.source
        name = os.path.normpath(source) if source else f"image {micrograph.digest[:12]}"
    known = [size for size in (pixel_size, micrograph.pixel_size, found.pixel_size) if size]
    nm = float(known[0]) if known else None
    return [
        Particle(
            *(o.label, o.box, o.mask, pixels[o.window].copy(), name, found.shape, nm, is_cut),
            class_name=o.class_name,
            given_name=o.given_name,
            confidence=o.confidence,
        )
        for o, is_cut in zip(found, found.cut_off(), strict=True)
    ]


def marked_outlines(outlines: Iterable[Outline], points: Any, name: str) -> NDArray[np.bool_]:
    """Return which outlines hold a point that is to be left out; warn of points that are on none.

    `points` has the shape (n, 2), row and column of each; `name` is that of the image.
    """
    own = np.rint(check_points("leave_out", points)).astype(int)
    holds = [[each.holds(row, column) for row, column in own.tolist()] for each in outlines]
    is_held = np.array(holds, bool).reshape(len(holds), len(own))
    warn_of_missing(name, own[~is_held.any(axis=0)], "those found")
    return np.asarray(is_held.any(axis=1))


def warn_of_missing(name: str, points: NDArray[Any], among: str) -> None:
    """Warn of points, (n, 2), at which there is nothing that could be left out."""
    if n := len(points):
        places = [f"x {x:g}, y {y:g}" for y, x in points.tolist()]
        warn_user(
            f"{name}: {counted(n, 'place')} to leave out {verb(n, 'is', 'are')} not among {among}: "
            f"{name_some(places)}"
        )


def check_same_size(outlines: Outlines, pixels: NDArray[Any], name: str) -> None:
    if outlines.shape != pixels.shape[:2]:
        raise ImageReadError(
            f"{name}: outlines of {outlines.shape[0]} x {outlines.shape[1]} pixels for an image of "
            f"{pixels.shape[0]} x {pixels.shape[1]}; give outlines of its size, and cut an "
            "information bar off both or neither"
        )
