"""TIFF files, decoded by tifffile and imagecodecs."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.files import parse_json
from hypervlad.common.limits import ALLOWED_CHUNK_VALUES, MAX_TIFF_DIMENSIONS
from hypervlad.images import metadata as meta
from hypervlad.images.errors import ImageReadError
from hypervlad.images.formats import (
    DecodedImage,
    apply_palette,
    check_page,
    encoded_size,
    json_value,
    stretch_levels,
)
from hypervlad.images.options import ReadOptions
from hypervlad.images.pixels import check_size

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

# Its messages name no file; errors of the reader do. Without any handler they go to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_INSTRUMENT_TAGS = {
    34682: "fei",
    34680: "fei",
    34683: "fei",  # XML
    34118: "zeiss",
    50431: "tescan",
    37706: "tvips",
    33560: "olympus",
    33471: "olympus",
}
_OLYMPUS_TAGS = [tag for tag, maker in _INSTRUMENT_TAGS.items() if maker == "olympus"]
_GATAN_TAGS = ((65009, 65010), (65003, 65004))  # sides of a pixel, and their units
_MAKE_TAG, _SOFTWARE_TAG = 271, 305
_RESOLUTION_TAGS, _RESOLUTION_UNIT_TAG = (282, 283), 296
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}
_ORIENTATION_TAG = 274
_STK_PLANES_TAG = 33629  # as many values as planes

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6
# Samples that each photometric interpretation (TIFF 6.0) describes; further ones are extra.
_N_COLOURS = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _PALETTE: 1, _SEPARATED: 4, _YCBCR: 3}
_ALPHA = (1, 2)  # ExtraSamples: associated and unassociated

_UNCOMPRESSED, _JPEG, _JPEG2000, _PNG = 1, 7, 34712, 34933
_COMPRESSIONS = frozenset(
    [_UNCOMPRESSED, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, 34925, 34926, 50000, _JPEG2000, _PNG]
)
# Compressions whose strips and tiles have a header of their own, which may claim any size.
_ENCODED = (_JPEG, _JPEG2000, _PNG)


def decode_tiff(file: BinaryIO, options: ReadOptions, name: str) -> DecodedImage:
    """Decode one page of an open TIFF or BigTIFF file, with the pixel size of the instrument.

    Samples are as stored, except that palettes are applied, CMYK and YCbCr become RGB, fewer than 8
    bits are stretched to 8, and where white is zero, values are inverted. With a `channel`, all
    samples (H, W, S) are returned for it to be selected.
    """
    import tifffile  # not above: importing it takes longer than reading an image

    page = options.page or 0
    with tifffile.TiffFile(file) as tiff:
        n_directories = len(tiff.pages)
        if n_directories == 0:
            raise ImageReadError(
                f"{name}: damaged or truncated TIFF file: it has no pages; copy or export it again"
            )
        n_frames = _n_frames(tiff)
        n_previews = int(_has_preview(tiff))
        n_pages = n_frames + n_directories - 1 - n_previews
        check_page(page, n_pages, name, "page")
        directory = max(0, page - n_frames + 1) + n_previews
        tiff_page = tiff.pages[directory]
        assert isinstance(tiff_page, tifffile.TiffPage)
        if page < n_frames and not n_previews:
            tiff_page.dataoffsets = tuple(
                offset + page * tiff_page.nbytes for offset in tiff_page.dataoffsets
            )
        _check_layout(tiff_page, name)
        if options.channel is None:
            _check_samples(tiff_page, name)
        _check_memory(tiff_page, name, options.max_pixels)
        _check_complete(tiff_page, file, tiff.filehandle.size, name)
        pixels = tiff_page.asarray(maxworkers=1)
        if tiff_page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        shown = _interpret(pixels, tiff_page, options.channel is None)
        decoded = DecodedImage(
            shown,
            pixels if pixels.ndim == 2 and shown is not pixels else None,
            metadata={"format": "TIFF", "page": page, "n_pages": n_pages},
        )
        decoded.is_lossy = int(tiff_page.compression) in (_JPEG, _JPEG2000)
        _add_instrument(decoded, tiff, tiff_page)
    return decoded


def _has_preview(tiff: TiffFile) -> bool:
    """Return whether the first page is a preview in colour of the second, as in Olympus' files."""
    if len(tiff.pages) < 2 or tiff.pages.first.samplesperpixel != 3:
        return False
    tags: list[Any] = [tiff.pages.first.tags, getattr(tiff.pages[1], "tags", ())]
    return [any(tag in own for tag in _OLYMPUS_TAGS) for own in tags] == [False, True]


def _n_frames(tiff: TiffFile) -> int:
    """Return how many images the first directory describes, one after the other in the file.

    ImageJ (over 4 GB), MetaMorph, and tifffile with ``truncate=True`` write such stacks. Other
    programs keep a stack's description with one image: the file is too short then.
    """
    page = tiff.pages.first
    if not page.is_contiguous or page.nbytes < 1:
        return 1
    described = [1]
    if page.is_imagej:
        imagej = tiff.imagej_metadata or {}
        described += [_product([imagej.get("images")])]
        described += [_product(imagej.get(key) for key in ("frames", "slices", "channels"))]
    if page.shaped_description is not None:
        described += [_shaped_size(page.shaped_description) // page.size]
    if page.is_stk and _STK_PLANES_TAG in page.tags:
        described += [page.tags[_STK_PLANES_TAG].count]
    n_stored = (tiff.filehandle.size - page.dataoffsets[0]) // page.nbytes
    n_frames = max(described)
    return n_frames if n_stored >= n_frames > len(tiff.pages) else 1


def _product(numbers: Iterable[Any]) -> int:
    return math.prod(number for number in numbers if isinstance(number, int) and number > 0)


def _shaped_size(description: str) -> int:
    """Return how many values tifffile has described; 1 if it has not."""
    try:
        shape = parse_json(description)["shape"]
    except (ValueError, TypeError, KeyError):
        return 1
    return _product(shape) if isinstance(shape, list) and len(shape) <= MAX_TIFF_DIMENSIONS else 1


def _check_layout(page: TiffPage, name: str) -> None:
    """Raise an error for what is not one image, or not decoded here."""
    remedy = "save the image as grey or RGB, without compression or with LZW"
    photometric, compression = int(page.photometric), int(page.compression)
    check_size(page.imagelength, page.imagewidth, name, None)
    if page.imagedepth > 1:
        raise ImageReadError(
            f"{name}: a TIFF page of {page.imagedepth} planes (ImageDepth), not one image; split "
            "it into two-dimensional pages"
        )
    if compression not in _COMPRESSIONS or page.jpegheader is not None:
        kind = getattr(page.compression, "name", compression)
        raise ImageReadError(f"{name}: a TIFF of compression {kind}, which is not read; {remedy}")
    if photometric not in _N_COLOURS:
        kind = getattr(page.photometric, "name", photometric)
        raise ImageReadError(
            f"{name}: a TIFF of photometric interpretation {kind}, which is not read; {remedy}"
        )
    # The decoder of JPEG converts YCbCr to RGB; nothing converts it in other compressions.
    if photometric == _YCBCR and (compression != _JPEG or page.planarconfig != 1):
        raise ImageReadError(
            f"{name}: a TIFF of YCbCr pixels that are not JPEG, which is not read; {remedy}"
        )
    if page.dtype is None:
        raise ImageReadError(
            f"{name}: a TIFF of {page.bitspersample}-bit samples of format {page.sampleformat}, "
            "which is not read; save it with 8 or 16 bits"
        )
    if photometric == _PALETTE and page.colormap is None:
        raise ImageReadError(
            f"{name}: a damaged TIFF: it has palette colours but no palette; export it again"
        )


def _check_samples(page: TiffPage, name: str) -> None:
    """Refuse samples that would be dropped but are not declared as alpha."""
    n_samples, n_colours = page.samplesperpixel, _N_COLOURS[int(page.photometric)]
    extra = [int(kind) for kind in page.extrasamples]
    has_alpha = n_samples == n_colours + 1 and len(extra) == 1 and extra[0] in _ALPHA
    assert page.dtype is not None
    is_cmyk = int(page.photometric) == _SEPARATED
    if (n_samples != n_colours and not has_alpha) or (is_cmyk and page.dtype.kind != "u"):
        kind = getattr(page.photometric, "name", page.photometric)
        raise ImageReadError(
            f"{name}: a TIFF page of {n_samples} samples of {page.dtype} per pixel, declared as "
            f"{kind}, is neither grey nor RGB, with or without alpha; "
            f"in Python, read_options={{'channel': 0}} reads the first sample as grey (0 to "
            f"{n_samples - 1}); or save it as grey or RGB"
        )


def _check_memory(page: TiffPage, name: str, max_pixels: int | None) -> None:
    assert page.dtype is not None
    n_bytes = page.dtype.itemsize
    check_size(page.imagelength, page.imagewidth, name, max_pixels, page.samplesperpixel, n_bytes)
    # Tiles are decoded whole, however little of them lies within the image.
    n_values = math.prod(page.chunks) * math.prod(page.chunked)
    if page.is_tiled and max_pixels is not None:
        check_size(1, n_values, f"{name}: tiles", max(max_pixels, ALLOWED_CHUNK_VALUES), 1, n_bytes)


def _check_complete(page: TiffPage, file: BinaryIO, file_size: int, name: str) -> None:
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    counts = [count for _, count in segments]
    ends = [offset + count for offset, count in segments]
    is_short = page.compression == _UNCOMPRESSED and sum(counts) < _n_bytes(page)
    if (
        len(segments) < math.prod(page.chunked)
        or min(counts, default=0) <= 0
        or max(ends, default=0) > file_size
        or sum(counts) > file_size
        or is_short
        or (page.compression in _ENCODED and not _streams_fit(page, file))
    ):
        raise ImageReadError(
            f"{name}: truncated TIFF: its header describes pixel data that the file "
            f"({file_size:,} bytes) does not contain; copy or export it again"
        )


def _streams_fit(page: TiffPage, file: BinaryIO) -> bool:
    """Return whether encoded segments have the size of the page, and JPEGs an end."""
    height, width = page.chunks[page.axes.index("Y")], page.chunks[page.axes.index("X")]
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        file.seek(offset)
        stream = file.read(count)
        size = encoded_size(io.BytesIO(stream))
        if size is None or size.height > height or size.width > width:
            return False
        if size.n_channels > page.samplesperpixel:
            return False
        # The end-of-image mark may be followed by padding.
        if page.compression == _JPEG and b"\xff\xd9" not in stream[-16:]:
            return False
    return True


def _n_bytes(page: TiffPage) -> int:
    bits: Any = page.bitspersample  # declared as int, but a tuple if samples of a pixel differ
    n_bits: int = bits if isinstance(bits, int) else min(bits)
    return page.imagelength * page.imagewidth * page.samplesperpixel * n_bits // 8


def _interpret(pixels: NDArray[Any], page: TiffPage, drop_alpha: bool) -> NDArray[Any]:
    photometric = int(page.photometric)
    n_colours = _N_COLOURS[photometric]
    if pixels.ndim == 3 and drop_alpha:
        pixels = pixels[:, :, 0] if n_colours == 1 else pixels[:, :, :n_colours]
    if photometric == _PALETTE and pixels.ndim == 2:
        assert page.colormap is not None
        # The standard has 16-bit values, but some programs write 8-bit ones.
        shift = 8 if page.colormap.max() > 255 else 0
        return apply_palette(pixels, (page.colormap.T >> shift).astype(np.uint8))
    if photometric == _SEPARATED and drop_alpha:
        return _cmyk_to_rgb(pixels)
    bits: Any = page.bitspersample  # an int or a tuple
    if photometric == _MIN_IS_WHITE:
        pixels = _invert(pixels, bits)
    return stretch_levels(pixels, bits) if isinstance(bits, int) else pixels


def _invert(pixels: NDArray[Any], bits: int | tuple[int, ...]) -> NDArray[Any]:
    if pixels.dtype.kind in "bi":
        return ~pixels
    if pixels.dtype.kind == "u":
        top = 2 ** (bits if isinstance(bits, int) else 8 * pixels.itemsize) - 1
        inverted: NDArray[Any] = pixels.dtype.type(top) - pixels
    else:
        is_unit = pixels.min() >= 0 and pixels.max() <= 1
        inverted = 1 - pixels if is_unit else -pixels
    return inverted


def _cmyk_to_rgb(pixels: NDArray[Any]) -> NDArray[Any]:
    top = np.iinfo(pixels.dtype).max
    ink = pixels.astype(np.float64) / top
    rgb = (1 - ink[:, :, :3]) * (1 - ink[:, :, 3:4])
    return np.rint(rgb * top).astype(pixels.dtype)


def _add_instrument(decoded: DecodedImage, tiff: TiffFile, page: TiffPage) -> None:
    first = tiff.pages.first
    orientation = _tag_value(page, page, _ORIENTATION_TAG)
    if orientation not in (None, 1):
        decoded.metadata["orientation"] = json_value(orientation)
    others = {"columns/1024": str(page.imagewidth / 1024)}
    unit = _RESOLUTION_UNITS.get(_tag_value(page, first, _RESOLUTION_UNIT_TAG), "")
    others |= _sides_by_resolution(page, first, unit, unit)
    for place, instrument, stated in _instruments(page, first):
        decoded.add_entries(instrument, meta.Entries(stated, **others), place)
    if tiff.is_ome and tiff.ome_metadata and "pixel_size_from" not in decoded.metadata:
        decoded.set_pixel_sides(meta.ome_pixel_sides(tiff.ome_metadata, page.index), "OME", "um")
    imagej = tiff.imagej_metadata if tiff.is_imagej else None
    if imagej:
        # Overlays and look-up tables are large and unused here.
        kept = {k: v for k, v in imagej.items() if isinstance(v, (str, int, float, bool))}
        unit = imagej.get("unit", "")
        sides = _sides_by_resolution(page, first, unit, imagej.get("yunit", unit))
        decoded.add_entries("imagej", meta.Entries(kept, **sides), "ImageJ", unit)
    if str(_tag_value(page, first, _SOFTWARE_TAG)).startswith("Odemis"):
        decoded.add_entries("odemis", meta.Entries({}, **others), "Odemis")


def _instruments(page: TiffPage, first: TiffPage) -> Iterator[tuple[str, str, Any]]:
    """Yield where in a file which instrument states what, in the order in which it is used."""
    for code, instrument in _INSTRUMENT_TAGS.items():
        stated = _tag_value(page, first, code)
        if isinstance(stated, (dict, str, bytes)) and stated:
            yield f"TIFF tag {code}", instrument, stated
    numbers, units = ([_tag_value(page, first, c) for c in codes] for codes in _GATAN_TAGS)
    if None not in numbers + units:
        sides = zip(map(str, _GATAN_TAGS[0]), numbers, units, strict=True)
        stated = {code: f"{number} {unit}" for code, number, unit in sides}
        yield "TIFF tags 65003 to 65010", "gatan", stated
    description = first.description
    if '"hfw"' in description:
        yield "TIFF description", "openfibsem", description
    # Of diffraction patterns and scans, the resolution says nothing.
    is_image = "<EosMode>eosTEM<" in description and "<SelectorUnitString>X<" in description
    if is_image and _tag_value(page, first, _MAKE_TAG) == "JEOL Ltd.":
        yield "TIFF description", "jeol", description


def _sides_by_resolution(
    page: TiffPage, first: TiffPage, x_unit: str, y_unit: str
) -> dict[str, str]:
    """Return the sides of a pixel, as text with the unit."""
    sides = {}
    for name, code, unit in zip("XY", _RESOLUTION_TAGS, (x_unit, y_unit), strict=True):
        try:
            pixels, length = _tag_value(page, first, code)
            sides[f"1/{name}Resolution"] = f"{length / pixels} {unit}"
        except (TypeError, ValueError, ZeroDivisionError):
            continue
    return sides


def _tag_value(page: TiffPage, first: TiffPage, code: int) -> Any:
    for candidate in (page, first):
        tag = candidate.tags.get(code)
        if tag is not None:
            return tag.value
    return None
