"""Letters and arrows that were drawn into an image: of one level, crisp, and unlike the sample."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial, reduce
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hypervlad.images.morphology import EIGHT, Mask, convex_hull, extreme, grown, shrunk
from hypervlad.images.resampling import by_rows

PURE = 8  # grey levels of 255 by which compression changes what is of one
# Letters and arrows are drawn: of one level, within this share of their contrast, crisp, and unlike
# the sample. Levels beyond which they are looked for:
_LEVELS = tuple(range(8, 256, 24))
_STEP, _CLEAR = 40, 0.4  # contrast in levels, of which this share is left so many pixels beside,
REACH, _CRISP = 3, 0.85  # nearly all around
_SHARP = 0.5  # of the range of levels within that reach, which adjacent pixels have
_BETWEEN, _MAX_RISE = 0.3, 2.5  # of the contrast, and pixels in which levels rise by twice that
_EVEN, _SAME_INK = 0.12, 0.15  # deviation within letters, and difference between those of a line
_HEIGHTS = (6, 0.16)  # of letters: in pixels, and as a share of the image's shorter side
_STROKE = 0.4  # of a letter's height: discs are no letters
SOLID = 0.85  # of the convex hull, or less in a third of a line's letters: rods are no letters
_GAP = 1.0  # between letters, in heights
_ALIKE = 2.2  # heights in a line of text
_VARIED = 0.1  # by which sizes of three letters or more differ: rings of a lattice are alike
_MAX_OTHERS = 3  # crisp parts besides single letters, which are in a corner, and arrows
_MIN_ARROW, _MAX_ARROW = 16, 0.4  # length: in pixels, and as a share of the longer side
_HEAD = 1.8  # width of an arrow's head over that of its shaft
_MIN_LEVELS = 4  # of grey: with fewer, the sample is drawn itself
_MIN_EDGE = 10  # pixels of the edge of what is drawn
_MAX_PARTS, _MAX_CRISP = 500, 150  # beyond a level: where there are more, it is the sample's

Grey: TypeAlias = NDArray[np.float32]
Box: TypeAlias = tuple[int, int, int, int]


def letters_and_arrows(grey: Grey) -> tuple[list[Box], list[Box]]:
    """Return the boxes of lines of text, which may overlap, and of arrows, (top, left, ...)."""
    labels, arrows = list[Box](), list[Box]()
    sharp = by_rows(_is_sharp, grey, REACH + 1)
    # Some pixels tell of most images: to sort all of them would take long.
    has_shades = any(len(np.unique(part)) > _MIN_LEVELS for part in (grey[::16, ::16], grey))
    for sign in (1, -1) if has_shades else ():
        at = cache(partial(_drawn, grey, sharp, sign))
        for i, pair in enumerate(pairwise(sign * level for level in _LEVELS)):
            # What is crisp is the same beyond two levels: where one has nothing, none counts.
            if any(at(pair[1 - i % 2])):
                for boxes, last, now in zip((labels, arrows), *map(at, pair), strict=True):
                    boxes += [each for each in now if any(overlap(each, one) for one in last)]
    return labels, arrows


class _Part(NamedTuple):
    """A connected part of an image beyond a level, with crisp edges all around."""

    box: Box
    mask: Mask
    ink: float
    contrast: float

    @property
    def is_pure(self) -> bool:
        return -PURE <= self.ink <= 0 or self.ink >= 255 - PURE


def _is_sharp(grey: Grey) -> Mask:
    """Return the pixels on or beside a step of most of the local range of grey levels."""
    near, far = (
        extreme(grey, reach, np.maximum) - extreme(grey, reach, np.minimum) for reach in (1, REACH)
    )
    is_step = (far >= _STEP) & (near >= _SHARP * far)
    return grown(is_step, corners=True)


def _crisp_parts(grey: Grey, sharp: Mask, sign: int, level: float) -> list[_Part]:
    """Return the parts above a level that may be drawn; none if there are too many, as in noise."""
    above = grey > level if sign > 0 else grey < -level
    inner = above.copy()
    for one, other in ((inner, above), (inner.T, above.T)):
        one[1:-1] &= other[:-2] & other[2:]
    is_edge = np.greater(above, inner, out=inner)
    if not (is_edge & sharp).any():
        return []
    labels, n = ndimage.label(above, EIGHT)
    edges, crisp = np.zeros((2, n + 1), np.intp)
    for places, own in _labelled_places(is_edge, labels):
        edges += np.bincount(own, minlength=n + 1)
        crisp += np.bincount(own[sharp.ravel()[places]], minlength=n + 1)
    is_large = (edges >= _MIN_EDGE) & (crisp >= edges / 2)
    if not 0 < np.count_nonzero(is_large) <= _MAX_PARTS:
        return []
    large, numbers = np.flatnonzero(is_large), np.cumsum(is_large) - 1
    first, last = np.full((2, len(large)), max(grey.shape)), np.zeros((2, len(large)), np.intp)
    for places, own in _labelled_places(is_edge, labels):
        chosen = is_large[own]
        parts = numbers[own[chosen]]
        for axis, at in enumerate(np.divmod(places[chosen], grey.shape[1])):
            np.minimum.at(first[axis], parts, at)  # far faster than of both axes at once
            np.maximum.at(last[axis], parts, at + 1)
    first, last = first.T, last.T
    longest = (last - first).max(axis=1)
    is_inside = (first > 0).all(axis=1) & (last < grey.shape).all(axis=1)
    is_inside &= (longest >= _HEIGHTS[0]) & (longest <= _MAX_ARROW * max(grey.shape))
    if np.count_nonzero(is_inside) > _MAX_CRISP:
        return []
    boxes = map(as_box, np.hstack([first, last])[is_inside])
    found = zip(boxes, large[is_inside].tolist(), strict=True)
    parts = (_part(box, labels, number, grey, sign, above) for box, number in found)
    return [each for each in parts if each is not None]


def _labelled_places(
    mask: Mask, labels: NDArray[np.int_]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int_]]]:
    """Yield the flat indices of the pixels of a mask, and their labels, some at a time."""
    flat, step = labels.ravel(), 1 << 22
    for start in range(0, flat.size, step):
        places = start + np.flatnonzero(mask.ravel()[start : start + step])
        yield places, flat[places]


def _part(
    box: Box, labels: NDArray[np.int_], number: int, grey: Grey, sign: int, above: Mask
) -> _Part | None:
    """Return a part that has one level, and reaches it within few pixels from its surroundings."""
    top, left, bottom, right = box
    window = (
        slice(max(top - REACH, 0), bottom + REACH),
        slice(max(left - REACH, 0), right + REACH),
    )
    own, levels = labels[window] == number, sign * grey[window]
    core, ink = shrunk(own), _quantile(levels[own], 0.75)
    spread = float(levels[core].std()) if core.sum() > 5 else 0.0
    if ink - levels.min() < max(_STEP, spread / _EVEN):  # the highest contrast: this is fast
        return None
    near = grown(own, REACH, corners=True)
    ring = near & ~grown(above[window], REACH - 1, corners=True)
    if not ring.any():
        return None
    ground = _quantile(levels[ring], 0.5)
    contrast = ink - ground
    if contrast < _STEP or (levels[ring] <= ink - max(_STEP, _CLEAR * contrast)).mean() < _CRISP:
        return None
    n_between = np.count_nonzero(near & (np.abs(levels - (ink + ground) / 2) < _BETWEEN * contrast))
    if n_between > _MAX_RISE * np.count_nonzero(own & ~core) or spread > _EVEN * contrast:
        return None
    return _Part(box, labels[top:bottom, left:right] == number, ink, contrast)


def _quantile(values: Grey, share: float) -> float:
    """Return a quantile of few values, of which NumPy's function takes ten times as long."""
    place, rest = divmod(share * (len(values) - 1), 1)
    low, high = np.sort(values)[[int(place), min(int(place) + 1, len(values) - 1)]].tolist()
    return float(low + rest * (high - low))


def _drawn(grey: Grey, sharp: Mask, sign: int, level: float) -> tuple[list[Box], list[Box]]:
    """Return the boxes of text and of arrows; none of what the sample has elsewhere, too."""
    parts, shape = _crisp_parts(grey, sharp, sign, level), grey.shape
    highest = max(_HEIGHTS[1] * min(shape), 2 * _HEIGHTS[0])
    letters = [e for e in parts if _HEIGHTS[0] <= e.box[2] - e.box[0] <= highest]
    letters = [e for e in letters if _stroke(e.mask) <= _STROKE * (e.box[2] - e.box[0])]
    lines = [each for each in _lines_of(letters) if _is_text(each)]
    boxes = [reduce(joined_box, (each.box for each in line)) for line in lines]
    others = _beyond(parts, boxes)
    if len(others) > sum(map(len, lines)):
        boxes, others = [], parts
    alone = [each for each in _beyond(letters, boxes) if _is_in_corner(each.box, shape)]
    alone = [each for each in alone if solidity(each.mask) <= SOLID]
    # Gaps between particles end in tips, too, but they are seldom black or white.
    arrows = [each for each in others if each.is_pure]
    if len(others) - len(alone) - len(arrows) <= _MAX_OTHERS:  # else none needs a look
        arrows = [each for each in arrows if _is_arrow(each.mask)]
    if len(others) - len(alone) - len(arrows) > _MAX_OTHERS:
        return boxes, []
    for top, left, bottom, right in (each.box for each in alone):
        above = top - (bottom - top) // 2, left - 1, bottom, right + 1  # the dot of an "i"
        near = (one.box for one in others if is_within(one.box, above))
        boxes.append(reduce(joined_box, near, (top, left, bottom, right)))
    return boxes, [each.box for each in arrows]


def _beyond(parts: list[_Part], boxes: list[Box]) -> list[_Part]:
    return [each for each in parts if not any(overlap(each.box, box) for box in boxes)]


def _is_in_corner(box: Box, shape: tuple[int, ...]) -> bool:
    reach = 1.5 * max(box[2] - box[0], _HEIGHTS[0])
    beside = min(box[0], shape[0] - box[2]), min(box[1], shape[1] - box[3])
    return max(beside) <= reach


def _lines_of(letters: list[_Part]) -> list[list[_Part]]:
    """Group letters into lines: near, of alike heights, and of one level."""
    if not letters:
        return []
    top, left, bottom, right = np.array([each.box for each in letters]).T[..., None]
    ink, contrast = np.array([each[2:] for each in letters]).T[..., None]
    tall = bottom - top
    overlap = np.minimum(bottom, bottom.T) - np.maximum(top, top.T)
    gap = np.maximum(left, left.T) - np.minimum(right, right.T)
    higher, lower = np.maximum(tall, tall.T), np.minimum(tall, tall.T)
    near = (overlap >= lower / 2) & (gap <= _GAP * higher) & (higher <= _ALIKE * lower)
    near &= np.abs(ink - ink.T) <= _SAME_INK * np.maximum(contrast, contrast.T)
    n, number = connected_components(coo_array(near), directed=False)
    return [[letters[i] for i in np.flatnonzero(number == line)] for line in range(n)]


def _is_text(line: list[_Part]) -> bool:
    """Return whether parts are open as letters, on one line, and not all alike."""
    if len(line) < 2 or sum(solidity(each.mask) <= SOLID for each in line) < len(line) / 3:
        return False
    top, left, bottom, right = np.array([each.box for each in line]).T
    tolerance = max(1, 0.08 * (bottom - top).max())
    heights = np.stack([top, bottom, (top + bottom) / 2])  # the last is that of brackets
    n_aligned = (np.abs(heights[:, None] - heights[..., None]) <= tolerance).sum(axis=2).max()
    differ = [np.ptp(side) > max(1, _VARIED * side.mean()) for side in (bottom - top, right - left)]
    return bool(n_aligned >= max(2, len(line) / 2) and (len(line) < 3 or any(differ)))


def _stroke(mask: Mask) -> float:
    """Return the width of the thickest stroke, in pixels."""
    return 2 * float(ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard").max()) - 1


def solidity(mask: Mask) -> float:
    """Return the share of the convex hull that is covered."""
    return float(mask.sum() / convex_hull(mask).sum())


def _is_arrow(mask: Mask) -> bool:
    points = np.argwhere(mask).astype(float)
    points -= points.mean(axis=0)
    along = points @ np.linalg.svd(points, full_matrices=False)[2][0]
    widths = np.bincount(np.floor(along - along.min()).astype(int)).astype(float)
    n = len(widths)
    if n < _MIN_ARROW:
        return False
    widths = ndimage.uniform_filter1d(widths, 3, mode="nearest")
    widest = int(widths.argmax())
    if widest < n / 2:
        widths, widest = widths[::-1], n - 1 - widest
    shaft, head = widths[: n // 2], widths[widest:]
    width = float(np.median(shaft))
    is_even = (np.abs(shaft[2:-1] - width) <= max(1.0, 0.25 * width)).mean() >= 0.9
    is_tip = len(head) >= 3 and head[-1] <= 0.6 * widths[widest] and (np.diff(head) <= 0.6).all()
    return bool(is_even and is_tip and widths[widest] >= _HEAD * width and width < n / 4)


def together(boxes: list[Box]) -> list[Box]:
    """Join boxes that overlap."""
    joined = list[Box]()
    for box in boxes:
        while near := [each for each in joined if overlap(box, each)]:
            for each in near:
                joined.remove(each)
                box = joined_box(box, each)
        joined.append(box)
    return joined


def is_within(one: Box, other: Box) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one[2] <= other[2] and one[3] <= other[3]


def overlap(one: Box, other: Box) -> bool:
    return all(one[i] < other[i + 2] and other[i] < one[i + 2] for i in (0, 1))


def joined_box(one: Box, other: Box) -> Box:
    return (
        min(one[0], other[0]),
        min(one[1], other[1]),
        max(one[2], other[2]),
        max(one[3], other[3]),
    )


def as_box(edges: NDArray[np.int_]) -> Box:
    top, left, bottom, right = edges.tolist()
    return top, left, bottom, right
