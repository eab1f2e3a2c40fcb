"""From nanowires on a substrate to a micrograph of known sharpness and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hypervlad.datasets._surface import SUBSTRATE, Surface

FloatMap = NDArray[np.float32]


def scan_wires(
    surface: Surface,
    rng: np.random.Generator,
    *,
    sampling: int,
    width: float,
    blur: float,
    snr: float,
) -> FloatMap:
    """Scan a surface.

    Gain and offset are set so that hardly a pixel, noise included, is cut off at black or white.

    Parameters
    ----------
    surface : Surface
    rng : numpy.random.Generator
    sampling : int
        Points of the surface a pixel, each way.
    width : float
        Mean diameter of the wires in points of the surface.
    blur : float
        Standard deviation of the beam's profile in pixels.
    snr : float
        Contrast over the noise's standard deviation; may be infinite. The contrast is that of the
        image, blur included: mean brightness of the pixels that are wire less that of the others.

    Returns
    -------
    array of shape (H / sampling, W / sampling), float32 in [0, 1]
    """
    signal, substrate = _shaded(surface, width)
    image = block_means(signal, sampling)
    if blur > 0:
        image = gaussian_filter(image, blur, mode="nearest")
    on_wire = block_means(np.isfinite(surface.along), sampling) >= 0.5
    contrast = _contrast(image, on_wire, substrate)
    deviation = contrast / snr
    low, high = (float(bound) for bound in np.quantile(image, [0.001, 0.999]))
    low, high = low - 3 * deviation, max(high, substrate + contrast) + 3 * deviation
    image = image + np.float32(deviation) * rng.standard_normal(image.shape, dtype=np.float32)
    level, span = 0.04, 0.92
    return np.clip(level + span * (image - low) / (high - low), 0, 1).astype(np.float32)


def block_means(values: NDArray, side: int) -> NDArray:
    """Return the means of blocks of side x side points."""
    height, width = (extent // side for extent in values.shape)
    return values.reshape(height, side, width, side).mean(axis=(1, 3))


def _contrast(image: FloatMap, on_wire: NDArray[np.bool_], substrate: float) -> float:
    """Return by how much wires are brighter; without wires, what a white one would be."""
    bright = float(image[on_wire].mean()) if on_wire.any() else 1.0
    dark = substrate if on_wire.all() else float(image[~on_wire].mean())
    return max(bright - dark, 0.0)


def _shaded(surface: Surface, width: float) -> tuple[FloatMap, float]:
    """Return the signal with shadows beside and between wires, and the bare substrate's."""
    level = np.maximum(surface.height, -0.35)
    around = gaussian_filter(level, 0.8 * width, mode="nearest")
    shadow = np.exp(-np.float32(0.8) * np.maximum(around - level, 0))
    fall = np.exp(-np.float32(0.45) * np.maximum(1 - level, 0))
    on_wire = surface.height > SUBSTRATE
    signal = surface.yield_ * np.where(on_wire, shadow * fall, shadow)
    bare = surface.yield_[~on_wire]
    return np.asarray(signal), float(bare.mean()) if bare.size else 0.16
