"""How much of the gradients of an image is noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from hypervlad.fibres.gradients import gradients_of, smoothed, sobel_derivative

FloatMap = NDArray[np.float32]
Operator: TypeAlias = Literal["sobel", "scharr"]
_MOST_VALUES = 2**18


@dataclass(frozen=True)
class GradientNoise:
    """What white noise adds to averaged squares of gradients.

    Attributes
    ----------
    energy : float
        To the mean squared length, on average.
    energy_scatter : float
        Standard deviation of that, over its average.
    axis_scatter : float
        Standard deviation of the mean squared length times the cosine, or the sine, of twice the
        direction, over the same average.
    """

    energy: float
    energy_scatter: float
    axis_scatter: float


def gradient_noise(
    contrast: FloatMap, sigma: float, gradient_sigma: float, operator: Operator
) -> GradientNoise:
    """Return what noise contributes, its level estimated from the image itself.

    Parameters
    ----------
    contrast : ndarray of shape (H, W)
    sigma, gradient_sigma : float
        Of the average of squares, and of the image before gradients are taken; pixels.
    operator : {"sobel", "scharr"}
    """
    gain, *scatters = _response(sigma, gradient_sigma, operator)
    return GradientNoise(noise_deviation(contrast) ** 2 * gain, *scatters)


def noise_deviation(contrast: FloatMap) -> float:
    """Return the standard deviation of the white noise in an image.

    From what the weights 1, -2, 1 leave, down and across, divided by the 6 that they multiply
    noise by (Immerkær 1996, "Fast noise variance estimation", Computer Vision and Image
    Understanding 64); by the median, as in Donoho and Johnstone 1994, instead of the mean, so
    that edges count little.

    Parameters
    ----------
    contrast : ndarray of shape (H, W)
        At least 3 x 3.
    """
    down = contrast[2:] + contrast[:-2]
    down -= 2 * contrast[1:-1]
    both = down[:, 2:] + down[:, :-2]
    both -= 2 * down[:, 1:-1]
    return float(np.median(np.abs(thinned(both))) / 0.6745 / 6)


def thinned(values: FloatMap) -> FloatMap:
    """Return about a quarter of a million values, evenly placed; all if there are no more."""
    step = max(1, int(np.sqrt(values.size / _MOST_VALUES)))
    return values[::step, ::step]


@lru_cache(maxsize=64)
def _response(
    sigma: float, gradient_sigma: float, operator: Operator
) -> tuple[float, float, float]:
    """Return what `GradientNoise` has for noise of variance 1.

    With the gradients' covariances C, which are correlations of the impulse responses, and W the
    autocorrelation of the averaging weights, Gaussian noise (its fourth moments by Isserlis'
    theorem) gives g_x^2 + g_y^2 the variance sum W (2 C_xx^2 + 2 C_yy^2 + 4 C_xy^2), and
    g_x^2 - g_y^2 and 2 g_x g_y the mean variance sum W (C_xx + C_yy)^2.
    """
    reach = int(np.ceil(4 * sigma + 3 * gradient_sigma)) + 3
    impulse = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    impulse[reach, reach] = 1
    down = (
        gradients_of(impulse, gradient_sigma)[0]
        if operator == "scharr"
        else sobel_derivative(impulse, gradient_sigma)
    )
    of_rows, mixed = _correlation(down, down), _correlation(down, down.T)
    of_columns, mean = of_rows.T, 2 * float(of_rows.max())
    averaging = smoothed(impulse, sigma)
    window = _correlation(averaging, averaging)
    energy = np.sum(window * (2 * of_rows**2 + 2 * of_columns**2 + 4 * mixed**2))
    axis = np.sum(window * (of_rows + of_columns) ** 2)
    return mean, float(np.sqrt(energy)) / mean, float(np.sqrt(axis)) / mean


def _correlation(one: FloatMap, other: FloatMap) -> NDArray[np.float64]:
    turned = other[::-1, ::-1].astype(np.float64)
    return np.asarray(fftconvolve(one.astype(np.float64), turned, mode="same"))
