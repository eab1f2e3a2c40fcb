"""Straight lines and outlined boxes that may be scale bars, in grey levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Grey levels, of 255, that separate bars from what is around them: one of them lies between the
# two levels, with a margin, if they differ by more than the step.
LEVELS = tuple(range(32, 250, 16))
# Shortest bar in pixels, longest one as a share of the width, and its length over its height.
MIN_LENGTH, MAX_SHARE, _MIN_ASPECT = 24, 0.7, 2.5
END_SHIFT = 2  # by which the ends of adjacent rows of a bar may differ, in pixels
MIN_CONTRAST = 40
# Deviation of levels along a bar, as a share of its contrast, and in grey levels.
MAX_DEVIATION, MIN_DEVIATION, _LONG = 0.08, 3, 40
# Deviation of differences between neighbouring pixels of a wire, 1.4 times its noise: in grey
# levels, and as a share of that beside it.
_MIN_NOISE, _NOISE_SHARE = 5, 0.75
# Shares of the columns in which a bar is above and below, and of the rows in which it is on the
# left and on the right, at least this part of its contrast away from its surroundings.
_CLEAR_SHARE, CLEAR, _RULER_SHARE = 0.85, 0.4, 0.5
_TICK_WIDTH, _HEAD_WIDTH = 5, 12  # columns at an end, of a tick and of an arrow's head
FAR = 3  # pixels from an edge to the surroundings, beyond the blur of an enlarged image
_MAX_RISE = 2.5  # pixels in which an edge rises from a quarter to three quarters
_MAX_TILT = 0.75  # pixels by which the first and the last third of a horizontal edge may differ
_MAX_TICK = 0.5  # longest tick, as a share of the length of a line
_BAND = 2**22  # pixels, of all levels, that are searched at a time

ONE_END = "arrow, or line with ticks at one end"  # a kind of lines that are no bars

Grey: TypeAlias = NDArray[np.float32]
Box: TypeAlias = tuple[int, int, int, int]  # as in `ScaleBar`
Edge: TypeAlias = tuple[float, float]  # its place, and in how many pixels it rises


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar that `find_scale_bar` found.

    Attributes
    ----------
    length : float
        In pixels, also of vertical bars: from one end to the other, of dots or ticks without a
        line from the centre of the first to that of the last.
    error : float
        Uncertainty of the length in pixels, from the blur of the ends.
    box : tuple of four int
        First row, first column, last row + 1 and last column + 1.
    kind : {"line", "line with ticks", "box", "dots"}
        A solid line of any width, one with ticks at both ends, an outlined box, or dots or ticks
        without a line.
    """

    length: float
    error: float
    box: tuple[int, int, int, int]
    kind: str


class Candidate(NamedTuple):
    bar: ScaleBar
    sign: int  # 1 if brighter than its surroundings, otherwise -1
    score: float
    is_clear: bool = True  # where it ends


def straight_lines(grey: Grey, levels: Sequence[int]) -> list[Candidate]:
    values = {1: grey, -1: -grey}
    found = dict.fromkeys(each for level in levels for each in _rectangles(grey, level))
    lines = (_line(values[sign], sign, box) for sign, box in found)
    return [each for each in lines if each is not None]


def bands(grey: Grey, n_looks: int = 1) -> list[slice]:
    """Return the rows that are searched at a time, few enough to need little memory."""
    n_rows = max(1, _BAND // (n_looks * grey.shape[1]))
    return [slice(start, start + n_rows) for start in range(0, len(grey), n_rows)]


def _rectangles(grey: Grey, level: float) -> list[tuple[int, Box]]:
    """Return the sign and the box of adjacent rows that cross a level at the same two columns."""
    height, width = grey.shape
    runs = np.concatenate([_flat_runs(grey, level, rows) for rows in bands(grey)], axis=1)
    row, left, right, sign = runs
    # A run has at most one above it whose ends are as near: those of one row are apart.
    places = row * width + left
    above = np.searchsorted(places, places - width + 2 * END_SHIFT, "right") - 1
    continues = (row[above] == row - 1) & (sign[above] == sign)
    number = np.arange(len(row))
    first, starts, ends, over = (each.tolist() for each in (number, left, right, above))
    for i in np.flatnonzero(continues).tolist():
        one = first[over[i]]
        if abs(starts[i] - starts[one]) <= END_SHIFT and abs(ends[i] - ends[one]) <= END_SHIFT:
            first[i] = one
    bottom = row + 1
    np.maximum.at(bottom, first, row + 1)
    boxes = np.stack([row, left, bottom, right, sign])[:, first == number]
    # Most are hardly brighter or darker than what is above and below: a sample tells.
    top, left, bottom, right, sign = boxes
    around = np.stack([top - FAR, top - 2, bottom + 1, bottom + 2]).clip(0, height - 1)
    inside, *outside = _samples(grey, np.stack([(top + bottom) // 2, *around]), left, right)
    contrast = np.median(inside, axis=0) - np.median(np.concatenate(outside), axis=0)
    chosen = boxes[:, sign * contrast >= MIN_CONTRAST / 2].T.tolist()
    return [(side, (y, x, end, stop)) for y, x, end, stop, side in chosen]


def _flat_runs(grey: Grey, level: float, rows: slice) -> NDArray[np.int_]:
    """Return row, start, end and sign of level runs of pixels beyond a level, (4, n), in order."""
    part, width = grey[rows], grey.shape[1]
    above = (part > np.float32(level)).ravel()
    steps = np.flatnonzero(above[1:] != above[:-1]) + 1
    length = np.diff(steps)
    fits = (length >= MIN_LENGTH) & (length <= MAX_SHARE * width)
    first, length = steps[:-1][fits], length[fits]
    row, left = np.divmod(first, width)
    sign = np.where(above[first], 1, -1)
    runs = np.stack([row + rows.start, left, left + length, sign])
    row, left, right, sign = runs = runs[:, (left > 0) & (runs[2] < width)]
    # Both ends are steps, and the run between them is flat: the rest need not be looked at.
    inside = _samples(grey, row, left, right)
    beside = np.maximum(left - FAR, 0), np.minimum(right + FAR - 1, width - 1)
    contrast = sign * (inside.mean(axis=0) - grey[row, beside])
    fits = contrast.min(axis=0) >= CLEAR * MIN_CONTRAST
    limit = np.maximum(2 * MIN_DEVIATION, 2 * MAX_DEVIATION * contrast.max(axis=0))
    found: NDArray[np.int_] = runs[:, fits & (inside.std(axis=0) <= limit)]
    return found


def _samples(
    grey: Grey, row: NDArray[np.int_], left: NDArray[np.int_], right: NDArray[np.int_]
) -> Grey:
    """Return grey levels between the ends of runs, without ticks: of rows (..., n) (..., 16, n)."""
    parts = np.arange(16)[:, None] * (right - left - 1 - 2 * _TICK_WIDTH)
    levels: Grey = grey[row[..., None, :], left + _TICK_WIDTH + parts // 15]
    return levels


def _line(values: Grey, sign: int, box: Box) -> Candidate | None:
    """Return a rectangle of one level with sharp edges and free ends; None for another one.

    Bars are bright in `values`.
    """
    top, left, bottom, right = box
    length, height = right - left, bottom - top
    if length < _MIN_ASPECT * height or left < 2 or right > values.shape[1] - 2:
        return None
    inner = values[:, left + _TICK_WIDTH : right - _TICK_WIDTH]
    core = inner[top:bottom]
    around = [
        values[max(top - FAR, 0) : max(top - 1, 0), left:right],
        values[bottom + 1 : bottom + FAR, left:right],
        values[top:bottom, max(left - FAR, 0) : left - 1].T,
        values[top:bottom, right + 1 : right + FAR].T,
    ]
    if not all(each.size for each in around[:2]):
        return None
    level = _median(core)
    contrast = level - _median(np.concatenate([each.ravel() for each in around]))
    if contrast < MIN_CONTRAST:
        return None
    deviation = _median(core.std(axis=1))
    if deviation > max(MIN_DEVIATION, MAX_DEVIATION * contrast * min(1, length / _LONG)):
        return None
    if height == 1 and abs(_median(around[0]) - _median(around[1])) > contrast / 2:
        return None  # a bright rim, not a thin line
    kind = _kind(values, box, level - contrast / 2)
    if kind is None:
        return None
    if is_ticked := kind != "line":
        around[:2] = [each[:, _TICK_WIDTH:-_TICK_WIDTH] for each in around[:2]]
    clear = [float((level - each.mean(axis=0) >= CLEAR * contrast).mean()) for each in around]
    # A ruler has more ticks, on one side.
    is_ruler = is_ticked and length >= _LONG and max(clear[:2]) == 1
    shares = [_RULER_SHARE if is_ruler else _CLEAR_SHARE] * 2 + [_CLEAR_SHARE] * 2
    edges = _edges(values, box, level)
    if edges is None or any(each < share for each, share in zip(clear, shares, strict=True)):
        return None
    # A wire is as noisy as what is above or below; a bar that was drawn is not.
    third = height // 3
    bands = (top + third, bottom - third), (top - 8, top - FAR), (bottom + FAR, bottom + 8)
    rows = (np.arange(*each).clip(0, len(values) - 1) for each in bands)
    noise, *beside = (np.diff(inner[each]).std() for each in rows)
    if noise > max(_MIN_NOISE, _NOISE_SHARE * max(beside)):
        return None
    upper, start, lower, end = (place for place, _ in edges)
    error = max(float(np.hypot(edges[1][1], edges[3][1]) / 2), 0.3)
    places = round(upper), round(start), round(lower), round(end)
    bar = ScaleBar(round(end - start, 2), round(error, 2), places, kind)
    score = contrast / 255 * np.prod(clear) * (1 - deviation / contrast)
    return Candidate(bar, sign, float(score))


def _median(values: Grey) -> float:
    """Return the median of a few values, in a fifth of the time of `numpy.median`."""
    ordered = np.sort(values, axis=None)
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def _kind(values: Grey, box: Box, level: float) -> str | None:
    """Return whether a line has ticks at its ends, or `ONE_END`; None for an axis or a frame."""
    ticks, heads = (_tick_lengths(values, box, level, n) for n in (_TICK_WIDTH, _HEAD_WIDTH))
    longest = _MAX_TICK * (box[3] - box[1])
    if ticks.min(axis=1).max() > longest or np.ptp(ticks, axis=1).max() > longest:
        return None
    if (heads > 0).all(axis=0).sum() == 1:
        return ONE_END
    return "line with ticks" if (ticks > 0).all(axis=1).any() else "line"


def _tick_lengths(values: Grey, box: Box, level: float, n: int) -> NDArray[np.int_]:
    """Return by how many pixels the last `n` columns of a line extend above and below, (2, 2)."""
    top, left, bottom, right = box
    reach = right - left
    sides = (
        values[max(top - reach, 0) : max(top - 1, 0), left:right][::-1],
        values[bottom + 1 : bottom + reach, left:right],
    )
    lengths = np.zeros((2, 2), np.int_)
    for i, side in enumerate(sides):
        for j, columns in enumerate((side[:, :n], side[:, -n:])):
            is_bar = columns > level
            if len(is_bar) and is_bar[:2].all(axis=0).any():
                lengths[i, j] = np.logical_and.accumulate(is_bar, axis=0).sum(axis=0).max()
    return lengths


def _edges(values: Grey, box: Box, level: float) -> list[Edge] | None:
    """Return the upper, left, lower and right edge of a rectangle; None if one is not sharp.

    None, too, if the upper or the lower edge is not horizontal, as that of a straight fibre.
    """
    top, left, bottom, right = box
    depth, third = min((bottom - top - 1) // 2, 2), (right - left) // 3
    rows, first, last = (
        _pair_of_edges(values, top, bottom, slice(*ends), depth, level)
        for ends in ((left, right), (left, left + third), (right - third, right))
    )
    columns = _pair_of_edges(values.T, left, right, slice(top, bottom), 2, level)
    if rows is None or columns is None:
        return None
    if first is not None and last is not None:
        tilts = (abs(one[0] - other[0]) for one, other in zip(first, last, strict=True))
        if max(tilts) > _MAX_TILT:
            return None
    return [rows[0], columns[0], rows[1], columns[1]]


def _pair_of_edges(
    values: Grey, start: int, stop: int, across: slice, depth: int, level: float
) -> tuple[Edge, Edge] | None:
    """Return where rows `start` to `stop` begin and end by the median `across` them."""
    first = max(start - 2 * FAR, 0)
    profile = np.median(values[first : stop + 2 * FAR, across], axis=1)
    one = _edge(profile, start - first, -1, depth, level)
    other = _edge(profile, stop - 1 - first, 1, depth, level)
    if one is None or other is None:
        return None
    return (one[0] + first + 0.5, one[1]), (other[0] + first + 0.5, other[1])


def _edge(profile: Grey, inside: int, step: int, depth: int, level: float) -> Edge | None:
    """Return where a profile falls to the middle of an edge, and in how many pixels it falls.

    None if it does not fall within a few pixels.
    """
    places = np.arange(inside - step * depth, inside + step * (FAR + 2), step)
    places = places[(places >= 0) & (places < len(profile))]
    if abs(places[-1] - inside) < 2:
        return None
    values = np.minimum(profile[places], level)
    ground = float(values[-2:].max() if len(values) > 4 else values[-1])
    low = float(values.min())
    crossings = []
    solid = np.flatnonzero(values[: depth + 1] >= low + 0.75 * (level - low))
    for share in (0.75, 0.5, 0.25):
        wanted = low + share * (level - low)
        below = np.flatnonzero(values < wanted)
        if not solid.size or not (below > solid[-1]).any():
            return None
        i = below[below > solid[-1]][0]
        part = float((values[i - 1] - wanted) / (values[i - 1] - values[i]))
        crossings.append(float(places[i - 1]) + step * part)
    if ground > level - CLEAR * (level - low) * 0.5:
        return None
    rise = abs(crossings[2] - crossings[0])
    return (crossings[1], rise) if rise <= _MAX_RISE else None


def outlined_boxes(lines: list[Candidate]) -> Iterator[Candidate]:
    """Yield the outlined boxes, of which `lines` are the upper and the lower side."""
    with_ends = [each for each in lines if each.bar.kind == "line with ticks"]
    for upper in with_ends:
        for lower in with_ends:
            top, left, above, right = upper.bar.box
            below, start, bottom, end = lower.bar.box
            if (
                upper.sign == lower.sign
                and abs(left - start) <= END_SHIFT
                and abs(right - end) <= END_SHIFT
                and above < below
                and (right - left) >= _MIN_ASPECT * (bottom - top)
                and (above - top) + (bottom - below) <= (bottom - top) / 2
                and not any(_is_within(each, upper, lower) for each in lines)
            ):
                length = (upper.bar.length + lower.bar.length) / 2
                error = max(upper.bar.error, lower.bar.error)
                box = (top, min(left, start), bottom, max(right, end))
                bar = ScaleBar(round(length, 2), error, box, "box")
                yield Candidate(bar, upper.sign, upper.score + lower.score)


def _is_within(line: Candidate, upper: Candidate, lower: Candidate) -> bool:
    """Return whether a line is as high as the box between two others, which are its frame."""
    top, left, bottom, right = line.bar.box
    return (
        line.sign != upper.sign
        and abs(top - upper.bar.box[2]) <= 1
        and abs(bottom - lower.bar.box[0]) <= 1
        and left >= upper.bar.box[1] - FAR
        and right <= upper.bar.box[3] + FAR
    )
