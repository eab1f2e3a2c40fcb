"""Which pixels are fibre, and which background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hypervlad.fibres.lattice import Lattice
from hypervlad.fibres.noise import BoolMap, GradientNoise, thinned

FloatMap = NDArray[np.float32]
DEFAULT_FLOOR = 0.05
#: How many standard deviations the energy must rise above that of noise alone.
DEVIATIONS = 2.5
#: The same of a window's sum: far enough that none of thousands of windows of noise does.
WINDOW_DEVIATIONS = 4.5
#: Of an image that spans 0 to 1: far below a step of one grey level of 16 bits.
NO_ENERGY = 1e-13


def fibre_mask(
    energy: FloatMap, noise: GradientNoise, floor: float, where: BoolMap | None = None
) -> BoolMap:
    """Return where the energy is that of fibres.

    Background has less than `floor` times the half-energy level, which half of the image's
    energy lies above: a level that follows gain and contrast, and which neither the share of the
    image that is background nor a few bright spots move much; spots far beyond the other pixels
    are cut down before (see `as_contrast`). Where it rises above the mean of
    noise by less than `DEVIATIONS` standard deviations, it is background too.

    Parameters
    ----------
    energy : ndarray of shape (H, W)
        Mean squared gradients, less the mean of noise; may be below 0.
    noise : GradientNoise
    floor : float
        0 to 1.
    where : ndarray of bool, shape (H, W), optional
        Elsewhere all is background.
    """
    above_noise = DEVIATIONS * noise.energy_scatter * noise.energy
    level = half_energy_level(energy, where)
    mask = np.asarray(energy > max(floor * level, above_noise, NO_ENERGY))
    return mask if where is None else mask & where


def beyond_noise(energy: FloatMap, noise: GradientNoise, lattice: Lattice) -> BoolMap:
    """Return which windows hold more energy than noise gives any of them.

    A few pixels of an image of nothing but noise rise above their share of it, and neighbours do
    so together: enough of them for a window now and then, and then they point the same way.

    Parameters
    ----------
    energy : ndarray of shape (H, W)
        Mean squared gradients, less the mean of noise.
    noise : GradientNoise
    lattice : Lattice
    """
    scatter = noise.energy * noise.total_scatter * np.sqrt(lattice.areas)
    return np.asarray(lattice.sums(energy) > WINDOW_DEVIATIONS * scatter)


def half_energy_level(energy: FloatMap, where: BoolMap | None = None) -> float:
    """Return the energy such that pixels which have more hold half of the total."""
    ordered = np.maximum(np.sort(thinned(energy, where)), 0).astype(np.float64)
    if not ordered.size:
        return 0.0
    held = np.cumsum(ordered)
    return float(ordered[np.searchsorted(held, held[-1] / 2)])
