"""Which pixels are fibre and which are background: the mask, and the noise it must rise above."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hypervlad.fibres.contrast import BoolMap, subsample
from hypervlad.fibres.gradients import derivative_taps, gaussian_taps
from hypervlad.fibres.tiles import TileGrid

FloatMap = NDArray[np.float32]
DEFAULT_FLOOR = 0.05
#: How many standard deviations the energy must rise above that of noise alone.
DEVIATIONS = 2.5
#: The same of a window's sum: far enough that none of thousands of windows of noise does.
WINDOW_DEVIATIONS = 4.5
#: Of an image that spans 0 to 1: far below a step of one grey level of 16 bits.
NO_ENERGY = 1e-13


def fibre_mask(
    energy: FloatMap, noise: GradientNoise, floor: float, where: BoolMap | None = None
) -> BoolMap:
    """Return where the energy is that of fibres.

    Background has less than `floor` times the half-energy level, which half of the image's
    energy lies above: a level that follows gain and contrast, and which neither the share of the
    image that is background nor a few bright spots move much; spots far beyond the other pixels
    are cut down before (see `as_contrast`). Where it rises above the mean of
    noise by less than `DEVIATIONS` standard deviations, it is background too.

    Parameters
    ----------
    energy : ndarray of shape (H, W)
        Mean squared gradients, less the mean of noise; may be below 0.
    noise : GradientNoise
    floor : float
        0 to 1.
    where : ndarray of bool, shape (H, W), optional
        Elsewhere all is background.
    """
    above_noise = DEVIATIONS * noise.energy_scatter * noise.energy
    level = half_energy_level(energy, where)
    mask = np.asarray(energy > max(floor * level, above_noise, NO_ENERGY))
    return mask if where is None else mask & where


def beyond_noise(energy: FloatMap, noise: GradientNoise, grid: TileGrid) -> BoolMap:
    """Return which windows hold more energy than noise gives any of them.

    A few pixels of an image of nothing but noise rise above their share of it, and neighbours do
    so together: enough of them for a window now and then, and then they point the same way.

    Parameters
    ----------
    energy : ndarray of shape (H, W)
        Mean squared gradients, less the mean of noise.
    noise : GradientNoise
    grid : TileGrid
    """
    scatter = noise.energy * noise.total_scatter * np.sqrt(grid.areas)
    return np.asarray(grid.sums(energy) > WINDOW_DEVIATIONS * scatter)


def half_energy_level(energy: FloatMap, where: BoolMap | None = None) -> float:
    """Return the energy such that pixels which have more hold half of the total."""
    ordered = np.maximum(np.sort(subsample(energy, where)), 0).astype(np.float64)
    if not ordered.size:
        return 0.0
    held = np.cumsum(ordered)
    return float(ordered[np.searchsorted(held, held[-1] / 2)])


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
    left = np.abs(subsample(both, None if where is None else where[1:-1, 1:-1]))
    return float(np.median(left) / 0.6745 / 6) if left.size else 0.0


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
