"""Detection of scale bars that are drawn into an image or into its information bar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.images.banner import as_8bit_grey

# Grey levels, of 255, that separate bars from what is around them: one of them lies between the
# two levels, with a margin, if they differ by more than the step.
_LEVELS = tuple(range(32, 250, 16))
# Shortest bar in pixels, longest one as a share of the width, and its length over its height.
_MIN_LENGTH, _MAX_SHARE, _MIN_ASPECT = 24, 0.7, 2.5
_END_SHIFT = 2  # by which the ends of adjacent rows of a bar may differ, in pixels
_MIN_CONTRAST = 40
# Deviation of levels along a bar, as a share of its contrast, and in grey levels.
_MAX_DEVIATION, _MIN_DEVIATION, _LONG = 0.08, 3, 40
# Shares of the columns in which a bar is above and below, and of the rows in which it is on the
# left and on the right, at least this part of its contrast away from its surroundings.
_CLEAR_SHARE, _CLEAR, _RULER_SHARE = 0.85, 0.4, 0.5
_TICK_WIDTH, _HEAD_WIDTH = 5, 12  # columns at an end, of a tick and of an arrow's head
_FAR = 3  # pixels from an edge to the surroundings, beyond the blur of an enlarged image
_MAX_RISE = 2.5  # pixels in which an edge rises from a quarter to three quarters
_MAX_TILT = 0.75  # pixels by which the first and the last third of a horizontal edge may differ
_MAX_TICK = 0.5  # longest tick, as a share of the length of a line
# Rows of dots or ticks
_MIN_DOTS, _MAX_DOT, _MIN_FILL = 6, (40, 12), 0.6
_MIN_PITCH, _PITCH_ERROR, _PITCH_ERROR_SHARE = 5, 2.0, 0.15

Grey: TypeAlias = NDArray[np.float32]
Box: TypeAlias = tuple[int, int, int, int]  # as in `ScaleBar`
Edge: TypeAlias = tuple[float, float]  # its place, and in how many pixels it rises


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar that `find_scale_bar` found.

    Attributes
    ----------
    length : float
        In pixels: from one end to the other, of dots or ticks without a line from the centre of the
        first to that of the last.
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


class _Candidate(NamedTuple):
    bar: ScaleBar
    sign: int  # 1 if brighter than its surroundings, otherwise -1
    score: float


def find_scale_bar(image: NDArray[Any]) -> ScaleBar | None:
    """Find the scale bar that is drawn into an image, anywhere; None if there is none.

    A bar is horizontal and of one level, with sharp straight edges and free ends. It is black,
    white or grey, with or without a frame or a box around it. What it means is not read.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, 3)
        Pixels of any real type, all finite.

    Returns
    -------
    scale_bar : ScaleBar or None
        The clearest one, if there are several.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.images import find_scale_bar
    >>> image = np.random.default_rng(0).integers(60, 120, (120, 160), dtype=np.uint8)
    >>> image[100:104, 90:140] = 255
    >>> bar = find_scale_bar(image)
    >>> round(bar.length), bar.box, bar.kind
    (50, (100, 90, 104, 140), 'line')
    """
    grey = as_8bit_grey(np.asarray(image))
    if min(grey.shape) < _MIN_LENGTH:
        return None
    lines = list(_lines(grey))
    candidates = [*_boxes(lines), *lines, *_rows_of_dots(grey)]
    return max(candidates, key=lambda each: each.score).bar if candidates else None


# --- lines -----------------------------------------------------------------------------------


def _lines(grey: Grey) -> Iterator[_Candidate]:
    done, values = set[tuple[int, Box]](), {1: grey, -1: -grey}
    padded = np.pad(grey.astype(np.float64), ((0, 0), (1, 0)))
    integrals = padded.cumsum(axis=1), (padded**2).cumsum(axis=1)
    for level in _LEVELS:
        for sign, box in _rectangles(grey, integrals, level):
            if (sign, box) not in done:
                done.add((sign, box))
                found = _line(values[sign], sign, box)
                if found is not None:
                    yield found


def _rectangles(
    grey: Grey, integrals: Sequence[NDArray[np.float64]], level: int
) -> Iterator[tuple[int, Box]]:
    """Yield the sign and the box of adjacent rows that cross a level at the same two columns."""
    width = grey.shape[1]
    above = grey > level
    rows, columns = np.nonzero(above[:, 1:] != above[:, :-1])
    is_run = rows[1:] == rows[:-1]
    row, left, right = rows[1:][is_run], columns[:-1][is_run] + 1, columns[1:][is_run] + 1
    length = right - left
    fits = (length >= _MIN_LENGTH) & (length <= _MAX_SHARE * width)
    row, left, right = row[fits], left[fits], right[fits]
    # Both ends are steps, and the run between them is flat: the rest need not be looked at.
    sign, start, end = np.where(above[row, left], 1, -1), left + _TICK_WIDTH, right - _TICK_WIDTH
    sums, squares = ((each[row, end] - each[row, start]) / (end - start) for each in integrals)
    outside = np.stack(
        [
            sign * grey[row, np.maximum(left - _FAR, 0)],
            sign * grey[row, np.minimum(right + _FAR - 1, width - 1)],
        ]
    )
    contrast = sign * sums - outside
    deviation = np.sqrt(np.maximum(squares - sums**2, 0))
    fits = contrast.min(axis=0) >= _CLEAR * _MIN_CONTRAST
    fits &= deviation <= np.maximum(2 * _MIN_DEVIATION, 2 * _MAX_DEVIATION * contrast.max(axis=0))
    open_runs: list[list[int]] = []  # sign, top, left, bottom, right
    runs = (each[fits].tolist() for each in (row, left, right, sign))
    for y, x, stop, side in zip(*runs, strict=True):
        for each in open_runs:
            if each[3] < y:
                yield each[0], (each[1], each[2], each[3], each[4])
        open_runs = [each for each in open_runs if each[3] >= y]
        for each in open_runs:
            if (
                each[0] == side
                and each[3] == y
                and abs(each[2] - x) <= _END_SHIFT
                and abs(each[4] - stop) <= _END_SHIFT
            ):
                each[3] = y + 1
                break
        else:
            open_runs.append([side, y, x, y + 1, stop])
    for each in open_runs:
        yield each[0], (each[1], each[2], each[3], each[4])


def _line(values: Grey, sign: int, box: Box) -> _Candidate | None:
    """Return a rectangle of one level with sharp edges and free ends; None for another one.

    Bars are bright in `values`.
    """
    top, left, bottom, right = box
    length, height = right - left, bottom - top
    if length < _MIN_ASPECT * height or left < 2 or right > values.shape[1] - 2:
        return None
    core = values[top:bottom, left + _TICK_WIDTH : right - _TICK_WIDTH]
    around = [
        values[max(top - _FAR, 0) : max(top - 1, 0), left:right],
        values[bottom + 1 : bottom + _FAR, left:right],
        values[top:bottom, max(left - _FAR, 0) : left - 1].T,
        values[top:bottom, right + 1 : right + _FAR].T,
    ]
    if not all(each.size for each in around[:2]):
        return None
    level, deviation = _median(core), _median(core.std(axis=1))
    contrast = level - _median(np.concatenate([each.ravel() for each in around]))
    limit = _MAX_DEVIATION * contrast * min(1, length / _LONG)
    if contrast < _MIN_CONTRAST or deviation > max(_MIN_DEVIATION, limit):
        return None
    above, below = (_median(each) for each in around[:2])
    if height == 1 and abs(above - below) > contrast / 2:
        return None  # a bright rim, not a thin line
    is_ticked = _has_ticks(values, box, level - contrast / 2)
    if is_ticked is None:
        return None
    if is_ticked:
        around[:2] = [each[:, _TICK_WIDTH:-_TICK_WIDTH] for each in around[:2]]
    clear = [float((level - each.mean(axis=0) >= _CLEAR * contrast).mean()) for each in around]
    # A ruler has more ticks, on one side.
    is_ruler = is_ticked and length >= _LONG and max(clear[:2]) == 1
    shares = [_RULER_SHARE if is_ruler else _CLEAR_SHARE] * 2 + [_CLEAR_SHARE] * 2
    edges = _edges(values, box, level)
    if edges is None or any(each < share for each, share in zip(clear, shares, strict=True)):
        return None
    upper, start, lower, end = (place for place, _ in edges)
    error = max(float(np.hypot(edges[1][1], edges[3][1]) / 2), 0.3)
    kind = "line with ticks" if is_ticked else "line"
    places = round(upper), round(start), round(lower), round(end)
    bar = ScaleBar(round(end - start, 2), round(error, 2), places, kind)
    score = contrast / 255 * np.prod(clear) * (1 - deviation / contrast)
    return _Candidate(bar, sign, float(score))


def _median(values: NDArray[np.float32]) -> float:
    """Return what `numpy.median` does, of few values in a fifth of the time."""
    ordered = np.sort(values, axis=None)
    middle = len(ordered) // 2
    return float((ordered[middle] + ordered[~middle]) / 2)


def _has_ticks(values: Grey, box: Box, level: float) -> bool | None:
    """Return whether a line has ticks at its ends; None for an arrow, an axis or a frame."""
    ticks, heads = (_tick_lengths(values, box, level, n) for n in (_TICK_WIDTH, _HEAD_WIDTH))
    longest = _MAX_TICK * (box[3] - box[1])
    is_arrow = (heads > 0).all(axis=0).sum() == 1
    is_frame = ticks.min(axis=1).max() > longest
    is_axis = np.ptp(ticks, axis=1).max() > longest
    return None if is_arrow or is_frame or is_axis else bool((ticks > 0).all(axis=1).any())


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
    first = max(start - 2 * _FAR, 0)
    profile = np.median(values[first : stop + 2 * _FAR, across], axis=1)
    one = _edge(profile, start - first, -1, depth, level)
    other = _edge(profile, stop - 1 - first, 1, depth, level)
    if one is None or other is None:
        return None
    return (one[0] + first + 0.5, one[1]), (other[0] + first + 0.5, other[1])


def _edge(profile: Grey, inside: int, step: int, depth: int, level: float) -> Edge | None:
    """Return where a profile falls to the middle of an edge, and in how many pixels it falls.

    None if it does not fall within a few pixels.
    """
    places = np.arange(inside - step * depth, inside + step * (_FAR + 2), step)
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
    if ground > level - _CLEAR * (level - low) * 0.5:
        return None
    rise = abs(crossings[2] - crossings[0])
    return (crossings[1], rise) if rise <= _MAX_RISE else None


def _boxes(lines: list[_Candidate]) -> Iterator[_Candidate]:
    """Yield the outlined boxes, of which `lines` are the upper and the lower side."""
    with_ends = [each for each in lines if each.bar.kind == "line with ticks"]
    for upper in with_ends:
        for lower in with_ends:
            top, left, above, right = upper.bar.box
            below, start, bottom, end = lower.bar.box
            if (
                upper.sign == lower.sign
                and abs(left - start) <= _END_SHIFT
                and abs(right - end) <= _END_SHIFT
                and above < below
                and (right - left) >= _MIN_ASPECT * (bottom - top)
                and (above - top) + (bottom - below) <= (bottom - top) / 2
                and not any(_is_within(each, upper, lower) for each in lines)
            ):
                length = (upper.bar.length + lower.bar.length) / 2
                error = max(upper.bar.error, lower.bar.error)
                box = (top, min(left, start), bottom, max(right, end))
                bar = ScaleBar(round(length, 2), error, box, "box")
                yield _Candidate(bar, upper.sign, upper.score + lower.score)


def _is_within(line: _Candidate, upper: _Candidate, lower: _Candidate) -> bool:
    """Return whether a line fills the box between two others, which are its frame."""
    top, left, bottom, right = line.bar.box
    return (
        line.sign != upper.sign
        and abs(top - upper.bar.box[2]) <= 1
        and abs(bottom - lower.bar.box[0]) <= 1
        and abs(left - upper.bar.box[1]) <= _FAR
        and abs(right - upper.bar.box[3]) <= _FAR
    )


# --- dots and ticks --------------------------------------------------------------------------


def _rows_of_dots(grey: Grey) -> Iterator[_Candidate]:
    for level in _LEVELS[::2]:
        for sign in (1, -1):
            yield from _dots_at(sign * grey, sign, sign * level)


def _dots_at(values: Grey, sign: int, level: int) -> Iterator[_Candidate]:
    labels, n_found = ndimage.label(values > level)
    if not n_found:
        return
    objects = ndimage.find_objects(labels)
    boxes = np.array([[s[0].start, s[1].start, s[0].stop, s[1].stop] for s in objects])
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas = np.bincount(labels.ravel(), minlength=n_found + 1)[1:]
    fits = (
        (heights <= _MAX_DOT[0])
        & (widths <= _MAX_DOT[1])
        & (heights >= 2)
        & (areas >= _MIN_FILL * heights * widths)
    )
    boxes = boxes[fits]
    # They are separated from what is on the left and on the right.
    rows, columns = boxes[:, ::2].sum(axis=1) // 2, boxes[:, 1::2].sum(axis=1) // 2
    last = values.shape[1] - 1
    beside = np.maximum(
        values[rows, np.maximum(boxes[:, 1] - _FAR, 0)],
        values[rows, np.minimum(boxes[:, 3] + _FAR - 1, last)],
    )
    boxes = boxes[values[rows, columns] - beside >= _MIN_CONTRAST]
    for edge in (0, 2):  # of all dots, the upper or the lower edge is in one row
        order = np.lexsort((boxes[:, 1], boxes[:, edge]))
        ordered = boxes[order]
        starts = np.flatnonzero(np.diff(ordered[:, edge], prepend=-9))
        for group in np.split(ordered, starts[1:]):
            if _MIN_DOTS <= len(group) <= 200:
                found = _regular(values, sign, group, boxes)
                if found is not None:
                    yield found


def _regular(
    values: Grey, sign: int, group: NDArray[np.int_], boxes: NDArray[np.int_]
) -> _Candidate | None:
    """Return the longest regular row of dots of equal widths; None if that is no scale bar."""
    row = group[_longest_row(group, _MAX_SHARE * values.shape[1])]
    if not len(row):
        return None
    height, width = np.median(row[:, 2:] - row[:, :2], axis=0)
    if width > height + 1:  # dashes
        return None
    x, numbers = row[:, [1, 3]].sum(axis=1) / 2, np.arange(len(row))
    fit = np.polyfit(numbers, x, 1)
    pitch = float(fit[0])
    # Another row of such dots nearby belongs to a lattice.
    corners, reach = (row[:, :2].min(axis=0), row[:, 2:].max(axis=0)), 3 * pitch
    alike = np.abs(boxes[:, 2:] - boxes[:, :2] - (height, width)).max(axis=1) <= 1
    near = (boxes[:, :2] >= corners[0] - reach) & (boxes[:, 2:] <= corners[1] + reach)
    if (alike & near.all(axis=1)).sum() > len(row) + 2:
        return None
    clarity = _clarity(values[int(np.median(row[:, 0])) : int(np.median(row[:, 2]))], x, pitch)
    if clarity is None:
        return None
    spread = float(np.std(x - np.polyval(fit, numbers)))
    error = max(0.3, spread * np.sqrt(12 / len(x)))
    (top, left), (bottom, right) = (each.tolist() for each in corners)
    box = top, left, bottom, right
    bar = ScaleBar(round(float(x[-1] - x[0]), 2), round(float(error), 2), box, "dots")
    return _Candidate(bar, sign, clarity * min(1, len(x) / 11))


def _longest_row(group: NDArray[np.int_], longest: float) -> NDArray[np.int_]:
    """Return the numbers of the most dots of about one width and pitch; none if below six."""
    centres, widths = group[:, [1, 3]].sum(axis=1) / 2, group[:, 3] - group[:, 1]
    best: list[int] = []
    for i in range(len(group) - _MIN_DOTS + 1):
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
    if contrast < _MIN_CONTRAST or inside.std() > max(_MIN_DEVIATION, _MAX_DEVIATION * contrast):
        return None
    middle_level = float(np.median(inside)) - _CLEAR * contrast
    # One more beyond an end was not separated from what it touches.
    beyond = [int(at) for at in (x[0] - pitch, x[-1] + pitch) if 0 <= at < len(profile)]
    if (between > middle_level).any() or (highest[beyond] > middle_level).any():
        return None
    return contrast / 255 * (1 - float(inside.std()) / contrast)
