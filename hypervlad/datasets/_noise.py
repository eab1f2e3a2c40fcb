"""Smooth random fields, the raw material of films and polymers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smooth_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cell: float,
    *,
    octaves: int = 1,
    persistence: float = 0.5,
) -> NDArray[np.float32]:
    """Random field of mean 0 and standard deviation 1 with features of about ``cell`` pixels.

    Each further octave halves the features. Value noise on a coarse lattice, interpolated: several
    times cheaper than filtering white noise.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (int, int)
    cell : float
        Lattice spacing of the first octave, in pixels.
    octaves : int
    persistence : float
        Amplitude of each octave over that of the one before.
    """
    out = np.zeros(shape, np.float32)
    amplitude = 1.0
    for _ in range(octaves):
        lattice = tuple(int(np.ceil(extent / cell)) + 2 for extent in shape)
        values = rng.standard_normal(lattice, dtype=np.float32)
        offset = rng.uniform(0, 1, 2)
        out += amplitude * _interpolate(values, shape, cell, offset)
        amplitude *= persistence
        cell = max(2.0, cell / 2)
    out -= out.mean()
    return out / max(float(out.std()), 1e-6)


def _interpolate(
    values: NDArray[np.float32],
    shape: tuple[int, int],
    cell: float,
    offset: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Upsample a lattice with separable cubic B-spline weights (two small matrix products)."""
    down = _spline_matrix(values.shape[0], shape[0], cell, float(offset[0]))
    across = _spline_matrix(values.shape[1], shape[1], cell, float(offset[1]))
    return np.asarray(down @ values @ across.T, dtype=np.float32)


def _spline_matrix(
    n_lattice: int, n_pixels: int, cell: float, offset: float
) -> NDArray[np.float32]:
    distance = np.abs(
        (np.arange(n_pixels) / cell + offset)[:, None] - np.arange(n_lattice)[None, :]
    )
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(0, 2 - distance) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)
