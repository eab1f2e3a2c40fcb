"""Points on the centre lines of bright fibres, at several scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from hypervlad.fibres.gradients import FloatMap

_SCALES = ((1.0, 1.41, 2.0), (1.41, 2.0))  # at full size, and at each half of the size before
_TILE = 1024
_SIGNIFICANT = 4.5  # standard deviations of the response to noise
_MIN_RESPONSE = 0.03  # of an image that spans 0 to 1
_MIN_SIDE = 24  # of the smallest image of the pyramid
# Standard deviation of the response to white noise of variance 1, times the scale.
_NOISE_GAIN = float(np.sqrt(3 / (16 * np.pi)))


@dataclass(frozen=True, eq=False)
class Ridges:
    """Points of centre lines: where the response is a maximum across the fibre and over scales."""

    positions: NDArray[np.float64]  # (n, 2), row and column
    normals: NDArray[np.float64]  # (n, 2), unit vectors across the fibre
    scales: NDArray[np.float64]  # (n,), about half of the diameter
    lengths: NDArray[np.float64]  # (n,), of the centre line that each stands for

    def chosen(self, index: NDArray[np.intp]) -> Ridges:
        return Ridges(
            self.positions[index], self.normals[index], self.scales[index], self.lengths[index]
        )


def find_ridges(contrast: FloatMap, noise: float, largest: float) -> Ridges:
    """Find ridges of bright lines in an image, in tiles.

    Steger 1998, "An unbiased detector of curvilinear structures", IEEE Transactions on Pattern
    Analysis and Machine Intelligence 20, at scales in steps of the square root of 2, normalised as
    by Lindeberg 1998, "Edge detection and ridge detection with automatic scale selection",
    International Journal of Computer Vision 30.

    Parameters
    ----------
    contrast : ndarray of float32, shape (H, W)
        Scaled to span 0 to 1.
    noise : float
        Standard deviation of its white noise.
    largest : float
        Largest scale in pixels.

    Returns
    -------
    Ridges
    """
    overlap = int(4 * largest) + 8
    found = []
    for top in range(0, contrast.shape[0], _TILE):
        for left in range(0, contrast.shape[1], _TILE):
            rows = max(top - overlap, 0), min(top + _TILE + overlap, contrast.shape[0])
            columns = max(left - overlap, 0), min(left + _TILE + overlap, contrast.shape[1])
            tile = _of_tile(contrast[slice(*rows), slice(*columns)], noise, largest)
            position = tile.positions + np.array([rows[0], columns[0]])
            own = np.all((position >= [top, left]) & (position < [top + _TILE, left + _TILE]), 1)
            moved = Ridges(position, tile.normals, tile.scales, tile.lengths)
            found.append(moved.chosen(np.flatnonzero(own)))
    names = ("positions", "normals", "scales", "lengths")
    return Ridges(*(np.concatenate([getattr(each, name) for each in found]) for name in names))


@dataclass(frozen=True, eq=False)
class _Scale:
    scale: float  # in pixels of the image
    step: int  # pixels of the image per pixel of the maps
    response: FloatMap
    points: Ridges


def _of_tile(contrast: FloatMap, noise: float, largest: float) -> Ridges:
    scales: list[_Scale] = []
    image, step = contrast, 1
    while min(image.shape) >= _MIN_SIDE:
        for scale in _SCALES[min(step - 1, 1)]:
            if scale * step <= largest * 1.01:
                scales.append(_at_scale(image, scale, step, noise))
        if scales[-1].scale * 1.4 > largest:
            break
        even = image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]
        image = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
        image *= np.float32(0.25)
        step *= 2
    kept = []
    for i, here in enumerate(scales):
        own = _looked_up(here, here.points.positions)
        best = np.ones(len(own), dtype=bool)
        for other in scales[max(i - 1, 0) : i] + scales[i + 1 : i + 2]:
            best &= own >= _looked_up(other, here.points.positions)
        kept.append(here.points.chosen(np.flatnonzero(best)))
    empty = np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(0)
    parts = [(k.positions, k.normals, k.scales, k.lengths) for k in kept] or [empty]
    return Ridges(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _looked_up(at: _Scale, positions: NDArray[np.float64]) -> FloatMap:
    index = np.rint((positions + 0.5) / at.step - 0.5).astype(np.intp)
    row, column = np.clip(index, 0, np.asarray(at.response.shape) - 1).T
    return np.asarray(at.response[row, column])


def _at_scale(image: FloatMap, scale: float, step: int, noise: float) -> _Scale:
    smooth = {
        order: gaussian_filter1d(image, scale, axis=1, order=order, truncate=3.5)
        for order in (0, 1, 2)
    }

    def derivative(down: int, right: int) -> FloatMap:
        taken = gaussian_filter1d(smooth[right], scale, axis=0, order=down, truncate=3.5)
        return np.asarray(taken, dtype=np.float32)

    rr, rc, cc = derivative(2, 0), derivative(1, 1), derivative(0, 2)
    half = (rr - cc) / 2
    gap = np.hypot(half, rc)
    response = np.maximum(gap - (rr + cc) / 2, 0) * np.float32(scale**2)
    least = max(_SIGNIFICANT * noise * _NOISE_GAIN / (scale * step), _MIN_RESPONSE)
    row, column = np.nonzero(response > least)
    # The eigenvector of the lower eigenvalue.
    angle = 0.5 * np.arctan2(rc[row, column], half[row, column]) + np.pi / 2
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    curvature = -response[row, column] / scale**2
    slope = (
        derivative(1, 0)[row, column] * normal[:, 0]
        + derivative(0, 1)[row, column] * (normal[:, 1])
    )
    shift = normal * (-slope / curvature)[:, None]
    ridge = np.abs(shift).max(axis=1) <= 0.5
    place = np.stack([row, column], axis=1)[ridge] + shift[ridge]
    normal = normal[ridge]
    points = Ridges(
        positions=(place + 0.5) * step - 0.5,
        normals=normal,
        scales=np.full(len(place), scale * step),
        lengths=step / np.abs(normal).max(axis=1),
    )
    return _Scale(scale * step, step, response, points)
