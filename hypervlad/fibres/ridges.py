"""Points on the centre lines of bright and of dark fibres, at several scales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

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

    @classmethod
    def joined(cls, parts: Sequence[Ridges]) -> Ridges:
        none = cls(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(0))
        names = (each.name for each in fields(cls))
        return cls(*(np.concatenate([getattr(o, name) for o in (none, *parts)]) for name in names))

    def chosen(self, index: NDArray[np.intp]) -> Ridges:
        return Ridges(
            self.positions[index], self.normals[index], self.scales[index], self.lengths[index]
        )


def find_ridges(
    contrast: FloatMap, noise: float, largest: float, signs: Sequence[float]
) -> dict[float, Ridges]:
    """Find ridges of bright (1) or of dark (-1) lines in an image.

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
    signs : sequence of float
        1 for bright lines, -1 for dark ones, or both.

    Returns
    -------
    dict of Ridges
        By sign.
    """
    found = {sign: list[Ridges]() for sign in signs}
    finer: dict[float, _Scale] = {}
    for scale in _scales(contrast, noise, largest, signs):
        for sign, here in scale.items():
            points = here.points
            if finer:
                found[sign][-1] = _highest(found[sign][-1], finer[sign], here)
                points = _highest(points, here, finer[sign])
            found[sign].append(points)
        finer = scale
    return {sign: Ridges.joined(points) for sign, points in found.items()}


@dataclass(frozen=True, eq=False)
class _Scale:
    step: int  # pixels of the image per pixel of the map
    response: NDArray[np.float16]
    points: Ridges


def _scales(
    contrast: FloatMap, noise: float, largest: float, signs: Sequence[float]
) -> Iterator[dict[float, _Scale]]:
    """Give the responses scale by scale, not all at once: one may be as large as the image."""
    image, step = contrast, 1
    while min(image.shape) >= _MIN_SIDE:
        for scale in _SCALES[min(step - 1, 1)]:
            if scale * step <= largest * 1.01:
                yield _at_scale(image, scale, step, noise, signs)
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
    return np.asarray(at.response[row, column], dtype=np.float32)


def _at_scale(
    image: FloatMap, scale: float, step: int, noise: float, signs: Sequence[float]
) -> dict[float, _Scale]:
    response = {sign: np.empty(image.shape, dtype=np.float16) for sign in signs}
    found = {sign: list[Ridges]() for sign in signs}
    n_rows, reach = max(1, _BAND // image.shape[1]), int(_TRUNCATE * scale + 0.5)
    least = max(_SIGNIFICANT * noise * _NOISE_GAIN / (scale * step), _MIN_RESPONSE)
    for top in range(0, len(image), n_rows):
        above = min(top, reach)
        derivatives = _Derivatives.of(image[top - above : top + n_rows + reach], scale)
        for sign in signs:
            own = derivatives.of_rows(slice(above, above + n_rows), sign)
            response[sign][top : top + n_rows], place, normal = own.ridges(scale, least)
            positions = (place + [top, 0] + 0.5) * step - 0.5
            inside = (positions >= 0).all(axis=1)
            found[sign].append(
                Ridges(
                    positions=positions[inside],
                    normals=normal[inside],
                    scales=np.full(inside.sum(), scale * step),
                    lengths=step / np.abs(normal[inside]).max(axis=1),
                )
            )
    return {
        sign: _Scale(step, response[sign], Ridges.joined(points)) for sign, points in found.items()
    }


@dataclass(frozen=True, eq=False)
class _Derivatives:
    """Derivatives of a smoothed image along its rows (r) and columns (c)."""

    r: FloatMap
    c: FloatMap
    rr: FloatMap
    rc: FloatMap
    cc: FloatMap

    @classmethod
    def of(cls, image: FloatMap, scale: float) -> _Derivatives:
        def smoothed(values: FloatMap, axis: int, order: int) -> FloatMap:
            return np.asarray(gaussian_filter1d(values, scale, axis, order, truncate=_TRUNCATE))

        across = [smoothed(image, 1, order) for order in range(3)]
        orders = ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2))  # down and across
        return cls(*(smoothed(across[right], 0, down) for down, right in orders))

    def of_rows(self, rows: slice, sign: float) -> _Derivatives:
        """Return those of some rows, of the image or of its negative."""
        return _Derivatives(*(sign * getattr(self, each.name)[rows] for each in fields(self)))

    def ridges(
        self, scale: float, least: float
    ) -> tuple[FloatMap, NDArray[np.float64], NDArray[np.float64]]:
        """Return the response to bright lines, and places and normals of its maxima."""
        half = (self.rr - self.cc) / 2
        gap = np.hypot(half, self.rc)
        response = np.maximum(gap - (self.rr + self.cc) / 2, 0) * np.float32(scale**2)
        row, column = np.nonzero(response > least)
        # The eigenvector of the lower eigenvalue.
        angle = 0.5 * np.arctan2(self.rc[row, column], half[row, column]) + np.pi / 2
        normal = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        curvature = -response[row, column] / scale**2
        slope = self.r[row, column] * normal[:, 0] + self.c[row, column] * normal[:, 1]
        shift = normal * (-slope / curvature)[:, None]
        ridge = np.abs(shift).max(axis=1) <= 0.5
        return response, np.stack([row, column], axis=1)[ridge] + shift[ridge], normal[ridge]
