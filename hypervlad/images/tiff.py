"""TIFF files, decoded by tifffile, or by Pillow for compressions that tifffile does not support."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hypervlad.images import metadata as meta
from hypervlad.images.errors import ImageReadError
from hypervlad.images.formats import DecodedImage, apply_palette, image_pixels, json_value
from hypervlad.images.pixels import check_size

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_FEI_TAGS = (34682, 34680)
_ZEISS_TAG = 34118
_RESOLUTION_TAGS = (282, 283)

# Photometric interpretations (TIFF 6.0) that need more than reading the numbers.
_MIN_IS_WHITE, _PALETTE, _SEPARATED = 0, 3, 5
_PLAIN_PHOTOMETRICS = (_MIN_IS_WHITE, 1, 2, _PALETTE, _SEPARATED)
_UNCOMPRESSED, _JPEG = 1, 7


def decode_tiff(file: BinaryIO, page: int, name: str, max_pixels: int | None) -> DecodedImage:
    """Decode one page of an open TIFF or BigTIFF file, with the pixel size of the instrument.

    The resolution tags of a plain TIFF are dots per inch on paper and are not used as a pixel size.

    Parameters
    ----------
    file : binary file
    page : int
        Counted from 0.
    name : str
        Name of the image in errors.
    max_pixels : int or None
        Compared with the page's header before decoding.
    """
    import tifffile  # not above: importing it takes longer than reading an image

    with tifffile.TiffFile(file) as tiff:
        n_pages = len(tiff.pages)
        if n_pages == 0:
            raise ImageReadError(
                f"{name}: damaged or truncated TIFF file: it has no pages; copy or export it again"
            )
        if page >= n_pages:
            raise ImageReadError(
                f"{name}: page {page} was requested, but the file has {_count_pages(n_pages)}; "
                "pages are counted from 0"
            )
        tiff_page = tiff.pages[page]
        assert isinstance(tiff_page, tifffile.TiffPage)
        check_size(tiff_page.imagelength, tiff_page.imagewidth, name, max_pixels)
        _check_complete(tiff_page, file, tiff.filehandle.size, name)
        decoded = DecodedImage(
            _page_pixels(tiff_page, file, page, name),
            metadata={"format": "TIFF", "page": page, "n_pages": n_pages},
        )
        _add_instrument(decoded, tiff, tiff_page)
    return decoded


def _count_pages(n_pages: int) -> str:
    return "1 page" if n_pages == 1 else f"{n_pages} pages"


def _check_complete(page: TiffPage, file: BinaryIO, file_size: int, name: str) -> None:
    """Raise an error for missing data, which tifffile fills with zeros and libjpeg with grey."""
    ends = [
        offset + count
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
        if count > 0
    ]
    stored = sum(page.databytecounts)
    n_missing = sum(1 for count in page.databytecounts if count <= 0)
    is_short = page.compression == _UNCOMPRESSED and stored < _n_bytes(page)
    is_cut = page.compression == _JPEG and not _jpegs_end(page, file)
    if not ends or n_missing or max(ends) > file_size or is_short or is_cut:
        raise ImageReadError(
            f"{name}: truncated TIFF: its header describes pixel data that the file "
            f"({file_size:,} bytes) does not contain; copy or export it again"
        )


def _jpegs_end(page: TiffPage, file: BinaryIO) -> bool:
    """Return whether each JPEG strip or tile has its end-of-image mark, apart from padding."""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        n_tail = min(count, 16)
        file.seek(offset + count - n_tail)
        if b"\xff\xd9" not in file.read(n_tail):
            return False
    return True


def _n_bytes(page: TiffPage) -> int:
    """Return the smallest size of the uncompressed page; rows of odd bit depths are padded."""
    bits = page.bitspersample if isinstance(page.bitspersample, int) else min(page.bitspersample)
    return page.imagelength * page.imagewidth * page.samplesperpixel * bits // 8


def _page_pixels(page: TiffPage, file: BinaryIO, index: int, name: str) -> NDArray:
    if int(page.photometric) in _PLAIN_PHOTOMETRICS:
        try:
            pixels = page.asarray(maxworkers=1)
        except (ValueError, NotImplementedError) as error:
            if "imagecodecs" not in str(error):
                raise
        else:
            return _interpret(_samples_last(pixels, page, name), page)
    return _pixels_through_pillow(file, index, name)


def _pixels_through_pillow(file: BinaryIO, index: int, name: str) -> NDArray:
    """Decode by libtiff what tifffile alone cannot: LZW, JPEG, fax."""
    from PIL import Image, TiffImagePlugin

    file.seek(0)
    try:
        # Not closed: the file belongs to the caller.
        image = TiffImagePlugin.TiffImageFile(file)
        image.seek(index)
        pixels = image_pixels(image)
        min_is_white = image.tag_v2.get(262) == _MIN_IS_WHITE and pixels.dtype == np.uint16
    except (SyntaxError, KeyError, NotImplementedError, Image.DecompressionBombError) as error:
        raise ImageReadError(
            f"{name}: a TIFF whose compression or layout needs a further package ({error}); "
            "pip install imagecodecs, or save the file uncompressed"
        ) from error
    # Pillow itself inverts 1-bit and 8-bit pages.
    return np.uint16(65535) - pixels if min_is_white else pixels


def _samples_last(pixels: NDArray, page: TiffPage, name: str) -> NDArray:
    axes = page.axes
    if axes == "SYX":
        pixels, axes = np.moveaxis(pixels, 0, -1), "YXS"
    if axes not in ("YX", "YXS"):
        raise ImageReadError(
            f"{name}: a TIFF page with axes {axes} and shape {pixels.shape}, not one image; "
            "split it into two-dimensional pages"
        )
    return pixels


def _interpret(pixels: NDArray, page: TiffPage) -> NDArray:
    """Convert stored samples to grey or RGB."""
    photometric = int(page.photometric)
    if photometric == _PALETTE and page.colormap is not None:
        return apply_palette(pixels, _palette_entries(page.colormap))
    if pixels.ndim == 3 and photometric == _SEPARATED:
        return _cmyk_to_rgb(pixels)
    if pixels.ndim == 3:
        n_colours = 3 if pixels.shape[2] >= 3 else 1
        pixels = pixels[:, :, :n_colours]
    bits = page.bitspersample if isinstance(page.bitspersample, int) else page.bitspersample[0]
    if photometric == _MIN_IS_WHITE:
        pixels = _invert(pixels, bits)
    if pixels.dtype == np.uint8 and bits in (2, 4):
        pixels = pixels * np.uint8(255 // (2**bits - 1))
    return pixels


def _palette_entries(colormap: NDArray) -> NDArray[np.uint8]:
    entries = np.asarray(colormap).T
    # The standard has 16-bit values, but some programs write 8-bit ones.
    return (entries >> 8 if entries.max() > 255 else entries).astype(np.uint8)


def _invert(pixels: NDArray, bits: int) -> NDArray:
    if pixels.dtype == bool:
        return ~pixels
    if pixels.dtype.kind == "u":
        return pixels.dtype.type(2**bits - 1) - pixels
    return pixels


def _cmyk_to_rgb(pixels: NDArray) -> NDArray:
    """Convert as ``PIL.Image.convert`` does: without colour profile, inks as opaque filters."""
    if pixels.dtype.kind != "u" or pixels.shape[2] < 4:
        return pixels
    top = np.iinfo(pixels.dtype).max
    ink = pixels.astype(np.float64) / top
    rgb = (1 - ink[:, :, :3]) * (1 - ink[:, :, 3:4])
    return np.rint(rgb * top).astype(pixels.dtype)


def _add_instrument(decoded: DecodedImage, tiff: TiffFile, page: TiffPage) -> None:
    """Add pixel size, scanned rows and metadata in the format of the file's instrument."""
    first = tiff.pages.first
    for code in _FEI_TAGS:
        fei = _tag_value(page, first, code)
        if isinstance(fei, dict):
            decoded.set_pixel_sides(meta.fei_pixel_sides(fei))
            decoded.scan_rows = meta.fei_scan_rows(fei, page.imagelength)
            decoded.metadata["fei"] = json_value(fei)
            return
    zeiss = _tag_value(page, first, _ZEISS_TAG)
    if isinstance(zeiss, dict):
        decoded.pixel_size = meta.zeiss_pixel_size(zeiss)
        decoded.metadata["zeiss"] = json_value(zeiss)
    elif tiff.is_ome and tiff.ome_metadata:
        decoded.set_pixel_sides(meta.ome_pixel_sides(tiff.ome_metadata))
    elif tiff.is_imagej and tiff.imagej_metadata:
        across, down = (_tag_value(page, first, code) for code in _RESOLUTION_TAGS)
        decoded.set_pixel_sides(meta.imagej_pixel_sides(tiff.imagej_metadata, across, down))
        # Overlays and look-up tables are large and unused here.
        kept = {
            key: value
            for key, value in tiff.imagej_metadata.items()
            if isinstance(value, (str, int, float, bool))
        }
        decoded.metadata["imagej"] = json_value(kept)


def _tag_value(page: TiffPage, first: TiffPage, code: int) -> Any:
    for candidate in (page, first):
        tag = candidate.tags.get(code)
        if tag is not None:
            return tag.value
    return None
