"""What is no sample: information bars, scale bars, letters, arrows, coloured marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hypervlad.common.progress import warn_of_image
from hypervlad.common.wording import counted, name_some, verb
from hypervlad.images.banner import as_8bit_colour, as_8bit_grey, find_banner
from hypervlad.images.scale_bars import ScaleBar, find_scale_bar

_EIGHT = np.ones((3, 3), bool)
_PURE = 8  # grey levels of 255 from black or white, that compression changes
# Letters and arrows are crisp: so many grey levels away so many pixels beside, nearly all around.
_STEP, _REACH, _CRISP = 40, 3, 0.85
_HEIGHTS = (6, 0.12)  # of letters: in pixels, and as a share of the image's shorter side
_STROKE = 0.4  # of a letter's height: discs are no letters
_SOLID = 0.85  # of the convex hull, or less in a third of a line's letters: rods are no letters
_GAP = 1.0  # between letters, in heights
_ALIKE = 2.2  # heights in a line of text
_MIN_ARROW, _MAX_ARROW = 16, 0.4  # length: in pixels, and as a share of the longer side
_HEAD = 1.8  # width of an arrow's head over that of its shaft
_MIN_LEVELS = 4  # of grey: with fewer, the sample is pure itself
# The sample has a pure level itself, so that only what is beside a scale bar is a label, if less
# than this share of its pixels (of parts of at least so many) is in crisp parts, if its shades, by
# so many grey levels away, are more frequent than it, or if it covers much of the image.
_MIN_PART, _DRAWN, _SHADES, _MAX_COVER = 12, 0.5, 40, 0.06
_MAX_LETTERS, _MAX_STEPS = 40, 4  # beside a line of text; in which it is followed
_MAX_PARTS = 3000  # of pure black or white: where there are more, it is the sample that has them
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
    kind : {"information bar", "scale bar", "label", "arrow", "coloured mark"}
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

    Information bars at the bottom and at the top (`find_banner`), one scale bar (`find_scale_bar`)
    with its label, letters and arrows in pure black or white with crisp edges, and coloured strokes
    in an image that is grey elsewhere. Black or white letters are found in lines of at least two.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, 3)
        Pixels of any real type, all finite. Of types other than 8 bits, the lowest and the highest
        value are black and white.

    Returns
    -------
    list of Annotation
        From the top to the bottom.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.images import find_annotations
    >>> image = np.random.default_rng(0).integers(60, 120, (120, 160), dtype=np.uint8)
    >>> image[100:104, 90:140] = 255
    >>> [(each.kind, each.box) for each in find_annotations(image)]
    [('scale bar', (88, 78, 116, 152))]
    """
    image = np.asarray(image)
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
        found += [replace(each, box=_shifted(each.box, above)) for each in _drawn_into(scan)]
    return sorted([*found, *marks], key=lambda each: each.box)


def annotation_mask(annotations: list[Annotation], shape: tuple[int, int]) -> Mask:
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


def fill_annotations(grey: Grey, seen: Mask, annotations: list[Annotation]) -> Grey:
    """Return an image with mirrored rows and columns in place of bands, else the nearest pixels."""
    grey = grey.copy()
    for each in annotations:
        window = window_of(each, _FILL)
        if each.kind != _BAND and (own := seen[window]).any():
            nearest = ndimage.distance_transform_edt(
                ~own, return_distances=False, return_indices=True
            )
            grey[window] = grey[window][tuple(nearest)]
    for values, lines in ((grey, seen.any(axis=1)), (grey.T, seen.any(axis=0))):
        n, shown = len(values), np.flatnonzero(lines)
        first, last = shown[0], shown[-1] + 1
        if last - first >= max(first, n - last):
            values[:first] = values[first : 2 * first][::-1]
            values[last:] = values[2 * last - n : last][::-1]
    return grey


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


def note_annotations(name: str, annotations: list[Annotation], n_beside: int = 0) -> None:
    """Say in a UserWarning what was left out of an image; once for all images of a run."""
    if annotations:
        warn_of_image(_left_out, name, (annotations, n_beside))


def _left_out(facts: Mapping[str, tuple[list[Annotation], int]], n_images: int) -> str:
    found = [each for own, _ in facts.values() for each in own]
    n_beside = sum(n for _, n in facts.values())
    beside = f", with {counted(n_beside, 'particle')} that it covers in part" if n_beside else ""
    kinds = {each.kind for each in found}
    left_out = f"{words_of_annotations(found)} {verb(len(kinds), 'was', 'were')} left out"
    return (
        f"{left_out} of {counted(len(facts), 'image')}, "
        f"{name_some(list(facts))}{beside}; if it is sample, keep it with --keep-annotations "
        '(annotations="keep")'
    )


def words_of_annotations(annotations: list[Annotation]) -> str:
    """Return what was found, in words: "a scale bar and a label"."""
    kinds = dict.fromkeys(each.kind for each in annotations)
    return " and ".join(f"{'an' if kind[0] in 'aei' else 'a'} {kind}" for kind in kinds)


def window_of(annotation: Annotation, margin: int = _MARGIN) -> tuple[slice, slice]:
    top, left, bottom, right = annotation.box
    margin *= annotation.kind != _BAND
    return slice(max(top - margin, 0), bottom + margin), slice(
        max(left - margin, 0), right + margin
    )


def _shifted(box: Box, rows: int, columns: int = 0) -> Box:
    return box[0] + rows, box[1] + columns, box[2] + rows, box[3] + columns


def _as_box(edges: NDArray[np.int_]) -> Box:
    top, left, bottom, right = edges.tolist()
    return top, left, bottom, right


def _has_shades(grey: Grey) -> bool:
    # Some pixels tell of most images: to sort all of them would take long.
    return any(len(np.unique(part)) > _MIN_LEVELS for part in (grey[::16, ::16], grey))


def _drawn_into(grey: Grey) -> list[Annotation]:
    bar = find_scale_bar(grey)
    ink = None if bar is None else _level_of(bar, grey)
    labels, arrows = list[Box](), list[Box]()
    for level in (0, 255) if _has_shades(grey) else ():
        lines = list[Box]()
        if (parts := _Parts.drawn(grey, level)) is not None:
            lines += parts.lines()
            arrows += parts.arrows()
        if bar is not None and ink is not None and abs(ink - level) < 128:
            lines += _beside(bar, grey, ink)
        lines = _together([_grown(box, grey, level) for box in lines])
        # A box behind text has the other pure level.
        ground = np.abs(grey - (255 - level)) <= _PURE if lines else None
        labels += [_ground_of(box, ground) for box in lines]
    found = [Annotation("label", box) for box in dict.fromkeys(labels)]
    found += [Annotation("arrow", box) for box in arrows]
    if bar is None or ink is None:
        return found
    whole = _whole(bar, grey, ink)
    found = [each for each in found if not _is_within(each.box, whole)]
    if any(each.kind == "label" and _is_beside(each.box, bar) for each in found):
        return [Annotation("scale bar", whole), *found]
    return [Annotation("scale bar", _around(bar, grey.shape)), *found]


def _grown(box: Box, grey: Grey, level: float) -> Box:
    """Return the box of a line of text with its faint letters, which are not of a pure level."""
    for _ in range(_MAX_STEPS):
        top, left, bottom, right = box
        tall = max(bottom - top, _HEIGHTS[0])
        row, column = max(top - tall, 0), max(left - 2 * tall, 0)
        part = grey[row : bottom + tall, column : right + 2 * tall]
        apart = np.abs(part - level)
        labels, n = ndimage.label(apart < np.abs(part - np.median(part)), _EIGHT)
        if n > _MAX_LETTERS:  # a texture
            break
        larger = box
        has_ink = np.zeros(n + 1, bool)
        has_ink[labels[apart <= _SHADES]] = True
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            one = _shifted((rows.start, columns.start, rows.stop, columns.stop), row, column)
            height, overlap = one[2] - one[0], min(one[2], bottom) - max(one[0], top)
            gap = max(one[1] - right, left - one[3])
            is_letter = max(height, one[3] - one[1]) <= _ALIKE * tall and 2 * overlap >= height
            if is_letter and gap <= _GAP * tall and has_ink[number]:
                larger = _joined(larger, one)
        if larger == box:
            break
        box = larger
    return box


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


def _beside(bar: ScaleBar, grey: Grey, ink: float) -> list[Box]:
    """Return the boxes of letters of the level of a scale bar, as near to it as its label is."""
    near = _around(bar, grey.shape)
    top, left = max(near[0] - _REACH - 1, 0), max(near[1] - _REACH - 1, 0)
    part = grey[top : near[2] + _REACH + 1, left : near[3] + _REACH + 1]
    boxes = _Parts.of(part, ink).boxes + np.array([top, left, top, left])
    boxes = boxes[boxes[:, 2] - boxes[:, 0] >= _HEIGHTS[0]]
    found = map(_as_box, boxes)
    return [each for each in found if _is_within(each, near) and not _overlap(each, bar.box)]


def _is_within(one: Box, other: Box) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one[2] <= other[2] and one[3] <= other[3]


def _overlap(one: Box, other: Box) -> bool:
    return all(one[i] < other[i + 2] and other[i] < one[i + 2] for i in (0, 1))


def _is_beside(box: Box, bar: ScaleBar) -> bool:
    """Return whether a line of text is the label of a bar: beside it, above or below."""
    reach = max(2 * (box[2] - box[0]), _BESIDE_BAR * bar.length)
    wider = [round(edge + sign * reach) for edge, sign in zip(bar.box, (-1, -1, 1, 1), strict=True)]
    return _overlap(box, _as_box(np.array(wider)))


def _whole(bar: ScaleBar, grey: Grey, ink: float) -> Box:
    """Return the box of a bar with its ticks: all of its level that is connected with it."""
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


def _ground_of(box: Box, ground: Any) -> Box:
    """Return the box on which text stands, if it is one of a pure level; otherwise the text's."""
    top, left, bottom, right = box
    labels, _ = ndimage.label(ground)
    number = labels[max(top - 2, 0), max(left - 2, 0)]
    if not number:
        return box
    rows, columns = ndimage.find_objects(labels, number)[-1]
    filled = ndimage.binary_fill_holes(labels[rows, columns] == number)
    is_larger = rows.stop >= bottom and columns.stop >= right
    if is_larger and filled.mean() >= _SOLID_BOX and filled.size <= _MAX_BOX * ground.size:
        return rows.start, columns.start, rows.stop, columns.stop
    return box


def _around(bar: ScaleBar, shape: tuple[int, ...]) -> Box:
    """Return the box of a bar and of a label that is not seen as text."""
    top, left, bottom, right = bar.box
    beside = round(min(_BESIDE_BAR * (right - left), _HIGHEST * min(shape)))
    return (
        max(top - beside, 0),
        max(left - beside, 0),
        min(bottom + beside, shape[0]),
        min(right + beside, shape[1]),
    )


@dataclass(frozen=True, eq=False)
class _Parts:
    """Connected crisp parts of a pure level."""

    masks: list[Mask]
    boxes: NDArray[np.int_]  # (n, 4)
    shape: tuple[int, int]
    is_drawn: bool  # whether most pixels of this level are of crisp parts

    @classmethod
    def drawn(cls, grey: Grey, level: int) -> _Parts | None:
        """Return the parts of a level; None if it is one of the sample."""
        apart = np.abs(grey - level)
        n_pure = np.count_nonzero(apart <= _PURE)
        n_shades = np.count_nonzero(apart <= _SHADES) - n_pure
        if not n_shades <= n_pure or n_pure < _MIN_PART:
            return None
        parts = cls.of(grey, level)
        return parts if parts.is_drawn else None

    @classmethod
    def of(cls, grey: Grey, level: float) -> _Parts:
        shape = grey.shape[0], grey.shape[1]
        labels, n = ndimage.label(np.abs(grey - level) <= _PURE, _EIGHT)
        if not 0 < n <= _MAX_PARTS:
            return cls([], np.zeros((0, 4), int), shape, False)
        windows = ndimage.find_objects(labels)
        areas = np.bincount(labels.ravel())[1:]
        crisp = _crispness(labels, n, grey, level)
        boxes = np.array([[r.start, c.start, r.stop, c.stop] for r, c in windows], int)
        sides = boxes[:, 2:] - boxes[:, :2]
        # White or black boxes at the edge are no part of the sample.
        inside = (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 2:] < shape).all(axis=1)
        counts = inside | (areas < _SOLID_BOX * sides.prod(axis=1))
        counts &= areas >= _MIN_PART
        total, drawn = areas[counts].sum(), areas[counts & (crisp >= _CRISP)].sum()
        is_drawn = drawn >= _DRAWN * total and total <= _MAX_COVER * grey.size
        fits = inside & (crisp >= _CRISP) & (sides.max(axis=1) <= _MAX_ARROW * max(shape))
        chosen = np.flatnonzero(fits & (sides.max(axis=1) >= 4))
        masks = [labels[windows[i]] == i + 1 for i in chosen]
        return cls(masks, boxes[chosen], shape, bool(is_drawn))

    def lines(self) -> list[Box]:
        """Return the boxes of lines of text."""
        top, left, bottom, right = self.boxes.T
        tall = bottom - top
        highest = max(_HEIGHTS[1] * min(self.shape), 2 * _HEIGHTS[0])
        letters = np.flatnonzero((tall >= _HEIGHTS[0]) & (tall <= highest))
        letters = np.array([i for i in letters if _stroke(self.masks[i]) <= _STROKE * tall[i]], int)
        if len(letters) < 2:
            return []
        one, other = letters[:, None], letters[None]
        overlap = np.minimum(bottom[one], bottom[other]) - np.maximum(top[one], top[other])
        gap = np.maximum(left[one], left[other]) - np.minimum(right[one], right[other])
        higher, lower = np.maximum(tall[one], tall[other]), np.minimum(tall[one], tall[other])
        near = (overlap >= lower / 2) & (gap <= _GAP * higher) & (higher <= _ALIKE * lower)
        number = connected_components(coo_array(near), directed=False)[1]
        found = []
        for line in range(number.max() + 1):
            members = letters[number == line]
            open_ = [_solidity(self.masks[i]) <= _SOLID for i in members]
            if len(members) >= 2 and sum(open_) >= len(members) / 3:
                low, high = self.boxes[members, :2].min(axis=0), self.boxes[members, 2:].max(axis=0)
                found.append(_as_box(np.concatenate([low, high])))
        return found

    def arrows(self) -> list[Box]:
        """Return the boxes of arrows: a shaft of even width, and a head that ends in a tip."""
        pairs = zip(self.masks, self.boxes, strict=True)
        return [_as_box(box) for mask, box in pairs if _is_arrow(mask)]


def _crispness(labels: NDArray[np.int_], n: int, grey: Grey, level: float) -> NDArray[np.float64]:
    """Return the share of what surrounds each part that differs from it by a step, (n,)."""
    away, (row, column) = ndimage.distance_transform_cdt(
        labels == 0, "chessboard", return_indices=True
    )
    ring = away == _REACH
    owner = labels[row[ring], column[ring]]
    is_step = np.abs(grey[ring] - level) >= _STEP
    total = np.bincount(owner, minlength=n + 1)[1:]
    steps = np.bincount(owner, is_step, minlength=n + 1)[1:]
    return np.asarray(steps / np.maximum(total, 1))


def _stroke(mask: Mask) -> float:
    """Return the width of the thickest stroke, in pixels."""
    return 2 * float(ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard").max())


def _solidity(mask: Mask) -> float:
    """Return the share of the convex hull that is covered."""
    from skimage.morphology import convex_hull_image  # not above: importing it takes long

    return float(mask.sum() / convex_hull_image(mask).sum())


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
