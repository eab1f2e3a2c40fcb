"""Gradients of an image: the structure tensor, and histograms of directions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from hypervlad.fibres.axial import wrapped
from hypervlad.fibres.tiles import TileGrid

FloatMap = NDArray[np.float32]
_GRADIENT_SIGMA = 1.0  # of the Gaussian that smooths the image before gradients are taken, pixels
_CROSS_WEIGHTS = (9.0, 32.0, 9.0)
_TRUNCATE = 3.0  # of a Gaussian, in units of sigma
_N_BINS = 24
_CELL = 1.31  # side of a cell over sigma
_PEAK_REACH = 2  # bins on either side of a peak that belong to it
_N_STRIP_ROWS = 8  # rows of cells whose histograms stay in the processor's cache


def image_gradients(contrast: FloatMap) -> tuple[FloatMap, FloatMap]:
    """Return the derivatives of a smoothed image, downwards and to the right.

    Central differences, averaged with their neighbours by the weights 9, 32, 9. Like Scharr's
    3, 10, 3 (Jähne, Scharr, Körkel 1999, "Principles of filter design"), but optimised for stripes
    with a period of four pixels or more.
    """
    image = np.pad(gaussian_smooth(contrast, _GRADIENT_SIGMA), 1, mode="edge")
    return _derivative(image), _derivative(image.T).T


def tensor_energy(down: FloatMap, right: FloatMap, sigma: float) -> FloatMap:
    return gaussian_smooth(down * down + right * right, sigma)


def tensor_axes(down: FloatMap, right: FloatMap, sigma: float) -> tuple[FloatMap, FloatMap]:
    """Return cosine and sine of twice the structure tensor's angle, times its eigenvalues' gap."""
    # The doubled angle of gradients, y up, has the cosine right^2 - down^2 and the sine
    # -2 right down. Fibres run across gradients, which reverses both signs.
    cosine = down * down
    cosine -= right * right
    sine = down * right
    sine *= 2
    return gaussian_smooth(cosine, sigma), gaussian_smooth(sine, sigma)


def gaussian_smooth(contrast: FloatMap, sigma: float) -> FloatMap:
    """Return an image averaged by a Gaussian, its border pixels repeated outwards."""
    across = gaussian_filter1d(contrast, sigma, axis=1, mode="nearest", truncate=_TRUNCATE)
    taps = gaussian_taps(sigma).astype(np.float32)
    return _average_rows(across, taps[len(taps) // 2 :])


def gaussian_taps(sigma: float) -> NDArray[np.float64]:
    reach = int(_TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def derivative_taps() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    averaging = gaussian_taps(_GRADIENT_SIGMA)
    along = np.convolve(averaging, [0.5, 0, -0.5])
    return along, np.convolve(averaging, np.asarray(_CROSS_WEIGHTS) / sum(_CROSS_WEIGHTS))


def _derivative(padded: FloatMap) -> FloatMap:
    outer, middle, _ = (np.float32(weight / (2 * sum(_CROSS_WEIGHTS))) for weight in _CROSS_WEIGHTS)
    steps = padded[2:] - padded[:-2]
    beside = steps[:, :-2] + steps[:, 2:]
    beside *= outer
    beside += middle * steps[:, 1:-1]
    return beside


def _average_rows(image: FloatMap, weights: FloatMap) -> FloatMap:
    # Slices are several times faster here than scipy's filters, which are slow along columns.
    n_rows, reach = len(image), len(weights) - 1
    padded = np.pad(image, ((reach, reach), (0, 0)), mode="edge")
    mean: FloatMap = padded[reach : reach + n_rows] * weights[0]
    for distance, weight in enumerate(weights[1:], start=1):
        pair = padded[reach - distance : reach - distance + n_rows]
        pair = pair + padded[reach + distance : reach + distance + n_rows]
        pair *= weight
        mean += pair
    return mean


def histogram_peaks(
    down: FloatMap, right: FloatMap, sigma: float
) -> tuple[FloatMap, FloatMap, FloatMap]:
    """Return the direction of the highest peak, the order and the energy around each pixel.

    A window is a cell of about 1.3 sigma with its eight neighbours, weighted 1, 2, 1.
    """
    side = min(max(2, round(_CELL * sigma)), *down.shape)
    grid = TileGrid.over(down.shape, side)
    strips = [_peaks(table) for table in _smoothed_strips(down, right, grid)]
    along, order, energy = (grid.expand(np.concatenate(rows)) for rows in zip(*strips, strict=True))
    return along, order, energy


def direction_histograms(
    down: FloatMap, right: FloatMap, grid: TileGrid, n_bins: int
) -> NDArray[np.float64]:
    """Return a histogram of the directions across the gradients of each window.

    Sums of squared lengths, shape (n_rows, n_columns, n_bins), each shared between the two nearest
    bins; the centre of bin k is at k pi / n_bins.
    """
    # Across (right, -down), y up, is (down, right).
    place = np.arctan2(right, down)
    place *= np.float32(n_bins / np.pi)
    place += np.float32(n_bins)
    low = place.astype(np.intp)
    place -= low
    n_rows, n_columns = grid.shape
    start = n_bins * np.arange(grid.size).reshape(n_rows, n_columns)
    start = np.repeat(start, np.diff(grid.columns), axis=1)
    energy = right * right
    energy += down * down
    place *= energy
    energy -= place
    sums = np.zeros(grid.size * n_bins)
    for step, weights in ((0, energy), (1, place)):
        index = (low + step) % n_bins
        for row, (top, stop) in zip(start, pairwise(grid.rows), strict=True):
            index[top:stop] += row
        sums += np.bincount(index.ravel(), weights.ravel(), len(sums))
    return sums.reshape(n_rows, n_columns, n_bins)


def bin_axes(n_bins: int) -> NDArray[np.complex128]:
    """Return exp(2 i theta) of the centre of each bin."""
    axes: NDArray[np.complex128] = np.exp(2j * np.pi * np.arange(n_bins) / n_bins)
    return axes


def _smoothed_strips(
    down: FloatMap, right: FloatMap, grid: TileGrid
) -> Iterator[NDArray[np.float32]]:
    """Yield mean histograms of rows of cells, each averaged with its neighbours."""
    n_rows = grid.shape[0]
    for start in range(0, n_rows, _N_STRIP_ROWS):
        stop = min(start + _N_STRIP_ROWS, n_rows)
        first, last = max(start - 1, 0), min(stop + 1, n_rows)
        rows = grid.rows[first : last + 1]
        own = slice(int(rows[0]), int(rows[-1]))
        strip = TileGrid(rows - rows[0], grid.columns)
        table = direction_histograms(down[own], right[own], strip, _N_BINS).astype(np.float32)
        table /= strip.areas[..., None].astype(np.float32)
        missing = (int(first == start), int(last == stop))
        table = np.pad(table, (missing, (1, 1), (0, 0)), mode="edge")
        yield _with_neighbours(_with_neighbours(table, 0), 1)


def _with_neighbours(table: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    along = np.moveaxis(table, axis, 0)
    mean = along[1:-1] * np.float32(0.5)
    for ends in (along[:-2], along[2:]):
        mean += np.float32(0.25) * ends
    return np.moveaxis(mean, 0, axis)


def _peaks(table: NDArray[np.float32]) -> tuple[FloatMap, FloatMap, FloatMap]:
    n_bins = table.shape[-1]
    axes = bin_axes(n_bins).astype(np.complex64)
    energy = table.sum(axis=-1)
    # Three bins together, so that a peak on a bin's edge is as high as one in its centre.
    wide = table + np.roll(table, 1, axis=-1) + np.roll(table, -1, axis=-1)
    near = (wide.argmax(axis=-1)[..., None] + np.arange(-_PEAK_REACH, _PEAK_REACH + 1)) % n_bins
    around = (np.take_along_axis(table, near, axis=-1) * axes[near]).sum(axis=-1)
    along = wrapped(np.angle(around) * np.float32(0.5))
    resultant = np.abs(table @ axes)
    order = np.minimum(resultant / np.maximum(energy, np.finfo(np.float32).tiny), 1)
    return along, order, energy
