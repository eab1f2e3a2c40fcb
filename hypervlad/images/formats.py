"""File formats: recognition by the first bytes, and all decoders but that of TIFF.

PNG, JPEG and similar formats are decoded by Pillow, DM3/DM4, MRC and SER files by the packages of
the ``formats`` extra. Pillow's plugins are called by name instead of through ``Image.open``: an
untrusted file can reach only the formats listed here, and a size limit set per call replaces the
process-wide ``Image.MAX_IMAGE_PIXELS`` and its warning.
"""

from __future__ import annotations

import importlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from hypervlad.images.errors import ImageReadError
from hypervlad.images.metadata import Sides, length_in_nm, square_pixel_size
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
)

# Files that are given by mistake, with the error message.
_NOT_IMAGES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image itself; run 'git lfs pull'"),
    (b"PK\x03\x04", "a ZIP archive (or an Office document); unpack it and give the images inside"),
    (b"%PDF", "a PDF document; export its figures as PNG or TIFF"),
    (b"%!PS", "a PostScript file; export its figures as PNG or TIFF"),
    (b"\x89HDF", "an HDF5 file; read its array with h5py and pass the array"),
    (b"\x93NUMPY", "a NumPy file; read it with np.load and pass the array"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"8BPS", "a Photoshop document; export it as TIFF or PNG"),
    (b"CDF\x01", "a netCDF file; read its array and pass the array"),
)


def file_kind(head: bytes, suffix: str = "") -> str | None:
    """Return the kind of image file that starts with `head`; None if it cannot be read.

    Parameters
    ----------
    head : bytes
        The first `N_HEAD` bytes of the file, or the whole file.
    suffix : str
        The file's suffix in lower case. It is used only where the content is ambiguous (MRC files
        from before 2000 have no mark).

    Returns
    -------
    kind : str or None
        "PNG", "JPEG", "GIF", "BMP", "WEBP", "JPEG2000", "PNM", "TIFF", "DM", "MRC" or "SER".

    Examples
    --------
    >>> file_kind(b"GIF89a...")
    'GIF'
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # Texts may start with "BM" or "P5", so the reserved zeros, or a blank after the digit, are
    # required too.
    if head[:2] == b"BM" and head[6:10] == b"\x00\x00\x00\x00":
        return "BMP"
    if re.match(rb"P[1-6]\s", head):
        return "PNM"
    if head[208:212] == b"MAP " or (
        suffix in (".mrc", ".mrcs", ".st", ".rec") and len(head) >= 224
    ):
        return "MRC"
    return None


def describe_non_image(head: bytes) -> str:
    """Describe a file that is not an image by its first bytes, and say what to do."""
    for magic, description in _NOT_IMAGES:
        if head.startswith(magic):
            return description
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        return (
            "a web page or XML, not an image: a download that went wrong? Download the image itself"
        )
    return (
        "not an image that can be read (PNG, JPEG, BMP, GIF, WebP, JPEG 2000, PGM/PPM, TIFF, DM3, "
        "DM4, MRC, SER); export it as TIFF or PNG"
    )


@dataclass
class DecodedImage:
    """A decoded image before scaling.

    Attributes
    ----------
    pixels : ndarray
        Values as stored.
    pixel_size : float or None
        Nanometres per pixel.
    scan_rows : int or None
        Height of the scanned image without the banner, by the metadata; None if unknown.
    metadata : dict
        Values that JSON can store. ``"pixel_sides_nm"`` is the width and height of pixels that are
        not square.
    """

    pixels: NDArray
    pixel_size: float | None = None
    scan_rows: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def set_pixel_sides(self, sides: Sides) -> None:
        """Set the pixel size from the width and height of a pixel in the file, nm."""
        self.pixel_size = square_pixel_size(sides)
        if self.pixel_size is None and None not in sides:
            self.metadata["pixel_sides_nm"] = list(sides)


def json_value(value: Any) -> Any:
    """Return a value with NumPy scalars, tuples, bytes and the like replaced by JSON types."""
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


def decode_raster(file: BinaryIO, kind: str, name: str, max_pixels: int | None) -> DecodedImage:
    """Decode the first frame of an open PNG, JPEG, BMP, GIF, WebP, JPEG 2000 or PGM/PPM file.

    Parameters
    ----------
    file : binary file
    kind : str
        One of `RASTER_KINDS`.
    name : str
        Name of the image in errors.
    max_pixels : int or None
        Compared with the header before decoding.

    Returns
    -------
    decoded : DecodedImage
        Bool, uint8, uint16, int32 or float32. Pillow reads 16-bit colour PNGs with 8 bits. The
        EXIF orientation of cameras is not applied: pixels are returned as stored.
    """
    module, plugin = _PLUGINS[kind]
    open_plugin = getattr(importlib.import_module(f"PIL.{module}"), plugin)
    with strict_decoding(), open_plugin(file) as image:
        check_size(image.height, image.width, name, max_pixels)
        mode = image.mode
        pixels = image_pixels(image)
    return DecodedImage(pixels, metadata={"format": kind, "mode": mode})


def image_pixels(image: Image.Image) -> NDArray:
    """Return the pixels of a Pillow image: palette applied, CMYK as RGB, without alpha."""
    mode = image.mode
    if mode == "P":
        return _palette_pixels(image)
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
    """Return whether an image file has pixels that are not opaque; False if it does not decode."""
    with suppress(Exception), Image.open(path) as image:
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())
    return False


def _palette_pixels(image: Image.Image) -> NDArray:
    entries = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return apply_palette(np.asarray(image), entries)


def apply_palette(indices: NDArray, palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return palette indices (H, W) as grey (H, W) if all colours are grey, else as RGB.

    Many instruments store grey BMPs and GIFs with a palette of greys.
    """
    table = np.zeros((max(256, int(indices.max(initial=0)) + 1), 3), dtype=np.uint8)
    table[: len(palette)] = palette[: len(table)]
    if (palette == palette[:, :1]).all():
        table = table[:, 0]
    return table[indices]


_strict_lock = threading.Lock()
_strict_state: dict[str, Any] = {"users": 0, "before": False}


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Make truncated files an error, even if the program lets Pillow fill them with grey."""
    with _strict_lock:
        if _strict_state["users"] == 0:
            _strict_state["before"] = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _strict_state["users"] += 1
    try:
        yield
    finally:
        with _strict_lock:
            _strict_state["users"] -= 1
            if _strict_state["users"] == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _strict_state["before"]


def check_single_page(page: int, name: str, kind: str) -> None:
    """Raise `ImageReadError` if a page beyond the first is requested of a one-page format."""
    if page:
        raise ImageReadError(
            f"{name}: page {page} was requested, but only the first image of a {kind} file is "
            "read; use page=0"
        )


MICROSCOPY_KINDS = frozenset({"DM", "MRC", "SER"})


def decode_microscopy(
    path: Path, kind: str, page: int, name: str, max_pixels: int | None
) -> DecodedImage:
    """Decode one image of a DM3, DM4, MRC or SER file, with its pixel size.

    Parameters
    ----------
    path : Path
        An existing, readable file.
    kind : {"DM", "MRC", "SER"}
    page : int
        Section of an MRC volume, or frame of a SER or DM series; counted from 0.
    name : str
        Name of the image in errors.
    max_pixels : int or None
        Compared with the header before decoding.

    Returns
    -------
    decoded : DecodedImage
        MRC rows are in the order of the file, by that format's convention from the bottom up.

    Raises
    ------
    ImageReadError
        Also if the ``formats`` extra is not installed.
    """
    decoders = {"DM": _decode_dm, "MRC": _decode_mrc, "SER": _decode_ser}
    return decoders[kind](path, page, name, max_pixels)


def _import_extra(module: str, kind: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImageReadError(
            f"{name}: {kind} files need {module.split('.')[0]} ({error}); "
            'pip install "hypervlad[formats]"'
        ) from error


def _check_page(page: int, n_pages: int, name: str) -> None:
    if page >= n_pages:
        what = "1 image" if n_pages == 1 else f"{n_pages} images"
        raise ImageReadError(
            f"{name}: page {page} was requested, but the file has {what}; pages are counted from 0"
        )


def _decode_mrc(path: Path, page: int, name: str, max_pixels: int | None) -> DecodedImage:
    mrcfile = _import_extra("mrcfile", "MRC", name)
    with mrcfile.open(path, header_only=True) as header_only:
        header = header_only.header
        check_size(int(header.ny), int(header.nx), name, max_pixels)
        _check_page(page, int(header.nz), name)
        voxel = header_only.voxel_size
        sides = [length_in_nm(side, "angstrom") for side in (voxel.x, voxel.y)]
    with mrcfile.mmap(path) as mrc:
        stack = mrc.data.reshape(-1, *mrc.data.shape[-2:])
        pixels = np.array(stack[page])
    decoded = DecodedImage(pixels, metadata={"format": "MRC", "page": page, "n_pages": len(stack)})
    decoded.set_pixel_sides((sides[0], sides[1]))
    return decoded


def _decode_ser(path: Path, page: int, name: str, max_pixels: int | None) -> DecodedImage:
    ser = _import_extra("ncempy.io.ser", "SER", name)
    with ser.fileSER(path) as file:
        if file.head["DataTypeID"] != 0x4122:
            raise ImageReadError(f"{name}: a SER file of spectra, not of images; leave it out")
        n_pages = int(file.head["ValidNumberElements"])
        _check_page(page, n_pages, name)
        height, width = _ser_shape(path, int(file.head["DataOffsetArray"][page]))
        check_size(height, width, name, max_pixels)
        pixels, described = file.getDataset(page)
    metadata = {"format": "SER", "page": page, "n_pages": n_pages}
    decoded = DecodedImage(np.array(pixels), metadata=metadata)
    across, down = (each["CalibrationDelta"] for each in described["Calibration"][:2])
    decoded.set_pixel_sides((length_in_nm(across, "m"), length_in_nm(down, "m")))
    return decoded


def _ser_shape(path: Path, offset: int) -> tuple[int, int]:
    """Return the shape of a SER frame, after two calibrations of 20 bytes and a 2-byte type."""
    with path.open("rb") as file:
        file.seek(offset + 2 * 20 + 2)
        width, height = np.frombuffer(file.read(8), dtype="<i4", count=2)
    return int(height), int(width)


def _decode_dm(path: Path, page: int, name: str, max_pixels: int | None) -> DecodedImage:
    dm = _import_extra("ncempy.io.dm", "DM3 and DM4", name)
    # An open file, not a path: ncempy could not close its memory map of a damaged file.
    with path.open("rb") as handle, dm.fileDM(handle) as file:
        # If there is more than one data set, the first is a thumbnail, which ncempy also skips.
        index = 0 if file.numObjects == 1 else 1
        if len(file.xSize) <= index:
            raise ImageReadError(f"{name}: a Gatan file without an image; export it as TIFF")
        check_size(int(file.ySize[index]), int(file.xSize[index]), name, max_pixels)
        n_pages = int(file.zSize[index]) * int(file.zSize2[index])
        _check_page(page, n_pages, name)
        pixels, sides = _dm_slice(file, page, int(file.zSize[index]), n_pages)
        metadata = {"format": "DM", "page": page, "n_pages": n_pages}
        metadata["gatan"] = _microscope_tags(file.allTags)
    decoded = DecodedImage(pixels, metadata=metadata)
    decoded.set_pixel_sides(sides)
    return decoded


def _dm_slice(file: Any, page: int, depth: int, n_pages: int) -> tuple[NDArray, Sides]:
    if n_pages == 1:
        described = file.getDataset(0)
    else:
        described = file.getSlice(0, page % depth, page // depth)
    sizes, units = described.get("pixelSize") or [], described.get("pixelUnit") or []
    # The last axis of the data is horizontal, the one before it vertical.
    sides = [length_in_nm(*pair) for pair in zip(sizes, units, strict=False)][::-1]
    across, down, *_ = [*sides, None, None]
    return np.array(described["data"]), (across, down)


def _microscope_tags(tags: dict[str, Any]) -> dict[str, Any]:
    """Return the last image's "Microscope Info" tags: voltage, magnification and others."""
    marker = ".Microscope Info."
    return {
        key.split(marker, 1)[1]: json_value(value) for key, value in tags.items() if marker in key
    }
