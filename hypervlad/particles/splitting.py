"""Particles that touch are separated: seeds or narrow necks, and a watershed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.segmentation import watershed

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
    core: float = 0.5,
    min_area: int = 20,
    min_core: int = 6,
) -> NDArray[np.int32]:
    """Label the particles of a field, and separate those that touch.

    Connected places where `depth`, smoothed, is above `core` are seeds, and a watershed of `depth`
    gives the other pixels of particles to them. Without `depth`, it is the distance to the
    background, and particles are separated at narrow necks. Connected pixels of particles without
    a seed are one particle. Pixels that share a corner are connected.

    Memory is about 10 bytes per pixel of the field, and 40 per pixel of the box around the largest
    group of particles that touch.

    Parameters
    ----------
    depth : array of float, shape (H, W), or None
        How deep in its particle each pixel lies: 0 at the edge, 1 where it is farthest from it.
        Values outside particles are not used.
    is_particle : array of bool, shape (H, W)
    core : float, default=0.5
        In [0, 1). Lower values separate less. Not used without `depth`.
    min_area : int, default=20
        Particles of fewer pixels are left out.
    min_core : int, default=6
        Seeds of fewer pixels do not count. Not used without `depth`.

    Returns
    -------
    ndarray of int32, shape (H, W)
        0 for background; particles from 1, in the order of their first pixels, row by row.

    Raises
    ------
    ValueError
        If the shapes differ, or are not of two dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.particles import split_particles
    >>> row = np.array([0.1, 0.5, 1, 1, 0.5, 0.1])
    >>> depth = np.minimum.outer(np.array([0.1, 0.5, 1, 1, 1, 0.5, 0.1]), np.tile(row, 2))
    >>> split_particles(depth, depth > 0)[3]
    array([1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2], dtype=int32)
    """
    mask = np.asarray(is_particle, bool)
    if mask.ndim != 2:
        raise ValueError(f"is_particle must have the shape (H, W); got {mask.shape}")
    if depth is None:
        return label_parts(mask, min_area, lambda _, inside: separate_at_necks(inside, inside))
    depths = np.asarray(depth)
    if depths.shape != mask.shape:
        raise ValueError(
            f"depth and is_particle must have one shape (H, W); got {depths.shape} and {mask.shape}"
        )

    def partition(window: Window, inside: BoolMap) -> LabelMap:
        around, inner = larger_window(window)
        smooth = ndimage.gaussian_filter(
            np.where(mask[around], depths[around], 0).astype(np.float32),
            _SMOOTHING,
            radius=_REACH,
        )[inner]
        seeds, _ = ndimage.label((smooth > core) & inside, EIGHT)
        return _flooded(smooth, _without_small(seeds, min_core), inside)

    return label_parts(mask, min_area, partition)


def larger_window(window: Window) -> tuple[Window, Window]:
    """Return a larger window, and the window's place in it."""
    around = tuple(slice(max(0, side.start - _REACH), side.stop + _REACH) for side in window)
    inner = tuple(
        slice(side.start - wide.start, side.stop - wide.start)
        for side, wide in zip(window, around, strict=True)
    )
    return around, inner


def label_parts(
    mask: BoolMap, min_area: int, partition: Callable[[Window, BoolMap], LabelMap]
) -> LabelMap:
    """Label the parts of each connected component, in the order of their first pixels."""
    components, _ = ndimage.label(mask, EIGHT)
    labels = np.zeros(mask.shape, np.int32)
    first_pixels: list[tuple[int, int]] = []
    for number, window in enumerate(ndimage.find_objects(components), start=1):
        inside = components[window] == number
        if np.count_nonzero(inside) < min_area:
            continue
        parts = partition(window, inside)
        for part, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
            of_part = parts[rows, columns] == part
            if np.count_nonzero(of_part) >= min_area:
                top, left = window[0].start + rows.start, window[1].start + columns.start
                first_pixels.append((top, left + int(of_part[0].argmax())))
                labels[window][rows, columns][of_part] = len(first_pixels)
    numbers = np.zeros(len(first_pixels) + 1, np.int32)
    order = sorted(range(len(first_pixels)), key=first_pixels.__getitem__)
    numbers[np.array(order, np.intp) + 1] = np.arange(1, len(order) + 1)
    for row in labels:  # one by one: indexing converts labels to 64 bits
        row[:] = numbers[row]
    return labels


def _flooded(depth: FloatMap, seeds: LabelMap, inside: BoolMap) -> LabelMap:
    """Return the number of the seed to which each pixel inside belongs; 1 without two seeds."""
    if seeds.max() < 2:
        return inside.astype(np.int32)
    parts: LabelMap = watershed(-depth, seeds, mask=inside, connectivity=2)
    return parts


def _without_small(labels: LabelMap, min_area: int) -> LabelMap:
    """Return labels without those of fewer pixels, numbered from 1."""
    kept = np.bincount(labels.ravel()) >= min_area
    kept[0] = False
    numbered: LabelMap = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]
    return numbered


def separate_at_necks(inside: BoolMap, cores: BoolMap) -> LabelMap:
    """Separate a component where cores, a part of it, have narrow necks or are apart."""
    distance = ndimage.distance_transform_edt(np.pad(cores, 1))[1:-1, 1:-1]
    smooth = ndimage.gaussian_filter(distance.astype(np.float32), _SMOOTHING) * cores
    tops, _ = ndimage.label((ndimage.maximum_filter(smooth, 3) == smooth) & cores, EIGHT)
    basins = watershed(-smooth, tops, mask=cores, connectivity=2) if tops.max() > 1 else tops
    return _flooded(distance, _without_small(_joined(basins, smooth), 1), inside)


def _joined(basins: LabelMap, depth: FloatMap) -> LabelMap:
    """Join basins unless the pass between them is a neck: far less deep than the shallower."""
    n = int(basins.max())
    passes: dict[tuple[int, int], float] = {}
    for there, here in (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:], np.s_[:-1]),
        (np.s_[1:, 1:], np.s_[:-1, :-1]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ):
        a, b = basins[here], basins[there]
        meet = (a != b) & (a > 0) & (b > 0)
        depths = np.minimum(depth[here], depth[there])[meet].tolist()
        for i, j, value in zip(a[meet].tolist(), b[meet].tolist(), depths, strict=True):
            pair = (min(i, j), max(i, j))
            passes[pair] = max(value, passes.get(pair, 0.0))
    if not passes:
        return basins
    deepest = ndimage.maximum(depth, basins, np.arange(n + 1))
    parents = np.arange(n + 1, dtype=np.int32)

    def root(i: int) -> int:
        while parents[i] != i:
            i = parents[i]
        return i

    for (i, j), value in sorted(passes.items(), key=lambda item: (-item[1], item[0])):
        shallow, deep = sorted((root(i), root(j)), key=deepest.__getitem__)
        neck = min(_NECK * deepest[shallow], deepest[shallow] - _MIN_NECK)
        if shallow != deep and value >= neck:
            parents[shallow] = deep
    roots = np.array([root(i) for i in range(n + 1)], np.int32)
    return roots[basins]
