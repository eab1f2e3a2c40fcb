"""What is no sample: margins, information bars, scale bars, letters, arrows, coloured marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.common.progress import by_reader, warn_of_image
from hypervlad.common.wording import counted, name_some, verb
from hypervlad.images.banner import as_8bit_colour, as_8bit_grey, find_banner
from hypervlad.images.bar_lines import ScaleBar
from hypervlad.images.letters import (
    PURE,
    REACH,
    SOLID,
    Box,
    Grey,
    as_box,
    is_within,
    joined_box,
    letters_and_arrows,
    overlap,
    solidity,
    together,
)
from hypervlad.images.margins import find_margins
from hypervlad.images.morphology import EIGHT, Mask, grown
from hypervlad.images.pixels import as_pixels
from hypervlad.images.scale_bars import find_scale_bar

_MIN_PART = 12  # pixels of a mark
# Shares of an image, by labels and by what is around a bar without one: 0.14 and 0.1 in figures.
_MAX_LABELLED, _MAX_BAR = 0.25, 0.14
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
EDGES = "margin", _BAND  # the kinds that cut the sample off, as the edge of the image does


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

    Margins of one level, as turning, aligning and stitching leave them, round fields of view, and
    what is around the image in a figure, with its axes and words; information bars at the bottom
    and at the top (`find_banner`); one scale bar (`find_scale_bar`) with its label, letters of any
    level, arrows in pure black or white, and coloured strokes in an image that is grey elsewhere.
    Letters are of one level with crisp edges, and unlike the rest of the image. They are found in
    lines of at least two; in a corner, also single ones. Dots of a lattice are no scale bar: rows
    of dots and ticks count only with a label.

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
    [('scale bar', (87, 77, 117, 153))]
    """
    image = as_pixels(image, "image")
    bars = find_banner(image[::-1]), find_banner(image)
    return annotations_in(as_8bit_grey(image), bars, coloured_marks(image))


def annotations_in(
    grey: Grey, bars: tuple[int, int], marks: list[Annotation], *, only_edges: bool = False
) -> list[Annotation]:
    """Find the same in levels of 0 to 255, beside known bars (top, bottom) and coloured marks.

    With `only_edges`, no scale bars, letters and arrows, which takes a quarter of the time.
    """
    (height, width), (above, below) = grey.shape, bars
    if marks:
        grey = fill_annotations(grey, ~annotation_mask(marks, (height, width)), marks)
    found = [Annotation("information bar", (0, 0, above, width))] if above else []
    if below:
        found.append(Annotation("information bar", (height - below, 0, height, width)))
    scan = grey[above : height - below]
    if scan.size:
        around = (Annotation("margin", (0, 0, *scan.shape), each) for each in find_margins(scan))
        within = [*around, *(() if only_edges else _drawn_into(scan))]
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
            mask[window] |= grown(own, _MARGIN, corners=True)
    return mask


def margin_mask(annotations: Sequence[Annotation], shape: tuple[int, int]) -> Mask:
    """Return where margins and information bars are: there, the sample is cut off as by an edge."""
    return annotation_mask([each for each in annotations if each.kind in EDGES], shape)


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
    beyond = ~grown(coloured, _NEAR_COLOUR, corners=True)
    if (colour[beyond] < _TINTED).mean() < _GREY_SHARE:  # NaN if none is beyond
        return []
    labels, _ = ndimage.label(grown(coloured, _MARGIN, corners=True), EIGHT)
    labels[~coloured] = 0  # the letters of a word are one
    found, n_drawn, n_all = list[Annotation](), 0, 0
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[window] == number
        if mask.sum() >= _MIN_PART:
            is_bar = mask.mean() >= SOLID and max(mask.shape) >= 3 * min(mask.shape)
            n_drawn += mask.sum() * (is_bar or solidity(mask) <= SOLID)
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


def _left_out(facts: Mapping[str, tuple[Sequence[Annotation], int]]) -> str:
    by_words = dict[str, dict[str, int]]()
    for name, (own, n_beside) in facts.items():
        words = words_of_annotations(sorted(own, key=attrgetter("kind")))
        by_words.setdefault(words, {})[name] = n_beside
    left_out = [
        f"{words} {verb(1 + words.count(' and '), 'was', 'were')} left out of "
        + counted(len(beside), "image")
        + f", {name_some(list(beside))}" * (list(beside) != ["image"])  # the name of an array
        + f", with {counted(n, 'particle')} that annotations cover in part" * bool(n)
        for words, beside in by_words.items()
        for n in [sum(beside.values())]
    ]
    return f"{'; '.join(left_out)}; if it is sample, " + by_reader(
        'keep it with --keep-annotations (annotations="keep")', "it is missing in what is found"
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


def _drawn_into(grey: Grey) -> list[Annotation]:
    bar, found = find_scale_bar(grey), list[Annotation]()
    # Where there were more dots or ticks than letters, none would be one.
    seen = grey if bar is None or bar.kind != "dots" else _without(bar.box, grey)
    labels, arrows = letters_and_arrows(seen)
    labels = together([_ground_of(box, grey) for box in together(labels)])
    labelled = sum((bottom - top) * (right - left) for top, left, bottom, right in labels)
    if labelled > _MAX_LABELLED * grey.size:  # these are of the sample, such as rings
        labels = []
    arrows = [box for box in together(arrows) if not any(overlap(box, each) for each in labels)]
    is_labelled = bar is not None and any(_is_beside(each, bar) for each in labels)
    if bar is not None and (is_labelled or bar.kind != "dots"):  # which are a lattice's otherwise
        whole = _whole(bar, grey)
        labels, arrows = ([e for e in each if not is_within(e, whole)] for each in (labels, arrows))
        top, left, bottom, right = around = _around(bar, grey.shape)
        is_large = (bottom - top) * (right - left) > _MAX_BAR * grey.size  # may be a streak
        found = [Annotation("scale bar", whole if is_labelled or is_large else around)]
    found += [Annotation("label", each) for each in labels]
    return found + [Annotation("arrow", each) for each in arrows]


def _without(box: Box, grey: Grey) -> Grey:
    """Return a copy in which a box is as what is above and below it."""
    top, left, bottom, right = box
    rows, columns = slice(max(top - 2, 0), bottom + 2), slice(max(left - 2, 0), right + 2)
    copy = grey.copy()
    part = copy[rows, columns]
    part[:] = np.linspace(part[0], part[-1], len(part))
    return copy


def _level_of(bar: ScaleBar, grey: Grey) -> float:
    """Return the level of a bar, of its dots or frame: what differs most from its surroundings."""
    top, left, bottom, right = bar.box
    around = np.median(grey[max(top - REACH, 0) : bottom + REACH, left:right][[0, -1]])
    darkest, brightest = np.percentile(grey[top:bottom, left:right], (5, 95))
    return float(max(darkest, brightest, key=lambda level: abs(level - around)))


def _is_beside(box: Box, bar: ScaleBar) -> bool:
    """Return whether a line of text is the label of a bar: beside it, above or below."""
    reach = max(2 * (box[2] - box[0]), _BESIDE_BAR * bar.length)
    wider = [round(edge + sign * reach) for edge, sign in zip(bar.box, (-1, -1, 1, 1), strict=True)]
    return overlap(box, as_box(np.array(wider)))


def _whole(bar: ScaleBar, grey: Grey) -> Box:
    """Return the box of a bar with its ticks: all of its level that is connected with it."""
    ink = _level_of(bar, grey)
    top, left, bottom, right = bar.box
    reach = round(bar.length / 2)
    around = tuple(
        slice(max(first - reach, 0), last + reach) for first, last in ((top, bottom), (left, right))
    )
    labels, _ = ndimage.label(np.abs(grey[around] - ink) <= PURE, EIGHT)
    start = around[0].start, around[1].start
    own = labels[top - start[0] : bottom - start[0], left - start[1] : right - start[1]]
    number = int(np.bincount(own[own > 0], minlength=1).argmax()) if own.any() else 0
    if number == 0:
        return bar.box
    rows, columns = ndimage.find_objects(labels, number)[-1]
    box = _shifted((rows.start, columns.start, rows.stop, columns.stop), *start)
    sides = box[2] - box[0], box[3] - box[1]
    is_frame = min(sides) > bar.length / 2 or max(sides) > 1.5 * bar.length
    return bar.box if is_frame else joined_box(bar.box, box)


def _ground_of(box: Box, grey: Grey) -> Box:
    """Return the box or the disc on which text stands, if it is one; otherwise the text's box."""
    top, left, bottom, right = box
    start = max(top - 2, 0), max(left - 2, 0)
    labels, _ = ndimage.label(np.abs(grey - grey[start]) <= PURE)
    rows, columns = ndimage.find_objects(labels, labels[start])[-1]
    filled = ndimage.binary_fill_holes(labels[rows, columns] == labels[start])
    is_larger = rows.stop >= bottom and columns.stop >= right
    if is_larger and filled.size <= _MAX_BOX * grey.size and solidity(filled) >= _SOLID_BOX:
        return rows.start, columns.start, rows.stop, columns.stop
    return box


def _around(bar: ScaleBar, shape: tuple[int, ...]) -> Box:
    """Return the box of a bar and of a label that is not seen as text."""
    beside = round(min(_BESIDE_BAR * bar.length, _HIGHEST * min(shape)))
    wider = np.add(bar.box, (-beside, -beside, beside, beside))
    return as_box(wider.clip(0, (*shape, *shape)))
