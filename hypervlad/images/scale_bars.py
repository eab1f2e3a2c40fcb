"""Detection of scale bars that are drawn into an image or into its information bar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from hypervlad.images.banner import as_8bit_colour, as_8bit_grey

# Grey levels, of 255, that separate bars from what is around them: one of them lies between the
# two levels, with a margin, if they differ by more than the step.
_LEVELS = tuple(range(32, 250, 16))
# Shortest bar in pixels, longest one as a share of the width, and its length over its height.
_MIN_LENGTH, _MAX_SHARE, _MIN_ASPECT = 24, 0.7, 2.5
_END_SHIFT = 2  # by which the ends of adjacent rows of a bar may differ, in pixels
_MIN_CONTRAST = 40
# Deviation of levels along a bar, as a share of its contrast, and in grey levels.
_MAX_DEVIATION, _MIN_DEVIATION, _LONG = 0.08, 3, 40
# Deviation of differences between neighbouring pixels of a wire, 1.4 times its noise: in grey
# levels, and as a share of that beside it.
_MIN_NOISE, _NOISE_SHARE = 5, 0.75
# Shares of the columns in which a bar is above and below, and of the rows in which it is on the
# left and on the right, at least this part of its contrast away from its surroundings.
_CLEAR_SHARE, _CLEAR, _RULER_SHARE = 0.85, 0.4, 0.5
_TICK_WIDTH, _HEAD_WIDTH = 5, 12  # columns at an end, of a tick and of an arrow's head
_FAR = 3  # pixels from an edge to the surroundings, beyond the blur of an enlarged image
_MAX_COLOUR_ERROR = 1.5  # of the length of a bar that only its colour tells, in pixels
_MAX_RISE = 2.5  # pixels in which an edge rises from a quarter to three quarters
_MAX_TILT = 0.75  # pixels by which the first and the last third of a horizontal edge may differ
_MAX_TICK = 0.5  # longest tick, as a share of the length of a line
# Rows of dots or ticks
_MIN_DOTS, _MAX_DOTS, _MAX_DOT, _MIN_FILL = 6, 200, (40, 12), 0.6
_N_WIDTHS, _N_ROWS = 2**6, 2**32  # more than dots and images have
_MIN_PITCH, _PITCH_ERROR, _PITCH_ERROR_SHARE = 5, 2.0, 0.15
# A line is of the sample if so many others are of its level, within so many grey levels, and fill
# so much of their boxes.
_N_ALIKE, _SAME, _FILLED = 2, 8, 0.7
_APART = 8  # rows between two bars, if one is below the other
# Levels of dots, and whether they are above (1) or below (-1).
_LOOKS = tuple((level, sign) for level in _LEVELS[::2] for sign in (1, -1))
_BAND = 2**22  # pixels, of all levels, that are searched at a time

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

    A bar is horizontal and of one level or colour, with sharp straight edges and free ends, also
    within a frame or a box. What it means is not read. A line with the noise of
    its surroundings, of about four grey levels of 256 or more, is no bar but a wire. Without noise,
    such as where they are saturated, one or two wires may be taken for a bar, of more none is.

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
    return next(scale_bars_of(image), None)


def scale_bars_of(image: NDArray[Any]) -> Iterator[ScaleBar]:
    """Yield all scale bars of an image, such as those of insets, the clearest first."""
    image = np.asarray(image)
    grey, candidates = as_8bit_grey(image), list[_Candidate]()
    # A bar in colour may be as bright as what is around it. In a JPEG, colours are less sharp.
    levels = [grey] if image.ndim == 2 else [grey, as_8bit_colour(image)]
    for each in levels if min(grey.shape) >= _MIN_LENGTH else ():
        lines, before = _whole(each, _lines(each)), list(candidates)
        for own in (*_boxes(lines), *lines, *_rows_of_dots(each)):
            is_sharp = each is grey or own.bar.error <= _MAX_COLOUR_ERROR
            if is_sharp and not any(_is_of(own.bar, other.bar) for other in before):
                candidates.append(own)
    found, of_sample = list[ScaleBar](), dict[tuple[int, int], bool]()  # by sign and thickness
    for bar, sign, _ in sorted(candidates, key=lambda each: -each.score):
        if any(_is_of(bar, each) for each in found):
            continue
        if bar.error == np.inf:
            found.append(bar)
            continue
        kind = sign, bar.box[2] - bar.box[0]
        if bar.kind == "line" and kind not in of_sample:
            of_sample[kind] = any(_is_of_sample(each, bar) for each in levels)
        if bar.kind != "line" or not of_sample[kind]:
            found.append(bar)
            yield bar


def _is_of(bar: ScaleBar, other: ScaleBar) -> bool:
    """Return whether a bar is found again: at another level, or its frame, ticks or dots."""
    top, left, bottom, right = other.box
    rows = top - _APART < bar.box[2] and bar.box[0] < bottom + _APART
    return rows and bar.box[1] < right and left < bar.box[3]


# --- lines -----------------------------------------------------------------------------------


def _lines(grey: Grey) -> list[_Candidate]:
    values = {1: grey, -1: -grey}
    found = dict.fromkeys(each for level in _LEVELS for each in _rectangles(grey, level))
    lines = (_line(values[sign], sign, box) for sign, box in found)
    return [each for each in lines if each is not None]


def _whole(grey: Grey, lines: list[_Candidate]) -> list[_Candidate]:
    """Return lines, and instead of the parts of bars that alternate between two colours these bars.

    The ends are not known, and the error is infinite, if not all parts differ from what is around.
    """
    boxes = np.array([each.bar.box for each in lines], np.int_).reshape(-1, 4)
    top, left, bottom, right = boxes.T
    sign, length = np.array([each.sign for each in lines], np.int_), right - left
    starts = KDTree(np.stack([top, bottom, left, length], axis=1))
    pairs = set[tuple[int, int]]()
    for shift, colour in ((0, -1), (length, 1)):  # one of the other colour follows, or a gap
        ends = KDTree(np.stack([top, bottom, right + shift, length], axis=1))
        for i, near in enumerate(ends.query_ball_tree(starts, _END_SHIFT, p=np.inf)):
            pairs |= {(i, j) for j in near if sign[i] * sign[j] == colour}
    first, second = np.array(sorted(pairs), np.int_).reshape(-1, 2).T
    links = csr_array((np.ones(len(first)), (first, second)), shape=(len(lines),) * 2)
    _, labels = connected_components(links, False)
    found = list[_Candidate]()
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        best = max((lines[i] for i in own), key=lambda each: each.score)
        box = *boxes[own, :2].min(axis=0).tolist(), *boxes[own, 2:].max(axis=0).tolist()
        both = len(set(sign[own])) == 2
        is_part = both or np.isin(own, first).any()
        if is_part:
            goes_on = _goes_on(grey, box, int(np.median(length[own])), 1 if both else 2)
            error = max(best.bar.error, 0.5) if both and not goes_on else np.inf
            bar = ScaleBar(float(box[3] - box[1]), error, box, "line")
            found.append(best._replace(bar=bar))
        else:
            found += [lines[i] for i in own]
    return found


def _goes_on(grey: Grey, box: Box, length: int, n: int) -> bool:
    """Return whether a flat part follows an end that is none of a label around the bar.

    It differs from what is above and below, or the `n`-th part is of a level of the bar.
    """
    top, left, bottom, right = box
    profile = np.median(grey[top:bottom], axis=0)
    levels = profile[left + length // 2 : right : length]
    beside = grey[[max(top - _FAR, 0), min(bottom + _FAR - 1, len(grey) - 1)]]
    for start, step in ((left - length, -length), (right, length)):
        near, far = (slice(at + _FAR, at + length - _FAR) for at in (start, start + (n - 1) * step))
        is_flat, is_alike = (
            0 < each.start < each.stop < len(profile) and profile[each].std() <= _MIN_DEVIATION
            for each in (near, far)
        )
        if is_flat:
            level = profile[near].mean()
            is_apart = np.abs(beside[:, near].mean(axis=1) - level).min() > _SAME
            if is_apart or (is_alike and np.abs(levels - profile[far].mean()).min() <= _SAME):
                return True
    return False


def _is_of_sample(grey: Grey, bar: ScaleBar) -> bool:
    """Return whether there are others of the level and the thickness of a line, as of wires."""
    top, left, bottom, right = bar.box
    step = max(1, (bottom - top) // 2)
    thick, length = (bottom - top) / step, (right - left) / step
    level = np.median(grey[top:bottom, left:right])
    labels, _ = ndimage.label(np.abs(grey[::step, ::step] - level) <= _SAME)
    windows = ndimage.find_objects(labels)
    edges = np.array([[r.start, r.stop, c.start, c.stop] for r, c in windows]).reshape(-1, 4).T
    tall, wide = edges[1] - edges[0], edges[3] - edges[2]
    area = np.bincount(labels.ravel())[1:]
    apart = np.maximum(edges[0] * step - bottom, top - edges[1] * step) > bottom - top
    alike = apart & (2 * wide >= length) & (area >= _FILLED * tall * wide)
    alike &= (2 * tall + 1 >= thick) & (tall <= 2 * thick + 1)
    alike &= (edges[0] > 0) & (edges[1] < labels.shape[0])  # a box with text
    alike &= np.abs(wide - length) > 2  # the bars of the panels of a figure are of one length
    return bool(alike.sum() >= _N_ALIKE)


def _bands(grey: Grey, n_looks: int = 1) -> list[slice]:
    """Return the rows that are searched at a time, few enough to need little memory."""
    n_rows = max(1, _BAND // (n_looks * grey.shape[1]))
    return [slice(start, start + n_rows) for start in range(0, len(grey), n_rows)]


def _rectangles(grey: Grey, level: float) -> list[tuple[int, Box]]:
    """Return the sign and the box of adjacent rows that cross a level at the same two columns."""
    height, width = grey.shape
    runs = np.concatenate([_flat_runs(grey, level, rows) for rows in _bands(grey)], axis=1)
    row, left, right, sign = runs
    # A run has at most one above it whose ends are as near: those of one row are apart.
    places = row * width + left
    above = np.searchsorted(places, places - width + 2 * _END_SHIFT, "right") - 1
    continues = (row[above] == row - 1) & (sign[above] == sign)
    number = np.arange(len(row))
    first, starts, ends, over = (each.tolist() for each in (number, left, right, above))
    for i in np.flatnonzero(continues).tolist():
        one = first[over[i]]
        if abs(starts[i] - starts[one]) <= _END_SHIFT and abs(ends[i] - ends[one]) <= _END_SHIFT:
            first[i] = one
    bottom = row + 1
    np.maximum.at(bottom, first, row + 1)
    boxes = np.stack([row, left, bottom, right, sign])[:, first == number]
    # Most are hardly brighter or darker than what is above and below: a sample tells.
    top, left, bottom, right, sign = boxes
    around = np.stack([top - _FAR, top - 2, bottom + 1, bottom + 2]).clip(0, height - 1)
    inside, *outside = _samples(grey, np.stack([(top + bottom) // 2, *around]), left, right)
    contrast = np.median(inside, axis=0) - np.median(np.concatenate(outside), axis=0)
    chosen = boxes[:, sign * contrast >= _MIN_CONTRAST / 2].T.tolist()
    return [(side, (y, x, end, stop)) for y, x, end, stop, side in chosen]


def _flat_runs(grey: Grey, level: float, rows: slice) -> NDArray[np.int_]:
    """Return row, start, end and sign of level runs of pixels beyond a level, (4, n), in order."""
    part, width = grey[rows], grey.shape[1]
    above = (part > np.float32(level)).ravel()
    steps = np.flatnonzero(above[1:] != above[:-1]) + 1
    length = np.diff(steps)
    fits = (length >= _MIN_LENGTH) & (length <= _MAX_SHARE * width)
    first, length = steps[:-1][fits], length[fits]
    row, left = np.divmod(first, width)
    sign = np.where(above[first], 1, -1)
    runs = np.stack([row + rows.start, left, left + length, sign])
    row, left, right, sign = runs = runs[:, (left > 0) & (runs[2] < width)]
    # Both ends are steps, and the run between them is flat: the rest need not be looked at.
    inside = _samples(grey, row, left, right)
    beside = np.maximum(left - _FAR, 0), np.minimum(right + _FAR - 1, width - 1)
    contrast = sign * (inside.mean(axis=0) - grey[row, beside])
    fits = contrast.min(axis=0) >= _CLEAR * _MIN_CONTRAST
    limit = np.maximum(2 * _MIN_DEVIATION, 2 * _MAX_DEVIATION * contrast.max(axis=0))
    found: NDArray[np.int_] = runs[:, fits & (inside.std(axis=0) <= limit)]
    return found


def _samples(
    grey: Grey, row: NDArray[np.int_], left: NDArray[np.int_], right: NDArray[np.int_]
) -> Grey:
    """Return grey levels between the ends of runs, without ticks: of rows (..., n) (..., 16, n)."""
    parts = np.arange(16)[:, None] * (right - left - 1 - 2 * _TICK_WIDTH)
    levels: Grey = grey[row[..., None, :], left + _TICK_WIDTH + parts // 15]
    return levels


def _line(values: Grey, sign: int, box: Box) -> _Candidate | None:
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
        values[max(top - _FAR, 0) : max(top - 1, 0), left:right],
        values[bottom + 1 : bottom + _FAR, left:right],
        values[top:bottom, max(left - _FAR, 0) : left - 1].T,
        values[top:bottom, right + 1 : right + _FAR].T,
    ]
    if not all(each.size for each in around[:2]):
        return None
    level = _median(core)
    contrast = level - _median(np.concatenate([each.ravel() for each in around]))
    if contrast < _MIN_CONTRAST:
        return None
    deviation = _median(core.std(axis=1))
    if deviation > max(_MIN_DEVIATION, _MAX_DEVIATION * contrast * min(1, length / _LONG)):
        return None
    if height == 1 and abs(_median(around[0]) - _median(around[1])) > contrast / 2:
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
    # A wire is as noisy as what is above or below; a bar that was drawn is not.
    third = height // 3
    bands = (top + third, bottom - third), (top - 8, top - _FAR), (bottom + _FAR, bottom + 8)
    rows = (np.arange(*each).clip(0, len(values) - 1) for each in bands)
    noise, *beside = (np.diff(inner[each]).std() for each in rows)
    if noise > max(_MIN_NOISE, _NOISE_SHARE * max(beside)):
        return None
    upper, start, lower, end = (place for place, _ in edges)
    error = max(float(np.hypot(edges[1][1], edges[3][1]) / 2), 0.3)
    kind = "line with ticks" if is_ticked else "line"
    places = round(upper), round(start), round(lower), round(end)
    bar = ScaleBar(round(end - start, 2), round(error, 2), places, kind)
    score = contrast / 255 * np.prod(clear) * (1 - deviation / contrast)
    return _Candidate(bar, sign, float(score))


def _median(values: Grey) -> float:
    """Return the median of a few values, in a fifth of the time of `numpy.median`."""
    ordered = np.sort(values, axis=None)
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


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
    small = []
    for band in _bands(grey, len(_LOOKS)):
        start = max(band.start - 1, 0)  # objects that start in the band are whole in this part
        looks, objects = _small_objects(grey[start : band.stop + _MAX_DOT[0]])
        objects[:, ::2] += start
        is_own = (objects[:, 0] >= band.start) & (objects[:, 0] < band.stop)
        small.append(np.column_stack([objects, looks])[is_own])
    objects = np.concatenate(small)
    signs = np.array([sign for _, sign in _LOOKS])[objects[:, 4]]
    # They are separated from what is on the left and on the right.
    rows, columns = objects[:, :4:2].sum(axis=1) // 2, objects[:, 1:4:2].sum(axis=1) // 2
    left, right = objects[:, 1] - _FAR, objects[:, 3] + _FAR - 1
    beside = grey[rows, [np.maximum(left, 0), np.minimum(right, grey.shape[1] - 1)]]
    contrast = signs * (grey[rows, columns] - beside)
    objects = objects[contrast.min(axis=0) >= _MIN_CONTRAST]
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
            for i in np.flatnonzero((sizes >= _MIN_DOTS) & (sizes <= _MAX_DOTS)):
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
) -> _Candidate | None:
    """Return the longest regular row of dots of equal widths; None if that is no scale bar.

    All `boxes`, (4, n), are in the order of their `keys`.
    """
    row = group[_longest_row(group, _MAX_SHARE * grey.shape[1])]
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
    return _Candidate(bar, sign, clarity * min(1, len(x) / 11))


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
    if contrast < _MIN_CONTRAST or inside.std() > max(_MIN_DEVIATION, _MAX_DEVIATION * contrast):
        return None
    middle_level = float(np.median(inside)) - _CLEAR * contrast
    # One more beyond an end was not separated from what it touches.
    beyond = [int(at) for at in (x[0] - pitch, x[-1] + pitch) if 0 <= at < len(profile)]
    if (between > middle_level).any() or (highest[beyond] > middle_level).any():
        return None
    return contrast / 255 * (1 - float(inside.std()) / contrast)
