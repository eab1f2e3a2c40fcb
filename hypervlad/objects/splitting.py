"""Particles that touch are separated: seeds or narrow necks, and a watershed."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from hypervlad.common.constraints import Integer, Number, check_value
from hypervlad.common.wording import counted
from hypervlad.images.morphology import EIGHT
from hypervlad.images.resampling import areas_of
from hypervlad.objects.windows import (
    BoolMap,
    LabelMap,
    SideBySide,
    Window,
    grown_window,
    joint_window,
    side_by_side,
)

FloatMap: TypeAlias = NDArray[np.floating[Any]]
Cut: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]

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
        If the shapes differ, depths in particles are not finite, or a parameter is out of range.

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
    with np.errstate(over="ignore"):
        inner = np.where(mask, depths, 0).astype(np.float32)
    if n_unknown := int(np.count_nonzero(~np.isfinite(inner))):
        raise ValueError(
            "depth must be finite, as float32, where is_particle is; got "
            f"{counted(n_unknown, 'pixel')} where it is not"
        )
    return label_parts(mask, min_area, by_depth(lambda cut: cut(inner), separation))


def by_depth(
    depth: Callable[[Cut], FloatMap], separation: float
) -> Callable[[SideBySide, BoolMap], LabelMap]:
    """Return the function that separates components by their depth, smoothed.

    `depth` gets the function that cuts the windows out of arrays.
    """

    def partition(own: SideBySide, inside: BoolMap) -> LabelMap:
        deep = depth(partial(own.take, beyond=None))
        smooth = ndimage.gaussian_filter(deep, _SMOOTHING, radius=_REACH)
        return _basins(smooth, inside, lambda top, way: way < separation * top)

    return partition


def smoothed_depth(depth: Callable[[Cut], FloatMap], window: Window) -> FloatMap:
    """Return the depth in a window, smoothed with what is around it."""
    around = grown_window(window, _REACH)
    smooth = ndimage.gaussian_filter(
        depth(lambda values: values[around]), _SMOOTHING, radius=_REACH
    )
    starts = [side.start - more.start for side, more in zip(window, around, strict=True)]
    own = (slice(s, s + side.stop - side.start) for s, side in zip(starts, window, strict=True))
    return np.asarray(smooth[tuple(own)])


def distance_within(inside: BoolMap) -> FloatMap:
    """Return how far each pixel of a mask is from the nearest one outside of mask or image."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1], np.float32)


def elongations(distance: FloatMap, parts: LabelMap) -> NDArray[np.float64]:
    """Return the area of each part, over that of the largest disc with its middle in it.

    `distance` is that within the parts together.
    """
    areas = areas_of(parts, int(parts.max()))
    radii = np.zeros(len(areas), np.float32)
    np.maximum.at(radii, parts, distance)
    return np.asarray(areas[1:] / (np.pi * radii[1:].astype(float) ** 2))


def label_parts(
    mask: BoolMap, min_area: int, partition: Callable[[SideBySide, BoolMap], LabelMap]
) -> LabelMap:
    """Label the parts of each connected component, in the order of their first pixels."""
    components, n = ndimage.label(mask, EIGHT)  # which become the parts, below 0, in place
    values_of(components, numbers_of(areas_of(components, n) >= min_area), components)
    firsts, n = [np.zeros(0, np.intp)], 0  # the flat indices of the parts' first pixels
    for own in side_by_side(components, _REACH):
        inside = own.own(components)
        parts = partition(own, inside)
        own.put(components, inside, 0)
        areas = areas_of(parts, int(parts.max(initial=0)))
        numbers = numbers_of(areas >= min_area)
        firsts.append(own.firsts(parts, len(areas) - 1)[numbers > 0])
        numbers[numbers > 0] += n
        n += len(firsts[-1])
        own.put(components, parts > 0, values_of(parts, -numbers, parts))
    numbers = np.zeros(n + 1, np.int32)
    numbers[-1 - np.argsort(np.concatenate(firsts))] = np.arange(1, n + 1)
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


def separate_at_necks(
    inside: BoolMap, neck: float = _NECK, distance: FloatMap | None = None
) -> LabelMap:
    """Separate components where they are narrower by so many pixels on each side.

    `distance` is that within them, if it is known.
    """
    distance = distance_within(inside) if distance is None else distance
    smooth = ndimage.gaussian_filter(distance, _SMOOTHING, mode="constant") * inside

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
    basins, n_components = ndimage.label(inside, EIGHT)
    of_top, only = np.zeros(n + 1, np.intp), np.zeros(n_components + 1, np.int32)
    at = np.flatnonzero(tops)
    of_top[tops.ravel()[at]] = basins.ravel()[at]
    only[of_top[1:]] = np.arange(1, n + 1)
    has_several = np.bincount(of_top[1:], minlength=n_components + 1) > 1
    several = values_of(basins, has_several, np.empty(basins.shape, bool))
    every = values_of(basins, only, basins)
    if not several.any():
        return every
    columns = ndimage.binary_dilation(several.any(axis=0))  # the others need no watershed
    depth, tops, mask = (np.compress(columns, each, axis=1) for each in (depth, tops, several))
    basins = watershed(-depth, tops * mask, mask=mask, connectivity=2)
    every[several] = basins[mask]
    meetings = list[NDArray[Any]]()
    for here, there in NEIGHBOURS:
        pairs = np.stack([basins[here], basins[there]])
        meets = (pairs[0] != pairs[1]) & (pairs.min(axis=0) > 0)
        ways = np.minimum(depth[here], depth[there])[meets]
        meetings.append(np.stack([ways, *pairs[:, meets]], dtype=np.float64))
    found = np.concatenate(meetings, axis=1)
    found = found[:, np.argsort(-found[0], kind="stable")]
    # The highest way between each pair of basins.
    first = np.unique(np.sort(found[1:], axis=0).T @ [n + 1, 1], return_index=True)[1]
    ways, pairs = found[0, np.sort(first)], found[1:, np.sort(first)].T.astype(int)
    peaks, at = np.zeros(n + 1), np.flatnonzero(tops)
    peaks[tops.ravel()[at]] = depth.ravel()[at]
    # The maxima of which basins are a part, and the highest of those that are connected so far.
    own, highest = np.arange(n + 1), np.arange(n + 1)
    for way, (one, other) in zip(ways.tolist(), pairs.tolist(), strict=True):
        if highest[one] != highest[other]:
            if peaks[highest[one]] < peaks[highest[other]]:
                one, other = other, one
            lower = highest == highest[other]
            if not are_apart(float(peaks[highest[other]]), way):
                own[lower] = own[one]
            highest[lower] = highest[one]
    return values_of(every, np.unique(own, return_inverse=True)[1], every)
