"""PNG, JPEG, BMP, GIF and their like, through Pillow.

Pillow's plugins are called by name rather than through ``Image.open``: only the formats listed
here can be reached from a stranger's file, and our own size check, configurable per call, stands
in for the process-wide ``Image.MAX_IMAGE_PIXELS`` and its warning.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from hypervlad.images.arrays import check_size
from hypervlad.images.decoded import Decoded
from hypervlad.images.errors import ImageReadError

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


def decode_raster(file: BinaryIO, kind: str, name: str, max_pixels: int | None) -> Decoded:
    """Decode the first frame of an open PNG, JPEG, BMP, GIF, WebP, JPEG 2000 or PGM/PPM file.

    Parameters
    ----------
    file : binary file
    kind : str
        One of `RASTER_KINDS`.
    name : str
        What to call the image in an error.
    max_pixels : int or None
        Checked against the header, before anything is decoded.

    Returns
    -------
    decoded : Decoded
        Bool, uint8, uint16, int32 or float32. 16-bit colour PNGs come out with 8 bits, as Pillow
        reads them. The orientation that a camera notes in EXIF is not applied: pixels are as
        stored.
    """
    module, plugin = _PLUGINS[kind]
    open_plugin = getattr(importlib.import_module(f"PIL.{module}"), plugin)
    with strict_decoding(), open_plugin(file) as image:
        check_size(image.height, image.width, name, max_pixels)
        mode = image.mode
        pixels = image_pixels(image)
    return Decoded(pixels, metadata={"format": kind, "mode": mode})


def image_pixels(image: Image.Image) -> NDArray:
    """Pixels of a Pillow image as (H, W) or (H, W, 3): palette applied, CMYK to RGB, no alpha."""
    mode = image.mode
    if mode == "P":
        return _apply_palette(image)
    if mode == "I" and image.format in ("PNG", "PPM"):
        # Older Pillow widens 16-bit grey to 32 bits; the digest must not depend on its version.
        return np.asarray(image).astype(np.uint16)
    if mode in ("1", "L", "F", "I", "RGB") or mode.startswith("I;16"):
        return np.asarray(image)
    if mode == "LA":
        return np.asarray(image)[:, :, 0]
    if mode == "RGBA":
        return np.asarray(image)[:, :, :3]
    return np.asarray(image.convert("RGB"))


def is_partly_transparent(path: str | os.PathLike[str]) -> bool:
    """Say whether an image file has places that are not quite opaque; not if it does not decode."""
    with suppress(Exception), Image.open(path) as image:
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())
    return False


def _apply_palette(image: Image.Image) -> NDArray:
    entries = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return look_up(np.asarray(image), entries)


def look_up(indices: NDArray, palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Palette indices (H, W) as grey (H, W) if the palette has grey levels only, else as RGB.

    A palette of greys is how many instruments store a grey BMP or GIF.
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
    """Truncated files are errors, even where a program has told Pillow to fill them with grey."""
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
    """Raise `ImageReadError` if a page beyond the first is asked of a one-page format."""
    if page:
        raise ImageReadError(
            f"{name}: page {page} was asked for, but only the first image of a {kind} file is "
            "read; "
            "use page=0"
        )
