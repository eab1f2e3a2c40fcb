"""Gradients of an image, one by one and averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from skimage.feature import structure_tensor

FloatMap = NDArray[np.float32]
# Weights are divided by what they make of a ramp of one a pixel.
_SOBEL = 8.0
_SCHARR = (3.0, 10.0, 3.0)
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


def averaged_tensor(contrast: FloatMap, sigma: float, gradient_sigma: float) -> Tensor:
    """Return the structure tensor by scikit-image, averaged by a Gaussian of sigma.

    Borders repeat their last pixel, so that they are no edges themselves, as they would be by
    scikit-image's default. ``order="rc"``: rows count downwards, so the mixed product changes its
    sign where y is up.
    """
    image = smoothed(contrast, gradient_sigma)
    down, mixed, right = structure_tensor(image, sigma=sigma, mode="nearest", order="rc")
    energy = down + right
    # The doubled angle of gradients has the cosine right - down and the sine -2 mixed; that of
    # fibres, which run across, is opposite.
    down -= right
    mixed *= 2
    for each in (energy, down, mixed):
        each *= np.float32(_SOBEL**-2)
    return Tensor(energy, down, mixed)


def gradients_of(contrast: FloatMap, gradient_sigma: float) -> tuple[FloatMap, FloatMap]:
    """Return the derivatives down and to the right.

    By the weights 3, 10, 3 of Scharr, whose directions err least (Jähne, Scharr, Körkel 1999,
    "Principles of filter design"). Differences of slices: several times faster than a correlation.
    """
    image = np.pad(smoothed(contrast, gradient_sigma), 1, mode="edge")
    return _scharr(image), _scharr(image.T).T


def _scharr(padded: FloatMap) -> FloatMap:
    outer, middle, _ = (np.float32(weight / (2 * sum(_SCHARR))) for weight in _SCHARR)
    steps = padded[2:] - padded[:-2]
    beside = steps[:, :-2] + steps[:, 2:]
    beside *= outer
    beside += middle * steps[:, 1:-1]
    return beside


def sobel_derivative(contrast: FloatMap, gradient_sigma: float) -> FloatMap:
    """Return the derivative down as `averaged_tensor` has it."""
    image = np.pad(smoothed(contrast, gradient_sigma), 1, mode="edge")
    steps = image[2:] - image[:-2]
    return np.asarray((steps[:, :-2] + 2 * steps[:, 1:-1] + steps[:, 2:]) / np.float32(_SOBEL))


def smoothed(contrast: FloatMap, sigma: float) -> FloatMap:
    """Return an image averaged by a Gaussian, its borders repeated outwards."""
    across = gaussian_filter1d(contrast, sigma, axis=1, mode="nearest", truncate=_TRUNCATE)
    reach = int(_TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    weights /= 2 * weights.sum() - weights[0]
    return _rows_averaged(across, weights.astype(np.float32))


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
