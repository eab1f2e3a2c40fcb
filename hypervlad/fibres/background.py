"""Fibre and background: the noise in an image's gradients, and the mask that rises above it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.constraints import check_value
from hypervlad.fibres.gradients import (
    DEFAULT_GRADIENT_SIGMA,
    derivative_taps,
    gaussian_taps,
    image_gradients,
    tensor_axes,
    tensor_energy,
)
from hypervlad.fibres.preparation import (
    PIXELS,
    SHARE,
    BoolMap,
    FloatMap,
    check_mask,
    check_sigma,
    normalised_contrast,
    subsample,
)
from hypervlad.fibres.tiles import TileGrid

DEFAULT_FLOOR = 0.05
#: Fibre has an energy this many standard deviations above the mean of noise alone.
DEVIATIONS = 2.5
#: The same for the sum over a window: so high that none of thousands of windows of noise is above.
WINDOW_DEVIATIONS = 4.5
#: Of an image that spans 0 to 1: far below a step of one grey level of 16 bits.
NO_ENERGY = 1e-13


@dataclass(frozen=True)
class GradientNoise:
    """Contribution of white noise to averages of squared gradients.

    Attributes
    ----------
    energy : float
        Mean of the squared length.
    energy_scatter : float
        Standard deviation of the averaged squared length, over `energy`.
    axis_scatter : float
        Standard deviation of the averaged squared length times the cosine, or the sine, of twice
        the direction, over `energy`.
    total_scatter : float
        Standard deviation of the sum over an area, over `energy` and the square root of the
        number of pixels in the area.
    """

    energy: float
    energy_scatter: float
    axis_scatter: float
    total_scatter: float


@dataclass(frozen=True, eq=False)
class GradientField:
    """The gradients of an image, their noise, and averages that are computed on first use.

    Attributes
    ----------
    down, right : ndarray of float32, shape (H, W)
        Derivatives of the normalised image.
    noise : GradientNoise
    sigma : float
        Of the Gaussian that averages are taken with, pixels.
    floor : float
        Share of the half-energy level below which the energy is background.
    where : ndarray of bool, shape (H, W), or None
        Pixels to analyse; None for all.
    """

    down: FloatMap
    right: FloatMap
    noise: GradientNoise
    sigma: float
    floor: float
    where: BoolMap | None

    @classmethod
    def of_image(
        cls,
        image: ArrayLike,
        sigma: Any,
        pixel_size: float | None = None,
        *,
        gradient_sigma: Any = DEFAULT_GRADIENT_SIGMA,
        floor: Any = DEFAULT_FLOOR,
        mask: ArrayLike | None = None,
        name: str | None = None,
    ) -> GradientField:
        """Check the image and the parameters, and compute gradients and noise.

        Parameters
        ----------
        image : array-like of shape (H, W)
        sigma : float
            Pixels; nm if `pixel_size` is given.
        pixel_size : float, optional
            nm per pixel.
        gradient_sigma, floor, mask
            As in `local_orientation`.
        name : str, optional
            Name of the image, with which errors begin.
        """
        check_value("gradient_sigma", gradient_sigma, [PIXELS])
        check_value("floor", floor, [SHARE])
        where = check_mask(mask, np.shape(image)[:2])
        contrast = normalised_contrast(image, where, name)
        scale = check_sigma(sigma, pixel_size, contrast.shape, name)
        down, right = image_gradients(contrast, float(gradient_sigma))
        noise = gradient_noise(contrast, scale, float(gradient_sigma), where)
        return cls(down, right, noise, scale, float(floor), where)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.down.shape[0], self.down.shape[1]

    @cached_property
    def energy_with_noise(self) -> FloatMap:
        """Averaged squared length of the gradients."""
        return tensor_energy(self.down, self.right, self.sigma)

    @cached_property
    def energy(self) -> FloatMap:
        """The same less the mean of noise; it may be negative."""
        return np.asarray(self.energy_with_noise - np.float32(self.noise.energy))

    @cached_property
    def axes(self) -> tuple[FloatMap, FloatMap]:
        """Cosine and sine of twice the direction, as `tensor_axes` returns them."""
        return tensor_axes(self.down, self.right, self.sigma)

    @cached_property
    def fibre(self) -> BoolMap:
        """Which pixels are fibre."""
        return fibre_mask(self.energy, self.noise, self.floor, self.where)

    def fibre_pixels(self, grid: TileGrid) -> NDArray[np.float64]:
        """Return how many pixels of each window are fibre.

        It is 0 in windows with no more energy than noise can give them. A few pixels of pure noise
        exceed any threshold, and neighbouring pixels do so together. Now and then they are enough
        for a window, and then they share a direction.
        """
        scatter = self.noise.energy * self.noise.total_scatter * np.sqrt(grid.areas)
        above_noise = grid.sums(self.energy) > WINDOW_DEVIATIONS * scatter
        return np.asarray(grid.sums(self.fibre) * above_noise)


def fibre_mask(
    energy: FloatMap, noise: GradientNoise, floor: float, where: BoolMap | None = None
) -> BoolMap:
    """Return which pixels have the energy of fibres.

    An energy is background if it is below `floor` times the half-energy level, or less than
    `DEVIATIONS` standard deviations above the mean of noise. Half of the image's energy lies above
    the half-energy level. It follows gain and contrast, and depends little on how much of the image
    is background or on a few bright spots (`normalised_contrast` has clipped extreme ones).

    Parameters
    ----------
    energy : ndarray of shape (H, W)
        Averaged squared gradients, less the mean of noise; may be negative.
    noise : GradientNoise
    floor : float
        0 to 1.
    where : ndarray of bool, shape (H, W), optional
        All other pixels are background.
    """
    above_noise = DEVIATIONS * noise.energy_scatter * noise.energy
    level = _half_energy_level(energy, where)
    mask = np.asarray(energy > max(floor * level, above_noise, NO_ENERGY))
    return mask if where is None else mask & where


def _half_energy_level(energy: FloatMap, where: BoolMap | None = None) -> float:
    """Return the energy above which pixels hold half of the total."""
    ordered = np.maximum(np.sort(subsample(energy, where)), 0).astype(np.float64)
    if not ordered.size:
        return 0.0
    held = np.cumsum(ordered)
    return float(ordered[np.searchsorted(held, held[-1] / 2)])


def gradient_noise(
    contrast: FloatMap, sigma: float, gradient_sigma: float, where: BoolMap | None = None
) -> GradientNoise:
    """Return the contribution of noise, whose level is estimated from the image itself.

    Parameters
    ----------
    contrast : ndarray of shape (H, W)
    sigma, gradient_sigma : float
        Of the Gaussians that squared gradients are averaged with, and that the image is smoothed
        with before gradients are taken; pixels.
    where : ndarray of bool, shape (H, W), optional
        Pixels to analyse; all by default.
    """
    gain, *scatters = _noise_response(sigma, gradient_sigma)
    return GradientNoise(noise_deviation(contrast, where) ** 2 * gain, *scatters)


def noise_deviation(contrast: FloatMap, where: BoolMap | None = None) -> float:
    """Return the standard deviation of the white noise in an image.

    The image is filtered by the weights 1, -2, 1, downwards and across, which multiply the
    deviation of noise by 6 (Immerkær 1996, "Fast noise variance estimation", Computer Vision and
    Image Understanding 64). The deviation is estimated by the median as in Donoho and Johnstone
    1994, not the mean, so that edges have little influence.

    Parameters
    ----------
    contrast : ndarray of shape (H, W)
        At least 3 x 3.
    where : ndarray of bool, shape (H, W), optional
        Pixels to analyse; all by default.
    """
    down = contrast[2:] + contrast[:-2]
    down -= 2 * contrast[1:-1]
    both = down[:, 2:] + down[:, :-2]
    both -= 2 * down[:, 1:-1]
    left = np.abs(subsample(both, None if where is None else where[1:-1, 1:-1]))
    return float(np.median(left) / 0.6745 / 6) if left.size else 0.0


@lru_cache(maxsize=64)
def _noise_response(sigma: float, gradient_sigma: float) -> tuple[float, float, float, float]:
    """Return the fields of `GradientNoise` for noise of variance 1.

    With the gradients' covariances C, which are correlations of the impulse responses, and W the
    autocorrelation of the averaging weights, Gaussian noise (its fourth moments by Isserlis'
    theorem) gives g_x^2 + g_y^2 the variance sum W (2 C_xx^2 + 2 C_yy^2 + 4 C_xy^2), and
    g_x^2 - g_y^2 and 2 g_x g_y the mean variance sum W (C_xx + C_yy)^2. Each C and W is a product
    of a function of rows and a function of columns, and so are the sums.
    """
    along, across = derivative_taps(gradient_sigma)
    steep, level, mixed = (
        np.correlate(one, other, mode="full")
        for one, other in ((along, along), (across, across), (along, across))
    )
    averaging = gaussian_taps(sigma)
    window = _central(np.correlate(averaging, averaging, mode="full"), len(steep))
    mean = 2 * float(steep.max() * level.max())

    def variance(weights: NDArray[np.float64]) -> float:
        both = (weights @ steep**2) * (weights @ level**2)
        return float(4 * both + 4 * (weights @ mixed**2) ** 2)

    both = (window @ steep**2) * (window @ level**2)
    axis = float(2 * both + 2 * (window @ (steep * level)) ** 2)
    variances = (variance(window), axis, variance(np.ones_like(window)))
    energy, axes, total = (float(np.sqrt(each)) / mean for each in variances)
    return mean, energy, axes, total


def _central(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the central n of an odd number of values, padded with zeros where there are fewer."""
    padded = np.pad(values, n)
    first = (len(padded) - n) // 2
    return padded[first : first + n]
