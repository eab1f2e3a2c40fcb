"""Checked images and parameters, and images scaled to a common contrast."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import Integer, Number, check_value
from hypervlad.images.errors import ImageReadError
from hypervlad.images.pixels import as_pixels

FloatMap = NDArray[np.float32]
BoolMap = NDArray[np.bool_]
NANOMETRES = Number(above=0, meaning="a number of nm")
ANGLE = Number(above=0, at_most=np.pi / 2, meaning="an angle in radians (of degrees np.deg2rad)")
_PIXELS = Number(above=0, meaning="a number of pixels")
WINDOW = Integer(at_least=2, meaning="a whole number of pixels")
_MAX_SAMPLE = 2**18


def normalised_contrast(image: Any, name: str | None = None) -> FloatMap:
    """Return a grey image scaled so that gain and offset no longer matter.

    All pixels but the lowest and highest thousandth span 0 to 1; the others are clipped to
    [-1, 2].
    """
    at = _prefix(name)
    if isinstance(image, str | os.PathLike):
        raise ImageReadError(
            f"expected an array of pixels, got the path {os.fspath(image)!r}: read it first, with "
            "hypervlad.read_image(path)."
        )
    pixels = as_pixels(image, name or "the image")
    if pixels.ndim != 2:
        raise ImageReadError(
            f"{at}the image has colours, shape {pixels.shape}; directions need one brightness per "
            "pixel: give one channel, or their mean, image.mean(axis=2)."
        )
    if min(pixels.shape) < 3:
        raise ImageReadError(
            f"{at}the image has {pixels.shape[0]} x {pixels.shape[1]} pixels; a gradient needs "
            "3 x 3."
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not low < high:
        raise ImageReadError(
            f"{at}the image is flat: all {pixels.shape[0]} x {pixels.shape[1]} pixels are "
            f"{low:g}, so it shows no direction; leave it out."
        )
    # In the wider type, so that a large offset costs no digits; halved, so that the span of the
    # largest numbers does not overflow.
    kind = np.float64 if pixels.dtype.itemsize > 2 else np.float32
    halved: NDArray[Any] = pixels * kind(0.5)
    low, high = _robust_range(subsample(halved), low / 2, high / 2)
    halved -= kind(low)
    halved /= kind(high - low)
    return np.clip(halved, -1, 2, out=halved).astype(np.float32, copy=False)


def subsample(values: NDArray[Any]) -> NDArray[Any]:
    step = max(1, int(np.sqrt(values.size / _MAX_SAMPLE)))
    return values[::step, ::step].ravel()


def check_sigma(sigma: Any, shape: tuple[int, ...], name: str | None = None) -> float:
    check_value("sigma", sigma, [_PIXELS])
    if 2 * sigma > min(shape):
        raise ImageReadError(
            f"{_prefix(name)}sigma={sigma!r}: {sigma:g} pixels are more than half of the image of "
            f"{shape[0]} x {shape[1]}; sigma is in pixels: give about a third of a fibre's width."
        )
    return float(sigma)


def check_window(window: Any, shape: tuple[int, ...], name: str | None = None) -> int:
    check_value("window", window, [WINDOW])
    if window > min(shape[:2]):
        raise ImageReadError(
            f"{_prefix(name)}window={window}: larger than the image of {shape[0]} x {shape[1]} "
            f"pixels; choose a window of at most {min(shape[:2])}."
        )
    return int(window)


def _prefix(name: str | None) -> str:
    return f"{name}: " if name else ""


def _robust_range(values: NDArray[Any], least: float, most: float) -> tuple[float, float]:
    """Return the range without the extreme thousandths; the whole one if that is empty."""
    rank = int(values.size / 1000)
    ordered = np.partition(values, (rank, values.size - 1 - rank))
    low, high = float(ordered[rank]), float(ordered[values.size - 1 - rank])
    return (low, high) if low < high else (least, most)
