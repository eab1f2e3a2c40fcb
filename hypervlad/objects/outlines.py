"""Outlines of particles in files of other programs: read, and written."""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hypervlad.common.constraints import Number, check_value
from hypervlad.common.files import replace_when_complete
from hypervlad.common.limits import MAX_LABEL, MAX_OUTLINES_BYTES, MAX_PIXELS
from hypervlad.common.progress import note_doubt
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.images.errors import ImageReadError
from hypervlad.images.files import IMAGE_SUFFIXES, is_left_out
from hypervlad.images.masks import check_fits, grey_edged_mask, read_mask
from hypervlad.images.morphology import EIGHT, grown
from hypervlad.images.pixels import check_size
from hypervlad.images.reading import decode_stored, image_name
from hypervlad.objects.imagej import read_regions, regions_of, unpacked
from hypervlad.objects.particle import Outline, Outlines, cropped
from hypervlad.objects.polygon_files import (
    NOT_READ,
    coco_of,
    geojson_of,
    json_of,
    known_size,
    open_json,
    read_text,
)
from hypervlad.objects.results_folder import write_tiff
from hypervlad.objects.shapes import NO_AREA, Shape, fill_polygons

_OF_OTHERS = (".xml", ".csv", ".tsv", ".txt", ".svg")  # in which other programs write outlines
_MAX_FLOAT_LABEL = 1 << 24  # to which the 32-bit floats of ImageJ are exact
# Shares of a field that one outline hardly covers: any, and from edge to edge; of fields so large.
_COVER, _COVER_ACROSS, _MIN_FIELD = 0.9, 0.2, 1000
_OUTSIDE = "left out, without a pixel in the image of {} x {} pixels"
_COVERS = (
    "over most of the image, or from edge to edge, like the background of a file that is inverted "
    "or has another number than 0 for it (labels are read as they are stored, not as displayed)"
)
_REPEATED = "with the pixels of another one, which count twice; delete one"
_ELSEWHERE = "elsewhere than its bbox, as if x and y were swapped, or runs went along rows"
_OTHER_AREA = "of another area than its measurement 'Area px^2', as if it were in micrometres"
_STRAY = 0.05  # pixels apart from a label are not meant, if they are less than this share of it
_STRAYS = (
    f"with a few stray pixels apart from it, less than {100 * _STRAY:g} % of it, which are left out"
)
_UNSURE = "of 255 beside others from 1, by which some programs mark what is unsure, is read"
_PARTS = "in separate parts, read as one particle (if these are classes, give a mask of each)"
_MRC = (".mrc", ".mrcs", ".st", ".rec", ".map")
_MIRRORED = (
    "an MRC image, which Fiji, QuPath and IMOD show upside down: outlines that were drawn there "
    "are mirrored here; save the image as TIFF, and draw them on that"
)
_MAX_PARTS, _MIN_LEVELS = 4, 8  # parts of one label, and labels from which these count
_MAX_COLOURS = 100_000


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
        A file in one of the formats that the page "File formats" lists, of which ImageJ regions
        need the extra `formats`; a folder of image files, one mask per particle, as
        :func:`hypervlad.images.read_mask` reads them; or an array:

        - A label image (H, W) of whole numbers, 0 for background. The numbers that are stored
          count, or the indices of a palette, however they are displayed. With one positive value
          only, in several regions, it is a mask: each region is a particle, with a warning.
        - Masks (n, H, W) of True and False.

        A pixel belongs to a polygon if its centre is inside, by the even-odd rule.
    shape : (int, int), optional
        Height and width of the image, at which outlines are cut off; required for ImageJ regions,
        GeoJSON, VIA, cellpose's text, and COCO polygons without a list of images.
    banner_rows : int or None, default=0
        As in :func:`hypervlad.images.read_mask`.
    image : path or int, optional
        Which image of a COCO or VIA file, by its name or id; for other files used in warnings.
    name : str, optional
        For errors and warnings, by default the path.

    Returns
    -------
    Outlines
        Labels are the values of a label image, or the names (of masks, regions and features) or
        COCO identifiers if these are different whole numbers from 1 to 2**31 - 1, otherwise
        positions in the file from 1; other names are the `given_name` of each outline, and its
        class in the file is its `class_name`.

    Raises
    ------
    ImageReadError
        If the source is none of these, damaged, too large, or not of the image's size.

    Warns
    -----
    UserWarning
        If outlines are left out, such as lines, or may be meant otherwise, such as one over nearly
        the whole image; the page lists what.

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
        why = f" ({error})"
        if isinstance(error, AttributeError | IndexError | KeyError | TypeError):
            why = f" (something has no {error})" if isinstance(error, KeyError) else ""
        raise ImageReadError(f"{name}: damaged, or {NOT_READ}{why}") from error
    if str(image).lower().endswith(_MRC):
        note_doubt(str(image), _MIRRORED)
    if shape is None or found.shape == tuple(shape):
        return found
    check_fits(found.shape, shape, banner_rows, name, "a segmentation")
    cut = ((o, cropped(o.mask[: max(0, shape[0] - o.box[0])], *o.box[:2])) for o in found)
    own = tuple(replace(o, box=part.box, mask=part.mask) for o, part in cut if part)
    if n_left_out := len(found) - len(own):
        warn_user(f"{name}: {counted(n_left_out, 'outline')} left out, below the image")
    return replace(found, shape=(shape[0], shape[1]), outlines=own)


def _read(source: Any, shape: tuple[int, int] | None, image: Any, name: str) -> Outlines:
    if isinstance(source, Outlines):
        return source
    if not isinstance(source, str | os.PathLike):
        return _of_labels(source, name)
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
        return _of_labels(np.array(array), name)
    suffix = path.suffix.lower() if head else ""
    is_json = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")
    if is_json or suffix in (".json", ".geojson"):
        return _collect(*open_json(path, name).read(shape, image, name), name)
    if head.startswith((b"PK", b"Iout")):
        files = unpacked(_content(path, name), path.stem, name)
        return _collect(known_size(shape, name), read_regions(files, name), name)
    if suffix == ".txt" and re.fullmatch(rb"\s*[\d.+-][\d.,+\-eE \r\n]*", head):
        return _collect(known_size(shape, name), read_text(_content(path, name), name), name)
    if suffix in _OF_OTHERS:
        raise ImageReadError(f"{name}: {NOT_READ}")
    return _of_image(path, name)


def _of_image(path: Path, name: str) -> Outlines:
    """Read a label image: as its values are stored, or by its colours."""
    stored = decode_stored(path, name)
    values = stored.pixels
    if values.ndim == 3 and not stored.is_lossy:
        values = _numbered_colours(values, name)
    elif (mask := _mask_of(values, stored.is_lossy)) is not None:
        values = mask
    elif stored.is_lossy:
        raise ImageReadError(
            f"{name}: compressed as JPEG, JPEG 2000 or WebP, whose losses change the numbers of "
            "labels, or a grey image in place of labels; save labels as TIFF or PNG"
        )
    try:
        found = _of_labels(values, name)
    except ImageReadError:
        if not (regions := _overlay_of(path)):
            raise
        found = _collect(values.shape[:2], read_regions(regions, name), name)
    return replace(found, pixel_size=stored.pixel_size)


def _overlay_of(path: Path) -> list[tuple[str, bytes]]:
    """Return the regions that ImageJ has drawn over an image of a TIFF, without their names."""
    import tifffile

    with contextlib.suppress(tifffile.TiffFileError), tifffile.TiffFile(path) as tiff:
        found = (tiff.imagej_metadata or {}).get("Overlays") or []
        return [("", each) for each in ([found] if isinstance(found, bytes) else found)]
    return []


def _mask_of(values: NDArray[Any], is_lossy: bool) -> NDArray[np.bool_] | None:
    """Return the mask whose edges are grey; None if any grey is elsewhere, as labels are."""
    mask = grey_edged_mask(values) if values.ndim == 2 else None
    if mask is None or is_lossy:
        return mask
    is_even = ndimage.minimum_filter(values, 3) == ndimage.maximum_filter(values, 3)
    has_labels = (is_even & (values != 0) & (values != values.max())).any()
    outside = ~grown(mask, 2)
    return None if has_labels or values[outside].any() else mask


def _numbered_colours(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the labels of an image (H, W, 3): its greys, or numbers of its colours but black.

    Colours are numbered in the order in which they come in the image.
    """
    if not np.ptp(values, axis=2).any():
        return np.asarray(values[..., 0])
    flat = values.reshape(-1, 3).astype(np.uint64)
    codes = flat @ np.array([1 << 32, 1 << 16, 1], np.uint64)
    colours, first, numbers = np.unique(codes, return_index=True, return_inverse=True)
    if len(colours) > _MAX_COLOURS or values.dtype.kind != "u":
        raise _not_labels(name)
    labels = np.zeros(len(colours), np.int32)
    in_order = [each for each in first.argsort() if colours[each]]
    labels[in_order] = np.arange(1, len(in_order) + 1)
    return np.asarray(labels[numbers].reshape(values.shape[:2]))


def _not_labels(name: str) -> ImageReadError:
    return ImageReadError(
        f"{name}: looks like an image, or like labels that were resized or smoothed, not like "
        "labels, of which all pixels of a particle have the same; give the label image, 0 for "
        "background, or a mask"
    )


def _of_labels(source: Any, name: str) -> Outlines:
    """Return a label image or masks as `Outlines`, without stray pixels of labels."""
    found, values = Outlines.of(source, name), np.asarray(source)
    if values.ndim == 2:
        _refuse_grey(values, found, name)
    labels = [each.label for each in found]
    is_255_apart = labels == [*range(1, len(labels)), 255] and 1 < len(labels) < 255
    return _collect(found.shape, (_of_label(o, values, is_255_apart) for o in found), name)


def _of_label(outline: Outline, values: NDArray[Any], is_255_apart: bool) -> Shape:
    doubts = [_UNSURE] if is_255_apart and outline.label == 255 else []
    parts, n_parts = ndimage.label(outline.mask, EIGHT)
    if values.ndim > 2 or n_parts == 1:
        return Shape(str(outline.label), "", outline, doubts)
    areas = np.bincount(parts.ravel())[1:]
    main = areas >= _STRAY * areas.max()
    mask = np.concatenate([[False], main])[parts]
    if not main.all():
        doubts.append(_STRAYS)
    # Of one particle, there may be a part on each side of another one, which covers it.
    around = ndimage.label(values[outline.window] != 0, EIGHT)[0]
    if main.sum() > 2 or (main.sum() == 2 and np.ptp(around[mask])):
        doubts.append(_PARTS)
    return Shape(str(outline.label), "", cropped(mask, *outline.box[:2]), doubts)


def _refuse_grey(values: NDArray[Any], found: Outlines, name: str) -> None:
    """Raise an error for a grey image in place of labels, or for labels with smooth edges.

    These have numbers that are nowhere but where others are beside them, or many parts of each.
    """
    if len(found) < _MIN_LEVELS:
        return
    some = found[np.linspace(0, len(found) - 1, 24).astype(int)]
    if np.median([ndimage.label(each.mask, EIGHT)[1] for each in some]) > _MAX_PARTS:
        raise _not_labels(name)
    # Most labels have a square of 3 pixels for themselves, which is known without the whole image.
    if sum(not _has_square(each.mask) for each in found) <= len(found) / 2:
        return
    lowest = ndimage.minimum_filter(np.where(values == 0, values.max(), values), 3)
    highest = ndimage.maximum_filter(values, 3)
    is_even = ndimage.minimum_filter(values, 3) == highest
    rims = {*np.unique(values[(values != 0) & (lowest != highest)])}
    if len(rims - {*np.unique(values[is_even])}) > len(found) / 2:
        raise _not_labels(name)


def _has_square(mask: NDArray[np.bool_]) -> bool:
    rows = mask[:-2] & mask[1:-1] & mask[2:]
    return bool((rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]).any())


def _collect(size: tuple[int, int], shapes: Iterable[Shape], name: str) -> Outlines:
    """Number outlines by their names, if these are numbers; say what is left out or doubtful."""
    found, notes = list[tuple[Shape, Outline]](), defaultdict[str, list[str]](list)
    planes, keys, n, n_pixels = defaultdict[str, set[int]](set), list[str](), 0, 0
    known = set[tuple[Any, ...]]()
    for n, each in enumerate(shapes, start=1):
        area, shown = each.area, each.name or each.class_name or f"number {n}"
        if isinstance(area, list):
            area = fill_polygons(area, size) if area else NO_AREA
        if isinstance(area, str):
            notes[f"left out, {area}"].append(shown)
            continue
        keys.append(each.name)
        for axis, place in each.plane.items():
            planes[axis].add(place)
        if area is None:
            notes[_OUTSIDE.format(*size)].append(shown)
            continue
        for doubt in _doubts_of(area, each, size):
            notes[doubt].append(shown)
        pixels = area.box, hash(area.mask.tobytes())
        if pixels in known:
            notes[_REPEATED].append(shown)
        known.add(pixels)
        found.append((each, replace(area, label=len(keys), class_name=each.class_name)))
        n_pixels += area.mask.size
        if n_pixels > MAX_PIXELS:
            raise ImageReadError(f"{name}: outlines of more than {MAX_PIXELS:,} pixels; split it")
    if several := [f"{axis} {sorted(own)}" for axis, own in planes.items() if len(own) > 1]:
        raise ImageReadError(
            f"{name}: outlines of several planes of a stack ({', '.join(several)}); save one plane"
        )
    texts = [
        f"{len(own)} of {counted(n, 'outline')} {note}: {name_some(list(dict.fromkeys(own)))}"
        for note, own in notes.items()
    ]
    if not keys and f"left out, {NO_AREA}" in notes:
        raise ImageReadError(f"{name}: {texts[0]}; draw or export outlines")
    for text in texts:
        warn_user(f"{name}: {text}")
    numbers = [int(key) if re.fullmatch("[0-9]{1,10}", key) else 0 for key in keys]
    are_labels = len(set(numbers)) == len(numbers) and all(0 < n <= MAX_LABEL for n in numbers)
    own = (
        replace(o, label=numbers[o.label - 1]) if are_labels else replace(o, given_name=each.name)
        for each, o in found
    )
    return Outlines(size, tuple(sorted(own, key=lambda outline: outline.label)))


def _doubts_of(outline: Outline, shape: Shape, size: tuple[int, int]) -> Iterator[str]:
    """Yield what may be meant otherwise than it is read."""
    yield from shape.doubts
    n_pixels, n_field = int(outline.mask.sum()), size[0] * size[1]
    share = _COVER_ACROSS if outline.box == (0, 0, *size) else _COVER
    if n_field >= _MIN_FIELD and n_pixels > share * n_field:
        yield _COVERS
    box, area = shape.stated
    if box is not None:
        far = 2 + max(box[2] - box[0], box[3] - box[1]) / 4
        if (np.abs(np.clip(box, 0, [*size, *size]) - outline.box) > far).any():
            yield _ELSEWHERE
    if area is not None and abs(n_pixels - area) > 8 + area / 2:
        yield _OTHER_AREA


def _of_folder(folder: Path, name: str) -> Outlines:
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    files = [file for file in files if not is_left_out(file.name)]
    if not files:
        raise ImageReadError(f"{name}: a folder without masks; it needs one image per particle")
    files.sort(key=lambda file: re.sub(r"\d+", lambda digits: digits[0].zfill(20), file.name))
    height, width = read_mask(files[0]).shape
    masks = (Shape(f.stem, "", cropped(read_mask(f, shape=(height, width)))) for f in files)
    return _collect((height, width), masks, name)


def _content(path: Path, name: str) -> bytes:
    if path.stat().st_size > MAX_OUTLINES_BYTES:
        raise ImageReadError(f"{name}: more than {MAX_OUTLINES_BYTES:,} bytes; split it")
    return path.read_bytes()


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
        65,535, of 32-bit floats, with its scale. ``.zip``: ImageJ regions (requires the extra
        `formats`). ``.geojson``: polygons for QuPath. ``.json``: COCO, of the image that is called
        like the file without this suffix: polygons, or run lengths of outlines with holes.
    outlines : Outlines, array (H, W) of int, or array of n masks (H, W)
        Regions and polygons have their names or labels, and their classes: of a region its group,
        for numbers to 255, or its property `class`; of COCO a category, "unclassified" without one.
    pixel_size : float, optional
        Nanometres per pixel, for TIFF, by default that of the outlines; others have no scale.
    classes : sequence of n str, optional
        For GeoJSON: the class of each outline, by default its `class_name`.
    measures : mapping of n numbers by name, or DataFrame, optional
        For GeoJSON. Columns of text, and values that are not finite, are left out.

    Raises
    ------
    ValueError
        For another suffix, or what the format cannot contain: outlines that overlap and labels
        above 2**24 in TIFF, classes and measures except in GeoJSON.

    Warns
    -----
    UserWarning
        If the outlines have classes or names, which TIFF cannot contain.

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
        content = geojson_of(found, classes, {} if measures is None else measures, name)
    elif not (classes is None and measures is None):
        raise ValueError(f"{path}: only .geojson files contain given classes and measures")
    elif suffix == ".json":
        content = json_of(coco_of(found, Path(path).stem), name)
    elif suffix in (".tif", ".tiff"):
        write_tiff(Path(path), _labels_of(found, name), pixel_size or found.pixel_size)
        return
    elif suffix == ".zip":
        content = regions_of(found, name)
    else:
        raise ValueError(f"{path}: outlines are written as .tif, .tiff, .zip, .geojson or .json")
    with replace_when_complete(path) as stream:
        stream.write(content)


def _labels_of(outlines: Outlines, name: str) -> NDArray[Any]:
    """Return a label image of a type that ImageJ reads."""
    labels = outlines.label_image()
    if outlines.do_overlap:
        raise ValueError(
            f"{name}: the outlines overlap, which a label image cannot show; write .zip, .geojson "
            "or .json"
        )
    top = int(labels.max(initial=0))
    if top > _MAX_FLOAT_LABEL:
        raise ValueError(
            f"{name}: label {top} is above 2**24, the largest of ImageJ; renumber them"
        )
    if any(each.class_name or each.given_name for each in outlines):
        warn_user(f"{name}: without classes and names; .zip and .geojson contain them")
    return labels.astype(np.uint16 if top < 1 << 16 else np.float32)
