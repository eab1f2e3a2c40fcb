"""Extremes of squares, masks grown and shrunk, and convex hulls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.spatial import ConvexHull

Mask: TypeAlias = NDArray[np.bool_]

EIGHT = np.ones((3, 3), bool)  # neighbours, corners included
_BEFORE, _AFTER = np.s_[:, :-1], np.s_[:, 1:]


def extreme(grey: NDArray[Any], reach: int, pick: np.ufunc) -> NDArray[Any]:
    """Return the extremes of squares, by comparing whole rows: SciPy's filters take far longer."""
    for _ in grey.shape:
        reached = 0
        while reached < reach:
            step = min(reach - reached, reached + 1)  # so that nothing lies between
            found = grey.copy("K")
            for here, there in ((found[step:], grey[:-step]), (found[:-step], grey[step:])):
                pick(here, there, out=here)
            grey, reached = found, reached + step
        grey = grey.T
    return grey


def grown(mask: Mask, by: int = 1, *, corners: bool = False) -> Mask:
    """Return a mask (H, W) with the neighbours of its pixels, and theirs, so many times.

    Neighbours share a side, or a corner, too. It is SciPy's `binary_dilation`, which takes ten
    times as long for whole images.

    >>> grown(np.eye(3, dtype=bool)).astype(int).tolist()
    [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    """
    if corners:
        return extreme(mask, by, np.logical_or)
    for _ in range(by):
        wide = mask.copy()
        wide[_AFTER] |= mask[_BEFORE]
        wide[_BEFORE] |= mask[_AFTER]
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        mask = wide
    return mask


def shrunk(mask: Mask, by: int = 1, *, corners: bool = False) -> Mask:
    """Return a mask without the neighbours of what is outside of it, as `grown` has these.

    What is beyond the array is outside.
    """
    left = ~grown(~mask, by, corners=corners)
    left[:by], left[len(left) - by :] = False, False
    left[:, :by], left[:, left.shape[1] - by :] = False, False
    return left


def hull_of(mask: Mask) -> ConvexHull:
    """Return the hull of the middles of the pixels' sides, as in ``skimage.morphology``."""
    from scipy.spatial import ConvexHull  # not above: importing it takes long

    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    down = np.concatenate([rows, rows, rows - 0.5, rows + 0.5, rows - 0.5, rows + 0.5])
    right = np.concatenate([first - 0.5, last + 0.5, first, first, last, last])
    return ConvexHull(np.stack([down, right], axis=1))


def hull_areas(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the area of the hull of each of n labels (H, W) without gaps, that of `hull_of`."""
    n = int(labels.max(initial=0))
    total = np.zeros(n + 1)
    # The upper end of a hull is the lower one of its mirror image. All is in halves of a pixel.
    for sign, here, beside in ((1, _AFTER, _BEFORE), (-1, _BEFORE, _AFTER)):
        is_end = labels > 0
        is_end[here] &= labels[here] != labels[beside]
        row, column = np.nonzero(is_end)
        own = labels[row, column].astype(np.int64)
        total -= _below_lower_hulls(own, 2 * row, sign * 2 * column, n)
    return total[1:] / 4


def _below_lower_hulls(
    own: NDArray[np.int64], row: NDArray[np.int64], end: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    """Return what is below the lower hull of the first ends of rows of labels 0 to n."""
    x = np.concatenate([row - 1, row, row + 1])
    y = np.concatenate([end, end - 1, end])
    own = np.tile(own, 3)
    order = np.lexsort((y, x, own))
    x, y, own = x[order], y[order], own[order]
    is_left = (np.diff(x, prepend=-2) != 0) | (np.diff(own, prepend=0) != 0)
    before, after = slice(None, -2), slice(2, None)
    while True:
        x, y, own = x[is_left], y[is_left], own[is_left]
        # What is not below the line between two others is no corner, whichever these are.
        is_left = np.ones(len(x), bool)
        is_left[1:-1] = (own[before] != own[after]) | (
            (y[1:-1] - y[before]) * (x[after] - x[before])
            < (y[after] - y[before]) * (x[1:-1] - x[before])
        )
        if is_left.all():
            break
    below = np.where(own[1:] == own[:-1], np.diff(x) * (y[1:] + y[:-1]) / 2, 0)
    return np.asarray(np.bincount(own[1:], below, n + 1), np.float64)


def convex_hull(mask: Mask) -> Mask:
    """Return the hull of a mask that is not empty, row by row.

    It is that of scikit-image's `convex_hull_image`, which takes minutes for large discs.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.arange(mask.shape[1])
    within = np.arange(rows[0], rows[-1] + 1)
    low, high = np.full(len(within), -np.inf), np.full(len(within), np.inf)
    for y, x, offset in hull_of(mask).equations:
        if abs(x) > 1e-9:
            side = -(offset + y * within) / x
            low, high = (low, np.minimum(high, side)) if x > 0 else (np.maximum(low, side), high)
    hull = np.zeros_like(mask)
    hull[within] = (columns >= low[:, None] - 1e-6) & (columns <= high[:, None] + 1e-6)
    return hull
