"""Noise in an image's gradients, and the pixels that rise above it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.fibres.gradients import (
    derivative_taps,
    gaussian_taps,
    image_gradients,
    tensor_axes,
    tensor_energy,
)
from hypervlad.fibres.preparation import (
    BoolMap,
    FloatMap,
    check_sigma,
    normalised_contrast,
    subsample,
)
from hypervlad.fibres.tiles import TileGrid

#: Of an image that spans 0 to 1: far below a step of one grey level of 16 bits.
NO_ENERGY = 1e-13
# Energy below this share of the half-energy level is background.
_FLOOR = 0.05
# Fibre has an energy this many standard deviations above the mean of noise alone.
_DEVIATIONS = 2.5
# The same for the sum over a window: so high that none of thousands of windows of noise is above.
_WINDOW_DEVIATIONS = 4.5


@dataclass(frozen=True)
class GradientNoise:
    """White noise in averages of squared gradients: mean, and standard deviations over the mean."""

    energy: float  # mean of the squared length
    energy_scatter: float  # of the averaged squared length
    axis_scatter: float  # of the same times the cosine, or the sine, of twice the direction
    total_scatter: float  # of the sum over an area, over the square root of its number of pixels


@dataclass(frozen=True, eq=False)
class GradientField:
    down: FloatMap  # derivatives of the normalised image, (H, W)
    right: FloatMap
    noise: GradientNoise
    sigma: float  # of the Gaussian that averages are taken with, pixels

    @classmethod
    def of_image(cls, image: ArrayLike, sigma: Any, name: str | None = None) -> GradientField:
        contrast = normalised_contrast(image, name)
        scale = check_sigma(sigma, contrast.shape, name)
        return cls(*image_gradients(contrast), gradient_noise(contrast, scale), scale)

    @property
    def shape(self) -> tuple[int, int]:
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
        return fibre_mask(self.energy, self.noise)

    def fibre_pixels(self, grid: TileGrid) -> NDArray[np.float64]:
        # None in windows with no more energy than noise can give them: now and then, neighbouring
        # pixels of noise exceed any threshold together, and share a direction.
        scatter = self.noise.energy * self.noise.total_scatter * np.sqrt(grid.areas)
        above_noise = grid.sums(self.energy) > _WINDOW_DEVIATIONS * scatter
        return np.asarray(grid.sums(self.fibre) * above_noise)


def fibre_mask(energy: FloatMap, noise: GradientNoise) -> BoolMap:
    """Return which pixels have the energy of fibres, given the energy less the mean of noise.

    The level above which half of all energy lies follows gain and contrast, and depends little on
    the share of background or on bright spots.
    """
    above_noise = _DEVIATIONS * noise.energy_scatter * noise.energy
    ordered = np.maximum(np.sort(subsample(energy)), 0).astype(np.float64)
    held = np.cumsum(ordered)
    half_energy = float(ordered[np.searchsorted(held, held[-1] / 2)])
    return np.asarray(energy > max(_FLOOR * half_energy, above_noise, NO_ENERGY))


def gradient_noise(contrast: FloatMap, sigma: float) -> GradientNoise:
    gain, *scatters = _noise_response(sigma)
    return GradientNoise(noise_deviation(contrast) ** 2 * gain, *scatters)


def noise_deviation(contrast: FloatMap) -> float:
    """Return the standard deviation of the white noise in an image of at least 3 x 3 pixels.

    The weights 1, -2, 1, downwards and across, multiply the deviation of noise by 6 (Immerkær 1996,
    "Fast noise variance estimation", Computer Vision and Image Understanding 64). The median gives
    edges little influence (Donoho and Johnstone 1994).
    """
    down = contrast[2:] + contrast[:-2]
    down -= 2 * contrast[1:-1]
    both = down[:, 2:] + down[:, :-2]
    both -= 2 * down[:, 1:-1]
    return float(np.median(np.abs(subsample(both))) / 0.6745 / 6)


@lru_cache(maxsize=64)
def _noise_response(sigma: float) -> tuple[float, float, float, float]:
    """Return the fields of `GradientNoise` for noise of variance 1.

    With the gradients' covariances C, and W the autocorrelation of the averaging weights, Isserlis'
    theorem gives g_x^2 + g_y^2 the variance sum W (2 C_xx^2 + 2 C_yy^2 + 4 C_xy^2), and
    g_x^2 - g_y^2 and 2 g_x g_y the mean variance sum W (C_xx + C_yy)^2.
    """
    along, across = derivative_taps()
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
    """Return the central n of an odd number of values, padded with zeros."""
    padded = np.pad(values, n)
    first = (len(padded) - n) // 2
    return padded[first : first + n]
