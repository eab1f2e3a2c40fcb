"""DM3/DM4, MRC and SER, through the packages of the ``formats`` extra."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.arrays import check_size
from hypervlad.images.decoded import Decoded, plain
from hypervlad.images.errors import ImageReadError
from hypervlad.images.metadata import Sides, length_in_nm

MICROSCOPY_KINDS = frozenset({"DM", "MRC", "SER"})


def decode_microscopy(
    path: Path, kind: str, page: int, name: str, max_pixels: int | None
) -> Decoded:
    """Decode one image of a DM3, DM4, MRC or SER file, with its pixel size.

    Parameters
    ----------
    path : Path
        An existing, readable file.
    kind : {"DM", "MRC", "SER"}
    page : int
        Section of an MRC volume, frame of a SER or DM series; counted from 0.
    name : str
        What to call the image in an error.
    max_pixels : int or None
        Checked against the header, before anything is decoded.

    Returns
    -------
    decoded : Decoded
        MRC rows come in file order, which by that format's convention is bottom row first.

    Raises
    ------
    ImageReadError
        Also where the ``formats`` extra is not installed.
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
            f"{name}: page {page} was asked for, but the file has {what}; pages are counted from 0"
        )


def _decode_mrc(path: Path, page: int, name: str, max_pixels: int | None) -> Decoded:
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
    decoded = Decoded(pixels, metadata={"format": "MRC", "page": page, "n_pages": len(stack)})
    decoded.measure((sides[0], sides[1]))
    return decoded


def _decode_ser(path: Path, page: int, name: str, max_pixels: int | None) -> Decoded:
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
    decoded = Decoded(np.array(pixels), metadata=metadata)
    across, down = (each["CalibrationDelta"] for each in described["Calibration"][:2])
    decoded.measure((length_in_nm(across, "m"), length_in_nm(down, "m")))
    return decoded


def _ser_shape(path: Path, offset: int) -> tuple[int, int]:
    """Height and width of a SER frame: after two calibrations of 20 bytes and a type of 2."""
    with path.open("rb") as file:
        file.seek(offset + 2 * 20 + 2)
        width, height = np.frombuffer(file.read(8), dtype="<i4", count=2)
    return int(height), int(width)


def _decode_dm(path: Path, page: int, name: str, max_pixels: int | None) -> Decoded:
    dm = _import_extra("ncempy.io.dm", "DM3 and DM4", name)
    # An open file rather than its path: ncempy's memory map of a damaged file cannot be closed.
    with path.open("rb") as handle, dm.fileDM(handle) as file:
        # Where there is more than one data set, the first is a thumbnail; ncempy skips it as well.
        index = 0 if file.numObjects == 1 else 1
        if len(file.xSize) <= index:
            raise ImageReadError(f"{name}: a Gatan file without an image; export it as TIFF")
        check_size(int(file.ySize[index]), int(file.xSize[index]), name, max_pixels)
        n_pages = int(file.zSize[index]) * int(file.zSize2[index])
        _check_page(page, n_pages, name)
        pixels, sides = _dm_slice(file, page, int(file.zSize[index]), n_pages)
        metadata = {"format": "DM", "page": page, "n_pages": n_pages}
        metadata["gatan"] = _microscope_tags(file.allTags)
    decoded = Decoded(pixels, metadata=metadata)
    decoded.measure(sides)
    return decoded


def _dm_slice(file: Any, page: int, depth: int, n_pages: int) -> tuple[NDArray, Sides]:
    if n_pages == 1:
        described = file.getDataset(0)
    else:
        described = file.getSlice(0, page % depth, page // depth)
    sizes, units = described.get("pixelSize") or [], described.get("pixelUnit") or []
    # Of the axes of the data, the last is across and the last but one down.
    sides = [length_in_nm(*pair) for pair in zip(sizes, units, strict=False)][::-1]
    across, down, *_ = [*sides, None, None]
    return np.array(described["data"]), (across, down)


def _microscope_tags(tags: dict[str, Any]) -> dict[str, Any]:
    """The tags of the last image's "Microscope Info": voltage, magnification and the like."""
    marker = ".Microscope Info."
    return {key.split(marker, 1)[1]: plain(value) for key, value in tags.items() if marker in key}
