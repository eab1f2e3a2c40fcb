"""Points on the centre lines of bright fibres, at several scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from hypervlad.fibres.gradients import FloatMap, halved

_SCALES = ((1.0, 1.41, 2.0), (1.41, 2.0))  # at full size, and at each half of the size before
_BAND = 2**20  # pixels that are filtered at a time
_TRUNCATE = 3.5  # of a Gaussian, in units of its standard deviation
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
    """Find ridges of bright lines in an image.

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
    found = [Ridges(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(0))]
    finer: _Scale | None = None
    for here in _scales(contrast, noise, largest):
        points = here.points
        if finer is not None:
            found[-1] = _highest(found[-1], finer, here)
            points = _highest(points, here, finer)
        found.append(points)
        finer = here
    names = ("positions", "normals", "scales", "lengths")
    return Ridges(*(np.concatenate([getattr(each, name) for each in found]) for name in names))


@dataclass(frozen=True, eq=False)
class _Scale:
    step: int  # pixels of the image per pixel of the map
    response: FloatMap
    points: Ridges


def _scales(contrast: FloatMap, noise: float, largest: float) -> Iterator[_Scale]:
    """Give the responses scale by scale, not all at once: one may be as large as the image."""
    image, step = contrast, 1
    while min(image.shape) >= _MIN_SIDE:
        for scale in _SCALES[min(step - 1, 1)]:
            if scale * step <= largest * 1.01:
                yield _at_scale(image, scale, step, noise)
                widest = scale * step
        if widest * 1.4 > largest:
            break
        image, step = halved(image), 2 * step


def _highest(points: Ridges, here: _Scale, other: _Scale) -> Ridges:
    """Return the points at which the response is not below that at another scale."""
    own, others = (_looked_up(each, points.positions) for each in (here, other))
    return points.chosen(np.flatnonzero(own >= others))


def _looked_up(at: _Scale, positions: NDArray[np.float64]) -> FloatMap:
    index = np.rint((positions + 0.5) / at.step - 0.5).astype(np.intp)
    row, column = np.clip(index, 0, np.asarray(at.response.shape) - 1).T
    return np.asarray(at.response[row, column])


def _at_scale(image: FloatMap, scale: float, step: int, noise: float) -> _Scale:
    response, found = np.empty_like(image), []
    n_rows, reach = max(1, _BAND // image.shape[1]), int(_TRUNCATE * scale + 0.5)
    for top in range(0, len(image), n_rows):
        above = min(top, reach)
        band = image[top - above : top + n_rows + reach]
        own = slice(above, above + n_rows)
        response[top : top + n_rows], place, normal = _of_band(band, own, scale, step, noise)
        found.append((place + np.array([top, 0]), normal))
    place, normal = (np.concatenate(each) for each in zip(*found, strict=True))
    positions = (place + 0.5) * step - 0.5
    inside = (positions >= 0).all(axis=1)
    points = Ridges(
        positions=positions[inside],
        normals=normal[inside],
        scales=np.full(inside.sum(), scale * step),
        lengths=step / np.abs(normal[inside]).max(axis=1),
    )
    return _Scale(step, response, points)


def _of_band(
    band: FloatMap, own: slice, scale: float, step: int, noise: float
) -> tuple[FloatMap, NDArray[np.float64], NDArray[np.float64]]:
    """Return the response in some rows of a band, and places and normals of its maxima there."""
    smooth = {
        order: gaussian_filter1d(band, scale, axis=1, order=order, truncate=_TRUNCATE)
        for order in (0, 1, 2)
    }

    def derivative(down: int, right: int) -> FloatMap:
        taken = gaussian_filter1d(smooth[right], scale, axis=0, order=down, truncate=_TRUNCATE)
        return np.asarray(taken[own], dtype=np.float32)

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
        derivative(1, 0)[row, column] * normal[:, 0] + derivative(0, 1)[row, column] * normal[:, 1]
    )
    shift = normal * (-slope / curvature)[:, None]
    ridge = np.abs(shift).max(axis=1) <= 0.5
    place = np.stack([row, column], axis=1)[ridge] + shift[ridge]
    return response, place, normal[ridge]
