"""Particles that touch are separated: seeds or narrow necks, and a watershed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from hypervlad.common.constraints import Integer, Number, check_value

FloatMap: TypeAlias = NDArray[np.floating[Any]]
LabelMap: TypeAlias = NDArray[np.int32]
BoolMap: TypeAlias = NDArray[np.bool_]
Window: TypeAlias = tuple[slice, ...]

EIGHT = np.ones((3, 3), bool)  # neighbours, corners included
_SMOOTHING = 1.0  # standard deviation in pixels; depths have several maxima per particle
_REACH = 4  # pixels to which smoothing and the search for gaps reach
_NECK = 0.9  # of the width of the smaller part, above which a neck separates nothing
_MIN_NECK = 1.0  # pixels on each side by which a neck must be narrower: outlines are rough


def split_particles(
    depth: ArrayLike | None,
    is_particle: ArrayLike,
    *,
    separation: float = 0.8,
    min_area: int = 20,
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
        return label_parts(mask, min_area, lambda _, inside: separate_at_necks(inside, inside))

    def partition(window: Window, inside: BoolMap) -> LabelMap:
        around, inner = larger_window(window)
        smooth = ndimage.gaussian_filter(
            np.where(mask[around], depths[around], 0).astype(np.float32),
            _SMOOTHING,
            radius=_REACH,
        )[inner]
        return _basins(smooth, inside, separation, 0.0)

    return label_parts(mask, min_area, partition)


def larger_window(window: Window) -> tuple[Window, Window]:
    """Return a larger window, and the window's place in it."""
    starts = [max(0, side.start - _REACH) for side in window]
    pairs = list(zip(window, starts, strict=True))
    around = tuple(slice(start, side.stop + _REACH) for side, start in pairs)
    return around, tuple(slice(side.start - start, side.stop - start) for side, start in pairs)


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
    """Return the value of each label, in `out`; row by row, as indices take 64 bits."""
    for to, row in zip(out, labels, strict=True):
        to[:] = values[row]
    return out


def areas_of(labels: LabelMap, n: int) -> NDArray[np.int64]:
    """Return the number of pixels of labels 0 to n; by parts, as indices take 64 bits."""
    flat, step, areas = labels.ravel(), 1 << 22, np.zeros(n + 1, np.int64)
    for start in range(0, flat.size, step):
        areas += np.bincount(flat[start : start + step], minlength=n + 1)
    return areas


def without_holes(mask: BoolMap, min_area: float) -> BoolMap:
    """Return the mask with holes of fewer pixels filled: larger ones are rings of particles."""
    holes, n = ndimage.label(np.pad(~mask, 1, constant_values=True))
    is_small = areas_of(holes, n) < min_area
    is_small[:2] = False  # the particles, and what is around them
    filled: BoolMap = values_of(holes[1:-1, 1:-1], is_small, np.empty(mask.shape, bool))
    filled |= mask
    return filled


def separate_at_necks(inside: BoolMap, cores: BoolMap) -> LabelMap:
    """Separate a component where cores, a part of it, have narrow necks or are apart."""
    distance = ndimage.distance_transform_edt(np.pad(cores, 1))[1:-1, 1:-1]
    smooth = ndimage.gaussian_filter(distance.astype(np.float32), _SMOOTHING) * cores
    seeds = _basins(smooth, cores, _NECK, _MIN_NECK)
    if seeds.max() < 2:
        return inside.astype(np.int32)
    return np.asarray(watershed(-distance, seeds, mask=inside, connectivity=2))


def _basins(depth: FloatMap, inside: BoolMap, share: float, least: float) -> LabelMap:
    """Number the basins around maxima of depth, from 1; those without a pass between are joined.

    A pass is less deep than `share` of the shallower maximum, and less deep by `least`.
    """
    depth = depth * inside
    tops, n = ndimage.label((ndimage.maximum_filter(depth, 3) == depth) & inside, EIGHT)
    if n < 2:
        return inside.astype(np.int32)
    basins = watershed(-depth, tops, mask=inside, connectivity=2)
    around, beside = np.pad(depth, 1), np.pad(basins, 1)
    codes, depths = [], []
    for shift in ((0, -1), (-1, 0), (-1, -1), (-1, 1)):
        other = np.roll(beside, shift, (0, 1))
        meet = (beside != other) & (beside > 0) & (other > 0)
        low, high = np.sort([beside[meet], other[meet]], axis=0).astype(np.int64)
        codes.append(low * (n + 1) + high)
        depths.append(np.minimum(around, np.roll(around, shift, (0, 1)))[meet])
    pairs, where = np.unique(np.concatenate(codes), return_inverse=True)
    passes = np.zeros(len(pairs))
    np.maximum.at(passes, where, np.concatenate(depths))
    highest = ndimage.maximum(depth, basins, np.arange(n + 1))
    parents = np.arange(n + 1)

    def root(i: int) -> int:
        while parents[i] != i:
            i = parents[i]
        return i

    for k in np.argsort(-passes, kind="stable").tolist():
        low, high = sorted(map(root, divmod(int(pairs[k]), n + 1)), key=highest.__getitem__)
        if low != high and passes[k] >= min(share * highest[low], highest[low] - least):
            parents[low] = high
    _, numbers = np.unique([root(i) for i in range(n + 1)], return_inverse=True)
    return np.asarray(numbers.astype(np.int32)[basins])
