"""Rows of dots or ticks without a line that may be scale bars, in grey levels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from hypervlad.images.bar_lines import (
    CLEAR,
    FAR,
    LEVELS,
    MAX_DEVIATION,
    MAX_SHARE,
    MIN_CONTRAST,
    MIN_DEVIATION,
    Candidate,
    Grey,
    ScaleBar,
    bands,
)

_MIN_DOTS, _MAX_DOTS, _MAX_DOT, _MIN_FILL = 6, 200, (40, 12), 0.6
_MAX_ROWS = 0.5  # of the rows of pixels, those with so many small objects: more are noise
_N_WIDTHS, _N_ROWS = 2**6, 2**32  # more than dots and images have
_MIN_PITCH, _PITCH_ERROR, _PITCH_ERROR_SHARE = 5, 2.0, 0.15
# Levels of dots, and whether they are above (1) or below (-1).
_LOOKS = tuple((level, sign) for level in LEVELS[::2] for sign in (1, -1))


def rows_of_dots(grey: Grey) -> Iterator[Candidate]:
    small = []
    for band in bands(grey, len(_LOOKS)):
        start = max(band.start - 1, 0)  # objects that start in the band are whole in this part
        looks, objects = _small_objects(grey[start : band.stop + _MAX_DOT[0]])
        objects[:, ::2] += start
        is_own = (objects[:, 0] >= band.start) & (objects[:, 0] < band.stop)
        small.append(np.column_stack([objects, looks])[is_own])
    objects = np.concatenate(small)
    signs = np.array([sign for _, sign in _LOOKS])[objects[:, 4]]
    # They are separated from what is on the left and on the right.
    rows, columns = objects[:, :4:2].sum(axis=1) // 2, objects[:, 1:4:2].sum(axis=1) // 2
    left, right = objects[:, 1] - FAR, objects[:, 3] + FAR - 1
    beside = grey[rows, [np.maximum(left, 0), np.minimum(right, grey.shape[1] - 1)]]
    contrast = signs * (grey[rows, columns] - beside)
    objects = objects[contrast.min(axis=0) >= MIN_CONTRAST]
    for number, (_, sign) in enumerate(_LOOKS):
        boxes = objects[objects[:, 4] == number, :4]
        tall, wide = (boxes[:, 2:] - boxes[:, :2]).T
        keys = _size_key(tall, wide, boxes[:, 0])
        order = np.argsort(keys, kind="stable")
        alike = boxes[order].T.copy(), keys[order]
        for edge in (0, 2):  # of all dots, the upper or the lower edge is in one row
            ordered = boxes[np.lexsort((boxes[:, 1], boxes[:, edge]))]
            starts = np.flatnonzero(np.diff(ordered[:, edge], prepend=-9, append=-9))
            sizes = np.diff(starts)
            some = np.flatnonzero((sizes >= _MIN_DOTS) & (sizes <= _MAX_DOTS))
            for i in some if len(some) <= _MAX_ROWS * len(grey) else ():
                found = _regular(grey, sign, ordered[starts[i] : starts[i + 1]], *alike)
                if found is not None:
                    yield found


def _small_objects(grey: Grey) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return solid objects of the size of dots: numbers of their looks, (n,), and boxes, (n, 4)."""
    n_rows, width = grey.shape
    # An empty column is before each row, and an empty row before each look.
    padded = np.zeros((len(_LOOKS), n_rows + 1, width + 1), bool)
    for own, (level, sign) in zip(padded, _LOOKS, strict=True):
        (np.greater if sign > 0 else np.less)(grey, level, out=own[1:, 1:])
    flat = np.append(padded, False)
    steps = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = steps[::2], steps[1::2]
    # Objects are runs of pixels that are connected to those below, which are less than pixels.
    first = np.searchsorted(ends, starts + width + 1, side="right")
    n_below = np.searchsorted(starts, ends + width + 1) - first
    index = np.append(0, n_below.cumsum())
    below = np.arange(index[-1]) + np.repeat(first - index[:-1], n_below)
    # Of the types that the search would convert them to.
    parts = np.ones(len(below)), below.astype(np.int32), index.astype(np.int32)
    n_found, label = connected_components(csr_array(parts, shape=(len(starts),) * 2), False)
    lines, columns = np.divmod(starts, width + 1)
    looks, rows = np.divmod(lines, n_rows + 1)
    top, left, bottom, right = np.repeat([[n_rows], [width], [0], [0]], n_found, axis=1)
    np.minimum.at(top, label, rows - 1)
    np.minimum.at(left, label, columns)
    np.maximum.at(bottom, label, rows)
    np.maximum.at(right, label, columns + ends - starts)
    tall, wide = bottom - top, right - left
    fits = (tall >= 2) & (tall <= _MAX_DOT[0]) & (wide <= _MAX_DOT[1])
    fits &= np.bincount(label, ends - starts, n_found) >= _MIN_FILL * tall * wide
    look = np.zeros(n_found, int)
    look[label] = looks
    return look[fits], np.stack([top, left, bottom, right], axis=1)[fits]


def _regular(
    grey: Grey,
    sign: int,
    group: NDArray[np.int_],
    boxes: NDArray[np.int_],
    keys: NDArray[np.int_],
) -> Candidate | None:
    """Return the longest regular row of dots of equal widths; None if that is no scale bar.

    All `boxes`, (4, n), are in the order of their `keys`.
    """
    row = group[_longest_row(group, MAX_SHARE * grey.shape[1])]
    if not len(row):
        return None
    height, width = np.median(row[:, 2:] - row[:, :2], axis=0)
    if width > height + 1:  # dashes
        return None
    x, numbers = row[:, [1, 3]].sum(axis=1) / 2, np.arange(len(row)) - (len(row) - 1) / 2
    pitch = float(numbers @ x / (numbers @ numbers))  # of a line through the centres
    # Another row of such dots nearby belongs to a lattice.
    corners, reach, n_near = (row[:, :2].min(axis=0), row[:, 2:].max(axis=0)), 3 * pitch, 0
    (first, start), (last, end) = corners[0] - reach, corners[1] + reach
    for tall, wide in product(_within_one(height), _within_one(width)):
        ends = np.searchsorted(keys, _size_key(tall, wide, np.array([first, last], np.int_)))
        top, left, bottom, right = boxes[:, slice(*ends)]
        near = (top >= first) & (left >= start) & (bottom <= last) & (right <= end)
        n_near += int(near.sum())
        if n_near > len(row) + 2:
            return None
    rows = grey[int(np.median(row[:, 0])) : int(np.median(row[:, 2]))]
    clarity = _clarity(sign * rows, x, pitch)
    if clarity is None:
        return None
    spread = float(np.std(x - pitch * numbers))
    error = max(0.3, spread * np.sqrt(12 / len(x)))
    (top, left), (bottom, right) = (each.tolist() for each in corners)
    box = top, left, bottom, right
    bar = ScaleBar(round(float(x[-1] - x[0]), 2), round(float(error), 2), box, "dots")
    return Candidate(bar, sign, clarity * min(1, len(x) / 11))


def _size_key(height: Any, width: Any, top: Any) -> Any:
    """Return numbers in the order of heights, then of widths, then of upper edges."""
    return (height * _N_WIDTHS + width) * _N_ROWS + top


def _within_one(size: float) -> list[int]:
    return [n for n in (int(size), int(size) + 1, int(size) - 1) if abs(n - size) <= 1]


def _longest_row(group: NDArray[np.int_], longest: float) -> NDArray[np.int_]:
    """Return the numbers of the most dots of about one width and pitch; none if below six."""
    centres, widths = group[:, [1, 3]].sum(axis=1) / 2, group[:, 3] - group[:, 1]
    best: list[int] = []
    for i in range(len(group) - _MIN_DOTS + 1):
        if len(group) - i <= len(best):
            break
        alike = np.flatnonzero(np.abs(widths - widths[i]) <= 1)
        others = alike[alike > i]
        for j in others if len(alike) >= _MIN_DOTS else ():
            pitch = centres[j] - centres[i]
            if pitch < _MIN_PITCH or pitch * (_MIN_DOTS - 1) > longest:
                continue
            tolerance = max(1.0, min(_PITCH_ERROR, _PITCH_ERROR_SHARE * pitch))
            if (centres[alike[-1]] - centres[i]) / (pitch - tolerance) + 1 < len(best):
                break  # so few of this pitch or more have room, which saves time in lattices
            if i in best and j in best:
                continue
            members = [i]
            while True:
                last = members[-1]
                mean = (centres[last] - centres[i]) / max(len(members) - 1, 1) or pitch
                near = alike[np.abs(centres[alike] - centres[last] - mean).argmin()]
                if abs(centres[near] - centres[last] - mean) > tolerance:
                    break
                members.append(int(near))
            best = max(best, members, key=len)
    return np.array(best if len(best) >= _MIN_DOTS else [], np.int_)


def _clarity(rows: Grey, x: NDArray[np.float64], pitch: float) -> float | None:
    """Return how clear dots at `x` are, 0 to 1; None if they are not alike, or not alone."""
    profile = np.median(rows, axis=0)
    highest, middle = ndimage.maximum_filter1d(profile, 3), (x[1:] + x[:-1]) / 2
    inside = highest[np.round(x - 0.5).astype(int)]
    between = profile[np.round(middle - 0.5).astype(int)]
    contrast = float(np.median(inside) - np.median(between))
    if contrast < MIN_CONTRAST or inside.std() > max(MIN_DEVIATION, MAX_DEVIATION * contrast):
        return None
    middle_level = float(np.median(inside)) - CLEAR * contrast
    # One more beyond an end was not separated from what it touches.
    beyond = [int(at) for at in (x[0] - pitch, x[-1] + pitch) if 0 <= at < len(profile)]
    if (between > middle_level).any() or (highest[beyond] > middle_level).any():
        return None
    return contrast / 255 * (1 - float(inside.std()) / contrast)
