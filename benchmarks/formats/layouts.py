"""One image as a file of each instrument and format, with the size and the bar that it states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from benchmarks.bars.layouts import BLACK, WHITE
from benchmarks.bars.layouts import Layout as Bar
from tests.support import instrument_files as made
from tests.support.hdf5_files import velox_metadata, write_dm5, write_velox
from tests.support.microscopy_files import DM, mrc_bytes, ser_bytes
from tests.support.ome_zarr_folders import write_ome_zarr

SHAPE = made.GREY.shape  # with the bar, as the texts of some instruments state it
Write = Callable[[Path, np.ndarray], Path]


@dataclass(frozen=True)
class Layout:
    """How an instrument stores an image.

    Attributes
    ----------
    maker, format : str
    write : callable
        Called with a path without a suffix and an image (H, W); returns the path of the file.
    size : float, optional
        Nanometres per pixel that the file states.
    dtype : str
    bar : int
        Rows of the information bar.
    lossless : bool
    """

    maker: str
    format: str
    write: Write
    size: float | None = None
    dtype: str = "uint8"
    bar: int = 0
    lossless: bool = True

    def stored(self, scan: np.ndarray) -> np.ndarray:
        """Return a scan of 16 bits as it is stored, with the bar instead of its last rows."""
        top = {"uint8": 255, "int16": 32767}.get(self.dtype, 65535)
        image: np.ndarray = np.round(scan * (top / 65535)).astype(self.dtype)
        if self.bar:
            bar = Bar(SHAPE, self.bar, BLACK, WHITE, (("5.00 kV", "4.0 mm", "500 nm"),))
            drawn = bar.draw(np.zeros(SHAPE, np.uint8), np.random.default_rng(0))[:, :, 0]
            image[-self.bar :] = drawn[-self.bar :] * (top / 255)
        return image


def at(
    suffix: str,
    write: Callable[[Path, np.ndarray], object],
    beside: tuple[str, str] | None = None,
) -> Write:
    """Return what writes an image at a path with this suffix, and a text with its own beside it."""

    def write_both(path: Path, image: np.ndarray) -> Path:
        write(path.with_suffix(suffix), image)
        if beside:
            path.with_suffix(beside[0]).write_text(beside[1], encoding="utf-8")
        return path.with_suffix(suffix)

    return write_both


def tiff(*tags: tuple[int, Any], beside: tuple[str, str] | None = None, **options: Any) -> Write:
    def write(path: Path, image: np.ndarray) -> None:
        made.write_tiff(path, *tags, image=image, **options)

    return at(".tif", write, beside)


def raster(suffix: str, beside: tuple[str, str] | None = None, **options: Any) -> Write:
    return at(suffix, lambda path, im: Image.fromarray(im).save(path, **options), beside)


def in_bytes(suffix: str, content: Callable[[np.ndarray], bytes]) -> Write:
    return at(suffix, lambda path, image: path.write_bytes(content(image)))


def write_imagej(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image, imagej=True, resolution=(0.4, 0.4), metadata={"unit": "nm"})


def write_ome(path: Path, image: np.ndarray) -> None:
    sides = {"PhysicalSizeX": 0.0025, "PhysicalSizeY": 0.0025}
    tifffile.imwrite(path, image, ome=True, metadata={"axes": "YX", **sides})


def _velox(path: Path, image: np.ndarray) -> None:
    write_velox(path, [(image[None], velox_metadata())])


_FEI = made.fei(rows=SHAPE[0] - 24).replace("X=160", f"X={SHAPE[1]}")
_HITACHI, _JEOL, _TESCAN = (".txt", made.HITACHI), (".txt", made.JEOL), (".hdr", made.TESCAN_HDR)
_OLYMPUS = at(".tif", lambda path, im: made.write_olympus(path, image=im))
_JEOL_TEM = at(".tif", lambda path, im: made.write_jeol_tem(path, image=im))
_GATAN = at(".tif", lambda path, im: made.write_gatan(path, image=im))
_ODEMIS = at(".ome.tif", lambda path, im: made.write_odemis(path, image=im))
_ZARR = at(".zarr", lambda path, im: write_ome_zarr(path, [im]))
_DM5 = at(".dm5", lambda path, im: write_dm5(path, [im]))
_DM3, _DM4 = (in_bytes(f".dm{n}", lambda im, n=n: DM(n).file(im, data_type=10)) for n in (3, 4))
_SER = in_bytes(".ser", lambda im: ser_bytes([im]))
_MRC = in_bytes(".mrc", lambda im: mrc_bytes(im[None], imod_flags=0))
_LOSSY = {
    "JPEG, quality 95": raster(".jpg", quality=95),
    "JPEG, quality 75": raster(".jpg", quality=75),
    "JPEG 2000, a tenth of the bytes": raster(".jp2", quality_layers=[10], irreversible=True),
    "WebP, quality 90": raster(".webp", quality=90),
}
LAYOUTS = [
    Layout("FEI, Thermo", "TIFF, tag 34682", tiff((34682, _FEI)), 4.88281, bar=24),
    Layout("FEI, camera", "TIFF, tag 34682", tiff((34682, made.FEI_CAMERA)), 250_000),
    Layout("Thermo", "TIFF, tag 34683", tiff((34683, made.THERMO_NM)), 0.25, "uint16"),
    Layout("Thermo Velox", "EMD", at(".emd", _velox), 0.5, "uint16"),
    Layout("Phenom", "TIFF, tag 34683", tiff((34683, made.PHENOM)), 694.952, bar=32),
    Layout("Zeiss", "TIFF, tag 34118", tiff((34118, made.zeiss("1.235 nm"))), 1.235, bar=24),
    Layout("Zeiss, older", "TIFF, tag 34118", tiff((34118, made.zeiss("-"))), 355.52, bar=24),
    Layout("Tescan", "TIFF, tag 50431", tiff((50431, made.tescan_tag())), 41.5, bar=24),
    Layout("Tescan", "PNG and .hdr", raster(".png", _TESCAN), 41.5, bar=24),
    Layout("Hitachi", "TIFF and .txt", tiff(beside=_HITACHI), 9.921875),
    Layout("Hitachi", "BMP and .txt", raster(".bmp", _HITACHI), 9.921875, bar=24),
    Layout("JEOL, SEM", "TIFF and .txt", tiff(beside=_JEOL), 125, bar=20),
    Layout("JEOL, TEM", "TIFF, XML", _JEOL_TEM, 2.54e7 / 93 / 150_000, "uint16"),
    Layout("TVIPS", "TIFF, tag 37706", tiff((37706, made.tvips_tag())), 1.25, "uint16"),
    Layout("Olympus", "TIFF, tag 33560", _OLYMPUS, 0.023928, "uint16"),
    Layout("Gatan", "TIFF, tag 65009", _GATAN, 250, "uint16"),
    Layout("Gatan", "DM3", _DM3, 0.5, "uint16"),
    Layout("Gatan", "DM4", _DM4, 0.5, "uint16"),
    Layout("Gatan", "DM5", _DM5, 0.5, "uint16"),
    Layout("TIA", "SER", _SER, 1.5, "uint16"),
    *(Layout("IMOD, SerialEM", "MRC", _MRC, 0.25, t) for t in ("uint8", "int16", "float32")),
    Layout("Odemis", "OME-TIFF", _ODEMIS, 5.5, "uint16"),
    Layout("OpenFIBSEM", "TIFF, JSON", at(".tif", made.write_openfibsem), 5.5),
    Layout("others", "OME-TIFF", at(".ome.tif", write_ome), 2.5, "uint16"),
    Layout("others", "OME-Zarr", _ZARR, 0.5, "uint16"),
    Layout("ImageJ", "TIFF", at(".tif", write_imagej), 2.5, "uint16"),
    *(
        Layout("–", f"TIFF, {name or 'uncompressed'}", tiff(compression=name), None, "uint16")
        for name in (None, "LZW", "DEFLATE", "PACKBITS", "LZMA", "ZSTD", "PNG")
    ),
    *(
        Layout("–", suffix[1:].upper(), raster(suffix), None, dtype)
        for suffix in (".png", ".pgm", ".jp2")
        for dtype in ("uint8", "uint16")
    ),
    *(Layout("–", suffix[1:].upper(), raster(suffix)) for suffix in (".bmp", ".gif")),
    Layout("–", "WebP, lossless", raster(".webp", lossless=True)),
    *(Layout("–", name, write, lossless=False) for name, write in _LOSSY.items()),
]
