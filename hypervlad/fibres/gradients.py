"""Gradients of an image, one by one and averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

FloatMap = NDArray[np.float32]
DEFAULT_GRADIENT_SIGMA = 1.0
_BESIDE = (9.0, 32.0, 9.0)
_TRUNCATE = 3.0  # of a Gaussian, in units of sigma


@dataclass(frozen=True, eq=False)
class Tensor:
    """Averaged products of the gradients, in the form that directions are read off.

    Attributes
    ----------
    energy : ndarray of float32, shape (H, W)
        Mean squared length of the gradients: the sum of the tensor's eigenvalues.
    cosine, sine : ndarray of float32, shape (H, W)
        Of twice the direction along the fibre (y up), times the difference of the eigenvalues.
    """

    energy: FloatMap
    cosine: FloatMap
    sine: FloatMap


def averaged_tensor(down: FloatMap, right: FloatMap, sigma: float) -> Tensor:
    """Return the structure tensor of gradients, averaged by a Gaussian of sigma.

    It is that of scikit-image's `structure_tensor`, but for the gradients: Sobel's, which are used
    there, err by 3 degrees where stripes repeat every four pixels, and by one at seven. Borders
    repeat their last pixel, so that they are no edges themselves.

    Parameters
    ----------
    down, right : ndarray of shape (H, W)
        As `gradients_of` returns them.
    sigma : float
        Pixels.
    """
    cosine, across = down * down, right * right
    energy = smoothed(cosine + across, sigma)
    # The doubled angle of gradients, y up, has the cosine right^2 - down^2 and the sine
    # -2 right down; that of fibres, which run across, is opposite.
    cosine -= across
    sine = np.multiply(down, right, out=across)
    sine *= 2
    return Tensor(energy, smoothed(cosine, sigma), smoothed(sine, sigma))


def gradients_of(contrast: FloatMap, gradient_sigma: float) -> tuple[FloatMap, FloatMap]:
    """Return the derivatives down and to the right of a smoothed image.

    Central differences, averaged with their neighbours by the weights 9, 32, 9: like the 3, 10, 3
    of Scharr (Jähne, Scharr, Körkel 1999, "Principles of filter design"), but chosen for stripes
    that repeat every four pixels or more, whose directions then err by 0.12 degrees at most; by
    0.31 with Scharr's. Differences of slices: several times faster than a correlation.
    """
    image = np.pad(smoothed(contrast, gradient_sigma), 1, mode="edge")
    return _derivative(image), _derivative(image.T).T


def derivative_taps(gradient_sigma: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the impulse responses of `gradients_of`, along the derivative and across it."""
    averaging = gaussian_taps(gradient_sigma)
    along = np.convolve(averaging, [0.5, 0, -0.5])
    return along, np.convolve(averaging, np.asarray(_BESIDE) / sum(_BESIDE))


def gaussian_taps(sigma: float) -> NDArray[np.float64]:
    """Return the weights of `smoothed`, in one direction."""
    reach = int(_TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def _derivative(padded: FloatMap) -> FloatMap:
    outer, middle, _ = (np.float32(weight / (2 * sum(_BESIDE))) for weight in _BESIDE)
    steps = padded[2:] - padded[:-2]
    beside = steps[:, :-2] + steps[:, 2:]
    beside *= outer
    beside += middle * steps[:, 1:-1]
    return beside


def smoothed(contrast: FloatMap, sigma: float) -> FloatMap:
    """Return an image averaged by a Gaussian, its borders repeated outwards."""
    across = gaussian_filter1d(contrast, sigma, axis=1, mode="nearest", truncate=_TRUNCATE)
    taps = gaussian_taps(sigma).astype(np.float32)
    return _rows_averaged(across, taps[len(taps) // 2 :])


def _rows_averaged(image: FloatMap, weights: FloatMap) -> FloatMap:
    """Average each row with those above and below it.

    By slices: down the rows of an image, scipy's filters take several times longer than across.
    """
    n_rows, reach = len(image), len(weights) - 1
    padded = np.pad(image, ((reach, reach), (0, 0)), mode="edge")
    mean = padded[reach : reach + n_rows] * weights[0]
    for distance, weight in enumerate(weights[1:], start=1):
        pair = padded[reach - distance : reach - distance + n_rows]
        pair = pair + padded[reach + distance : reach + distance + n_rows]
        pair *= weight
        mean += pair
    return mean
