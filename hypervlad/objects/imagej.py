"""Regions of ImageJ and Fiji: ``.roi`` files and archives of them."""

from __future__ import annotations

import io
import logging
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.files import replace_when_complete
from hypervlad.common.limits import MAX_OUTLINES_BYTES
from hypervlad.images.errors import ImageReadError
from hypervlad.images.files import is_left_out, path_parts
from hypervlad.images.microscopy import import_extra
from hypervlad.objects.particle import Outlines
from hypervlad.objects.shapes import Ring, Shape, ellipse, trace_polygons

logging.getLogger("roifile").addHandler(logging.NullHandler())  # otherwise it writes to stderr

_RECTANGLE, _OVAL, _LINE, _TRACED = 1, 2, 3, 8  # types of ImageJ
_AREAS = (0, _RECTANGLE, _OVAL, 7, _TRACED)  # polygons and freehand ones as well
_NO_AREAS = (1, 2, 4)  # subtypes of ImageJ: text, arrow, image
_GROUPS = [str(number) for number in range(1, 256)]
_CLASS = re.compile("^class: (.+)$", re.MULTILINE)  # of the properties of a region, as we write it
_SPLINE = 1  # an option: corners are joined by a curve
_MOVE_TO, _LINE_TO, _CLOSE = 0, 1, 4  # of a path of Java


def read_regions(files: Iterable[tuple[str, bytes]], name: str) -> Iterator[Shape]:
    """Yield regions, given the names of their files, or "", and contents."""
    roifile = import_extra("roifile", "ImageJ ROI", name)
    for key, stored in files:
        roi = roifile.ImagejRoi.frombytes(stored)
        # 0 is any plane. In a stack of several axes, the position is one of them.
        places = roi.position, roi.c_position, roi.z_position, roi.t_position
        plane = {axis: n for axis, n in zip(("slice", *"czt"), places, strict=True) if n}
        class_name = str(roi.group or next(iter(_CLASS.findall(roi.props)), ""))
        # Names such as |SB| are those of bars and labels that ImageJ draws.
        has_area = roi.roitype in _AREAS and roi.subtype not in _NO_AREAS and roi.name[:1] != "|"
        polygons = [_rings(roi, f"{name}: {key}")] if has_area else []
        yield Shape(key or roi.name, class_name, polygons, (), plane)


def unpacked(content: bytes, stem: str, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the regions in a file of this stem, or an archive.

    Nothing is extracted to the disk.
    """
    if content.startswith(b"Iout"):
        yield stem, content
        return
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
            yield parts[-1][:-4], archive.read(member)


def _rings(roi: Any, name: str) -> list[Ring]:
    if roi.roitype == _OVAL:
        across, down = (roi.right - roi.left) / 2, (roi.bottom - roi.top) / 2
        return [ellipse(roi.left + across, roi.top + down, across, down)]
    try:
        if roi.roitype == _RECTANGLE and roi.rounded_rect_arc_size:
            raise NotImplementedError
        rings = [np.asarray(ring, float) for ring in roi.coordinates(multi=True)]
    except NotImplementedError:
        raise ImageReadError(
            f"{name}: a region with round corners or curves; in Fiji, choose Edit > Selection > "
            "Create Mask, then Create Selection, and save that"
        ) from None
    return [_splined(ring) if roi.options & _SPLINE else ring for ring in rings]


def _splined(corners: Ring) -> Ring:
    """Return the closed curve through corners that ImageJ fits to them.

    It goes by the roots of the distances between corners, and has a point every two pixels, but at
    least a hundred.
    """
    from scipy.interpolate import CubicSpline  # not above: importing it takes long

    corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]  # not one twice
    if len(corners) < 3:
        return corners
    closed = np.concatenate([corners, corners[:1]])
    lengths = np.hypot(*np.diff(closed, axis=0).T)
    places = np.concatenate([[0], np.cumsum(np.sqrt(lengths))])
    curve = CubicSpline(places, closed, bc_type="periodic")
    return np.asarray(curve(np.linspace(0, places[-1], max(100, int(lengths.sum() / 2)))))


def regions_of(outlines: Outlines, name: str) -> bytes:
    """Return outlines as an archive of regions, with their names or labels, and classes."""
    roifile, rois = import_extra("roifile", "ImageJ ROI", name), []
    for outline in outlines:
        rings = list(chain.from_iterable(trace_polygons(outline.mask, *outline.box[:2])))
        if len(rings) == 1:
            # With sub-pixel coordinates, which are 32-bit floats, only where 16 bits do not do.
            roi = roifile.ImagejRoi.frompoints(rings[0], name=outline.shown_name)
            roi.options &= roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION
            roi.roitype = roifile.ROI_TYPE(_TRACED)
        else:
            # A path of Java has an operation before each corner, and one at the end.
            paths = [np.append(np.insert(e, 0, _LINE_TO, axis=1), _CLOSE) for e in rings]
            for each in paths:
                each[0] = _MOVE_TO
            path = np.concatenate(paths).astype(np.float32)
            roi = roifile.ImagejRoi(name=outline.shown_name, roitype=roifile.ROI_TYPE(_RECTANGLE))
            roi.top, roi.left, roi.bottom, roi.right = outline.box
            roi.multi_coordinates, roi.shape_roi_size = path, len(path)
        if outline.class_name in _GROUPS:
            roi.group = int(outline.class_name)
        elif outline.class_name:
            roi.props = f"class: {outline.class_name}\n"
        rois.append(roi)
    return _archive_of(rois)


def write_line_regions(path: str | os.PathLike[str], lines: NDArray[np.float64]) -> None:
    """Write straight lines as regions for ImageJ, named by their numbers from 1.

    `lines` has the shape (n, 2, 2): both ends, each as row and column. Requires the extra
    `formats`.
    """
    roifile, ends = import_extra("roifile", "ImageJ ROI", os.fspath(path)), ("y1", "x1", "y2", "x2")
    own = {"roitype": roifile.ROI_TYPE(_LINE), "options": roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION}
    # For lines, unlike areas, ImageJ counts from the middle of the first pixel, as we do.
    rois = [
        roifile.ImagejRoi(name=str(number), **own, **dict(zip(ends, line, strict=True)))
        for number, line in enumerate(lines.reshape(-1, 4).tolist(), 1)
    ]
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
