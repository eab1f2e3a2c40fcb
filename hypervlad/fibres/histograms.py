"""Local gradient orientation: histograms of the directions of gradients."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hypervlad.fibres.axial import wrapped
from hypervlad.fibres.lattice import Lattice

FloatMap = NDArray[np.float32]
_BINS = 24
_CELL = 1.31  # a cell's side over sigma: cells weighted 1 2 1 then spread as a Gaussian of sigma
_BESIDE = 2  # bins on either side of a peak that belong to it
_ROWS_AT_ONCE = 8  # rows of cells: their histograms stay in the processor's cache


def peak_maps(down: FloatMap, right: FloatMap, sigma: float) -> tuple[FloatMap, FloatMap, FloatMap]:
    """Return the direction of the highest peak, the order and the energy around each pixel.

    Parameters
    ----------
    down, right : ndarray of shape (H, W)
        The gradients.
    sigma : float
        Pixels.
    """
    side = min(max(2, round(_CELL * sigma)), *down.shape)
    lattice = Lattice.over(down.shape, side)
    strips = [_peaks(table) for table in _smoothed_strips(down, right, lattice)]
    along, order, energy = (
        lattice.painted(np.concatenate(rows)) for rows in zip(*strips, strict=True)
    )
    return along, order, energy


def direction_histograms(
    down: FloatMap, right: FloatMap, lattice: Lattice, n_bins: int
) -> NDArray[np.float64]:
    """Return a histogram of the directions across the gradients of each window.

    Parameters
    ----------
    down, right : ndarray of shape (H, W)
        The gradients.
    lattice : Lattice
    n_bins : int
        The middle of bin k is at k pi / n_bins.

    Returns
    -------
    ndarray of shape (n_rows, n_columns, n_bins)
        Sums of squared lengths, each shared by the two nearest bins, so that the mean direction
        of a peak is finer than a bin.
    """
    # Across (right, -down), y up, is (down, right).
    place = np.arctan2(right, down)
    place *= np.float32(n_bins / np.pi)
    place += np.float32(n_bins)
    low = place.astype(np.intp)
    place -= low
    n_rows, n_columns = lattice.shape
    start = n_bins * np.arange(lattice.size).reshape(n_rows, n_columns)
    start = np.repeat(start, np.diff(lattice.columns), axis=1)
    energy = right * right
    energy += down * down
    place *= energy
    energy -= place
    sums = np.zeros(lattice.size * n_bins)
    for step, weights in ((0, energy), (1, place)):
        index = (low + step) % n_bins
        for row, (top, stop) in zip(start, pairwise(lattice.rows), strict=True):
            index[top:stop] += row
        sums += np.bincount(index.ravel(), weights.ravel(), len(sums))
    return sums.reshape(n_rows, n_columns, n_bins)


def bin_axes(n_bins: int) -> NDArray[np.complex128]:
    """Return exp(2 i theta) of the middle of each bin."""
    return np.exp(2j * np.pi * np.arange(n_bins) / n_bins)


def _smoothed_strips(
    down: FloatMap, right: FloatMap, lattice: Lattice
) -> Iterator[NDArray[np.float32]]:
    """Yield mean histograms of rows of windows: each cell with its neighbours, weighted 1 2 1."""
    n_rows = lattice.shape[0]
    for start in range(0, n_rows, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, n_rows)
        first, last = max(start - 1, 0), min(stop + 1, n_rows)
        rows = lattice.rows[first : last + 1]
        own = slice(int(rows[0]), int(rows[-1]))
        strip = Lattice(rows - rows[0], lattice.columns)
        table = direction_histograms(down[own], right[own], strip, _BINS).astype(np.float32)
        table /= strip.areas[..., None].astype(np.float32)
        missing = (int(first == start), int(last == stop))
        table = np.pad(table, (missing, (1, 1), (0, 0)), mode="edge")
        yield _with_neighbours(_with_neighbours(table, 0), 1)


def _with_neighbours(table: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return means of three along an axis, weighted 1 2 1, of all but the first and the last."""
    along = np.moveaxis(table, axis, 0)
    mean = along[1:-1] * np.float32(0.5)
    for ends in (along[:-2], along[2:]):
        mean += np.float32(0.25) * ends
    return np.moveaxis(mean, 0, axis)


def _peaks(table: NDArray[np.float32]) -> tuple[FloatMap, FloatMap, FloatMap]:
    """Return the direction of the highest peak, the order and the sum of each histogram."""
    n_bins = table.shape[-1]
    axes = bin_axes(n_bins).astype(np.complex64)
    energy = table.sum(axis=-1)
    # Three bins together, so that a peak on a bin's edge is as high as one in its middle.
    wide = table + np.roll(table, 1, axis=-1) + np.roll(table, -1, axis=-1)
    near = (wide.argmax(axis=-1)[..., None] + np.arange(-_BESIDE, _BESIDE + 1)) % n_bins
    around = (np.take_along_axis(table, near, axis=-1) * axes[near]).sum(axis=-1)
    along = wrapped(np.angle(around) * np.float32(0.5))
    resultant = np.abs(table @ axes)
    order = np.minimum(resultant / np.maximum(energy, np.finfo(np.float32).tiny), 1)
    return along, order, energy
