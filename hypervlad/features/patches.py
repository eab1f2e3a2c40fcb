"""Windows and patches of images: where they are, their pixels and labels, maps of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.constraints import check_side, one_each
from hypervlad.images import ImageReadError, Micrograph, read_mask, read_micrographs
from hypervlad.images.options import make_options
from hypervlad.images.reading import check_image_list, image_name
from hypervlad.statistics.splits import check_groups

IntArray: TypeAlias = NDArray[np.intp]
Edges: TypeAlias = Literal["drop", "shift", "pad"]
_EDGES = ("drop", "shift", "pad")
_BAND = 256  # rows of a map that are interpolated at a time, to save memory


@dataclass(frozen=True, eq=False)
class WindowGrid:
    """Square windows over an image: every upper edge is combined with every left edge."""

    rows: IntArray  # (R,), upper edges in pixels
    columns: IntArray  # (S,), left edges
    side: int  # of a window

    @classmethod
    def cover(cls, shape: tuple[int, int], side: int, stride: int) -> WindowGrid:
        """Cover an image with windows, the last ones of which end at its edges."""
        return cls(*_patch_edges(shape, side, stride, "shift"), side)

    @classmethod
    def of_cells(cls, shape: tuple[int, ...], stride: int) -> WindowGrid:
        """Return the windows of the cells (R, S) of a network's map."""
        rows, columns = (np.arange(n) * stride for n in shape)
        return cls(rows, columns, stride)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of windows down and across: (R, S)."""
        return len(self.rows), len(self.columns)

    @property
    def size(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def positions(self) -> IntArray:
        """Upper left corners (R S, 2), row by row."""
        return _corners(self.rows, self.columns)

    def to_map(
        self, scores: NDArray[np.floating], shape: tuple[int, int], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Interpolate scores (R, S) bilinearly between the windows' centres, constant beyond.

        ``shape`` is that of the map; the windows cover an image of this ``size``.
        """
        half = (self.side - 1) // 2
        across = _enlarged(scores.T, self.columns + half, shape[1], size[1])
        # Whole rows of the map last, because they are most of the numbers.
        return _enlarged(across.T, self.rows + half, shape[0], size[0])


def patch_positions(
    shape: tuple[int, int], patch: int, stride: int | None, edges: Edges
) -> IntArray:
    """Return the upper left corners (n_patches, 2) of the patches of an image, row by row."""
    return _corners(*_patch_edges(shape, patch, stride, edges))


def patches_at(pixels: NDArray[np.float32], corners: IntArray, patch: int) -> NDArray[np.float32]:
    """Cut patches out of an image, reflected where they extend beyond its right or lower edge."""
    ends = corners.max(axis=0, initial=0) + patch
    beyond = np.maximum(ends - pixels.shape[:2], 0).tolist()
    widths = [(0, beyond[0]), (0, beyond[1]), *[(0, 0)] * (pixels.ndim - 2)]
    padded = np.pad(pixels, widths, mode="symmetric")
    views = np.lib.stride_tricks.sliding_window_view(padded, (patch, patch), axis=(0, 1))
    # The view puts the window's own axes last; colours come after them.
    cut = views[corners[:, 0], corners[:, 1]]
    return np.moveaxis(cut, 1, -1).copy() if pixels.ndim == 3 else cut.copy()


def map_from_patches(
    values: NDArray[np.float64], corners: IntArray, shape: tuple[int, int], patch: int
) -> NDArray[np.float32]:
    """Return a map of patches, each filled with its value; means where they overlap, NaN elsewhere.

    Parts of patches beyond the map are left out.
    """
    both = values, np.ones(len(corners))
    sums, counts = (_painted(each, corners, shape, patch) for each in both)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


def patch_means(values: NDArray[np.bool_], corners: IntArray, patch: int) -> NDArray[np.float64]:
    """Return the mean (n_patches,) of a map over the pixels of each patch inside the map."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    np.cumsum(np.cumsum(values, axis=0, dtype=np.float64), axis=1, out=table[1:, 1:])
    top, left = corners.T
    bottom, right = (np.minimum(corners + patch, values.shape)).T
    totals = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    return np.asarray(totals / ((bottom - top) * (right - left)))


def _patch_edges(
    shape: tuple[int, int], patch: int, stride: int | None, edges: Edges
) -> tuple[IntArray, IntArray]:
    patch = check_side("patch", patch)
    stride = patch if stride is None else check_side("stride", stride)
    if edges not in _EDGES:
        raise ValueError(f"edges must be one of {', '.join(map(repr, _EDGES))}; got {edges!r}.")
    height, width = shape[:2]
    if min(height, width) < patch and edges != "pad":
        raise ValueError(
            f"an image of {height} x {width} pixels is smaller than a patch of {patch} x {patch}: "
            "choose a smaller patch, or edges='pad'."
        )
    return _starts(height, patch, stride, edges), _starts(width, patch, stride, edges)


def _corners(rows: IntArray, columns: IntArray) -> IntArray:
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _enlarged(
    values: NDArray[np.floating], centres: IntArray, n_pixels: int, extent: int
) -> NDArray[np.float32]:
    """Interpolate rows (n, m) at centres to each pixel of an axis, (n_pixels, m)."""
    rows = np.ascontiguousarray(values, dtype=np.float32)
    pixels = (np.arange(n_pixels) + 0.5) * (extent / n_pixels) - 0.5
    place = np.interp(pixels, centres, np.arange(len(centres)))
    low = np.floor(place).astype(np.intp)
    rise = (place - low).astype(np.float32)[:, None]
    found = np.empty((n_pixels, rows.shape[1]), np.float32)
    for first in range(0, n_pixels, _BAND):
        band = slice(first, first + _BAND)
        own: NDArray[np.float32] = rows[low[band]]
        found[band] = (rows[np.minimum(low[band] + 1, len(rows) - 1)] - own) * rise[band] + own
    return found


def _starts(extent: int, patch: int, stride: int, edges: Edges) -> IntArray:
    starts = np.arange(0, max(extent - patch, 0) + 1, stride)
    covered = int(starts[-1]) + patch
    if edges == "drop" or covered >= extent:
        return starts
    last = extent - patch if edges == "shift" else int(starts[-1]) + stride
    # With gaps between patches, the next one may start beyond the edge.
    return np.append(starts, last) if last < extent else starts


def _painted(
    values: NDArray[np.float64], corners: IntArray, shape: tuple[int, int], patch: int
) -> NDArray[np.float64]:
    """Sum the values of the patches that cover each pixel: mark the corners, then accumulate."""
    height, width = shape[:2]
    marks = np.zeros((height + 1, width + 1))
    top, left = corners.T
    bottom, right = np.minimum(top + patch, height), np.minimum(left + patch, width)
    ends = (top, left, 1), (bottom, right, 1), (top, right, -1), (bottom, left, -1)
    for rows, columns, sign in ends:
        np.add.at(marks, (rows, columns), sign * values)
    return np.asarray(marks.cumsum(axis=0).cumsum(axis=1)[:height, :width])


ANOMALOUS, NORMAL = "anomalous", "normal"
#: Of the pixels of a patch, from which on it is anomalous; less rounding errors of 0.1.
DEFECTIVE_SHARE = 0.1 - 1e-9


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Patches of many images.

    Attributes
    ----------
    pixels : ndarray of float32, shape (n, patch, patch) or (n, patch, patch, 3)
        Grey or colour values in [0, 1].
    labels : ndarray of str, shape (n,)
        "anomalous" or "normal"; all "normal" without masks.
    defective : ndarray of float64, shape (n,)
        Share of each patch that is defective.
    image_index : ndarray of int, shape (n,)
        Position of each patch's image in the list.
    positions : ndarray of int, shape (n, 2)
        Row and column of the upper left corner.
    groups : ndarray of shape (n,)
        Group of each patch; groups stay together in a split.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.str_]
    defective: NDArray[np.float64]
    image_index: IntArray
    positions: IntArray
    groups: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: ArrayLike) -> PatchSet:
        """Return some of the patches, by number or by a mask of booleans."""
        rows = np.asarray(rows)
        rows = rows if rows.size else rows.astype(np.intp)
        return PatchSet(*(getattr(self, each.name)[rows] for each in fields(self)))


def cut_patches(
    images: Sequence[Any],
    masks: Sequence[Any] | None = None,
    *,
    patch: int = 29,
    stride: int | None = None,
    edges: Edges = "drop",
    groups: ArrayLike | None = None,
    read_options: Mapping[str, Any] | None = None,
) -> PatchSet:
    """Cut images into patches and label each by its mask.

    A patch is anomalous if at least a tenth of its pixels are defective, and normal if none is.
    Patches in between are left out.

    Parameters
    ----------
    images : sequence of n paths and/or arrays of shape (H, W) or (H, W, 3)
    masks : sequence of n paths, arrays or None, optional
        As for :func:`hypervlad.images.read_mask`; None for an image without defects.
    patch : int, default=29
        Side of a patch in pixels.
    stride : int, optional
        Step from one patch to the next; by default `patch`.
    edges : {"drop", "shift", "pad"}, default="drop"
        Pixels left over at the right and lower edge: in no patch ("drop"), in a last patch that
        ends at the edge ("shift"), or in one that extends beyond it and is mirrored there ("pad").
    groups : array-like of shape (n,), optional
        Group of each image, such as its sample; by default, each image is a group.
    read_options : mapping, optional
        Fields of :class:`hypervlad.images.ReadOptions` that differ from their defaults.

    Returns
    -------
    patches : PatchSet
        Image by image in the order given, row by row. If some images are in colour, the others are
        converted to colour.

    Raises
    ------
    ValueError
        If an image or mask cannot be read or does not fit, an image is smaller than the patch, or a
        parameter is out of range; the message names the image.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.features import cut_patches
    >>> mask = np.zeros((58, 87), dtype=bool)
    >>> mask[:20, :20] = True
    >>> patches = cut_patches([np.zeros((58, 87))], [mask])
    >>> patches.pixels.shape, patches.labels[:2].tolist()
    ((6, 29, 29), ['anomalous', 'normal'])
    """
    images = check_image_list(images)
    masks = one_each("mask (None without defects)", masks, len(images))
    group_codes = check_groups(groups, len(images))
    group_of = group_codes if groups is None else np.asarray(groups)
    options = make_options(dict(read_options or {}))
    cuts = []
    for i, micrograph in read_micrographs(images, options=options):
        name = image_name(images[i], i)
        truth = _truth(micrograph, masks[i], name)
        try:
            corners = patch_positions((len(truth), truth.shape[1]), patch, stride, edges)
        except ValueError as error:
            raise ImageReadError(f"{name}: {error}") from error
        cut = patches_at(micrograph.pixels, corners, patch)
        cuts.append((np.full(len(cut), i), cut, corners, patch_means(truth, corners, patch)))
    numbers, pixels, positions, defective = zip(*cuts, strict=True)
    if len({cut.ndim for cut in pixels}) > 1:
        pixels = [cut if cut.ndim == 4 else np.repeat(cut[..., None], 3, axis=-1) for cut in pixels]
    shares, image_index = np.concatenate(defective), np.concatenate(numbers)
    anomalous = shares >= DEFECTIVE_SHARE
    patches = PatchSet(
        pixels=np.concatenate(pixels),
        labels=np.where(anomalous, ANOMALOUS, NORMAL),
        defective=shares,
        image_index=image_index,
        positions=np.concatenate(positions),
        groups=group_of[image_index],
    )
    return patches.take(anomalous | (shares == 0))


def _truth(micrograph: Micrograph, mask: Any, name: str) -> NDArray[np.bool_]:
    shape = (micrograph.pixels.shape[0], micrograph.pixels.shape[1])
    if mask is None:
        return np.zeros(shape, dtype=bool)
    try:
        return read_mask(mask, shape=shape, banner_rows=micrograph.metadata["banner_rows"])
    except ImageReadError as error:
        raise ImageReadError(f"{name}, its mask: {error}") from error
