"""Grey images without gain and offset: their contrast, smoothed, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.errors import ImageReadError
from hypervlad.images.resampling import by_rows, gaussian_taps, smoothed

FloatMap = NDArray[np.float32]
Values = NDArray[np.float64]
BoolMap = NDArray[np.bool_]
_MAX_SAMPLE = 2**18
TRUNCATE = 3.0  # of a Gaussian, in units of sigma
_CROSS_WEIGHTS = (9.0, 32.0, 9.0)


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
    step = subsampling(values.size)
    return values[::step, ::step].ravel()


def subsampling(size: int) -> int:
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


def image_gradients(contrast: FloatMap, smoothing: float) -> tuple[FloatMap, FloatMap]:
    """Return the derivatives of a smoothed image, downwards and to the right.

    Central differences, averaged with their neighbours by the weights 9, 32, 9. Like Scharr's
    3, 10, 3 (Jähne, Scharr, Körkel 1999, "Principles of filter design"), but optimised for stripes
    with a period of four pixels or more.
    """
    image = np.pad(gaussian_smooth(contrast, smoothing), 1, mode="edge")
    return _derivative(image), _derivative(image.T).T


def derivative_taps(smoothing: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    averaging = gaussian_taps(smoothing, TRUNCATE)
    along = np.convolve(averaging, [0.5, 0, -0.5])
    return along, np.convolve(averaging, np.asarray(_CROSS_WEIGHTS) / sum(_CROSS_WEIGHTS))


def _derivative(padded: FloatMap) -> FloatMap:
    outer, middle, _ = (np.float32(weight / (2 * sum(_CROSS_WEIGHTS))) for weight in _CROSS_WEIGHTS)
    steps = padded[2:] - padded[:-2]
    beside = steps[:, :-2] + steps[:, 2:]
    beside *= outer
    beside += middle * steps[:, 1:-1]
    return beside
