"""From the surface of a specimen to a scanning electron micrograph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter

from hypervlad.datasets._surface import SUBSTRATE, Surface

FloatMap = NDArray[np.float32]


def scan_surface(
    surface: Surface, rng: np.random.Generator, sampling: int, unit: float
) -> FloatMap:
    """Scan a surface: shadows, focus, charging, gain and noise.

    Parameters
    ----------
    surface : Surface
    rng : numpy.random.Generator
    sampling : int
        Points of the surface a pixel, each way.
    unit : float
        Points of the surface to a 348th of the image's shorter side.

    Returns
    -------
    array of shape (H / sampling, W / sampling), float32 in [0, 1]
    """
    signal = _binned(_focused(surface, rng, unit), sampling)
    signal = _charged(signal, rng, unit / sampling)
    return _detected(signal, rng)


def _focused(surface: Surface, rng: np.random.Generator, unit: float) -> FloatMap:
    """Shadows in the depth of the mat, and what lies out of focus blurred."""
    level = np.maximum(surface.height, -0.35)
    # From a pit fewer electrons reach the detector: by how much the surroundings stand higher.
    around = gaussian_filter(level, 7.0 * unit)
    shadow = np.exp(-np.float32(rng.uniform(1.5, 3.2)) * np.maximum(around - level, 0))
    fall = np.exp(-np.float32(rng.uniform(0.7, 1.9)) * np.maximum(1 - level, 0))
    on_mat = surface.height > SUBSTRATE
    signal = surface.yield_ * np.where(on_mat, shadow * fall, np.sqrt(shadow))
    focus, depth = rng.uniform(0.6, 1.0), rng.uniform(0.3, 1.2)
    blur = rng.uniform(0.5, 2.2) * unit
    away = np.clip(np.abs(level - np.float32(focus)) / np.float32(depth), 0, 1)
    soft = gaussian_filter(signal, blur)
    return np.asarray(signal + gaussian_filter(away, blur) * (soft - signal))


def _binned(signal: FloatMap, sampling: int) -> FloatMap:
    height, width = (extent // sampling for extent in signal.shape)
    blocks = signal[: height * sampling, : width * sampling]
    return blocks.reshape(height, sampling, width, sampling).mean(axis=(1, 3))


def _charged(signal: FloatMap, rng: np.random.Generator, unit: float) -> FloatMap:
    """Charge left by bright places: a halo, and a dark trail along the scan, in half the images."""
    if rng.random() < 0.5:
        return signal
    bright = np.maximum(signal - np.quantile(signal, 0.97), 0)
    trail_length = rng.uniform(10, 60) * unit
    decay = np.exp(-1 / trail_length)
    trail = lfilter([1 - decay], [1, -decay], bright, axis=1).astype(np.float32)
    halo = gaussian_filter(bright, rng.uniform(4, 12) * unit)
    return np.asarray(
        signal + rng.uniform(0.2, 1.2) * halo - rng.uniform(0.3, 2.0) * trail, dtype=np.float32
    )


def _detected(signal: FloatMap, rng: np.random.Generator) -> FloatMap:
    """Gain and offset of the operator, shot noise, and lines that differ a little."""
    low, high = np.quantile(signal, [0.02, 0.98])
    level, contrast = rng.uniform(0.02, 0.16), rng.uniform(0.4, 0.85)
    image = level + contrast * (signal - low) / max(float(high - low), 1e-6)
    image = np.clip(image, 0, None) ** rng.uniform(0.8, 1.25)
    dose = np.exp(rng.uniform(np.log(60), np.log(1500)))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + noise * np.sqrt((image + 0.03) / dose)
    lines = rng.standard_normal((len(image), 1), dtype=np.float32)
    image = image + lines * np.float32(rng.uniform(0, 0.012))
    image = gaussian_filter(image, rng.uniform(0.2, 0.6))
    return np.clip(image, 0, 1).astype(np.float32)
