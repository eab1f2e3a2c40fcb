"""DM3, DM4, MRC and SER files."""

from __future__ import annotations

import importlib
import math
import os
import struct
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.chunks import frame_of_page
from hypervlad.images.errors import ImageReadError
from hypervlad.images.formats import DecodedImage, json_value, unpack_at
from hypervlad.images.metadata import Sides, length_in_nm
from hypervlad.images.options import ReadOptions
from hypervlad.images.pixels import check_size

_MRC_HEAD = 1024  # bytes, before the extended header
_MRC_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_MRC_UNREAD = {
    3: "complex integers",
    4: "complex values",
    16: "RGB pixels",
    101: "values of 4 bits, two per byte",
}
_IMOD_STAMP = 1146047817  # before flags, of which two matter here
_IMOD_SIGNED, _IMOD_PACKED = 1, 16
_FEI_EXTENDED = 128 * 1024  # bytes, of 1024 sections with no integers and 32 floats each
_FEI_NUMBERS = (0, 32)
_SER_HEAD = "<3h4i"  # byte order, series, version; data type, tag type, elements, valid elements
_SER_IMAGES = 0x4122
_SER_TYPES = dict(enumerate(("u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8", "c8", "c16"), start=1))
_SER_ELEMENT = "<ddiddihii"  # two axes (offset, delta, element), data type, width, height

DM_RGB = (8, 23)  # bytes in the order blue, green, red, alpha
_DM_BOOL = 14
_DM_TYPES = {
    1: "i2",
    2: "f4",
    3: "c8",
    6: "u1",
    7: "i4",
    8: "u4",
    9: "i1",
    10: "u2",
    11: "u4",
    12: "f8",
    13: "c16",
    _DM_BOOL: "u1",
    23: "u4",
}


def import_extra(module: str, kind: str, name: str) -> ModuleType:
    """Import what the extra `formats` installs, or say so."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImageReadError(
            f"{name}: {kind} files need {module.split('.')[0]} ({error}); "
            'pip install "hypervlad[formats]"'
        ) from error


def _read_values(file: BinaryIO, offset: int, dtype: str, shape: tuple[int, int]) -> NDArray[Any]:
    file.seek(offset)
    values = np.fromfile(file, dtype=dtype, count=shape[0] * shape[1])
    return values.reshape(shape)  # an error if the file ends before


def decode_mrc(file: BinaryIO, options: ReadOptions, name: str) -> DecodedImage:
    """Decode one section of an MRC file, whose rows stay in the order of the file; see `Reader`."""
    page = options.page or 0
    # The stamp of the byte order may be missing or wrong; the wrong order makes sizes larger.
    order = min("<>", key=lambda each: max(unpack_at(file, 0, f"{each}4I")))
    width, height, n_pages, mode = unpack_at(file, 0, f"{order}4I")
    stamp, flags = unpack_at(file, 152, f"{order}2I")
    flags = flags if stamp == _IMOD_STAMP else None
    if mode == 0 and flags and flags & _IMOD_PACKED:
        mode = 101
    if mode not in _MRC_TYPES:
        what = _MRC_UNREAD.get(mode, "unknown: is it damaged, or no MRC file?")
        raise ImageReadError(f"{name}: an MRC file of mode {mode} ({what}); export it as TIFF")
    dtype = np.dtype(order + _MRC_TYPES[mode])
    check_size(height, width, name, options.max_pixels, n_bytes=dtype.itemsize)
    _, _, pages = frame_of_page([n_pages], page, name)
    (n_extended,) = unpack_at(file, 92, f"{order}I")
    start = _MRC_HEAD + n_extended + page * height * width * dtype.itemsize
    pixels = _read_values(file, start, dtype.str, (height, width))
    if mode == 0:
        pixels = _with_sign(pixels, flags, unpack_at(file, 76, f"{order}2f"), name)
    return DecodedImage.of("MRC", pixels, _mrc_sides(file, order, n_extended), **pages)


def _with_sign(
    pixels: NDArray[np.int8], flags: int | None, limits: tuple[float, ...], name: str
) -> NDArray[Any]:
    """Return bytes as signed, as the standard says, or unsigned, as IMOD and SerialEM write them.

    By IMOD's flags, or else by the smallest and largest value in the header.
    """
    is_signed = limits[0] < 0 or limits[1] < 128 if flags is None else flags & _IMOD_SIGNED
    if not is_signed:
        return pixels.view(np.uint8)
    if flags is None:
        sample = pixels.view(np.uint8).ravel()[:: 1 + (pixels.size >> 16)]
        counts = np.bincount(sample, minlength=256)  # of 128 to 255, which are -128 to -1, too
        low, high, middle = counts[128:160].sum(), counts[96:128].sum(), counts[:32].sum()
        if middle + counts[224:].sum() < min(low, high) / 2:
            warnings.warn(
                f"{os.path.dirname(name) or os.curdir}: MRC files of bytes without a sign flag, "
                "read as signed, whose values lie at both ends of the range and hardly in the "
                "middle: they look unsigned; if so, export them as TIFF with IMOD's mrc2tif",
                stacklevel=1,
            )
    return pixels


def _mrc_sides(file: BinaryIO, order: str, n_extended: int) -> Sides:
    """Return the pixel in nm: by FEI's extended header, in metres, or else cell over grid, in Å."""
    if n_extended == _FEI_EXTENDED and unpack_at(file, 128, f"{order}2h") == _FEI_NUMBERS:
        (metres,) = unpack_at(file, _MRC_HEAD + 44, f"{order}f")
        if side := length_in_nm(metres, "m"):
            return side, side
    *grid, _ = unpack_at(file, 28, f"{order}3i")
    cell = unpack_at(file, 40, f"{order}2f")
    across, down = (
        length_in_nm(n and length / n, "Å") for n, length in zip(grid, cell, strict=True)
    )
    return across, down


def decode_ser(file: BinaryIO, options: ReadOptions, name: str) -> DecodedImage:
    """Decode one image of a series; see `Reader`."""
    page = options.page or 0
    # Read here: ncempy refuses an intact series if the .emi file beside it is damaged.
    _, _, version, data_type, _, _, n_pages = unpack_at(file, 0, _SER_HEAD)
    if data_type != _SER_IMAGES:
        raise ImageReadError(f"{name}: a SER file of spectra, not of images; leave it out")
    _, _, pages = frame_of_page([n_pages], page, name)
    address = "<i" if version <= 0x0210 else "<q"
    (table,) = unpack_at(file, struct.calcsize(_SER_HEAD), address)
    (offset,) = unpack_at(file, table + page * struct.calcsize(address), address)
    _, across, _, _, down, _, value_type, width, height = unpack_at(file, offset, _SER_ELEMENT)
    dtype = np.dtype(_SER_TYPES[value_type]).newbyteorder("<")
    check_size(height, width, name, options.max_pixels, n_bytes=dtype.itemsize)
    start = offset + struct.calcsize(_SER_ELEMENT)
    pixels = np.flipud(_read_values(file, start, dtype.str, (height, width)))
    sides = length_in_nm(across, "m"), length_in_nm(down, "m")
    return DecodedImage.of("SER", pixels, sides, **pages)


@dataclass
class _GatanImage:
    width: int
    height: int
    n_pages: int
    data_type: int
    offset: int
    sides: Sides  # of a pixel, nm


def decode_dm(file: BinaryIO, options: ReadOptions, name: str) -> DecodedImage:
    """Decode one slice of a DM3 or DM4 file: of all its images, one after the other."""
    dm = import_extra("ncempy.io.dm", "DM3 and DM4", name)
    # An open file, not a path: ncempy could not close its memory map of a damaged file.
    with dm.fileDM(file) as found:
        tags = found.allTags
        images = _gatan_images(tags)
        if not images:
            raise ImageReadError(
                f"{name}: a Gatan file without an image, or of spectra only; leave it out"
            )
        n_pages = [each.n_pages for each in images]
        number, index, pages = frame_of_page(n_pages, options.page or 0, name)
        image = images[number]
        if image.data_type not in _DM_TYPES:
            raise ImageReadError(
                f"{name}: a Gatan image of data type {image.data_type}, which is not read (27 and "
                "28 are packed Fourier transforms); leave it out, or export it as TIFF"
            )
        dtype, is_colour = np.dtype(f"<{_DM_TYPES[image.data_type]}"), image.data_type in DM_RGB
        n_channels = 3 if is_colour else 1
        check_size(image.height, image.width, name, options.max_pixels, n_channels, dtype.itemsize)
        offset = image.offset + index * image.height * image.width * dtype.itemsize
        pixels = _read_values(file, offset, dtype.str, (image.height, image.width))
    if is_colour:
        pixels = pixels.view(np.uint8).reshape(*pixels.shape, 4)[:, :, 2::-1]
    elif image.data_type == _DM_BOOL:
        pixels = pixels != 0
    return DecodedImage.of("DM", pixels, image.sides, **pages, gatan=_microscope_tags(tags))


def _gatan_images(tags: dict[str, Any]) -> list[_GatanImage]:
    """Return all images but the thumbnail, and no spectra: neither one nor a line of them."""
    numbers = _numbered(tags, ".ImageList.")
    data_types = [int(tags.get(f".ImageList.{n}.ImageData.DataType", -1)) for n in numbers]
    has_thumbnail = len(numbers) > 1 and data_types[0] in DM_RGB
    images = []
    for number, data_type in list(zip(numbers, data_types, strict=True))[has_thumbnail:]:
        data = f".ImageList.{number}.ImageData."
        dimensions = f"{data}Dimensions."
        shape = [int(tags[f"{dimensions}{axis}"]) for axis in _numbered(tags, dimensions)]
        content = str(tags.get(f".ImageList.{number}.ImageTags.Meta Data.Format"))
        is_line = len(shape) == 2 and content.startswith("Spectrum")
        if len(shape) < 2 or 1 in shape[:2] or is_line or f"{data}Data.arrayOffset" not in tags:
            continue
        width, height, *stack = shape
        axes = [f"{data}Calibrations.Dimension.{axis}." for axis in (1, 2)]
        across, down = (
            length_in_nm(tags.get(f"{axis}Scale"), tags.get(f"{axis}Units")) for axis in axes
        )
        offset = int(tags[f"{data}Data.arrayOffset"])
        found = _GatanImage(width, height, math.prod(stack), data_type, offset, (across, down))
        images.append(found)
    return images


def _numbered(tags: dict[str, Any], prefix: str) -> list[int]:
    """Return the numbers after `prefix` in the names of tags, in order."""
    parts = {key[len(prefix) :].partition(".")[0] for key in tags if key.startswith(prefix)}
    return sorted(int(part) for part in parts if part.isdecimal())


def _microscope_tags(tags: dict[str, Any]) -> dict[str, Any]:
    marker = ".Microscope Info."
    own = {key: value for key, value in tags.items() if marker in key}
    return {key.split(marker, 1)[1]: json_value(value) for key, value in own.items()}
