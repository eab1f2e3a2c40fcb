"""Writing outlines for other programs: label images, ImageJ regions, GeoJSON."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.constraints import Number, check_value
from hypervlad.common.files import replace_when_complete
from hypervlad.images.microscopy import import_extra
from hypervlad.objects.particle import Outlines
from hypervlad.objects.shapes import Ring, trace_polygons

_MAX_FLOAT_LABEL = 1 << 24  # to which the 32-bit floats of ImageJ are exact
_MOVE_TO, _LINE_TO, _CLOSE = 0.0, 1.0, 4.0


def write_outlines(
    path: str | os.PathLike[str],
    outlines: ArrayLike | Outlines,
    *,
    pixel_size: float | None = None,
    classes: Sequence[str] | None = None,
    measures: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Write outlines in the format of the suffix, complete or not at all.

    Parameters
    ----------
    path : path
        ``.tif``, ``.tiff``: a label image for ImageJ and others, of 16 bits or, for labels above
        65,535, of 32-bit floats, with its scale in micrometres. ``.zip``: ImageJ regions, named by
        their labels (requires the extra `formats`). ``.geojson``: polygons for QuPath.
    outlines : Outlines, array (H, W) of int, or array of n masks (H, W)
    pixel_size : float, optional
        Nanometres per pixel, for TIFF, by default that of the outlines; other formats have no
        scale.
    classes : sequence of n str, optional
        For GeoJSON: the class of each outline.
    measures : mapping of n numbers by name, or DataFrame, optional
        For GeoJSON. Columns of text, and values that are not finite, are left out.

    Raises
    ------
    ValueError
        For another suffix, or what the format cannot contain: outlines that overlap and labels
        above 2**24 in TIFF, classes and measures except in GeoJSON.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from hypervlad.particles import read_outlines, write_outlines
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels.tif")
    ...     write_outlines(path, np.array([[0, 1, 1], [2, 0, 1]]), pixel_size=2.5)
    ...     read_outlines(path).label_image()
    array([[0, 1, 1],
           [2, 0, 1]], dtype=int32)
    """
    check_value("pixel_size", pixel_size, [None, Number(above=0, meaning="nanometres per pixel")])
    found, suffix, name = Outlines.of(outlines), Path(path).suffix.lower(), os.fspath(path)
    if suffix == ".geojson":
        content = _geojson(found, classes, {} if measures is None else measures, name)
    elif not (classes is None and measures is None):
        raise ValueError(f"{path}: only .geojson files contain classes and measures")
    elif suffix in (".tif", ".tiff"):
        content = _label_tiff(found, pixel_size or found.pixel_size, name)
    elif suffix == ".zip":
        content = _region_archive(found, name)
    else:
        raise ValueError(f"{path}: outlines are written as .tif, .tiff, .zip or .geojson")
    with replace_when_complete(path) as stream:
        stream.write(content)


def _label_tiff(outlines: Outlines, pixel_size: float | None, name: str) -> bytes:
    import tifffile  # not above: importing it takes long

    labels = outlines.label_image()
    n_pixels = sum(np.count_nonzero(outline.mask) for outline in outlines)
    if n_pixels != np.count_nonzero(labels):
        raise ValueError(
            f"{name}: the outlines overlap, which a label image cannot show; write .zip or .geojson"
        )
    top = int(labels.max(initial=0))
    if top > _MAX_FLOAT_LABEL:
        raise ValueError(
            f"{name}: label {top} is above 2**24, the largest of ImageJ; renumber them"
        )
    scale: dict[str, Any] = {}
    if pixel_size is not None:
        scale = {"resolution": (1e3 / pixel_size,) * 2, "metadata": {"unit": "um"}}
    stream = io.BytesIO()
    pixels = labels.astype(np.uint16 if top < 1 << 16 else np.float32)
    tifffile.imwrite(stream, pixels, imagej=True, compression="zlib", **scale)
    return stream.getvalue()


def _region_archive(outlines: Outlines, name: str) -> bytes:
    roifile, rois = import_extra("roifile", "ImageJ ROI", name), []
    for outline in outlines:
        rings = list(chain.from_iterable(trace_polygons(outline.mask, *outline.box[:2])))
        # With sub-pixel coordinates, which are 32-bit floats, only where 16 bits do not do.
        roi = roifile.ImagejRoi.frompoints(np.concatenate(rings), name=str(outline.label))
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
    with replace_when_complete(path) as stream:
        stream.write(_archive_of(rois))


def _archive_of(rois: Sequence[Any]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for roi in rois:
            member = zipfile.ZipInfo(f"{roi.name}.roi")
            archive.writestr(member, roi.tobytes(), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def _path_of(ring: Ring) -> NDArray[np.float32]:
    """Return a ring as a path of Java, as ImageJ stores shapes of several rings."""
    lines = np.column_stack([np.full(len(ring), _LINE_TO), ring])
    lines[0, 0] = _MOVE_TO
    return np.append(lines.ravel(), _CLOSE).astype(np.float32)


def _geojson(
    outlines: Outlines,
    classes: Sequence[str] | None,
    measures: Mapping[str, Sequence[float]],
    name: str,
) -> bytes:
    columns = {str(key): np.asarray(column) for key, column in measures.items()}
    columns = {key: column for key, column in columns.items() if column.dtype.kind in "biuf"}
    kinds = {} if classes is None else {"classes": np.array(list(map(str, classes)))}
    for key, column in (columns | kinds).items():
        if len(column) != len(outlines):
            raise ValueError(f"{name}: {len(column)} values of {key} for {len(outlines)} outlines")
    features = []
    for number, outline in enumerate(outlines):
        properties: dict[str, Any] = {"objectType": "annotation", "name": str(outline.label)}
        if kinds:
            properties["classification"] = {"name": str(kinds["classes"][number])}
        values = {key: float(column[number]) for key, column in columns.items()}
        if finite := {key: value for key, value in values.items() if math.isfinite(value)}:
            properties["measurements"] = finite
        polygons = [
            [[*ring.tolist(), ring[0].tolist()] for ring in polygon]
            for polygon in trace_polygons(outline.mask, *outline.box[:2])
        ]
        geometry = {"type": "MultiPolygon", "coordinates": polygons}
        if len(polygons) == 1:
            geometry = {"type": "Polygon", "coordinates": polygons[0]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    collection = {"type": "FeatureCollection", "features": features}
    return json.dumps(collection, ensure_ascii=False, allow_nan=False).encode()
