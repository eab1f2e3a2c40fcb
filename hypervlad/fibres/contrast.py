"""Grey images without gain and offset: their contrast, its gradients, and the noise of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.errors import ImageReadError
from hypervlad.images.morphology import shrunk
from hypervlad.images.resampling import by_rows, gaussian_taps, middle, smoothed

FloatMap = NDArray[np.float32]
Values = NDArray[np.float64]
BoolMap = NDArray[np.bool_]
_MAX_SAMPLE = 2**18
TRUNCATE = 3.0  # of a Gaussian, in units of sigma
_CROSS_WEIGHTS = (9.0, 32.0, 9.0)
# Of the Gaussian that smooths the image before gradients are taken, pixels: the first, by which
# noise widens spreads less, unless it keeps little of the energy, as of fine stripes.
GRADIENT_SIGMAS = (2.0, 1.0)
_MAX_SIDE = 768  # pixels, of the part by which noise is judged
_LESSER_SIGMA, _FEW_CROSS = 1.75, 0.05  # pixels; share of places where fibres do not cross or end
_ALONG = 1.5  # times the eigenvalue of noise alone, as fibres bend and their brightness varies
# The Gaussian that smooths white noise of variance 1, pixels; for the first of GRADIENT_SIGMAS,
# that quantile of the lesser eigenvalue over the squared `noise_deviation`; and that deviation. Of
# 1024 x 1024 pixels.
_GRAINS = (
    (0.0, 2.87e-4, 1.0),
    (0.5, 1.41e-3, 0.422),
    (0.75, 3.05e-2, 8.14e-2),
    (1.0, 0.279, 2.38e-2),
    (1.25, 1.49, 8.92e-3),
    (1.5, 5.74, 3.86e-3),
    (2.0, 43.3, 9.89e-4),
    (2.5, 181.0, 3.38e-4),
    (3.0, 517.0, 1.40e-4),
)
_NO_NOISE = 1e-9
_FEW_LEVELS, _SOME = 16, 17  # of grey, and which of the pixels show them
OF_FEW_LEVELS = (
    "the image has only {} grey levels: edges may be shifted to where levels change, so diameters "
    "are less sure; measure the image as the instrument has stored it"
)
# Standard deviations above the mean of sums of noise: none of thousands of windows has more.
_WINDOW_DEVIATIONS = 4.5


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


def few_levels(values: NDArray[np.float32]) -> int:
    """Return how many levels of grey there are if these are so few that edges shift, else 0."""
    n_levels = len(np.unique(values[::_SOME]))
    return n_levels if n_levels < _FEW_LEVELS else 0


# --- noise ---------------------------------------------------------------------------------------


def noise_deviation(contrast: FloatMap, mask: BoolMap | None = None) -> float:
    """Return the standard deviation of the white noise in an image of at least 3 x 3 pixels.

    With a mask, only pixels count whose eight neighbours lie in it, too, if there are any.

    The weights 1, -2, 1, downwards and across, multiply the deviation of noise by 6 (Immerkær 1996,
    "Fast noise variance estimation", Computer Vision and Image Understanding 64). The median gives
    edges little influence (Donoho and Johnstone 1994).
    """
    step = subsampling((contrast.shape[0] - 2) * (contrast.shape[1] - 2))
    values = _curved(_curved(contrast, step).T, step).T.ravel()
    if mask is not None:
        inside = subsample(shrunk(mask, corners=True)[1:-1, 1:-1])
        values = values[inside] if inside.any() else values
    return float(np.median(np.abs(values)) / 0.6745 / 6)


def _curved(values: FloatMap, step: int) -> FloatMap:
    """Weight each row and its neighbours by 1, -2, 1, for every so many rows."""
    ends = values[2::step] + values[:-2:step]
    ends -= 2 * values[1:-1:step]
    return ends


@dataclass(frozen=True)
class Noise:
    """Noise of an image that spans 0 to 1."""

    deviation: float  # from pixel to pixel, as of `noise_deviation`
    white: float  # deviation of white noise that would look like it if a Gaussian had smoothed it
    grain: float  # standard deviation of that Gaussian

    @classmethod
    def of(cls, contrast: FloatMap, mask: BoolMap) -> Noise:
        """Measure noise in the middle of an image.

        Programs, JPEG and detectors smooth noise: from pixel to pixel it then varies less than over
        the few pixels of a gradient. There, along a fibre, nothing but noise changes: so the lesser
        eigenvalue of the structure tensor shows noise, where fibres do not cross or end.

        >>> noise = np.random.default_rng(0).normal(0, 0.1, (256, 256)).astype(np.float32)
        >>> smooth, mask = gaussian_smooth(noise, 1.5), np.ones(noise.shape, bool)
        >>> found = Noise.of(smooth, mask)
        >>> round(found.white, 1), round(found.grain, 1)
        (0.1, 1.4)
        """
        window = middle(contrast.shape, _MAX_SIDE)
        part, seen = contrast[window], mask[window]
        seen = seen if seen.any() else ~seen
        down, right = image_gradients(part, GRADIENT_SIGMAS[0])
        products = down**2 + right**2, down**2 - right**2, 2 * down * right
        energy, cosine, sine = (gaussian_smooth(product, _LESSER_SIGMA) for product in products)
        lesser = float(np.quantile((energy - np.hypot(cosine, sine))[seen], _FEW_CROSS)) / 2
        deviation, (grains, shares, remains) = noise_deviation(part, seen), np.transpose(_GRAINS)
        lesser = max(lesser / _ALONG, _NO_NOISE**2)
        share = np.log(lesser / max(deviation, _NO_NOISE) ** 2)
        grain = np.interp(share, np.log(shares), grains)
        white = deviation / np.exp(np.interp(grain, grains, np.log(remains)))
        return cls(deviation, float(white), float(grain))


@dataclass(frozen=True)
class GradientNoise:
    """White noise in averages of squared gradients: mean, and standard deviations over the mean."""

    energy: float  # mean of the squared length
    energy_scatter: float  # of the averaged squared length
    axis_scatter: float  # of the same times the cosine, or the sine, of twice the direction
    total_scatter: float  # of the sum over an area, over the square root of its number of pixels
    unsure: float  # share of the mean that may be noise as well

    @classmethod
    def of(
        cls, deviation: float, grain: float, sigma: float, smoothing: float, factor: float
    ) -> GradientNoise:
        """Return the noise of gradients in an image that was enlarged, of that before it was."""
        gain, energy, axes, total = _noise_response(sigma, float(np.hypot(smoothing, grain)))
        unsure = (_ALONG - 1) * (grain > 0)
        return cls((deviation / factor) ** 2 * gain, energy, axes, total * factor, unsure)

    def of_sums(self, areas: NDArray[Any]) -> NDArray[np.float64]:
        """Return what sums over areas, less the mean of noise, hardly exceed by noise alone."""
        scatter = _WINDOW_DEVIATIONS * self.total_scatter * np.sqrt(areas)
        return np.asarray(self.energy * (scatter + self.unsure * areas))


@lru_cache(maxsize=64)
def _noise_response(sigma: float, smoothing: float) -> tuple[float, float, float, float]:
    """Return the fields of `GradientNoise` for noise of variance 1.

    With the gradients' covariances C, and W the autocorrelation of the averaging weights, Isserlis'
    theorem gives g_x^2 + g_y^2 the variance sum W (2 C_xx^2 + 2 C_yy^2 + 4 C_xy^2), and
    g_x^2 - g_y^2 and 2 g_x g_y the mean variance sum W (C_xx + C_yy)^2.
    """
    along, across = derivative_taps(smoothing)
    steep, level, mixed = (
        np.correlate(one, other, mode="full")
        for one, other in ((along, along), (across, across), (along, across))
    )
    averaging = gaussian_taps(sigma, TRUNCATE)
    weights = np.correlate(averaging, averaging, mode="full")
    own, reach = len(weights) // 2, len(steep) // 2
    window = np.interp(np.arange(-reach, reach + 1), np.arange(-own, own + 1), weights, 0, 0)
    mean = 2 * float(steep.max() * level.max())

    def variance(weights: NDArray[np.float64]) -> float:
        both = (weights @ steep**2) * (weights @ level**2)
        return float(4 * both + 4 * (weights @ mixed**2) ** 2)

    both = (window @ steep**2) * (window @ level**2)
    axis = float(2 * both + 2 * (window @ (steep * level)) ** 2)
    variances = (variance(window), axis, variance(np.ones_like(window)))
    energy, axes, total = (float(np.sqrt(each)) / mean for each in variances)
    return mean, energy, axes, total
