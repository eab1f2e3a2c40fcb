"""Grey images without gain and offset: their contrast, smoothed, and their noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from hypervlad.images.errors import ImageReadError
from hypervlad.images.resampling import by_rows, smoothed

FloatMap = NDArray[np.float32]
Values = NDArray[np.float64]
BoolMap = NDArray[np.bool_]
_MAX_SAMPLE = 2**18
TRUNCATE = 3.0  # of a Gaussian, in units of sigma


def normalised_contrast(grey: NDArray[Any], name: str = "image") -> FloatMap:
    """Return a grey image (H, W) scaled so that gain and offset no longer matter.

    All pixels but the lowest and highest thousandth span 0 to 1; the others are clipped to
    [-1, 2]. An `ImageReadError` with the name of the image if it is flat or smaller than 3 x 3.
    """
    if min(grey.shape) < 3:
        raise ImageReadError(
            f"{name}: {grey.shape[0]} x {grey.shape[1]} pixels; a gradient needs 3 x 3."
        )
    low, high = float(grey.min()), float(grey.max())
    if not low < high:
        raise ImageReadError(
            f"{name}: the image is flat: all {grey.shape[0]} x {grey.shape[1]} pixels are equal, "
            "so it shows no direction; leave it out."
        )
    low, high = _robust_range(subsample(grey), low, high)

    def scaled(rows: NDArray[Any]) -> FloatMap:
        return ((rows.astype(np.float64) - low) / (high - low)).clip(-1, 2).astype(np.float32)

    return by_rows(scaled, grey)


def subsample(values: NDArray[Any]) -> NDArray[Any]:
    step = _step(values.size)
    return values[::step, ::step].ravel()


def _step(size: int) -> int:
    return max(1, int(np.sqrt(size / _MAX_SAMPLE)))


def _robust_range(values: NDArray[Any], least: float, most: float) -> tuple[float, float]:
    """Return the range without the extreme thousandths; the whole one if that is empty."""
    rank = int(values.size / 1000)
    ordered = np.partition(values, (rank, values.size - 1 - rank))
    low, high = float(ordered[rank]), float(ordered[values.size - 1 - rank])
    return (low, high) if low < high else (least, most)


def gaussian_smooth(contrast: FloatMap, sigma: float) -> FloatMap:
    """Return an image averaged by a Gaussian, its border pixels repeated outwards."""
    return smoothed(contrast, sigma, truncate=TRUNCATE, mode="edge")


def noise_deviation(contrast: FloatMap, mask: BoolMap | None = None) -> float:
    """Return the standard deviation of the white noise in an image of at least 3 x 3 pixels.

    With a mask, only pixels count whose eight neighbours lie in it, too, if there are any.

    The weights 1, -2, 1, downwards and across, multiply the deviation of noise by 6 (Immerkær 1996,
    "Fast noise variance estimation", Computer Vision and Image Understanding 64). The median gives
    edges little influence (Donoho and Johnstone 1994).
    """
    step = _step((contrast.shape[0] - 2) * (contrast.shape[1] - 2))
    values = _curved(_curved(contrast, step).T, step).T.ravel()
    if mask is not None:
        inside = subsample(binary_erosion(mask, np.ones((3, 3)))[1:-1, 1:-1])
        values = values[inside] if inside.any() else values
    return float(np.median(np.abs(values)) / 0.6745 / 6)


def _curved(values: FloatMap, step: int) -> FloatMap:
    """Weight each row and its neighbours by 1, -2, 1, for every so many rows."""
    ends = values[2::step] + values[:-2:step]
    ends -= 2 * values[1:-1:step]
    return ends
