"""Detection of scale bars that are drawn into an image or into its information bar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from hypervlad.images.banner import as_8bit_colour, as_8bit_grey
from hypervlad.images.bar_lines import (
    END_SHIFT,
    FAR,
    MIN_DEVIATION,
    MIN_LENGTH,
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
_APART = 8  # rows between two bars, if one is below the other


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
    grey, candidates = as_8bit_grey(image), list[Candidate]()
    # A bar in colour may be as bright as what is around it. In a JPEG, colours are less sharp.
    levels = [grey] if image.ndim == 2 else [grey, as_8bit_colour(image)]
    for each in levels if min(grey.shape) >= MIN_LENGTH else ():
        lines, before = _whole(each, straight_lines(each)), list(candidates)
        for own in (*outlined_boxes(lines), *lines, *rows_of_dots(each)):
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


def _whole(grey: Grey, lines: list[Candidate]) -> list[Candidate]:
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
        for i, near in enumerate(ends.query_ball_tree(starts, END_SHIFT, p=np.inf)):
            pairs |= {(i, j) for j in near if sign[i] * sign[j] == colour}
    first, second = np.array(sorted(pairs), np.int_).reshape(-1, 2).T
    links = csr_array((np.ones(len(first)), (first, second)), shape=(len(lines),) * 2)
    _, labels = connected_components(links, False)
    found = list[Candidate]()
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
    beside = grey[[max(top - FAR, 0), min(bottom + FAR - 1, len(grey) - 1)]]
    for start, step in ((left - length, -length), (right, length)):
        near, far = (slice(at + FAR, at + length - FAR) for at in (start, start + (n - 1) * step))
        is_flat, is_alike = (
            0 < each.start < each.stop < len(profile) and profile[each].std() <= MIN_DEVIATION
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
