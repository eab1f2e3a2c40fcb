"""Gradients of an image, their noise, and the pixels that rise above it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, gaussian_filter1d

from hypervlad.common.constraints import Number, check_value
from hypervlad.fibres.regions import TileGrid
from hypervlad.images.errors import ImageReadError
from hypervlad.images.pixels import as_pixels

FloatMap = NDArray[np.float32]
Values = NDArray[np.float64]
BoolMap = NDArray[np.bool_]
_PIXELS = Number(above=0, meaning="a number of pixels")
_MAX_SAMPLE = 2**18
_GRADIENT_SIGMA = 1.0  # of the Gaussian that smooths the image before gradients are taken, pixels
_CROSS_WEIGHTS = (9.0, 32.0, 9.0)
_TRUNCATE = 3.0  # of a Gaussian, in units of sigma
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


def halved(image: FloatMap) -> FloatMap:
    """Return an image of half the size, without an odd last row or column."""
    even = image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]
    mean: FloatMap = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    mean *= np.float32(0.25)
    return mean


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


def _prefix(name: str | None) -> str:
    return f"{name}: " if name else ""


def _robust_range(values: NDArray[Any], least: float, most: float) -> tuple[float, float]:
    """Return the range without the extreme thousandths; the whole one if that is empty."""
    rank = int(values.size / 1000)
    ordered = np.partition(values, (rank, values.size - 1 - rank))
    low, high = float(ordered[rank]), float(ordered[values.size - 1 - rank])
    return (low, high) if low < high else (least, most)


def image_gradients(contrast: FloatMap) -> tuple[FloatMap, FloatMap]:
    """Return the derivatives of a smoothed image, downwards and to the right.

    Central differences, averaged with their neighbours by the weights 9, 32, 9. Like Scharr's
    3, 10, 3 (Jähne, Scharr, Körkel 1999, "Principles of filter design"), but optimised for stripes
    with a period of four pixels or more.
    """
    image = np.pad(gaussian_smooth(contrast, _GRADIENT_SIGMA), 1, mode="edge")
    return _derivative(image), _derivative(image.T).T


def tensor_energy(down: FloatMap, right: FloatMap, sigma: float) -> FloatMap:
    return gaussian_smooth(down * down + right * right, sigma)


def tensor_axes(down: FloatMap, right: FloatMap, sigma: float) -> tuple[FloatMap, FloatMap]:
    """Return cosine and sine of twice the structure tensor's angle, times its eigenvalues' gap."""
    # The doubled angle of gradients, y up, has the cosine right^2 - down^2 and the sine
    # -2 right down. Fibres run across gradients, which reverses both signs.
    cosine = down * down
    cosine -= right * right
    sine = down * right
    sine *= 2
    return gaussian_smooth(cosine, sigma), gaussian_smooth(sine, sigma)


def gaussian_smooth(contrast: FloatMap, sigma: float) -> FloatMap:
    """Return an image averaged by a Gaussian, its border pixels repeated outwards."""
    across = gaussian_filter1d(contrast, sigma, axis=1, mode="nearest", truncate=_TRUNCATE)
    taps = gaussian_taps(sigma).astype(np.float32)
    return _average_rows(across, taps[len(taps) // 2 :])


def gaussian_taps(sigma: float) -> NDArray[np.float64]:
    reach = int(_TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def derivative_taps() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    averaging = gaussian_taps(_GRADIENT_SIGMA)
    along = np.convolve(averaging, [0.5, 0, -0.5])
    return along, np.convolve(averaging, np.asarray(_CROSS_WEIGHTS) / sum(_CROSS_WEIGHTS))


def _derivative(padded: FloatMap) -> FloatMap:
    outer, middle, _ = (np.float32(weight / (2 * sum(_CROSS_WEIGHTS))) for weight in _CROSS_WEIGHTS)
    steps = padded[2:] - padded[:-2]
    beside = steps[:, :-2] + steps[:, 2:]
    beside *= outer
    beside += middle * steps[:, 1:-1]
    return beside


def _average_rows(image: FloatMap, weights: FloatMap) -> FloatMap:
    # Slices are several times faster here than scipy's filters, which are slow along columns.
    n_rows, reach = len(image), len(weights) - 1
    padded = np.pad(image, ((reach, reach), (0, 0)), mode="edge")
    mean: FloatMap = padded[reach : reach + n_rows] * weights[0]
    for distance, weight in enumerate(weights[1:], start=1):
        pair = padded[reach - distance : reach - distance + n_rows]
        pair = pair + padded[reach + distance : reach + distance + n_rows]
        pair *= weight
        mean += pair
    return mean


def gradient_noise(contrast: FloatMap, sigma: float) -> GradientNoise:
    gain, *scatters = _noise_response(sigma)
    return GradientNoise(noise_deviation(contrast) ** 2 * gain, *scatters)


def noise_deviation(contrast: FloatMap, mask: BoolMap | None = None) -> float:
    """Return the standard deviation of the white noise in an image of at least 3 x 3 pixels.

    With a mask, only pixels count whose eight neighbours lie in it, too, if there are any.

    The weights 1, -2, 1, downwards and across, multiply the deviation of noise by 6 (Immerkær 1996,
    "Fast noise variance estimation", Computer Vision and Image Understanding 64). The median gives
    edges little influence (Donoho and Johnstone 1994).
    """
    down = contrast[2:] + contrast[:-2]
    down -= 2 * contrast[1:-1]
    both = down[:, 2:] + down[:, :-2]
    both -= 2 * down[:, 1:-1]
    values = subsample(both)
    if mask is not None:
        inside = subsample(binary_erosion(mask, np.ones((3, 3)))[1:-1, 1:-1])
        values = values[inside] if inside.any() else values
    return float(np.median(np.abs(values)) / 0.6745 / 6)


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
