"""DM3, DM4, MRC and SER files."""

from __future__ import annotations

import importlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.errors import ImageReadError
from hypervlad.images.formats import DecodedImage, check_page, json_value, unpack_at
from hypervlad.images.metadata import Sides, length_in_nm
from hypervlad.images.pixels import check_size

MICROSCOPY_KINDS = frozenset({"DM", "MRC", "SER"})

_MRC_HEAD = 1024  # bytes, before the extended header
_SER_HEAD = "<3h4i"  # byte order, series, version; data type, tag type, elements, valid elements
_SER_IMAGES = 0x4122
_SER_TYPES = dict(enumerate(("u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8", "c8", "c16"), start=1))
_SER_ELEMENT = "<ddiddihii"  # two axes (offset, delta, element), data type, width, height

_DM_RGB = 23
_DM_TYPES = {
    1: "<i2",
    2: "<f4",
    3: "<c8",
    6: "u1",
    7: "<i4",
    9: "i1",
    10: "<u2",
    11: "<u4",
    12: "<f8",
    13: "<c16",
    14: "u1",
}


def decode_microscopy(
    path: Path, kind: str, page: int, name: str, max_pixels: int | None
) -> DecodedImage:
    """Decode one image of a file of kind "DM", "MRC" or "SER", with its pixel size.

    Pages of a DM file are the slices of all its images. MRC rows stay in the order of the file.
    """
    decoders = {"DM": _decode_dm, "MRC": _decode_mrc, "SER": _decode_ser}
    return decoders[kind](path, page, name, max_pixels)


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


def _decode_mrc(path: Path, page: int, name: str, max_pixels: int | None) -> DecodedImage:
    mrcfile = import_extra("mrcfile", "MRC", name)
    with path.open("rb") as file:  # mrcfile makes room for the extended header before it reads it
        order = mrcfile.utils.byte_order_from_machine_stamp(unpack_at(file, 212, "4B"))
        (n_extended,) = unpack_at(file, 92, order + "i")
        if _MRC_HEAD + n_extended > file.seek(0, os.SEEK_END):
            raise ImageReadError(
                f"{name}: damaged or truncated MRC file: its header is longer than the file; copy "
                "or export it again"
            )
    with mrcfile.open(path, header_only=True) as header_only:
        header = header_only.header
        n_bytes = mrcfile.utils.dtype_from_mode(header.mode).itemsize
        check_size(int(header.ny), int(header.nx), name, max_pixels, n_bytes=n_bytes)
        check_page(page, int(header.nz), name, "image")
        voxel = header_only.voxel_size
        sides = [length_in_nm(side, "angstrom") for side in (voxel.x, voxel.y)]
    with mrcfile.mmap(path) as mrc:
        stack = mrc.data.reshape(-1, *mrc.data.shape[-2:])
        pixels = np.array(stack[page])
    decoded = DecodedImage(pixels, metadata={"format": "MRC", "page": page, "n_pages": len(stack)})
    decoded.set_pixel_sides((sides[0], sides[1]))
    return decoded


def _decode_ser(path: Path, page: int, name: str, max_pixels: int | None) -> DecodedImage:
    # Read here: ncempy refuses an intact series if the .emi file beside it is damaged.
    with path.open("rb") as file:
        _, _, version, data_type, _, _, n_pages = unpack_at(file, 0, _SER_HEAD)
        if data_type != _SER_IMAGES:
            raise ImageReadError(f"{name}: a SER file of spectra, not of images; leave it out")
        check_page(page, n_pages, name, "image")
        address = "<i" if version <= 0x0210 else "<q"
        (table,) = unpack_at(file, struct.calcsize(_SER_HEAD), address)
        (offset,) = unpack_at(file, table + page * struct.calcsize(address), address)
        _, across, _, _, down, _, value_type, width, height = unpack_at(file, offset, _SER_ELEMENT)
        dtype = np.dtype(_SER_TYPES[value_type]).newbyteorder("<")
        check_size(height, width, name, max_pixels, n_bytes=dtype.itemsize)
        start = offset + struct.calcsize(_SER_ELEMENT)
        pixels = np.flipud(_read_values(file, start, dtype.str, (height, width)))
    metadata = {"format": "SER", "page": page, "n_pages": n_pages}
    decoded = DecodedImage(pixels, metadata=metadata)
    decoded.set_pixel_sides((length_in_nm(across, "m"), length_in_nm(down, "m")))
    return decoded


@dataclass
class _GatanImage:
    width: int
    height: int
    n_pages: int
    data_type: int
    offset: int
    sides: Sides  # of a pixel, nm


def _decode_dm(path: Path, page: int, name: str, max_pixels: int | None) -> DecodedImage:
    dm = import_extra("ncempy.io.dm", "DM3 and DM4", name)
    # An open file, not a path: ncempy could not close its memory map of a damaged file.
    with path.open("rb") as handle, dm.fileDM(handle) as file:
        images = _gatan_images(file.allTags)
        if not images:
            raise ImageReadError(f"{name}: a Gatan file without an image; export it as TIFF")
        n_pages = sum(image.n_pages for image in images)
        check_page(page, n_pages, name, "image")
        image, index = _image_of_page(images, page)
        if image.data_type not in _DM_TYPES:
            kind = "RGB pixels" if image.data_type == _DM_RGB else f"data type {image.data_type}"
            raise ImageReadError(f"{name}: a Gatan image of {kind}; export it as TIFF")
        dtype = np.dtype(_DM_TYPES[image.data_type])
        check_size(image.height, image.width, name, max_pixels, n_bytes=dtype.itemsize)
        offset = image.offset + index * image.height * image.width * dtype.itemsize
        pixels = _read_values(handle, offset, dtype.str, (image.height, image.width))
        metadata = {"format": "DM", "page": page, "n_pages": n_pages}
        metadata["gatan"] = _microscope_tags(file.allTags)
    decoded = DecodedImage(pixels, metadata=metadata)
    decoded.set_pixel_sides(image.sides)
    return decoded


def _gatan_images(tags: dict[str, Any]) -> list[_GatanImage]:
    images = []
    for number in _numbered(tags, ".ImageList."):
        data = f".ImageList.{number}.ImageData."
        dimensions = f"{data}Dimensions."
        shape = [int(tags[f"{dimensions}{axis}"]) for axis in _numbered(tags, dimensions)]
        if not shape or f"{data}Data.arrayOffset" not in tags:
            continue
        width, height, *stack = [*shape, 1] if len(shape) == 1 else shape
        axes = [f"{data}Calibrations.Dimension.{axis}." for axis in (1, 2)]
        across, down = (
            length_in_nm(tags.get(f"{axis}Scale"), tags.get(f"{axis}Units")) for axis in axes
        )
        images.append(
            _GatanImage(
                width=width,
                height=height,
                n_pages=int(np.prod(stack, dtype=object)),
                data_type=int(tags.get(f"{data}DataType", -1)),
                offset=int(tags[f"{data}Data.arrayOffset"]),
                sides=(across, down),
            )
        )
    has_thumbnail = len(images) > 1 and images[0].data_type == _DM_RGB
    return images[1:] if has_thumbnail else images


def _numbered(tags: dict[str, Any], prefix: str) -> list[int]:
    """Return the numbers after `prefix` in the names of tags, in order."""
    parts = {key[len(prefix) :].partition(".")[0] for key in tags if key.startswith(prefix)}
    return sorted(int(part) for part in parts if part.isdecimal())


def _image_of_page(images: list[_GatanImage], page: int) -> tuple[_GatanImage, int]:
    for image in images:
        if page < image.n_pages:
            break
        page -= image.n_pages
    return image, page


def _microscope_tags(tags: dict[str, Any]) -> dict[str, Any]:
    marker = ".Microscope Info."
    return {
        key.split(marker, 1)[1]: json_value(value) for key, value in tags.items() if marker in key
    }
