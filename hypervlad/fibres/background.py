"""Which pixels are fibre, and which background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hypervlad.fibres.noise import GradientNoise, thinned

FloatMap = NDArray[np.float32]
#: How many standard deviations the energy must rise above that of noise alone.
DEVIATIONS = 2.5
#: Of an image that spans 0 to 1: far below a step of one grey level of 16 bits.
NO_ENERGY = 1e-13


def fibre_mask(energy: FloatMap, noise: GradientNoise, floor: float) -> NDArray[np.bool_]:
    """Return where the energy is that of fibres.

    Background has less than `floor` times the half-energy level, which half of the image's
    energy lies above: a level that follows gain and contrast, and which neither the share of the
    image that is background nor a few bright spots move much. Where it rises above the mean of
    noise by less than `DEVIATIONS` standard deviations, it is background too.

    Parameters
    ----------
    energy : ndarray of shape (H, W)
        Mean squared gradients, less the mean of noise; may be below 0.
    noise : GradientNoise
    floor : float
        0 to 1.
    """
    above_noise = DEVIATIONS * noise.energy_scatter * noise.energy
    return np.asarray(energy > max(floor * half_energy_level(energy), above_noise, NO_ENERGY))


def half_energy_level(energy: FloatMap) -> float:
    """Return the energy such that pixels which have more hold half of the total."""
    ordered = np.maximum(np.sort(thinned(energy), axis=None), 0).astype(np.float64)
    held = np.cumsum(ordered)
    return float(ordered[np.searchsorted(held, held[-1] / 2)])
