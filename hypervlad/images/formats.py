"""Recognition of files by the first bytes, and the decoder of PNG, JPEG and the like."""

from __future__ import annotations

import importlib
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from hypervlad.common.limits import MAX_PIXELS, MAX_SEGMENTS
from hypervlad.common.progress import shared_by_threads
from hypervlad.common.wording import counted
from hypervlad.images.errors import ImageReadError
from hypervlad.images.metadata import (
    Entries,
    Sides,
    are_of_a_page,
    are_plausible,
    square_pixel_size,
)
from hypervlad.images.options import ReadOptions
from hypervlad.images.pixels import check_size

N_HEAD = 512  # bytes by which the format is recognised: the MRC mark is at byte 208

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II\x97\x01", "SER"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x00\x03", "DM"),
    (b"\x00\x00\x00\x04", "DM"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xffO\xffQ", "JPEG2000"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
)

# Files that are given by mistake, with the error message.
_NOT_IMAGES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image itself; run 'git lfs pull'"),
    (b"PK\x03\x04", "a ZIP archive (or an Office document); unpack it and give the images inside"),
    (b"%PDF", "a PDF document; export its figures as PNG or TIFF"),
    (b"%!PS", "a PostScript file; export its figures as PNG or TIFF"),
    (b"\x93NUMPY", "a NumPy file; read it with np.load and pass the array"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"8BPS", "a Photoshop document; export it as TIFF or PNG"),
    (b"CDF\x01", "a netCDF file; read its array and pass the array"),
    (b"JK\x00\x02", "a TIA file (.emi) without pixels; give the .ser file of its name beside it"),
    (b"IMGBLO", "a blockfile, of diffraction patterns and not of images; leave it out"),
    (b"0\x01\x00\x00PTTDFILE", "a JEOL file of spectra, not of images; leave it out"),
)

# Formats of other programs: first bytes, suffix (if it decides), name, Python that converts.
_ROSETTA = (
    "from rsciio import tiff, {0}; image = {0}.file_reader({{old}})[0]; "
    "[axis.setdefault('navigate', False) for axis in image['axes']]; "
    "tiff.file_writer({{new}}, image)"
)
_NUMPY = "import numpy, tifffile; tifffile.imwrite({new}, numpy.load({old})['data'])"
_CONVERTED: tuple[tuple[bytes, str, str, str], ...] = (
    (b"AAMVHFSS", "", "Bruker (BCF)", _ROSETTA.format("bruker")),
    (b"4\x00\x00\x00JED-2200", "", "JEOL (.img, .map)", _ROSETTA.format("jeol")),
    (b"MQ1,", "", "Merlin (.mib)", _ROSETTA.format("quantumdetector")),
    (b"PK\x03\x04", ".prz", "Panta Rhei (.prz)", _NUMPY),
    (b"PK\x03\x04", ".ndata", "Nion Swift (.ndata)", _NUMPY),
)


def file_kind(head: bytes, suffix: str = "") -> str | None:
    """Return the kind of image file that starts with these `N_HEAD` bytes; None if it is none.

    The suffix, in lower case, matters only for MRC files from before 2000.
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # Texts may start with "BM" or "P5": reserved zeros, or a blank after the digit, are required.
    if head[:2] == b"BM" and head[6:10] == b"\x00\x00\x00\x00":
        return "BMP"
    if re.match(rb"P[1-6]\s", head):
        return "PNM"
    if head[208:212] == b"MAP " or (
        suffix in (".mrc", ".mrcs", ".st", ".rec") and len(head) >= 224
    ):
        return "MRC"
    return None


def describe_non_image(head: bytes, path: Path) -> str:
    """Say what a file that starts with these bytes is instead of an image, and what to do."""
    for magic, suffix, maker, lines in _CONVERTED:
        if head.startswith(magic) and suffix in ("", path.suffix.lower()):
            code = lines.format(old=repr(path.name), new=repr(f"{path.stem}.tif"))
            needs = 'pip install "rosettasciio[all]", then ' if "rsciio" in lines else ""
            return f"a file of {maker}; convert it in Python: {needs}{code}"
    for magic, description in _NOT_IMAGES:
        if head.startswith(magic):
            return description
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        return (
            "a web page or XML, not an image: a download that went wrong? Download the image itself"
        )
    return (
        "not an image that can be read (PNG, JPEG, BMP, GIF, WebP, JPEG 2000, PGM/PPM, TIFF, DM3, "
        "DM4, DM5, EMD, MRC, SER, OME-Zarr); export it as TIFF or PNG"
    )


@dataclass
class DecodedImage:
    """What a `Reader` returns: the pixels of one page as stored, and what the file states."""

    pixels: NDArray[Any]
    stored: NDArray[Any] | None = None  # where these are displayed values: (H, W) as in the file
    is_lossy: bool = False  # or may be: JPEG 2000 and WebP can also be compressed without losses
    pixel_size: float | None = None  # nm
    scan_rows: int | None = None  # height without the banner, by the metadata
    metadata: dict[str, Any] = field(default_factory=dict)  # as in `Micrograph`

    @classmethod
    def of(cls, kind: str, pixels: NDArray[Any], sides: Sides, **metadata: Any) -> DecodedImage:
        """Return an image of a format that states the sides of a pixel, nm, itself."""
        decoded = cls(pixels, metadata={"format": kind, **metadata})
        decoded.set_pixel_sides(sides)
        return decoded

    def set_pixel_sides(self, sides: Sides, source: str = "", unit: str | None = None) -> None:
        """Set the pixel size from width and height, nm, that a source states; or keep these.

        The `unit` is that in which a general program wrote them, perhaps for a page.
        """
        if not are_plausible(sides) or (unit is not None and are_of_a_page(sides, unit)):
            self.metadata["implausible_pixel_sides_nm"] = list(sides)
            return
        if any(sides):
            self.metadata["pixel_size_from"] = source or self.metadata["format"]
        self.pixel_size = square_pixel_size(sides)
        if self.pixel_size is None and None not in sides:
            self.metadata["pixel_sides_nm"] = list(sides)

    def add_entries(
        self, instrument: str, entries: Entries, place: str, unit: str | None = None
    ) -> None:
        """Use the pixel size and the height that an instrument's metadata state, unless known."""
        sides, names = entries.pixel_sides(instrument, self.pixels.shape[1])
        if any(sides) and "pixel_size_from" not in self.metadata:
            self.set_pixel_sides(sides, f"{place}: {names}", unit)
        if self.scan_rows is None:
            self.scan_rows = entries.scan_rows(len(self.pixels))
        if entries.stated:
            self.metadata.setdefault(instrument, json_value(entries.stated))


#: From an open file, options of which those that choose a page or a channel and `max_pixels` count,
#: and the name for errors. Whatever else a reader raises means a damaged file.
Reader: TypeAlias = Callable[[BinaryIO, ReadOptions, str], DecodedImage]


def json_value(value: Any) -> Any:
    """Return a value with NumPy scalars, tuples and bytes as JSON types."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1").rstrip("\x00")
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_value(item) for item in value]
    if isinstance(value, np.ndarray):
        return json_value(value.tolist())
    return str(value)


# Called by name instead of through ``Image.open``: an untrusted file can reach only these formats,
# and a size limit set per call replaces the process-wide ``Image.MAX_IMAGE_PIXELS``. (Only frames
# that exceed the screen of a GIF and, from Pillow 13 on, WebP are still subject to it.)
_PLUGINS = {
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "JPEG2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "PNM": ("PpmImagePlugin", "PpmImageFile"),
}
RASTER_KINDS = frozenset(_PLUGINS)


def decode_raster(kind: str, file: BinaryIO, options: ReadOptions, name: str) -> DecodedImage:
    """Decode the first frame of a file of one of `RASTER_KINDS`, as stored; see `Reader`.

    By imagecodecs where Pillow would change values. `max_pixels` is checked before decoding.
    """
    if options.page:
        raise ImageReadError(
            f"{name}: page {options.page} was requested, but only the first image of a {kind} file "
            "is read; use page=0"
        )
    max_pixels = options.max_pixels
    module, plugin = _PLUGINS[kind]
    open_plugin = getattr(importlib.import_module(f"PIL.{module}"), plugin)
    with strict_decoding(), open_plugin(file) as image:
        mode, n_channels = image.mode, len(image.getbands())
        check_size(image.height, image.width, name, max_pixels, n_channels, _value_bytes(image))
        is_changed = _is_changed_by_pillow(image, file, name, max_pixels)
        n_frames = getattr(image, "n_frames", 1)
        pixels = _unchanged_pixels(file, kind) if is_changed else image_pixels(image)
        stored = _stored_levels(image, file)
        segments = b"".join(content for _, content in getattr(image, "applist", ()))  # of a JPEG
    metadata = {"format": kind, "mode": mode, "n_pages": n_frames}
    decoded = DecodedImage(pixels, stored, metadata=metadata)
    decoded.is_lossy = kind in ("JPEG", "JPEG2000", "WEBP")
    _, is_phenom, xml = segments.partition(b"<FeiImage>")
    if is_phenom:
        decoded.add_entries("fei", Entries(is_phenom + xml), "JPEG header")
    return decoded


def _value_bytes(image: ImageFile.ImageFile) -> int:
    is_deep_png = image.format == "PNG" and str(image.tile[0][3]).endswith("16B")
    return _MODE_BYTES.get(image.mode, 2 if is_deep_png else 1)


_MODE_BYTES = {"I": 4, "F": 4, "I;16": 2, "I;16B": 2}


def _is_changed_by_pillow(
    image: ImageFile.ImageFile, file: BinaryIO, name: str, max_pixels: int | None
) -> bool:
    """Return whether Pillow would cut or shift values to 8 bits; refuse what it misreads."""
    if image.format == "PNG":
        return image.mode not in _MODE_BYTES and _value_bytes(image) > 1
    if image.format == "PPM":
        _check_pnm(image, file, name)
    if image.format != "JPEG2000":
        return False
    # Pillow reads a box around the image, which may contradict the image itself.
    size = encoded_size(file)
    if size is None:
        raise ImageReadError(
            f"{name}: damaged JPEG 2000 file: it has no image, or one without a size; copy or "
            "export it again"
        )
    n_bytes = 2 if size.n_bits > 8 else 1
    check_size(size.height, size.width, name, max_pixels, size.n_channels, n_bytes)
    return size.n_bits != 8 and image.mode != "P"


def _check_pnm(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> None:
    tile: Any = image.tile[0]
    decoder, _, start, arguments = tile
    n_bits = arguments[1].bit_length() if image.mode == "RGB" and decoder != "raw" else 8
    if n_bits > 8:
        raise ImageReadError(
            f"{name}: a PPM file of {n_bits} bits per channel, not supported; export PNG or TIFF"
        )
    if decoder == "ppm_plain":
        file.seek(start)
        # Pillow takes minutes to remove many of them.
        if any(b"#" in block for block in iter(partial(file.read, 1 << 20), b"")):
            raise ImageReadError(
                f"{name}: a PNM file with comments among its pixels; export it as PNG or TIFF"
            )


def _stored_levels(image: ImageFile.ImageFile, file: BinaryIO) -> NDArray[Any] | None:
    """Return indices of a palette, or grey of 2 to 7 bits, as stored; None of any other image."""
    if image.mode == "P":
        return np.asarray(image)
    size = encoded_size(file) if image.format == "PNG" and image.mode == "L" else None
    if size is None or size.n_bits >= 8:
        return None
    return np.asarray(np.asarray(image) // (255 // (2**size.n_bits - 1)))


def _unchanged_pixels(file: BinaryIO, kind: str) -> NDArray[Any]:
    import imagecodecs

    size = encoded_size(file)
    assert size is not None  # as `_is_changed_by_pillow` has checked
    file.seek(0)
    decode = imagecodecs.png_decode if kind == "PNG" else imagecodecs.jpeg2k_decode
    pixels = stretch_levels(decode(file.read()), size.n_bits)
    if pixels.ndim == 2:
        return pixels
    return pixels[:, :, 0] if pixels.shape[2] == 2 else pixels[:, :, :3]


def stretch_levels(pixels: NDArray[Any], n_bits: int) -> NDArray[Any]:
    """Return values of 1 bit as True and False, those of 2 to 7 bits stretched to 8."""
    if pixels.dtype != np.uint8 or n_bits >= 8:
        return pixels
    levels = np.rint(np.linspace(0, 255, 2**n_bits)).astype(np.uint8 if n_bits > 1 else bool)
    stretched: NDArray[Any] = levels[pixels]
    return stretched


class EncodedSize(NamedTuple):
    height: int
    width: int
    n_channels: int
    n_bits: int  # of the deepest channel


def encoded_size(file: BinaryIO) -> EncodedSize | None:
    """Return the size in the header of a PNG, JPEG or JPEG 2000 image; None if there is none."""
    position = file.tell()
    try:
        (mark,) = unpack_at(file, 0, "4s")
        if mark == b"\x89PNG":
            width, height, n_bits, colour = unpack_at(file, 16, ">IIBB")
            return EncodedSize(height, width, _PNG_CHANNELS.get(colour, 1), n_bits)
        return _jpeg_size(file) if mark[:2] == b"\xff\xd8" else _jpeg_2000_size(file)
    except struct.error:  # the file ends within the header
        return None
    finally:
        file.seek(position)


def unpack_at(file: BinaryIO, offset: int, layout: str) -> tuple[Any, ...]:
    """Return numbers at an offset of a file; `struct.error` if it ends before."""
    file.seek(offset)
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers of JPEG that no data follow
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def _jpeg_size(file: BinaryIO) -> EncodedSize | None:
    position = 2
    for _ in range(MAX_SEGMENTS):
        start, marker = unpack_at(file, position, "BB")
        if start != 0xFF:
            return None
        if marker in _FRAMES:
            n_bits, height, width, n_channels = unpack_at(file, position + 4, ">BHHB")
            return EncodedSize(height, width, n_channels, n_bits)
        if marker == 0xFF:
            position += 1
        elif marker in _NO_LENGTH:
            position += 2
        else:
            position += 2 + unpack_at(file, position + 2, ">H")[0]
    return None


def _jpeg_2000_size(file: BinaryIO) -> EncodedSize | None:
    start = _codestream_start(file)
    if unpack_at(file, start, "4s") != (b"\xff\x4f\xff\x51",):
        return None
    _, right, bottom, left, top = unpack_at(file, start + 6, ">H4I")
    (n_channels,) = unpack_at(file, start + 40, ">H")
    depths = unpack_at(file, start + 42, f">{3 * n_channels}B")[::3]
    n_bits = max(((depth & 0x7F) + 1 for depth in depths), default=0)
    return EncodedSize(bottom - top, right - left, n_channels, n_bits)


def _codestream_start(file: BinaryIO) -> int:
    start = 0
    length, kind = unpack_at(file, 0, ">I4s")
    if kind != b"jP  ":
        return 0
    for _ in range(MAX_SEGMENTS):
        if kind == b"jp2c":
            return start + (16 if length == 1 else 8)
        if length == 1:
            (length,) = unpack_at(file, start + 8, ">Q")
        start += max(length, 8)  # OpenJPEG refuses shorter ones
        length, kind = unpack_at(file, start, ">I4s")
    return 0  # where there is none, so that the file has no size


def image_pixels(image: Image.Image) -> NDArray[Any]:
    """Return the pixels of a Pillow image: palette applied, CMYK as RGB, without alpha."""
    mode = image.mode
    if mode == "P":
        entries = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
        return apply_palette(np.asarray(image), entries)
    if mode == "I" and image.format in ("PNG", "PPM"):
        # Older versions of Pillow widen 16-bit grey to 32 bits, which would change the digest.
        return np.asarray(image).astype(np.uint16)
    if mode in ("1", "L", "F", "I", "RGB") or mode.startswith("I;16"):
        return np.asarray(image)
    if mode == "LA":
        return np.asarray(image)[:, :, 0]
    if mode == "RGBA":
        return np.asarray(image)[:, :, :3]
    return np.asarray(image.convert("RGB"))


def is_partly_transparent(path: str | os.PathLike[str]) -> bool:
    with suppress(Exception), Image.open(path) as image:
        check_size(image.height, image.width, str(path), MAX_PIXELS, n_channels=4)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())
    return False


def apply_palette(indices: NDArray[Any], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return palette indices (H, W) as grey (H, W) if all colours are grey, else as RGB."""
    if indices.dtype == bool:
        indices = indices.view(np.uint8)
    table = np.zeros((max(256, int(indices.max(initial=0)) + 1), 3), dtype=np.uint8)
    table[: len(palette)] = palette[: len(table)]
    if (palette == palette[:, :1]).all():
        table = table[:, 0]
    return np.asarray(table[indices])


@shared_by_threads
@contextmanager
def strict_decoding() -> Iterator[None]:
    """Make truncated files an error, whatever the program asks of Pillow."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def check_page(page: int, n_pages: int, name: str, what: str) -> None:
    if page >= n_pages:
        raise ImageReadError(
            f"{name}: page {page} was requested, but the file has {counted(n_pages, what)}; pages "
            "are counted from 0"
        )
