"""The blur of an image of fibres, from its power spectrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from hypervlad.fibres.gradients import FloatMap

_LOWEST = 0.4  # radians per pixel: below, the spectrum depends on the fibres' diameters
_N_BINS = 48
_MAX_SIDE = 2048  # of the part that the spectrum is taken from
_BLURS = (0.3, 6.0, 48)
# Edges of random directions have a spectrum that falls with the third power of the frequency,
# those of round bodies with the fourth.
_POWER = 3.4


def spectral_blur(contrast: FloatMap) -> float:
    """Estimate the standard deviation of an image's blur, in pixels, to about a quarter.

    The power spectrum is that of edges, times that of a Gaussian and of square pixels, plus white
    noise.

    Parameters
    ----------
    contrast : ndarray of float32, shape (H, W)

    Returns
    -------
    float
        From 0.3 to 6.
    """
    frequency, power, count = _radial_spectrum(contrast)
    trust = np.sqrt(count)
    best, found = np.inf, _BLURS[0]
    for blur in np.geomspace(*_BLURS):
        edges = frequency**-_POWER * np.exp(-((frequency * blur) ** 2))
        edges *= np.sinc(frequency / (2 * np.pi)) ** 2
        parts = np.stack([edges, np.ones_like(edges)], axis=1)
        weight = trust / np.maximum(power, 1e-12)
        for _ in range(2):
            factors, _ = nnls(parts * weight[:, None], power * weight)
            expected = np.maximum(parts @ factors, 1e-12)
            weight = trust / expected
        misfit = float((count * np.log(np.maximum(power, 1e-12) / expected) ** 2).sum())
        if misfit < best:
            best, found = misfit, float(blur)
    return found


def _radial_spectrum(contrast: FloatMap) -> tuple[NDArray[np.float64], ...]:
    """Return frequencies in radians per pixel, mean powers, and how many were averaged."""
    height, width = (min(extent, _MAX_SIDE) for extent in contrast.shape)
    top, left = (contrast.shape[0] - height) // 2, (contrast.shape[1] - width) // 2
    part = contrast[top : top + height, left : left + width]
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    power = np.abs(np.fft.rfft2((part - part.mean()) * window)) ** 2 / (window**2).sum()
    frequency = 2 * np.pi * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    edges = np.linspace(_LOWEST, np.pi, _N_BINS + 1)
    number = np.digitize(frequency.ravel(), edges) - 1
    inside = (number >= 0) & (number < _N_BINS)
    count = np.bincount(number[inside], minlength=_N_BINS)
    total = np.bincount(number[inside], power.ravel()[inside], minlength=_N_BINS)
    filled = count > 0
    return (
        ((edges[1:] + edges[:-1]) / 2)[filled],
        total[filled] / count[filled],
        count[filled].astype(float),
    )
