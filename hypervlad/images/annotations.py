"""What is no sample: margins, information bars, scale bars, letters, arrows, coloured marks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial, reduce
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hypervlad.common.progress import by_reader, warn_of_image
from hypervlad.common.wording import counted, name_some, verb
from hypervlad.images.banner import as_8bit_colour, as_8bit_grey, find_banner
from hypervlad.images.margins import convex_hull, find_margins
from hypervlad.images.pixels import as_pixels
from hypervlad.images.resampling import by_rows
from hypervlad.images.scale_bars import ScaleBar, find_scale_bar

_EIGHT = np.ones((3, 3), bool)
_PURE = 8  # grey levels of 255 by which compression changes what is of one
# Letters and arrows are drawn: of one level, within this share of their contrast, crisp, and unlike
# the sample. Levels beyond which they are looked for:
_LEVELS = tuple(range(8, 256, 24))
_STEP, _CLEAR = 40, 0.4  # contrast in levels, of which this share is left so many pixels beside,
_REACH, _CRISP = 3, 0.85  # nearly all around
_SHARP = 0.5  # of the range of levels within that reach, which adjacent pixels have
_BETWEEN, _MAX_RISE = 0.3, 2.5  # of the contrast, and pixels in which levels rise by twice that
_EVEN, _SAME_INK = 0.12, 0.15  # deviation within letters, and difference between those of a line
_HEIGHTS = (6, 0.16)  # of letters: in pixels, and as a share of the image's shorter side
_STROKE = 0.4  # of a letter's height: discs are no letters
_SOLID = 0.85  # of the convex hull, or less in a third of a line's letters: rods are no letters
_GAP = 1.0  # between letters, in heights
_ALIKE = 2.2  # heights in a line of text
_VARIED = 0.1  # by which sizes of three letters or more differ: rings of a lattice are alike
_MAX_OTHERS = 3  # crisp parts besides single letters, which are in a corner, and arrows
_MIN_ARROW, _MAX_ARROW = 16, 0.4  # length: in pixels, and as a share of the longer side
_HEAD = 1.8  # width of an arrow's head over that of its shaft
_MIN_LEVELS = 4  # of grey: with fewer, the sample is drawn itself
_MIN_PART, _MIN_EDGE = 12, 10  # pixels of what is drawn, and of its edge
# Shares of an image, by labels and by what is around a bar without one: 0.14 and 0.1 in figures.
_MAX_LABELLED, _MAX_BAR = 0.25, 0.14
_MAX_PARTS, _MAX_CRISP = 500, 150  # beyond a level: where there are more, it is the sample's
_MARGIN = 3  # pixels around what was drawn, which it blurs
_SOLID_BOX, _MAX_BOX = 0.97, 0.15  # behind text: share that is filled, and of the image
_HIGHEST = 0.15  # of the shorter side: a label and its distance from the bar
_BESIDE_BAR = 0.25  # lengths of a scale bar around it, within which a label is that is not seen
# Coloured marks: channels of a pixel differ by so many grey levels, those of a grey one by less.
# Marks cover at most this share of an image, and this share of the rest is grey, also compressed.
# Nearly all of them is open, as outlines and words are, or a bar; otherwise, it is the sample.
_COLOURED, _TINTED, _MAX_INK, _GREY_SHARE, _DRAWN_SHARE = 64, 16, 0.04, 0.99, 0.9
_NEAR_COLOUR = 16  # pixels beside a mark that compression tints
_FILL = 4  # pixels around an annotation, from which it is filled
_BAND = "information bar"

Mask: TypeAlias = NDArray[np.bool_]
Grey: TypeAlias = NDArray[np.float32]
Box: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True)
class Annotation:
    """Something in an image that is no sample.

    Attributes
    ----------
    kind : {"margin", "information bar", "scale bar", "label", "arrow", "coloured mark"}
    box : tuple of four int
        First row, first column, last row + 1 and last column + 1.
    mask : ndarray of bool, shape (h, w), or None
        Where in the box it is; None if everywhere.
    """

    kind: str
    box: Box
    mask: Mask | None = field(default=None, compare=False, repr=False)


def find_annotations(image: NDArray[Any]) -> list[Annotation]:
    """Find what was drawn into an image, and is no sample.

    Margins of one level, as turning, aligning and stitching leave them, and round fields of view;
    information bars at the bottom and at the top (`find_banner`); one scale bar (`find_scale_bar`)
    with its label, letters of any level, arrows in pure black or white, and coloured strokes in an
    image that is grey elsewhere. Letters are of one level with crisp edges, and unlike the rest of
    the image. They are found in lines of at least two; in a corner, also single ones. Dots of a
    lattice are no scale bar: rows of dots and ticks count only with a label.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, 3)
        Pixels of any real type, all finite. Of types other than 8 bits, the lowest and the highest
        value are black and white.

    Returns
    -------
    list of Annotation
        From the top to the bottom.

    Raises
    ------
    ImageReadError
        If it is no such array.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.images import find_annotations
    >>> image = np.random.default_rng(0).integers(60, 120, (120, 160), dtype=np.uint8)
    >>> image[100:104, 90:140] = 255
    >>> [(each.kind, each.box) for each in find_annotations(image)]
    [('scale bar', (88, 78, 116, 152))]
    """
    image = as_pixels(image, "image")
    bars = find_banner(image[::-1]), find_banner(image)
    return annotations_in(as_8bit_grey(image), bars, coloured_marks(image))


def annotations_in(grey: Grey, bars: tuple[int, int], marks: list[Annotation]) -> list[Annotation]:
    """Find the same in levels of 0 to 255, beside known bars (top, bottom) and coloured marks."""
    (height, width), (above, below) = grey.shape, bars
    if marks:
        grey = fill_annotations(grey, ~annotation_mask(marks, (height, width)), marks)
    found = [Annotation("information bar", (0, 0, above, width))] if above else []
    if below:
        found.append(Annotation("information bar", (height - below, 0, height, width)))
    scan = grey[above : height - below]
    if scan.size:
        around = (Annotation("margin", (0, 0, *scan.shape), each) for each in find_margins(scan))
        within = [*around, *_drawn_into(scan)]
        found += [replace(each, box=_shifted(each.box, above)) for each in within]
    return sorted([*found, *marks], key=lambda each: each.box)


def annotation_mask(annotations: Sequence[Annotation], shape: tuple[int, int]) -> Mask:
    """Return the pixels of annotations, with those beside them that they blur, (H, W)."""
    mask = np.zeros(shape, bool)
    for each in annotations:
        rows, columns = window = window_of(each)
        if each.mask is None:
            mask[window] = True
        else:
            own = np.zeros(mask[window].shape, bool)
            top, left, bottom, right = _shifted(each.box, -rows.start, -columns.start)
            own[top:bottom, left:right] = each.mask
            mask[window] |= ndimage.binary_dilation(own, _EIGHT, _MARGIN)
    return mask


def fill_annotations(
    grey: Grey, seen: Mask, annotations: Sequence[Annotation], *, mirrored: bool = False
) -> Grey:
    """Return an image with the nearest pixels in the place of annotations.

    They continue what an annotation covers in part. Where the texture counts, what is beside its
    box is `mirrored`, if there is room. The image is grey, (H, W), or has colours, (H, W, 3).
    """
    grey = grey.copy()
    for each in annotations:
        window = window_of(each, _FILL)
        if each.kind == _BAND:
            continue
        is_box = mirrored and each.mask is None
        texture = _mirrored(grey, seen, window_of(each)) if is_box else None
        if texture is not None:
            grey[window_of(each)] = texture
        elif (own := seen[window]).any():
            nearest = ndimage.distance_transform_edt(
                ~own, return_distances=False, return_indices=True
            )
            grey[window] = grey[window][tuple(nearest)]
    for values, lines in ((grey, seen.any(axis=1)), (grey.swapaxes(0, 1), seen.any(axis=0))):
        n, shown = len(values), np.flatnonzero(lines)
        first, last = shown[0], shown[-1] + 1
        if last - first >= max(first, n - last):
            values[:first] = values[first : 2 * first][::-1]
            values[last:] = values[2 * last - n : last][::-1]
    return grey


def _mirrored(grey: Grey, seen: Mask, window: tuple[slice, slice]) -> Grey | None:
    """Return what is above, below or beside a window, mirrored; None if nowhere all is seen."""
    ends = [slice(*each.indices(n)[:2]) for each, n in zip(window, seen.shape, strict=True)]
    for axis, own in enumerate(ends):
        length = own.stop - own.start
        for start in (own.start - length, own.stop):
            place = (*ends[:axis], slice(start, start + length), *ends[axis + 1 :])
            if 0 <= start <= seen.shape[axis] - length and seen[place].all():
                return np.flip(grey[place], axis)
    return None


def coloured_marks(image: NDArray[Any]) -> list[Annotation]:
    """Find outlines, words and bars that are coloured in an image (H, W, 3), grey elsewhere."""
    if image.ndim == 2:
        return []
    colour = as_8bit_colour(image)
    coloured = colour >= _COLOURED
    if not 0 < coloured.mean() <= _MAX_INK:
        return []
    beyond = ~ndimage.binary_dilation(coloured, _EIGHT, _NEAR_COLOUR)
    if (colour[beyond] < _TINTED).mean() < _GREY_SHARE:  # NaN if none is beyond
        return []
    labels, _ = ndimage.label(ndimage.binary_dilation(coloured, _EIGHT, _MARGIN), _EIGHT)
    labels[~coloured] = 0  # the letters of a word are one
    found, n_drawn, n_all = list[Annotation](), 0, 0
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[window] == number
        if mask.sum() >= _MIN_PART:
            is_bar = mask.mean() >= _SOLID and max(mask.shape) >= 3 * min(mask.shape)
            n_drawn += mask.sum() * (is_bar or _solidity(mask) <= _SOLID)
            n_all += mask.sum()
            rows, columns = window
            box = rows.start, columns.start, rows.stop, columns.stop
            found.append(Annotation("coloured mark", box, mask))
    return found if n_drawn >= _DRAWN_SHARE * n_all else []


def note_annotations(name: str, annotations: Sequence[Annotation], n_beside: int = 0) -> None:
    """Say in a UserWarning what was left out of an image; once for all images of a run."""
    if annotations:
        # Tables have columns of them.
        warn_of_image(_left_out, name, (annotations, n_beside), is_noted=False)


def _left_out(facts: Mapping[str, tuple[Sequence[Annotation], int]], n_images: int) -> str:
    found = [each for own, _ in facts.values() for each in own]
    n_beside = sum(n for _, n in facts.values())
    beside = f", with {counted(n_beside, 'particle')} that it covers in part" if n_beside else ""
    kinds = {each.kind for each in found}
    left_out = f"{words_of_annotations(found)} {verb(len(kinds), 'was', 'were')} left out"
    return (
        f"{left_out} of {counted(len(facts), 'image')}, "
        f"{name_some(list(facts))}{beside}; if it is sample, "
        + by_reader(
            'keep it with --keep-annotations (annotations="keep")', "it is missing in what is found"
        )
    )


def words_of_annotations(annotations: Sequence[Annotation]) -> str:
    """Return what was found, in words: "a scale bar and a label"."""
    kinds = dict.fromkeys(each.kind for each in annotations)
    return " and ".join(f"{'an' if kind[0] in 'aei' else 'a'} {kind}" for kind in kinds)


def window_of(annotation: Annotation, margin: int = _MARGIN) -> tuple[slice, slice]:
    top, left, bottom, right = annotation.box
    margin *= annotation.kind != _BAND
    rows = slice(max(top - margin, 0), bottom + margin)
    return rows, slice(max(left - margin, 0), right + margin)


def _shifted(box: Box, rows: int, columns: int = 0) -> Box:
    return box[0] + rows, box[1] + columns, box[2] + rows, box[3] + columns


def _as_box(edges: NDArray[np.int_]) -> Box:
    top, left, bottom, right = edges.tolist()
    return top, left, bottom, right


def _has_shades(grey: Grey) -> bool:
    # Some pixels tell of most images: to sort all of them would take long.
    return any(len(np.unique(part)) > _MIN_LEVELS for part in (grey[::16, ::16], grey))


def _drawn_into(grey: Grey) -> list[Annotation]:
    bar, found = find_scale_bar(grey), list[Annotation]()
    labels, arrows = list[Box](), list[Box]()
    sharp = by_rows(_is_sharp, grey, _REACH + 1)
    for sign in (1, -1) if _has_shades(grey) else ():
        at = cache(partial(_drawn, grey, sharp, sign))
        for i, pair in enumerate(pairwise(sign * level for level in _LEVELS)):
            # What is crisp is the same beyond two levels: where one has nothing, none counts.
            if any(at(pair[1 - i % 2])):
                for boxes, last, now in zip((labels, arrows), *map(at, pair), strict=True):
                    boxes += [each for each in now if any(_overlap(each, one) for one in last)]
    labels = _together([_ground_of(box, grey) for box in _together(labels)])
    labelled = sum((bottom - top) * (right - left) for top, left, bottom, right in labels)
    if labelled > _MAX_LABELLED * grey.size:  # these are of the sample, such as rings
        labels = []
    arrows = [box for box in _together(arrows) if not any(_overlap(box, each) for each in labels)]
    is_labelled = bar is not None and any(_is_beside(each, bar) for each in labels)
    if bar is not None and (is_labelled or bar.kind != "dots"):  # which are a lattice's otherwise
        whole = _whole(bar, grey)
        labels, arrows = (
            [e for e in each if not _is_within(e, whole)] for each in (labels, arrows)
        )
        top, left, bottom, right = around = _around(bar, grey.shape)
        is_large = (bottom - top) * (right - left) > _MAX_BAR * grey.size  # may be a streak
        found = [Annotation("scale bar", whole if is_labelled or is_large else around)]
    found += [Annotation("label", each) for each in labels]
    return found + [Annotation("arrow", each) for each in arrows]


def _together(boxes: list[Box]) -> list[Box]:
    """Join boxes that overlap."""
    joined = list[Box]()
    for box in boxes:
        while near := [each for each in joined if _overlap(box, each)]:
            for each in near:
                joined.remove(each)
                box = _joined(box, each)
        joined.append(box)
    return joined


def _level_of(bar: ScaleBar, grey: Grey) -> float:
    """Return the level of a bar, of its dots or frame: what differs most from its surroundings."""
    top, left, bottom, right = bar.box
    around = np.median(grey[max(top - _REACH, 0) : bottom + _REACH, left:right][[0, -1]])
    darkest, brightest = np.percentile(grey[top:bottom, left:right], (5, 95))
    return float(max(darkest, brightest, key=lambda level: abs(level - around)))


def _is_within(one: Box, other: Box) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one[2] <= other[2] and one[3] <= other[3]


def _overlap(one: Box, other: Box) -> bool:
    return all(one[i] < other[i + 2] and other[i] < one[i + 2] for i in (0, 1))


def _is_beside(box: Box, bar: ScaleBar) -> bool:
    """Return whether a line of text is the label of a bar: beside it, above or below."""
    reach = max(2 * (box[2] - box[0]), _BESIDE_BAR * bar.length)
    wider = [round(edge + sign * reach) for edge, sign in zip(bar.box, (-1, -1, 1, 1), strict=True)]
    return _overlap(box, _as_box(np.array(wider)))


def _whole(bar: ScaleBar, grey: Grey) -> Box:
    """Return the box of a bar with its ticks: all of its level that is connected with it."""
    ink = _level_of(bar, grey)
    top, left, bottom, right = bar.box
    around = tuple(
        slice(max(first - (right - left) // 2, 0), last + (right - left) // 2)
        for first, last in ((top, bottom), (left, right))
    )
    labels, _ = ndimage.label(np.abs(grey[around] - ink) <= _PURE, _EIGHT)
    start = around[0].start, around[1].start
    own = labels[top - start[0] : bottom - start[0], left - start[1] : right - start[1]]
    number = int(np.bincount(own[own > 0], minlength=1).argmax()) if own.any() else 0
    if number == 0:
        return bar.box
    rows, columns = ndimage.find_objects(labels, number)[-1]
    box = _shifted((rows.start, columns.start, rows.stop, columns.stop), *start)
    is_frame = box[2] - box[0] > (right - left) / 2 or box[3] - box[1] > 1.5 * (right - left)
    return bar.box if is_frame else _joined(bar.box, box)


def _joined(one: Box, other: Box) -> Box:
    return (
        min(one[0], other[0]),
        min(one[1], other[1]),
        max(one[2], other[2]),
        max(one[3], other[3]),
    )


def _ground_of(box: Box, grey: Grey) -> Box:
    """Return the box or the disc on which text stands, if it is one; otherwise the text's box."""
    top, left, bottom, right = box
    start = max(top - 2, 0), max(left - 2, 0)
    labels, _ = ndimage.label(np.abs(grey - grey[start]) <= _PURE)
    rows, columns = ndimage.find_objects(labels, labels[start])[-1]
    filled = ndimage.binary_fill_holes(labels[rows, columns] == labels[start])
    is_larger = rows.stop >= bottom and columns.stop >= right
    if is_larger and filled.size <= _MAX_BOX * grey.size and _solidity(filled) >= _SOLID_BOX:
        return rows.start, columns.start, rows.stop, columns.stop
    return box


def _around(bar: ScaleBar, shape: tuple[int, ...]) -> Box:
    """Return the box of a bar and of a label that is not seen as text."""
    _, left, _, right = bar.box
    beside = round(min(_BESIDE_BAR * (right - left), _HIGHEST * min(shape)))
    wider = np.add(bar.box, (-beside, -beside, beside, beside))
    return _as_box(wider.clip(0, (*shape, *shape)))


class _Part(NamedTuple):
    """A connected part of an image beyond a level, with crisp edges all around."""

    box: Box
    mask: Mask
    ink: float
    contrast: float

    @property
    def is_pure(self) -> bool:
        return -_PURE <= self.ink <= 0 or self.ink >= 255 - _PURE


def _is_sharp(grey: Grey) -> Mask:
    """Return the pixels on or beside a step of most of the local range of grey levels."""
    near, far = (
        extreme(grey, reach, np.maximum) - extreme(grey, reach, np.minimum) for reach in (1, _REACH)
    )
    is_step = (far >= _STEP) & (near >= _SHARP * far)
    return extreme(is_step, 1, np.logical_or)


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


def _crisp_parts(grey: Grey, sharp: Mask, sign: int, level: float) -> list[_Part]:
    """Return the parts above a level that may be drawn; none if there are too many, as in noise."""
    above = grey > level if sign > 0 else grey < -level
    inner = above.copy()
    for one, other in ((inner, above), (inner.T, above.T)):
        one[1:-1] &= other[:-2] & other[2:]
    is_edge = np.greater(above, inner, out=inner)
    if not (is_edge & sharp).any():
        return []
    labels, n = ndimage.label(above, _EIGHT)
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
    boxes = map(_as_box, np.hstack([first, last])[is_inside])
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
        slice(max(top - _REACH, 0), bottom + _REACH),
        slice(max(left - _REACH, 0), right + _REACH),
    )
    own, levels = labels[window] == number, sign * grey[window]
    core, ink = _eroded(own), _quantile(levels[own], 0.75)
    spread = float(levels[core].std()) if core.sum() > 5 else 0.0
    if ink - levels.min() < max(_STEP, spread / _EVEN):  # the highest contrast: this is fast
        return None
    near = extreme(own, _REACH, np.logical_or)
    ring = near & ~extreme(above[window], _REACH - 1, np.logical_or)
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


def _eroded(mask: Mask) -> Mask:
    """Return the pixels of which the four neighbours belong to the mask, too."""
    core = np.zeros_like(mask)
    middle = mask[1:-1, :-2] & mask[1:-1, 1:-1] & mask[1:-1, 2:]
    core[1:-1, 1:-1] = middle & mask[:-2, 1:-1] & mask[2:, 1:-1]
    return core


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
    boxes = [reduce(_joined, (each.box for each in line)) for line in lines]
    others = _beyond(parts, boxes)
    if len(others) > sum(map(len, lines)):
        boxes, others = [], parts
    alone = [each for each in _beyond(letters, boxes) if _is_in_corner(each.box, shape)]
    alone = [each for each in alone if _solidity(each.mask) <= _SOLID]
    # Gaps between particles end in tips, too, but they are seldom black or white.
    arrows = [each for each in others if each.is_pure]
    if len(others) - len(alone) - len(arrows) <= _MAX_OTHERS:  # else none needs a look
        arrows = [each for each in arrows if _is_arrow(each.mask)]
    if len(others) - len(alone) - len(arrows) > _MAX_OTHERS:
        return boxes, []
    for top, left, bottom, right in (each.box for each in alone):
        above = top - (bottom - top) // 2, left - 1, bottom, right + 1  # the dot of an "i"
        near = (one.box for one in others if _is_within(one.box, above))
        boxes.append(reduce(_joined, near, (top, left, bottom, right)))
    return boxes, [each.box for each in arrows]


def _beyond(parts: list[_Part], boxes: list[Box]) -> list[_Part]:
    return [each for each in parts if not any(_overlap(each.box, box) for box in boxes)]


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
    if len(line) < 2 or sum(_solidity(each.mask) <= _SOLID for each in line) < len(line) / 3:
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


def _solidity(mask: Mask) -> float:
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
