"""Particles that touch are separated: seeds or narrow necks, and a watershed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from hypervlad.common.constraints import Integer, Number, check_value
from hypervlad.images.resampling import areas_of

FloatMap: TypeAlias = NDArray[np.floating[Any]]
LabelMap: TypeAlias = NDArray[np.int32]
BoolMap: TypeAlias = NDArray[np.bool_]
Window: TypeAlias = tuple[slice, ...]

EIGHT = np.ones((3, 3), bool)  # neighbours, corners included
NEIGHBOURS = (  # half of the eight: each pair of pixels once
    (np.s_[1:], np.s_[:-1]),
    (np.s_[:, 1:], np.s_[:, :-1]),
    (np.s_[1:, 1:], np.s_[:-1, :-1]),
    (np.s_[1:, :-1], np.s_[:-1, 1:]),
)
_SMOOTHING = 1.0  # standard deviation in pixels; depths have several maxima per particle
_REACH = 4  # pixels to which smoothing reaches
_NECK = 1.0  # pixels on each side by which a neck is narrower: outlines are rough
_WIDE = 10.0  # pixels, of half a width, above which it is narrower by a tenth
_AT_ONCE, _ROWS = 1 << 16, 1024  # pixels, and rows that are compared


def grown_window(window: Window, by: int) -> Window:
    """Return a window with so many pixels more on each side, but none before the first."""
    return tuple(slice(max(0, side.start - by), side.stop + by) for side in window)


def joint_window(*windows: Window) -> Window:
    """Return the window that contains all of these."""
    sides = zip(*windows, strict=True)
    return tuple(slice(min(s.start for s in own), max(s.stop for s in own)) for own in sides)


def split_particles(
    depth: ArrayLike | None, is_particle: ArrayLike, *, separation: float = 0.8, min_area: int = 20
) -> NDArray[np.int32]:
    """Label the particles of a field, and separate those that touch.

    Each maximum of `depth`, smoothed, is a particle if all ways to a higher one lead through depths
    below `separation` times its own. Without `depth`, particles are separated at narrow necks.
    Pixels that share a corner are connected.

    Parameters
    ----------
    depth : array of float, shape (H, W), or None
        How deep in its particle each pixel lies, from 0 at its edge to 1.
    is_particle : array of bool, shape (H, W)
    separation : float, default=0.8
        In [0, 1]; 0 separates nothing. Not used without `depth`.
    min_area : int, default=20
        Particles of fewer pixels are left out.

    Returns
    -------
    ndarray of int32, shape (H, W)
        0 for background; particles from 1, in the order of their first pixels, row by row.

    Raises
    ------
    ValueError
        If the shapes differ, or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.particles import split_particles
    >>> row = np.array([0.1, 0.5, 1, 1, 0.5, 0.1])
    >>> depth = np.minimum.outer(np.array([0.1, 0.5, 1, 1, 1, 0.5, 0.1]), np.tile(row, 2))
    >>> split_particles(depth, depth > 0)[3]
    array([1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2], dtype=int32)
    """
    check_value("separation", separation, [Number(at_least=0, at_most=1)])
    check_value("min_area", min_area, [Integer()])
    mask = np.asarray(is_particle, bool)
    depths = mask if depth is None else np.asarray(depth)
    if mask.ndim != 2 or depths.shape != mask.shape:
        raise ValueError(
            f"depth and is_particle must have one shape (H, W); got {depths.shape} and {mask.shape}"
        )
    if depth is None:
        return label_parts(mask, min_area, lambda _, inside: separate_at_necks(inside))
    inner = np.where(mask, depths, 0).astype(np.float32)
    return label_parts(mask, min_area, by_depth(inner.__getitem__, separation))


def by_depth(
    depth: Callable[[Window], FloatMap], separation: float
) -> Callable[[Window, BoolMap], LabelMap]:
    """Return the function that separates a component by the depth in its window, smoothed."""

    def partition(window: Window, inside: BoolMap) -> LabelMap:
        return _basins(
            smoothed_depth(depth, window), inside, lambda top, way: way < separation * top
        )

    return partition


def smoothed_depth(depth: Callable[[Window], FloatMap], window: Window) -> FloatMap:
    """Return the depth in a window, smoothed with what is around it."""
    more = [min(_REACH, side.start) for side in window]
    around = tuple(
        slice(side.start - before, side.stop + _REACH)
        for side, before in zip(window, more, strict=True)
    )
    smooth = ndimage.gaussian_filter(depth(around), _SMOOTHING, radius=_REACH)
    own = (slice(b, b + side.stop - side.start) for b, side in zip(more, window, strict=True))
    return np.asarray(smooth[tuple(own)])


def elongations(inside: BoolMap, parts: LabelMap) -> NDArray[np.float64]:
    """Return the area of each part, over that of the largest disc inside with its middle in it."""
    distance = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    numbers = np.arange(1, parts.max() + 1)
    radii = np.asarray(ndimage.maximum(distance, parts, numbers))
    return np.asarray(areas_of(parts, len(numbers))[1:] / (np.pi * radii**2))


def label_parts(
    mask: BoolMap, min_area: int, partition: Callable[[Window, BoolMap], LabelMap]
) -> LabelMap:
    """Label the parts of each connected component, in the order of their first pixels."""
    components, _ = ndimage.label(mask, EIGHT)  # which become the parts, below 0, in place
    firsts = list[int]()  # the flat indices of the parts' first pixels
    for number, window in enumerate(ndimage.find_objects(components), start=1):
        own = components[window]
        inside = own == number
        own[inside] = 0
        if np.count_nonzero(inside) < min_area:
            continue
        parts = partition(window, inside)
        for part, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
            of_part = parts[rows, columns] == part
            if np.count_nonzero(of_part) >= min_area:
                left = window[1].start + columns.start + int(of_part[0].argmax())
                firsts.append((window[0].start + rows.start) * mask.shape[1] + left)
                own[rows, columns][of_part] = -len(firsts)
    numbers = np.zeros(len(firsts) + 1, np.int32)
    numbers[-1 - np.argsort(firsts).astype(np.intp)] = np.arange(1, len(firsts) + 1)
    return values_of(components, numbers, components)


def values_of(labels: LabelMap, values: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
    """Return the value of each label, in `out`; few rows at once, as indices take 64 bits."""
    values, n_rows = values.astype(out.dtype), max(1, _AT_ONCE // max(labels.shape[1], 1))
    for top in range(0, len(labels), n_rows):
        rows = slice(top, top + n_rows)
        np.take(values, labels[rows], out=out[rows], mode="wrap")  # several times as fast
    return out


def numbers_of(is_kept: BoolMap) -> NDArray[np.int32]:
    """Return new numbers of labels, in their order; 0 for background and what is not kept."""
    is_kept = is_kept & (np.arange(len(is_kept)) > 0)
    return np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32)


def renumbered(labels: LabelMap) -> LabelMap:
    """Number the labels that have pixels from 1, in their order and in place."""
    has_pixels = areas_of(labels, int(labels.max(initial=0))) > 0
    return np.asarray(values_of(labels, numbers_of(has_pixels), labels))


def borders_of(labels: LabelMap) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of labels that meet along rows and columns, (n, 2), and how often each."""
    n, found = int(labels.max(initial=0)) + 1, [np.zeros((2, 0), np.int64)]
    for top in range(0, len(labels), _ROWS):
        own = labels[top : top + _ROWS + 1]
        for here, there in NEIGHBOURS[:2]:
            one, other = own[here][:_ROWS], own[there][:_ROWS]
            is_step = one != other
            low, high = np.sort([one[is_step], other[is_step]], axis=0).astype(np.int64)
            found.append(np.stack(np.unique(low * n + high, return_counts=True)))
    codes, counts = np.concatenate(found, axis=1)
    codes, of = np.unique(codes, return_inverse=True)
    lengths = np.bincount(of, counts, len(codes)).astype(np.int64)
    return np.stack(np.divmod(codes, n), axis=1), lengths


def largest_piece(mask: BoolMap) -> BoolMap:
    """Return the largest connected part of a mask."""
    pieces, _ = ndimage.label(mask, EIGHT)
    return np.asarray(pieces == 1 + np.argmax(np.bincount(pieces.ravel(), minlength=2)[1:]))


def without_holes(mask: BoolMap, min_area: float) -> BoolMap:
    """Return the mask with holes of fewer pixels filled: larger ones are rings of particles."""
    holes, n = ndimage.label(np.pad(~mask, 1, constant_values=True))
    is_small = areas_of(holes, n) < min_area
    is_small[:2] = False  # the particles, and what is around them
    filled: BoolMap = values_of(holes[1:-1, 1:-1], is_small, np.empty(mask.shape, bool))
    filled |= mask
    return filled


def separate_at_necks(inside: BoolMap, neck: float = _NECK) -> LabelMap:
    """Separate a component where it is narrower by so many pixels on each side."""
    distance = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    smooth = ndimage.gaussian_filter(distance.astype(np.float32), _SMOOTHING) * inside

    def height(width: float) -> float:
        return min(width, _WIDE) + _WIDE * math.log(max(width, _WIDE) / _WIDE)

    return _basins(smooth, inside, lambda top, way: height(top) - height(way) >= neck)


def join_without_necks(
    labels: LabelMap,
    neck: float,
    may_join: Callable[[NDArray[np.intp], int, int], bool] = lambda *_: True,
) -> LabelMap:
    """Join, in place, particles that meet and of which the joint outline has no neck.

    Those with the longest border for their size come first. `may_join` gets what each particle is
    by now, (n + 1,), and a pair of them as they were.
    """
    windows = [(slice(0, 0),) * 2, *ndimage.find_objects(labels)]
    areas, now = areas_of(labels, len(windows) - 1), np.arange(len(windows))
    pairs, lengths = borders_of(labels)
    shares = lengths / np.sqrt(areas[pairs].min(axis=1))
    for one, other in pairs[np.argsort(-shares, kind="stable")].tolist():
        a, b = now[[one, other]].tolist()
        if not one or a == b or not may_join(now, one, other):
            continue
        window = joint_window(windows[a], windows[b])
        both = np.isin(labels[window], (a, b))
        if separate_at_necks(both, neck).max() == 1:
            labels[window][both], windows[a] = a, window
            now[now == b] = a
    return renumbered(labels)


def _basins(
    depth: FloatMap, inside: BoolMap, are_apart: Callable[[float, float], bool]
) -> LabelMap:
    """Number the basins of depth around maxima, from 1.

    Maxima join the higher one to which the way leads down least, unless they are apart by their
    depth and the least depth on that way.
    """
    depth = np.where(inside, depth, -np.inf)
    tops, n = ndimage.label(inside & (depth == ndimage.maximum_filter(depth, 3)), EIGHT)
    if n < 2:
        return inside.astype(np.int32)
    basins = watershed(-depth, tops, mask=inside, connectivity=2)
    meetings = list[NDArray[Any]]()
    for here, there in NEIGHBOURS:
        pairs = np.stack([basins[here], basins[there]])
        meets = (pairs[0] != pairs[1]) & (pairs.min(axis=0) > 0)
        ways = np.minimum(depth[here], depth[there])[meets]
        meetings.append(np.stack([ways, *pairs[:, meets]], dtype=np.float64))
    found = np.concatenate(meetings, axis=1)
    found = found[:, np.argsort(-found[0], kind="stable")]
    peaks = np.zeros(n + 1)
    peaks[tops[tops > 0]] = depth[tops > 0]
    # The maxima of which basins are a part, and the highest of those that are connected so far.
    own, highest = np.arange(n + 1), np.arange(n + 1)
    for way, one, other in zip(found[0].tolist(), *found[1:].astype(int).tolist(), strict=True):
        if highest[one] != highest[other]:
            if peaks[highest[one]] < peaks[highest[other]]:
                one, other = other, one
            lower = highest == highest[other]
            if not are_apart(float(peaks[highest[other]]), way):
                own[lower] = own[one]
            highest[lower] = highest[one]
    return np.asarray(np.unique(own, return_inverse=True)[1].astype(np.int32)[basins])
