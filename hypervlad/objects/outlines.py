"""Reading and finding the outlines of particles that other programs have written."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad.common.files import parse_json
from hypervlad.common.limits import (
    MAX_LABEL,
    MAX_OUTLINES_BYTES,
    MAX_OUTLINES_VALUES,
    MAX_PIXELS,
)
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.images.errors import ImageReadError
from hypervlad.images.files import IMAGE_SUFFIXES, composed, is_left_out, list_files, path_parts
from hypervlad.images.masks import check_fits, choose_by_name, matches_by_name, read_mask
from hypervlad.images.microscopy import import_extra
from hypervlad.images.pixels import check_size
from hypervlad.images.reading import decode_stored, image_name
from hypervlad.objects.particle import Outline, Outlines, cropped
from hypervlad.objects.shapes import Ring, expand_runs, fill_polygons

logging.getLogger("roifile").addHandler(logging.NullHandler())  # otherwise it writes to stderr


_OVAL = 2
_AREAS = (0, 1, _OVAL, 7, 8)  # types of ImageJ: polygon, rectangle, oval, freehand, traced
_NO_AREAS = (1, 2, 4)  # subtypes of ImageJ: text, arrow, image
_SUFFIXES = IMAGE_SUFFIXES | {".npy", ".zip", ".roi", ".json", ".geojson"}
_MARK = re.compile(
    "[-_. ](cp_masks|masks?|gt|labels?|ground_?truth|seg|segmentation|outlines?|rois?|roiset|"
    "objects?|object identities)$",
    re.IGNORECASE,
)

_Named = Iterable[tuple[str, Outline | None]]  # outlines with their names in a file


def read_outlines(
    source: Any,
    *,
    shape: tuple[int, int] | None = None,
    banner_rows: int | None = 0,
    image: str | os.PathLike[str] | int | None = None,
    name: str | None = None,
) -> Outlines:
    """Read the outlines of the particles of one image.

    Parameters
    ----------
    source : path, array or Outlines
        - A label image: TIFF of any type, PNG, NPY or array (H, W) of whole numbers, 0 for
          background. If its only positive value is 1, 255, 65535 or the largest of its type,
          and in several regions, it is a mask: each region is a particle, with a warning.
        - Masks: NPY or array (n, H, W) of True and False, or a folder of image files, one per
          particle, as :func:`hypervlad.images.read_mask` reads them. Other files are ignored.
        - ImageJ regions: ``.roi``, or a ``.zip`` of them (requires the extra `formats`).
        - JSON: COCO (polygons and both kinds of run lengths), the annotations that Segment Anything
          writes, and GeoJSON such as QuPath's. A pixel belongs to a polygon if its centre is
          inside, by the even-odd rule.
    shape : (int, int), optional
        Height and width of the image, at which outlines are cut off; required for ImageJ regions,
        GeoJSON, and COCO polygons without a list of images.
    banner_rows : int or None, default=0
        As in :func:`hypervlad.images.read_mask`.
    image : path or int, optional
        Which image of a COCO file, by its name or id; for other files unused.
    name : str, optional
        For errors and warnings, by default the path.

    Returns
    -------
    Outlines
        Labels are the values of a label image, or the names (of masks, regions and features) or
        COCO identifiers if these are different whole numbers from 1 to 2**31 - 1, otherwise
        positions in the file from 1.

    Raises
    ------
    ImageReadError
        If the source is none of these, damaged, too large, or not of the image's size.

    Warns
    -----
    UserWarning
        If a mask is split, or outlines are left out: lines and points, empty ones, and those
        outside the image.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.particles import read_outlines
    >>> read_outlines(np.array([[0, 1, 1], [2, 0, 1]]))
    Outlines(2 particles in 2 x 3 pixels)
    """
    name = name or image_name(source)
    try:
        found = _read(source, shape, image, name)
    except ImageReadError:
        raise
    except Exception as error:  # decoders, and damaged JSON, raise anything
        raise ImageReadError(
            f"{name}: damaged, or not a file of outlines ({type(error).__name__}: {error}); export "
            "them again, as a label image, ImageJ regions, COCO or GeoJSON"
        ) from error
    if shape is None or found.shape == tuple(shape):
        return found
    check_fits(found.shape, shape, banner_rows, name, "a segmentation")
    masks = ((o, o.mask[: max(0, shape[0] - o.box[0])]) for o in found)
    kept = _collect(((str(o.label), cropped(mask, *o.box[:2])) for o, mask in masks), shape, name)
    return replace(kept, pixel_size=found.pixel_size)


def find_outlines(
    images: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
) -> list[Path | None]:
    """Find the outlines of each image in a folder.

    Parameters
    ----------
    images : sequence of n paths
    folder : path
        One file for all images, such as COCO, or a folder of what :func:`read_outlines` reads,
        named by the rules of :func:`hypervlad.images.find_masks`, also with endings such as
        ``_cp_masks`` (cellpose), ``_Object Identities`` (ilastik) and ``_labels``. A folder of
        masks is named like its image; COCO files contain the names of theirs. The images may lie in
        the same folder.
    root : path, optional
        Folder that contains the images: names of folders above it are not compared.

    Returns
    -------
    list of n Path or None
        None for an image without outlines. ``read_outlines(path, image=image)`` reads each, also
        from a COCO file of several images.

    Raises
    ------
    ImageReadError
        If there is no such folder, no image has outlines, an image has two files, or two images
        have one.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.particles import find_outlines
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "a_cp_masks.png").touch()
    ...     [path and path.name for path in find_outlines(["images/a.tif", "images/b.tif"], folder)]
    ['a_cp_masks.png', None]
    """
    folder = Path(folder)
    if folder.is_file() and len(images) == 1:
        return [folder]
    if not folder.exists():
        raise ImageReadError(f"{folder}: no such folder of outlines, or file")
    of_folder = [folder] if folder.is_file() else map(Path, list_files(folder))
    folder = folder.parent if folder.is_file() else folder
    own = {os.path.abspath(image) for image in images}
    files = [file for file in of_folder if file.suffix.lower() in _SUFFIXES]
    files = [file for file in files if os.path.abspath(file) not in own]
    by_name, file_of = defaultdict[str, list[Path]](list), dict[Path, Path]()
    # Cellpose writes _seg.npy, which is not read, beside the file of masks.
    for file in sorted(files, key=lambda file: (file.name.endswith("_seg.npy"), file)):
        listed = _by_name(_listed_images(file)) if file.suffix.lower() == ".json" else {}
        for name, entries in listed.items():
            places = [file.joinpath(*path_parts(entry["file_name"])) for entry in entries]
            by_name[name] += places
            file_of |= dict.fromkeys(places, file)
        stored = composed(file.relative_to(folder).with_suffix("").as_posix())
        for name in {} if listed else dict.fromkeys([stored, _MARK.sub("", stored)]):
            if not (file.name.endswith("_seg.npy") and name in by_name):
                by_name[name].append(file)
    for parent in {file.parent for file in files} - {folder}:
        by_name[composed(parent.relative_to(folder).as_posix())].append(parent)
    chosen = choose_by_name(images, folder, by_name, root, "segmentation")
    return [None if path is None else file_of.get(path, path) for path in chosen]


def _read(source: Any, shape: tuple[int, int] | None, image: Any, name: str) -> Outlines:
    if isinstance(source, Outlines):
        return source
    if not isinstance(source, str | os.PathLike):
        return Outlines.of(source, name)
    path, head = Path(source), b""
    if os.path.isdir(source):  # not the path, which for "" is this folder
        return _of_folder(path, name)
    # What is no file, or must not be read, is named by the last line.
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(512)
    if head.startswith(b"\x93NUMPY"):
        if b"|O" in head:
            raise ImageReadError(
                f"{name}: Python objects (a pickle), which are not read because they can run any "
                "program. If cellpose wrote it, export the masks: 'Save masks as PNG/tif' in its "
                "window, --save_tif in a shell, or cellpose.io.save_masks(..., tif=True)"
            )
        # A header that claims more than the file contains takes no memory here.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        check_size(1, array.size, name, MAX_PIXELS, n_bytes=array.dtype.itemsize)
        return Outlines.of(np.array(array), name)
    if head.startswith((b"PK", b"Iout")):
        size, is_archive = _known(shape, name), head.startswith(b"PK")
        files = _archived(path, name) if is_archive else [(path.stem, _content(path, name))]
        return _collect(_regions(files, size, name), size, name)
    if head.lstrip()[:1] in (b"{", b"["):
        return _of_json(_parsed(path, name), shape, image, name)
    stored = decode_stored(path, name, one_page=True)
    return replace(Outlines.of(stored.pixels, name), pixel_size=stored.pixel_size)


def _known(shape: Any, name: str) -> tuple[int, int]:
    if shape is None:
        raise ImageReadError(f"{name}: without the size of its image; give shape=(height, width)")
    height, width = map(int, shape)
    check_size(height, width, name, MAX_PIXELS)
    return height, width


def _collect(named: _Named, shape: tuple[int, int], name: str) -> Outlines:
    """Number outlines by their names, if these are numbers, and leave out empty ones."""
    found, n_pixels = list[tuple[str, Outline | None]](), 0
    for key, outline in named:
        found.append((key, outline))
        n_pixels += 0 if outline is None else outline.mask.size
        if n_pixels > MAX_PIXELS:
            raise ImageReadError(f"{name}: outlines of more than {MAX_PIXELS:,} pixels; split it")
    numbers = [int(key) if re.fullmatch("[0-9]{1,10}", key) else 0 for key, _ in found]
    if len(set(numbers)) < len(numbers) or not all(0 < n <= MAX_LABEL for n in numbers):
        numbers = list(range(1, len(found) + 1))
    if empty := [key for key, outline in found if outline is None]:
        warn_user(
            f"{name}: {len(empty)} of {counted(len(found), 'outline')} left out, without a pixel "
            f"in the image of {shape[0]} x {shape[1]} pixels: {name_some(empty)}"
        )
    kept = [replace(o, label=n) for n, (_, o) in zip(numbers, found, strict=True) if o is not None]
    return Outlines(shape, tuple(sorted(kept, key=lambda outline: outline.label)))


def _of_folder(folder: Path, name: str) -> Outlines:
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    files = [file for file in files if not is_left_out(file.name)]
    if not files:
        raise ImageReadError(f"{name}: a folder without masks; it needs one image per particle")
    files.sort(key=lambda file: re.sub(r"\d+", lambda digits: digits[0].zfill(20), file.name))
    height, width = read_mask(files[0]).shape
    masks = ((f.stem, cropped(read_mask(f, shape=(height, width)))) for f in files)
    return _collect(masks, (height, width), name)


def _archived(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of regions in an archive; nothing is extracted to the disk."""
    with zipfile.ZipFile(path) as archive:
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


def _regions(files: Iterable[tuple[str, bytes]], shape: tuple[int, int], name: str) -> _Named:
    roifile = import_extra("roifile", "ImageJ ROI", name)
    no_areas, slices = list[str](), set[int]()
    for key, content in files:
        roi = roifile.ImagejRoi.frombytes(content)
        slices |= {roi.position} - {0}
        if len(slices) > 1:
            raise ImageReadError(f"{name}: regions of several slices of a stack; save those of one")
        if roi.roitype not in _AREAS or roi.subtype in _NO_AREAS:
            no_areas.append(key)
            continue
        rings = [_ellipse(roi)] if roi.roitype == _OVAL else roi.coordinates(multi=True)
        yield key, fill_polygons([[np.asarray(ring, np.float64) for ring in rings]], shape)
    if no_areas:
        warn_user(
            f"{name}: {counted(len(no_areas), 'region')} left out, without an area (a line, point "
            f"or text): {name_some(no_areas)}"
        )


def _ellipse(roi: Any) -> Ring:
    height, width = roi.bottom - roi.top, roi.right - roi.left
    angle = np.linspace(0, 2 * math.pi, 4 * (height + width) + 32, endpoint=False)
    x, y = roi.left + width * (1 + np.cos(angle)) / 2, roi.top + height * (1 + np.sin(angle)) / 2
    return np.column_stack([x, y])


def _content(path: Path, name: str) -> bytes:
    if path.stat().st_size > MAX_OUTLINES_BYTES:
        raise ImageReadError(f"{name}: more than {MAX_OUTLINES_BYTES:,} bytes; split it")
    return path.read_bytes()


def _parsed(path: Path, name: str) -> Any:
    content = _content(path, name)
    try:
        return parse_json(content, MAX_OUTLINES_VALUES)
    except ValueError as error:
        raise ImageReadError(f"{name}: not JSON to be read ({error}); split it?") from error


def _of_json(content: Any, shape: Any, image: Any, name: str) -> Outlines:
    if isinstance(content, list):  # of features, or annotations as Segment Anything writes them
        content = {"features" if content and "geometry" in content[0] else "annotations": content}
    if "features" in content:
        size = _known(shape, name)
        return _collect((_feature(each, size) for each in content["features"]), size, name)
    annotations = content["annotations"]
    images = content.get("images", [content["image"]] if "image" in content else None)
    if images is None:
        ids = dict.fromkeys(each.get("image_id") for each in annotations)
        images = [{} if each is None else {"id": each} for each in ids or [None]]
    entry = _entry_of(image, images, name)
    if len(images) > 1:
        annotations = [each for each in annotations if each["image_id"] == entry["id"]]
    shapes = [each.get("segmentation") or () for each in annotations]
    sizes = [each["size"] for each in shapes if isinstance(each, dict)]
    listed = [[entry["height"], entry["width"]]] if "height" in entry else []
    size = _known((*listed, *sizes, shape)[0], name)
    if any(list(each) != list(size) for each in sizes):
        raise ImageReadError(f"{name}: run lengths of an image of another size than {size}")
    keys = [str(each.get("id", number)) for number, each in enumerate(annotations, start=1)]
    found = (
        expand_runs(each["counts"], size)
        if isinstance(each, dict)
        else fill_polygons([[np.reshape(np.array(ring, float), (-1, 2))] for ring in each], size)
        for each in shapes
    )
    return _collect(zip(keys, found, strict=True), size, name)


def _entry_of(image: Any, entries: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return what a COCO file says of an image."""
    if len(entries) == 1 and (image is None or "file_name" not in entries[0]):
        return entries[0]
    if image is None or isinstance(image, int | np.integer):
        found = [entry for entry in entries if image is not None and entry["id"] == image]
    else:
        found = matches_by_name(Path(os.path.abspath(image)), _by_name(entries))
    if len(found) != 1:
        known = [str(entry.get("file_name", entry.get("id"))) for entry in entries]
        raise ImageReadError(
            f"{name}: outlines of {counted(len(entries), 'image')}, {name_some(known)}; give the "
            f"name or the id of one as image, not {image!r}"
        )
    return found[0]


def _by_name(entries: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return images of a COCO file by their paths and names there, with and without suffix."""
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        parts = path_parts(str(entry.get("file_name", "")))
        for name in {"/".join(parts), *parts[-1:]}:
            for key in {name, os.path.splitext(name)[0]}:
                by_name[key].append(entry)
    return by_name


def _listed_images(file: Path) -> list[dict[str, Any]]:
    """Return the images that a COCO file lists; none of any other file."""
    try:
        return [each for each in _parsed(file, "")["images"] if isinstance(each["file_name"], str)]
    except (OSError, LookupError, TypeError, ImageReadError):
        return []


def _feature(feature: Mapping[str, Any], size: tuple[int, int]) -> tuple[str, Outline | None]:
    geometry, properties = feature["geometry"], feature.get("properties") or {}
    kind, polygons = geometry["type"], geometry["coordinates"]
    polygons = {"Polygon": [polygons], "MultiPolygon": polygons}.get(kind, [])
    parts = [[np.array(ring, float)[:, :2] for ring in polygon] for polygon in polygons]
    return str(properties.get("name", kind)), fill_polygons(parts, size)
