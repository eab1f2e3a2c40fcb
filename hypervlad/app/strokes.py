"""What edits change in the outlines of an image: strokes become pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.common.wording import counted
from hypervlad.images.morphology import EIGHT
from hypervlad.objects.particle import Outline, Outlines, cropped
from hypervlad.objects.shapes import fill_polygons
from hypervlad.objects.splitting import largest_piece

_MAX_LENGTH = 200_000  # of a stroke, in pixels, which are all looked at
_MIN_AREA = 4  # pixels: fewer are a slip of the hand, of which `particles count` warns
_GAP = 3  # pixels, by which each of two merged outlines grows until they meet
_FINE, _MAX_FINE = 4, 1 << 20  # a new edge is placed to a quarter of a pixel, in small windows
_MAX_REACH = 64

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
Box = tuple[int, int, int, int]


class Change(NamedTuple):
    """What an edit does: outlines that go and come, and what a person should know."""

    removed: Sequence[Outline]
    added: Sequence[Outline]
    message: str


def change_of(
    action: str, labels: list[int], stroke: list[Any], reach: int, name: str, outlines: Outlines
) -> Change:
    """Return what an edit changes; a ValueError says why it cannot be done.

    Parameters
    ----------
    action : {"delete", "name", "merge", "draw", "split", "redraw"}
    labels : list of int
        Of outlines that a person has chosen.
    stroke : list of float
        x and y in turn, in pixels from the corner of the image.
    reach : int
        Pixels by which a stroke may begin beside an edge.
    name : str
        A class.
    outlines : Outlines
    """
    own = [each for each in outlines if each.label in labels]
    if len(own) < len({*labels}) or not (own or action in ("draw", "split", "redraw")):
        raise ValueError("choose outlines that are there")
    if action == "delete":
        return Change(own, [], f"{counted(len(own), 'outline')} deleted")
    if action == "name":
        named = [replace(each, class_name=name) for each in own]
        return Change(own, named, f"{name}: {counted(len(own), 'outline')}")
    if action == "merge":
        return _merged(outlines, own)
    points = _checked(stroke, outlines.shape)
    if action == "draw":
        return _drawn(outlines, points)
    if action == "split":
        return _split(outlines, own or outlines.outlines, points)
    if action == "redraw":
        reach = min(max(reach, 1), _MAX_REACH)
        one = own[0] if len(own) == 1 else _at(outlines, points, reach)
        return _redrawn(outlines, one, points, reach)
    raise ValueError(f"there is no action {action!r}")


def grown(
    grow: Callable[[NDArray[np.intp], Callable[[Box], Mask], int, Outline | None], Outline],
    stroke: list[Any],
    outlines: Outlines,
) -> Change:
    """Return what `grown` of a `GrowingField` returns, in place of the outlines on a stroke.

    All of the stroke, which may be a point, is inside.
    """
    line = np.stack(_pixels_along(_checked(stroke, outlines.shape)), axis=1)
    if not ((line >= 0) & (line < outlines.shape)).all(axis=1).any():
        raise ValueError("click on a particle, in the image")
    line = np.clip(line, 0, np.array(outlines.shape) - 1)  # along its edge, in one piece
    own = [each for each in outlines if _is_on(each, line)]
    label = own[0].label if own else _free_label(outlines)
    others = [each for each in outlines if each not in own]
    new = grow(line, partial(_pixels_of, others), label, own[0] if len(own) == 1 else None)
    if len(own) == 1 and own[0].box == new.box and np.array_equal(own[0].mask, new.mask):
        raise ValueError("no other edge is here: redraw this one (E), or draw around it (A)")
    classes = {each.class_name for each in own}
    new = replace(new, class_name=classes.pop() if len(classes) == 1 else "")
    area = counted(int(np.count_nonzero(new.mask)), "pixel")
    instead = f", in place of {len(own)} outlines" if len(own) > 1 else " anew" if own else ""
    return Change(own, [new], f"outline {label} grown{instead}, {area}")


def _is_on(outline: Outline, line: NDArray[np.intp]) -> bool:
    inside = line[((line >= outline.box[:2]) & (line < outline.box[2:])).all(axis=1)]
    return bool(outline.mask[tuple((inside - outline.box[:2]).T)].any())


def _free_label(outlines: Outlines) -> int:
    return 1 + max((each.label for each in outlines), default=0)


def _checked(values: Sequence[object], shape: tuple[int, int]) -> Points:
    if len(values) % 2 or not values or not all(type(each) in (int, float) for each in values):
        raise ValueError("expected a stroke of numbers, x and y in turn")
    points, size = np.array(values, float).reshape(-1, 2), np.array(shape[::-1])
    if not ((points >= -size) & (points <= 2 * size)).all():  # nor of NaN
        raise ValueError(f"a stroke far outside of the image of {shape[0]} x {shape[1]} pixels")
    if np.hypot(*np.diff(points, axis=0).T).sum() > _MAX_LENGTH:
        raise ValueError(f"a stroke is at most {_MAX_LENGTH:,} pixels long")
    return points


def _drawn(outlines: Outlines, stroke: Points) -> Change:
    """Return a new outline of the pixels that a stroke goes around, which no other has."""
    found = fill_polygons([[stroke]], outlines.shape, is_stroke=True)
    if found is None or np.count_nonzero(found.mask) < _MIN_AREA:
        raise ValueError("the stroke goes around fewer than 4 pixels: draw all around a particle")
    free = found.mask & ~_pixels_of(outlines.outlines, found.box)
    label = _free_label(outlines)
    new = cropped(largest_piece(free), *found.box[:2], label) if free.any() else None
    if new is None or np.count_nonzero(new.mask) < _MIN_AREA:
        raise ValueError("all of it is in other outlines: redraw or delete these first")
    n_lost = int(free.sum() - new.mask.sum())
    lost = f"; {counted(n_lost, 'pixel')} in pieces beside other outlines left out"
    return Change([], [new], f"outline {label} drawn{lost if n_lost else ''}")


def _merged(outlines: Outlines, own: Sequence[Outline]) -> Change:
    """Return one outline of several, with narrow gaps between them that no other has."""
    if len(own) < 2:
        raise ValueError("choose two or more outlines to merge")
    edges = np.array([each.box for each in own])
    top, left = np.maximum(edges[:, :2].min(axis=0) - _GAP, 0).tolist()
    bottom, right = np.minimum(edges[:, 2:].max(axis=0) + _GAP, outlines.shape).tolist()
    box = top, left, bottom, right
    mask = _pixels_of(own, box)
    closed = np.pad(mask, _GAP)
    closed = ndimage.binary_closing(closed, EIGHT, iterations=_GAP)[_GAP:-_GAP, _GAP:-_GAP]
    closed = mask | (closed & ~_pixels_of(outlines.outlines, box))
    if _n_pieces(closed) < _n_pieces(mask):
        mask = closed
    classes, n_pieces = {each.class_name for each in own}, _n_pieces(mask)
    new = cropped(mask, top, left, own[0].label)
    assert new is not None
    new = replace(new, class_name=classes.pop() if len(classes) == 1 else "")
    apart = f", one particle in {n_pieces} parts that do not touch" if n_pieces > 1 else ""
    return Change(own, [new], f"{len(own)} outlines merged into outline {new.label}{apart}")


def _split(outlines: Outlines, own: Sequence[Outline], stroke: Points) -> Change:
    """Return the parts of the outlines that a stroke divides."""
    removed, added = list[Outline](), list[Outline]()
    label = _free_label(outlines)
    for each in own:
        mask = np.pad(each.mask, 1)
        top, left = each.box[0] - 1, each.box[1] - 1
        line = _line(stroke - (left, top), mask.shape)
        pieces, n_pieces = ndimage.label(mask & ~line, EIGHT)
        is_part = np.bincount(pieces.ravel(), minlength=n_pieces + 1) >= _MIN_AREA
        is_part[0] = False
        if is_part.sum() <= _n_pieces(mask):
            continue
        # The pixels of the line, and slivers beside it, belong to the nearest part.
        parts = np.where(is_part[pieces], pieces, 0)
        nearest = ndimage.distance_transform_edt(parts == 0, None, False, True)
        parts = np.where(mask, parts[tuple(nearest)], 0)
        order = np.argsort(-np.bincount(parts.ravel())[1:], kind="stable")[: is_part.sum()] + 1
        removed.append(each)
        for number in order.tolist():
            part = cropped(parts == number, top, left, each.label if number == order[0] else label)
            assert part is not None
            label += part.label == label
            added.append(replace(part, class_name=each.class_name))
    if not removed and len(own) < len(outlines.outlines):  # what is chosen is elsewhere
        return _split(outlines, outlines.outlines, stroke)
    if not removed:
        raise ValueError("the stroke divides no outline: begin and end it beside the particle")
    n_removed = counted(len(removed), "outline")
    return Change(removed, added, f"{n_removed} split into {counted(len(added), 'outline')}")


def _redrawn(outlines: Outlines, own: Outline, stroke: Points, reach: int) -> Change:
    """Return an outline with the part of its edge that a stroke draws anew.

    What the stroke encloses outside of the outline is added; of its parts, the largest stays.
    """
    low = np.minimum(own.box[:2], np.floor(stroke.min(axis=0))[::-1]).astype(int) - 2
    high = np.maximum(own.box[2:], np.ceil(stroke.max(axis=0))[::-1]).astype(int) + 2
    top, left, bottom, right = box = (*low.tolist(), *high.tolist())
    shape = bottom - top, right - left
    fine = _FINE if math.prod(shape) <= _MAX_FINE else 1
    mask = _pixels_of([own], box)
    large = mask.repeat(fine, axis=0).repeat(fine, axis=1)
    points = fine * (stroke - (left, top))
    for _ in range(2):  # one end, and the other
        points = _crossing(points, large, fine * reach)[::-1]
    line = _line(points, large.shape)
    holes = ndimage.binary_fill_holes(large) & ~large
    grown = ndimage.binary_fill_holes(large | line) & ~(large | line | holes)
    grown |= large | (line & ndimage.binary_dilation(grown, EIGHT))
    outside = ndimage.binary_dilation(~(grown | holes), EIGHT)
    pieces, n_pieces = ndimage.label(grown & ~line, EIGHT)
    parts, _ = ndimage.label(grown, EIGHT)
    areas = np.bincount(pieces.ravel(), minlength=n_pieces + 1)
    for part in np.unique(parts[line & grown]):
        divided = np.setdiff1d(pieces[parts == part], 0)
        for piece in divided[areas[divided] < areas[divided].max(initial=0)]:
            if outside[pieces == piece].any():  # and not within a loop of the stroke
                grown[pieces == piece] = False
    new = grown.reshape(shape[0], fine, shape[1], fine).sum(axis=(1, 3)) * 2 >= fine * fine
    others = [each for each in outlines if each.label != own.label]
    field = Outline(0, (0, 0, *outlines.shape), np.ones(outlines.shape, bool))
    new &= _pixels_of([field], box) & (mask | ~_pixels_of(others, box))
    if np.count_nonzero(new) < _MIN_AREA:
        raise ValueError("nothing would be left of the outline: delete it")
    if (new == mask).all():
        raise ValueError(
            "the stroke changes no edge: begin and end it on the edge of an outline, or inside"
        )
    changed = cropped(new, top, left, own.label)
    assert changed is not None
    gained = np.count_nonzero(new) - np.count_nonzero(mask)
    text = f"edge of outline {own.label} redrawn, {gained:+,} pixels"
    return Change([own], [replace(changed, class_name=own.class_name)], text)


def _at(outlines: Outlines, stroke: Points, reach: float) -> Outline:
    """Return the outline at the beginning of a stroke, or else at its end."""
    for x, y in (stroke[0], stroke[-1]):
        found = dict[float, Outline]()
        for each in outlines:
            top, left, bottom, right = each.box
            if top - reach <= y <= bottom + reach and left - reach <= x <= right + reach:
                rows, columns = np.nonzero(each.mask)
                away = np.hypot(rows + top + 0.5 - y, columns + left + 0.5 - x)
                found[float(away.min())] = each
        if found and min(found) <= reach + 1:
            return found[min(found)]
    raise ValueError("no outline is where the stroke begins or ends")


def _crossing(points: Points, mask: Mask, reach: int) -> Points:
    """Let a stroke begin across the edge if it begins near to it, and does not cross it there."""
    rows, columns = _pixels_along(points)
    away = np.hypot(columns + 0.5 - points[0, 0], rows + 0.5 - points[0, 1])
    near = slice(int(np.argmax(away > reach)) or len(away))
    places = np.clip([rows + 1, columns + 1], 0, [[s + 1] for s in mask.shape])
    inside = np.pad(mask, 1)[tuple(places)]
    x, y = points[0]
    top, left = max(0, math.floor(y - reach)), max(0, math.floor(x - reach))
    window = mask[top : math.ceil(y + reach) + 1, left : math.ceil(x + reach) + 1]
    others = np.argwhere(window != inside[0]) + np.array([top + 0.5, left + 0.5])
    distances = np.hypot(others[:, 0] - y, others[:, 1] - x)
    if (inside[near] != inside[0]).any() or distances.min(initial=np.inf) > reach + 1:
        return points
    return np.concatenate([others[[np.argmin(distances)], ::-1], points])


def _n_pieces(mask: Mask) -> int:
    return int(ndimage.label(mask, EIGHT)[1])


def _pixels_of(outlines: Sequence[Outline], box: Box) -> Mask:
    """Return the pixels of outlines in a box, which may reach beyond the image."""
    found = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
    for each in outlines:
        low, high = np.maximum(each.box[:2], box[:2]), np.minimum(each.box[2:], box[2:])
        if (low < high).all():
            here = tuple(map(slice, low - box[:2], high - box[:2]))
            found[here] |= each.mask[tuple(map(slice, low - each.box[:2], high - each.box[:2]))]
    return found


def _pixels_along(points: Points) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of pixels along a stroke, each beside the one before."""
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    steps = np.append(np.arange(0, lengths[-1], 0.5), lengths[-1])
    columns, rows = (np.floor(np.interp(steps, lengths, own)).astype(np.intp) for own in points.T)
    corners = np.flatnonzero((np.diff(rows) != 0) & (np.diff(columns) != 0)) + 1
    beside = np.insert(rows, corners, rows[corners - 1])
    return beside, np.insert(columns, corners, columns[corners])


def _line(points: Points, shape: tuple[int, ...]) -> Mask:
    """Return the pixels along a stroke, which share sides, in a window."""
    rows, columns = _pixels_along(points)
    is_there = (rows >= 0) & (columns >= 0) & (rows < shape[0]) & (columns < shape[1])
    line = np.zeros(shape, bool)
    line[rows[is_there], columns[is_there]] = True
    return line
