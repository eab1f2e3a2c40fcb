"""Detection of scale bars that are drawn into an image or into its information bar."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from hypervlad.images.banner import as_8bit_colour, as_8bit_grey
from hypervlad.images.bar_lines import (
    END_SHIFT,
    FAR,
    LEVELS,
    MIN_CONTRAST,
    MIN_LENGTH,
    ONE_END,
    Box,
    Candidate,
    Grey,
    ScaleBar,
    outlined_boxes,
    straight_lines,
)
from hypervlad.images.dot_rows import rows_of_dots

_MAX_COLOUR_ERROR = 1.5  # of the length of a bar that only its colour tells, in pixels
# A line is of the sample if so many others are of its level, within so many grey levels, and fill
# so much of their boxes.
_N_ALIKE, _SAME, _FILLED = 2, 8, 0.7
# Parts of a bar of two colours have at least so many pixels, and rows of one level within a share
# of the contrast. Few of them are multiples of the shortest, and at most so many times longer.
_MIN_PART, _TOLERANCE, _CLEAR_SHARE, _MAX_MISFIT, _MAX_RATIO = 5, 0.08, 0.85, 0.1, 4.5
_MAX_PARTS, _MAX_LINES = 12, 500  # of a bar, and of an image that shows no lattice
# Two lines beside a label are of one length, within so many pixels. It is at most so many times as
# long as one of them.
_MAX_SHIFT, _MAX_GAP = 4, 4
_MIN_UPRIGHT = 0.125  # length of a vertical bar, as a share of the height: letters are shorter
_OF_UPRIGHT = LEVELS[1], LEVELS[-3]  # at which vertical bars are searched: black and white ones
_APART = 8  # rows between two bars, if one is below the other


def find_scale_bar(image: NDArray[Any]) -> ScaleBar | None:
    """Find the scale bar that is drawn into an image, anywhere; None if there is none.

    A bar is of one level or colour, or of parts of two, with sharp straight edges and free ends,
    also within a frame or a box. It is horizontal or, if none is, vertical and white or black. What
    it means is not read. A line with the noise of its surroundings, of about four grey levels of
    256 or more, is no bar but a wire. Without noise, such as where they are saturated, one or two
    wires may be taken for a bar, of more none is.

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
    image, is_found = np.asarray(image), False
    for bar in _horizontal(image, is_turned=False):
        is_found = True
        yield bar
    if is_found:
        return
    for bar in _horizontal(np.ascontiguousarray(image.swapaxes(0, 1)), is_turned=True):
        left, top, right, bottom = bar.box
        if bar.length >= _MIN_UPRIGHT * len(image):
            yield replace(bar, box=(top, left, bottom, right))


def _horizontal(image: NDArray[Any], is_turned: bool) -> Iterator[ScaleBar]:
    """Yield the horizontal bars of an image, the clearest first; no dots in a turned one."""
    grey, candidates = as_8bit_grey(image), list[Candidate]()
    # A bar in colour may be as bright as what is around it. In a JPEG, colours are less sharp.
    levels = [grey] if image.ndim == 2 else [grey, as_8bit_colour(image)]
    for each in levels if min(grey.shape) >= MIN_LENGTH else ():
        lines, before = straight_lines(each, _OF_UPRIGHT if is_turned else LEVELS), list(candidates)
        lines = lines if len(lines) <= _MAX_LINES else []
        wholes = _whole(each, [line for line in lines if line.bar.kind != ONE_END])
        wholes += _interrupted(each, lines)
        dots = () if is_turned else rows_of_dots(each)
        for own in (*outlined_boxes(lines), *wholes, *dots):
            is_sharp = each is grey or own.bar.error <= _MAX_COLOUR_ERROR
            if is_sharp and not any(_is_of(own.bar, other.bar) for other in before):
                candidates.append(own)
    found, of_sample = list[ScaleBar](), dict[tuple[int, int], bool]()  # by sign and thickness
    for bar, sign, _, is_clear in sorted(candidates, key=lambda each: -each.score):
        if any(_is_of(bar, each) for each in found):
            continue
        if not is_clear:
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


def _whole(grey: Grey, lines: list[Candidate]) -> list[Candidate]:
    """Return lines, and instead of the parts of bars that alternate between two colours these bars.

    Not all are clear.
    """
    found = [_with_parts(grey, line) for line in lines]
    boxes = np.array([each.bar.box for each in found], np.int_).reshape(-1, 4)
    in_rows = KDTree(boxes[:, ::2]).query_pairs(END_SHIFT, p=np.inf, output_type="ndarray").T
    (one_start, start), (one_end, end) = boxes[in_rows, 1], boxes[in_rows, 3]
    gap = np.maximum(one_start, start) - np.minimum(one_end, end)
    is_alike = np.equal(*np.array([each.sign for each in found], np.int_)[in_rows])
    is_line = np.array([one is other for one, other in zip(found, lines, strict=True)], bool)
    links = np.where(gap <= END_SHIFT, ~(is_alike & is_line[in_rows].all(axis=0)), is_alike)
    links &= gap <= np.maximum(END_SHIFT, np.maximum(one_end - one_start, end - start))
    pairs = np.ones(links.sum()), in_rows[:, links]
    n, labels = connected_components(coo_array(pairs, shape=(len(found),) * 2), directed=False)
    bars = list[Candidate]()
    for label in range(n):
        own = [found[i] for i in np.flatnonzero(labels == label)]
        own.sort(key=lambda each: each.bar.box[1])
        edges = np.array([each.bar.box for each in own])
        box = *edges[:, :2].min(axis=0).tolist(), *edges[:, 2:].max(axis=0).tolist()
        reach = np.maximum.accumulate(edges[:, 3])
        is_lattice = len(np.unique(edges[:, 1])) > _MAX_PARTS
        is_clear = not is_lattice and bool((edges[1:, 1] <= reach[:-1] + END_SHIFT).all())
        best = max(own, key=lambda each: each.score)
        if len(own) > 1:
            error = max(1.0, *(each.bar.error for each in own))
            is_clear = is_clear and all(each.is_clear for each in own)
            best = best._replace(bar=_bar_of(box, error), is_clear=is_clear)
        bars.append(best)
    return bars


def _with_parts(grey: Grey, line: Candidate) -> Candidate:
    """Return a line with the parts of another and of its own colour that follow its ends."""
    top, left, bottom, right = line.bar.box
    (before, is_open), (after, goes_on) = (_parts_beside(grey, line, step) for step in (-1, 1))
    parts = np.array([*before, right - left, *after])
    ratios = parts / parts.min()
    is_on_ground = len(before) == len(after) == 1 and 2 * max(*before, *after) < right - left
    is_mark = len(parts) == 2 and ratios.max() > _MAX_RATIO
    if len(parts) == 1 or is_on_ground or is_mark:
        before, after = [], []
    elif len(parts) <= 3 and np.abs(ratios - ratios.round()).max() > _MAX_MISFIT:
        is_open = True  # perhaps only a ground of the height of the bar
    if not (before or after or is_open or goes_on):
        return line
    box = top, left - sum(before), bottom, right + sum(after)
    bar, is_clear = _bar_of(box, max(line.bar.error, 1.0)), not (is_open or goes_on)
    return line._replace(bar=bar, is_clear=is_clear)


def _bar_of(box: Box, error: float, kind: str = "line") -> ScaleBar:
    return ScaleBar(float(box[3] - box[1]), error, box, kind)


def _parts_beside(grey: Grey, line: Candidate, step: int) -> tuple[list[int], bool]:
    """Return the lengths of the parts of a bar beyond an end of a line.

    They are flat, and differ from what is above and below. True if there are others that cannot be
    told from what is around.
    """
    top, left, bottom, right = line.bar.box
    columns = slice(right, None) if step > 0 else slice(left - 1, None, -1)
    rows = [max(top - FAR, 0), min(bottom + FAR - 1, len(grey) - 1)]
    third = (bottom - top) // 3
    values, beside = grey[top + third : bottom - third, columns], grey[rows, columns]
    levels = [np.median(grey[top + third : bottom - third, left:right], axis=1)]
    tolerance = max(_SAME, _TOLERANCE * float(np.abs(levels[0][:, None] - values[:, :3]).max()))
    lengths, gap, start, width = list[int](), 0, 0, values.shape[1]
    while start + _MIN_PART < width and len(levels) <= _MAX_PARTS:
        level = np.median(values[:, start + 2 : start + _MIN_PART], axis=1)
        reach = min(start + round(_MAX_RATIO * _MAX_RATIO * (right - left)), width)
        off = (np.abs(values[:, start + 2 : reach] - level[:, None]) > tolerance).any(axis=0)
        stop = start + 2 + int(off.argmax()) if off.any() else width
        is_known = len(levels) == 1 or np.abs(level - levels[-2]).max() <= 2 * tolerance
        if stop - start < _MIN_PART or stop > width - 2 or not is_known:
            break  # what reaches the rim is a ground
        differences = level.mean() - beside[:, start + 2 : stop - 1]
        apart = max(
            np.quantile((sign * differences).min(axis=0), 1 - _CLEAR_SHARE) for sign in (1, -1)
        )
        is_apart, is_long = apart > _SAME, _MAX_RATIO * (stop - start) >= right - left
        is_doubtful = is_apart and is_long and apart < MIN_CONTRAST / 2
        if gap or is_doubtful or (lengths and not is_apart and len(levels) % 2 == 0):
            return lengths, bool((is_apart and is_long) or not gap)
        rise = np.abs(values[:, stop : stop + 3] - level[:, None]).mean(axis=0)
        end = stop + int((rise >= rise[-1] / 2).argmax())
        if is_apart:
            lengths.append(end - start)
        elif end - start > _MAX_RATIO * (right - left):
            break
        else:
            gap = end - start
        levels.append(level)
        start = end
    return lengths, False


def _interrupted(grey: Grey, lines: list[Candidate]) -> Iterator[Candidate]:
    """Yield bars that are lines on the left and on the right of their label, on a flat ground."""
    rows = defaultdict[tuple[int, ...], dict[tuple[int, int], Candidate]](dict)
    for line in lines:
        top, left, bottom, right = line.bar.box
        rows[line.sign, top, bottom][left, right] = line
    for (sign, top, bottom), row in rows.items():
        for (left, start), (stop, right) in combinations(sorted(row), 2):
            gap, length = stop - start, start - left
            if not 0 < gap <= _MAX_GAP * length or abs(right - stop - length) > _MAX_SHIFT:
                continue
            around = grey[[max(top - FAR, 0), min(bottom + FAR, len(grey)) - 1], left:right]
            beside = np.delete(around, np.s_[length : length + gap], axis=1)
            ground, level = np.median(beside), np.median(grey[top:bottom, left:start])
            is_ink = sign * (grey[top:bottom, start + 2 : stop - 2] - (ground + level) / 2) > 0
            ink = np.flatnonzero(is_ink.any(axis=0))
            is_flat = (np.abs(beside - ground) <= 2 * _SAME).mean() >= _CLEAR_SHARE
            if (
                is_flat
                and ink.size
                and ink[0] > 0
                and abs(ink[0] + ink[-1] - (gap - 5)) <= 2 * _MAX_SHIFT
            ):
                one, other = row[left, start], row[stop, right]
                kind = "line" if one.bar.kind == "line" else "line with ticks"
                error = max(one.bar.error, other.bar.error, 1.0)
                bar = _bar_of((top, left, bottom, right), error, kind)
                yield Candidate(bar, sign, one.score + other.score)


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
