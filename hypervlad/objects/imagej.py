"""Regions of ImageJ and Fiji: ``.roi`` files and archives of them."""

from __future__ import annotations

import io
import logging
import math
import os
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from hypervlad.common.files import replace_when_complete
from hypervlad.common.limits import MAX_OUTLINES_BYTES
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.images.errors import ImageReadError
from hypervlad.images.files import is_left_out, path_parts
from hypervlad.images.microscopy import import_extra
from hypervlad.objects.particle import Outlines
from hypervlad.objects.shapes import Named, Ring, ellipse, fill_polygons, trace_polygons

logging.getLogger("roifile").addHandler(logging.NullHandler())  # otherwise it writes to stderr

_RECTANGLE, _OVAL = 1, 2
_AREAS = (0, _RECTANGLE, _OVAL, 7, 8)  # types of ImageJ: polygon, freehand and traced as well
_NO_AREAS = (1, 2, 4)  # subtypes of ImageJ: text, arrow, image
_ENCRYPTED = 1  # a flag of members of archives
_SPLINE = 1  # an option: corners are joined by a curve
_MOVE_TO, _LINE_TO, _CLOSE = 0.0, 1.0, 4.0  # of a path of Java; between them, curves
_N_NUMBERS = {_MOVE_TO: 2, _LINE_TO: 2, 2.0: 4, 3.0: 6, _CLOSE: 0}


def read_regions(content: bytes, stem: str, shape: tuple[int, int], name: str) -> Iterator[Named]:
    """Yield the regions of a file ``.roi`` of this stem, or an archive, without those of no area.

    An `ImageReadError` for regions of several planes of a stack, which would lie in one field.
    """
    roifile = import_extra("roifile", "ImageJ ROI", name)
    no_areas, planes = list[str](), defaultdict[str, set[int]](set)
    files = [(stem, content)] if content.startswith(b"Iout") else _archived(content, name)
    for key, stored in files:
        roi = roifile.ImagejRoi.frombytes(stored)
        if roi.roitype not in _AREAS or roi.subtype in _NO_AREAS:
            no_areas.append(key)
            continue
        # 0 is any plane. In a stack of several axes, the position is one of them.
        places = roi.position, roi.c_position, roi.z_position, roi.t_position
        for axis, place in zip(("slice", *"czt"), places, strict=True):
            planes[axis] |= {place} - {0}
        if several := [f"{axis} {sorted(own)}" for axis, own in planes.items() if len(own) > 1]:
            raise ImageReadError(
                f"{name}: regions of several planes of a stack ({', '.join(several)}); save those "
                "of one plane"
            )
        yield (
            key,
            str(roi.group or ""),
            fill_polygons([[np.asarray(each, float) for each in _rings(roi)]], shape),
        )
    if no_areas:
        warn_user(
            f"{name}: {counted(len(no_areas), 'region')} left out, without an area (a line, point "
            f"or text): {name_some(no_areas)}"
        )


def _archived(content: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of regions in an archive; nothing is extracted to the disk."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if (n_bytes := sum(member.file_size for member in archive.infolist())) > MAX_OUTLINES_BYTES:
            raise ImageReadError(f"{name}: regions of {n_bytes:,} bytes; split it")
        for member in archive.infolist():
            parts = [part for part in path_parts(member.filename) if part != ".."]
            if member.is_dir() or any(map(is_left_out, parts)):
                continue
            if not parts[-1].lower().endswith(".roi"):
                raise ImageReadError(
                    f"{name}: an archive of ImageJ regions (.roi) was expected, but it contains "
                    f"{member.filename}; unpack it"
                )
            if member.flag_bits & _ENCRYPTED:
                raise ImageReadError(
                    f"{name}: {member.filename} is encrypted; save the archive without a password"
                )
            yield parts[-1][:-4], archive.read(member)


def _rings(roi: Any) -> list[Ring]:
    box = roi.top, roi.left, roi.bottom, roi.right
    if roi.multi_coordinates is not None:
        return _rings_of_path(np.asarray(roi.multi_coordinates, float).tolist())
    if roi.roitype == _OVAL:
        return [ellipse(*box)]
    if roi.roitype == _RECTANGLE and roi.rounded_rect_arc_size:
        return [_rounded(*box, roi.rounded_rect_arc_size)]
    corners = np.asarray(roi.coordinates(), float)
    return [_splined(corners) if roi.options & _SPLINE else corners]


def _rings_of_path(path: list[float]) -> list[Ring]:
    """Return the rings of a path of Java, of which curves become lines."""
    rings, place = list[list[Any]](), 0
    while place < len(path):
        command = path[place]
        numbers = path[place + 1 : place + 1 + _N_NUMBERS[command]]
        points = np.reshape(numbers, (-1, 2))
        if command == _MOVE_TO:
            rings.append([*points])
        elif command == _LINE_TO:
            rings[-1] += [*points]
        elif len(points):  # a curve of Bezier, between the ends of which its controls are
            ends = np.array([rings[-1][-1], *points])
            t, n = np.linspace(0, 1, 33)[1:, None], len(points)
            weights = [math.comb(n, k) * t**k * (1 - t) ** (n - k) for k in range(n + 1)]
            rings[-1] += [*(np.hstack(weights) @ ends)]
        place += 1 + len(numbers)
    return [np.array(ring) for ring in rings]


def _rounded(top: int, left: int, bottom: int, right: int, diameter: int) -> Ring:
    """Return a rectangle whose corners are quarters of an ellipse, as Java draws it."""
    across, down = min(diameter, right - left), min(diameter, bottom - top)
    n = 4 * (across + down) + 32
    corner = ellipse(top, left, top + down, left + across, n)  # from the right, clockwise on screen
    x, y = corner.T
    middle = left + across / 2, top + down / 2
    moved = np.where(x > middle[0], right - left - across, 0.0)
    below = np.where(y > middle[1], bottom - top - down, 0.0)
    return np.column_stack([x + moved, y + below])


def _splined(corners: Any) -> Ring:
    """Return the closed curve through corners that ImageJ fits to them.

    It goes by the roots of the distances between corners, and has a point every two pixels, but at
    least a hundred.
    """
    closed = np.asarray([*corners, corners[0]], float)
    lengths = np.hypot(*np.diff(closed, axis=0).T)
    if len(corners) < 3 or not lengths.all():
        return closed
    places = np.concatenate([[0], np.cumsum(np.sqrt(lengths))])
    curve = CubicSpline(places, closed, bc_type="periodic")
    return np.asarray(curve(np.linspace(0, places[-1], max(100, int(lengths.sum() / 2)))))


def regions_of(outlines: Outlines, name: str) -> bytes:
    """Return outlines as an archive of regions, named by their names or labels."""
    roifile, rois = import_extra("roifile", "ImageJ ROI", name), []
    for outline in outlines:
        rings = list(chain.from_iterable(trace_polygons(outline.mask, *outline.box[:2])))
        # With sub-pixel coordinates, which are 32-bit floats, only where 16 bits do not do.
        roi = roifile.ImagejRoi.frompoints(np.concatenate(rings), name=outline.shown_name)
        roi.options &= roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION
        roi.roitype = roifile.ROI_TYPE.TRACED
        if len(rings) > 1:
            roi.roitype = roifile.ROI_TYPE.RECT
            roi.options = roifile.ROI_OPTIONS(0)
            roi.integer_coordinates = roi.subpixel_coordinates = None
            roi.n_coordinates = 0
            roi.multi_coordinates = np.concatenate(list(map(_path_of, rings)))
            roi.shape_roi_size = len(roi.multi_coordinates)
        rois.append(roi)
    return _archive_of(rois)


def write_line_regions(path: str | os.PathLike[str], lines: NDArray[np.float64]) -> None:
    """Write straight lines as regions for ImageJ, named by their numbers from 1.

    `lines` has the shape (n, 2, 2): both ends, each as row and column. Requires the extra
    `formats`.
    """
    roifile, rois = import_extra("roifile", "ImageJ ROI", os.fspath(path)), []
    # For lines, unlike areas, ImageJ counts from the middle of the first pixel, as we do.
    for number, ((y1, x1), (y2, x2)) in enumerate(lines.tolist(), 1):
        roi = roifile.ImagejRoi(
            roitype=roifile.ROI_TYPE.LINE,
            options=roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION,
            name=str(number),
            x1=x1,
            y1=y1,
            x2=x2,
            y2=y2,
        )
        rois.append(roi)
    with replace_when_complete(path) as file:
        file.write(_archive_of(rois))


def _archive_of(rois: Sequence[Any]) -> bytes:
    stream, names = io.BytesIO(), set[str]()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, roi in enumerate(rois, start=1):
            file = roi.name.replace("/", "_").replace("\\", "_")
            file = f"{number}_{file}" if file in names or is_left_out(f"{file}.roi") else file
            names.add(file)
            archive.writestr(zipfile.ZipInfo(f"{file}.roi"), roi.tobytes(), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def _path_of(ring: Ring) -> NDArray[np.float32]:
    """Return a ring as a path of Java, as ImageJ stores shapes of several rings."""
    lines = np.column_stack([np.full(len(ring), _LINE_TO), ring])
    lines[0, 0] = _MOVE_TO
    return np.append(lines.ravel(), _CLOSE).astype(np.float32)
