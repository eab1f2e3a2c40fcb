"""How much of the gradients of an image is noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hypervlad.fibres.gradients import derivative_taps, gaussian_taps

FloatMap = NDArray[np.float32]
BoolMap = NDArray[np.bool_]
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
    total_scatter : float
        Standard deviation of the sum over an area, over the same average and the square root of
        the area's pixels.
    """

    energy: float
    energy_scatter: float
    axis_scatter: float
    total_scatter: float


def gradient_noise(
    contrast: FloatMap, sigma: float, gradient_sigma: float, where: BoolMap | None = None
) -> GradientNoise:
    """Return what noise contributes, its level estimated from the image itself.

    Parameters
    ----------
    contrast : ndarray of shape (H, W)
    sigma, gradient_sigma : float
        Of the average of squares, and of the image before gradients are taken; pixels.
    where : ndarray of bool, shape (H, W), optional
        Pixels that count; all by default.
    """
    gain, *scatters = _response(sigma, gradient_sigma)
    return GradientNoise(noise_deviation(contrast, where) ** 2 * gain, *scatters)


def noise_deviation(contrast: FloatMap, where: BoolMap | None = None) -> float:
    """Return the standard deviation of the white noise in an image.

    From what the weights 1, -2, 1 leave, down and across, divided by the 6 that they multiply
    noise by (Immerkær 1996, "Fast noise variance estimation", Computer Vision and Image
    Understanding 64); by the median, as in Donoho and Johnstone 1994, instead of the mean, so
    that edges count little.

    Parameters
    ----------
    contrast : ndarray of shape (H, W)
        At least 3 x 3.
    where : ndarray of bool, shape (H, W), optional
        Pixels that count; all by default.
    """
    down = contrast[2:] + contrast[:-2]
    down -= 2 * contrast[1:-1]
    both = down[:, 2:] + down[:, :-2]
    both -= 2 * down[:, 1:-1]
    left = np.abs(thinned(both, None if where is None else where[1:-1, 1:-1]))
    return float(np.median(left) / 0.6745 / 6) if left.size else 0.0


def thinned(values: NDArray, where: BoolMap | None = None) -> NDArray:
    """Return about a quarter of a million values, evenly placed; all if there are no more."""
    step = max(1, int(np.sqrt(values.size / _MOST_VALUES)))
    few = values[::step, ::step]
    return few.ravel() if where is None else few[where[::step, ::step]]


@lru_cache(maxsize=64)
def _response(sigma: float, gradient_sigma: float) -> tuple[float, float, float, float]:
    """Return what `GradientNoise` has for noise of variance 1.

    With the gradients' covariances C, which are correlations of the impulse responses, and W the
    autocorrelation of the averaging weights, Gaussian noise (its fourth moments by Isserlis'
    theorem) gives g_x^2 + g_y^2 the variance sum W (2 C_xx^2 + 2 C_yy^2 + 4 C_xy^2), and
    g_x^2 - g_y^2 and 2 g_x g_y the mean variance sum W (C_xx + C_yy)^2. Each C is a product of one
    function of rows and one of columns, and so is W; so are the sums.
    """
    along, across = derivative_taps(gradient_sigma)
    steep, level, mixed = (
        np.correlate(one, other, mode="full")
        for one, other in ((along, along), (across, across), (along, across))
    )
    averaging = gaussian_taps(sigma)
    window = _about_middle(np.correlate(averaging, averaging, mode="full"), len(steep))
    mean = 2 * float(steep.max() * level.max())

    def variance(weights: NDArray[np.float64]) -> float:
        both = (weights @ steep**2) * (weights @ level**2)
        return float(4 * both + 4 * (weights @ mixed**2) ** 2)

    both = (window @ steep**2) * (window @ level**2)
    axis = float(2 * both + 2 * (window @ (steep * level)) ** 2)
    variances = (variance(window), axis, variance(np.ones_like(window)))
    energy, axes, total = (float(np.sqrt(each)) / mean for each in variances)
    return mean, energy, axes, total


def _about_middle(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return n values about the middle of an odd number of them; zeros where there are none."""
    padded = np.pad(values, n)
    first = (len(padded) - n) // 2
    return padded[first : first + n]
