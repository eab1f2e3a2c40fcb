"""Pixels of polygons and of run lengths, and the polygons around pixels."""

# Polygons are measured from the outer corner of the first pixel, as in ImageJ, QuPath and COCO:
# pixel (row, column) is the square from (column, row) to (column + 1, row + 1) in x and y.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.common.limits import MAX_COORDINATE, MAX_CROSSINGS
from hypervlad.objects.particle import Outline, cropped

Ring: TypeAlias = NDArray[Any]  # (n, 2): x, y of the corners; the last is joined to the first
Polygons: TypeAlias = list[list[Ring]]  # each of its outer ring and its holes
#: Why a shape is left out.
NO_AREA = "without an area: a line, a point, a text or only a box"


class Shape(NamedTuple):
    """What a file has of one object: its name and class there, or "", and its polygons or pixels.

    In place of these, a text says why it is left out; None, that it has no pixel. `doubts` say what
    may be meant otherwise, and `plane` where in a stack it is, by axis. `stated` are the box (top,
    left, bottom, right) and the area in pixels by what the file says, if it says them.
    """

    name: str
    class_name: str
    area: Polygons | Outline | str | None
    doubts: Sequence[str] = ()
    plane: Mapping[str, int] = {}
    stated: tuple[Sequence[float] | None, float | None] = None, None


def ellipse(x: float, y: float, across: float, down: float, turn: float = 0.0) -> Ring:
    """Return an ellipse by its middle, half axes and angle, so fine that no pixel is lost."""
    n = 8 * math.ceil(min(abs(across) + abs(down), 1 << 20)) + 32
    angle = np.linspace(0, 2 * math.pi, n, endpoint=False)
    u, v = across * np.cos(angle), down * np.sin(angle)
    cos, sin = math.cos(turn), math.sin(turn)
    return np.column_stack([x + u * cos - v * sin, y + u * sin + v * cos])


def fill_polygons(
    parts: Sequence[Sequence[Ring]], shape: tuple[int, int], *, is_stroke: bool = False
) -> Outline | None:
    """Return the pixels in any of some polygons, each of rings; None if there are none.

    A pixel lies in a polygon if its centre is inside an odd number of its rings, or of a stroke, if
    this goes around it; a centre on a left or upper edge is inside, on a right or lower edge
    outside. A ValueError for coordinates that are
    not finite or far outside any image, and for polygons that cross rows millions of times.
    """
    corners = np.concatenate([ring for part in parts for ring in part])
    if not len(corners):
        return None
    if not (np.abs(corners) < MAX_COORDINATE).all():
        raise ValueError("coordinates of a polygon that are not finite, or beyond a billion")
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, shape[::-1]).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, shape[::-1]).astype(int)
    mask = np.zeros((bottom - top, right - left), bool)
    for rings in parts:
        mask |= _filled([ring - (left, top) for ring in rings], mask.shape, is_stroke)
    return cropped(mask, int(top), int(left))


def _filled(rings: Sequence[Ring], shape: tuple[int, int], is_stroke: bool) -> NDArray[np.bool_]:
    """Flip, in each row, all pixels on the right of each edge that crosses it.

    Of a stroke, count these edges with their direction: it may cross itself.
    """
    height, width = shape
    x0, y0 = np.concatenate(rings).T
    x1, y1 = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).T
    ends = np.clip(np.ceil(np.stack([y0, y1]) - 0.5), 0, height).astype(np.int64)
    first, n_rows = ends.min(axis=0), np.abs(ends[1] - ends[0])
    if n_rows.sum() > MAX_CROSSINGS:
        raise ValueError(f"a polygon that crosses rows of pixels more than {MAX_CROSSINGS:,} times")
    edge = np.repeat(np.arange(len(n_rows)), n_rows)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * slope
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    flips = np.zeros((height, width + 1), np.int16 if is_stroke else np.uint8)
    np.add.at(flips, (row, column), np.sign(y1 - y0)[edge].astype(np.int16) if is_stroke else 1)
    inside = np.cumsum(flips[:, :width], axis=1, dtype=flips.dtype)
    filled: NDArray[np.bool_] = inside != 0 if is_stroke else inside % 2 == 1
    return filled


def expand_runs(counts: Any, shape: tuple[int, int]) -> Outline | None:
    """Return the pixels of COCO's run lengths, as numbers or compressed; None if there are none.

    Runs go down the columns, first of background. A ValueError if they do not fill the image.
    """
    height, n_pixels = shape[0], shape[0] * shape[1]
    # As floats, whose sum cannot overflow.
    runs = np.array(_uncompressed(counts) if isinstance(counts, str) else counts, float)
    if runs.ndim != 1 or runs.sum() != n_pixels or runs.min() < 0 or (runs % 1).any():
        raise ValueError(f"run lengths that do not fill {shape[0]} x {shape[1]} pixels")
    runs = runs.astype(np.int64)
    # Of the background before the first pixel and after the last, whole columns are left out.
    left, runs[0] = divmod(int(runs[0]), height)
    if len(runs) % 2:
        runs[-1] = -runs[:-1].sum() % height
    filled = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return cropped(filled.reshape(-1, height).T, left=left)


def runs_of(outline: Outline, shape: tuple[int, int]) -> list[int]:
    """Return the run lengths of an outline, as numbers: the inverse of `expand_runs`."""
    (height, width), (top, left, bottom, right) = shape, outline.box
    columns = np.zeros((right - left, height), bool)
    columns[:, top:bottom] = outline.mask.T
    ends = np.flatnonzero(np.diff(columns.ravel(), prepend=False, append=False))
    runs: list[int] = np.diff(left * height + ends, prepend=0, append=height * width).tolist()
    return runs


def _uncompressed(text: str) -> NDArray[np.int64]:
    """Return COCO's compressed run lengths: 5 bits a character, differences to two runs before."""
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    is_last = codes & 32 == 0
    if not len(codes) or not is_last[-1] or codes.min() < 0 or codes.max() > 63:
        raise ValueError("damaged compressed run lengths")
    starts = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
    n_codes = np.diff(starts, append=len(codes))
    place = np.arange(len(codes)) - np.repeat(starts, n_codes)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values[codes[is_last] & 16 > 0] -= 1 << (5 * n_codes[codes[is_last] & 16 > 0])
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def trace_polygons(mask: NDArray[np.bool_], top: int = 0, left: int = 0) -> Polygons:
    """Return the polygons around the pixels of a mask whose first pixel lies there.

    There is one for each part of pixels that share edges: a list of its outer ring and, the other
    way round, those of its holes, (n, 2) of int each. No ring touches itself, and the polygons
    contain exactly the pixels of the mask.
    """
    from skimage.measure import find_contours  # not above: importing it takes long

    polygons, (parts, _) = [], ndimage.label(mask)
    for number, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
        part = np.pad(parts[rows, columns] == number, 1).astype(np.uint8)
        # Through the middles of the sides of pixels; where two pixels meet at a corner, between
        # what is outside of them, as otherwise the ring would touch itself.
        rings = [_corners(each) for each in find_contours(part, 0.5, fully_connected="high")]
        rings.sort(key=lambda ring: int(ring.min()))  # only the outer one begins at 1
        corner = np.array([left + columns.start - 1, top + rows.start - 1])
        polygons.append([ring + corner for ring in rings])
    return polygons


def _corners(middles: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the corners of a ring, x and y, of which the middles of all sides are given."""
    middles = middles[:-1, ::-1] + 0.5
    following = np.roll(middles, -1, axis=0)
    # A side has a whole number in the one direction, the next one around a corner in the other.
    is_whole = middles % 1 == 0
    turns = (is_whole != (following % 1 == 0)).any(axis=1)
    corners: NDArray[np.int64] = np.where(is_whole, middles, following)[turns].astype(np.int64)
    return corners
