"""Spheres in transmission: their outlines are put where the thickness falls to zero.

Absorption goes by the chord, so that contrast fades towards the edge, and an outline in the middle
of what fades is too small. Mean profiles from the middles of round particles outwards are therefore
compared with blurred models: of flat discs, and of spheres that absorb little or much.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import i0e

from hypervlad.objects.splitting import LabelMap, areas_of

FloatArray = NDArray[np.float64]

_MAX_PARTICLES = 60  # that are looked at
_ROUND = 0.97  # area over that of the ellipse with the same second moments; a square has 0.955
# Of profiles, in radii as found: points, and where the middle ends and the background begins.
_AT, _MIDDLE, _BEYOND = np.arange(0.025, 1.7, 0.05), 0.5, 1.3
_MIN_BEYOND = 0.25  # of the pixels there, that no other particle is near
_CLEARANCE = 3  # pixels around other particles
# Models: radii, standard deviations of the blur, both in radii as found, and absorption along a
# diameter. Blurs and groups of particles have one ratio, so that blurs in pixels are known of all.
_RADII, _RATIO = np.linspace(0.9, 1.4, 51), 1.2
_BLURS, _ABSORBED = 0.04 * _RATIO ** np.arange(14), (0.01, 1.0, 2.5)
_STEPS, _N_SHARP = (0.35,), 12  # contrast at the edge over all; of blurs, with which spheres show
_FINE = (np.arange(220) + 0.5) / 100
_GOOD, _MAX_REST = 0.018, 0.05  # residual of a profile from 0 to 1
# By how much spheres explain profiles better, as a ratio of residuals: if they do, and if they may.
_BETTER, _MAYBE = 1.3, 1.05
_NOTED = 1.1  # times as wide: what may be that much too small is mentioned
_SMOOTHING = 1.0  # of the logarithms of radii, in groups
_NOTE = (
    "contrast fades towards the edges as that of spheres in transmission: outlines are where the "
    "thickness falls to zero, {:.3g} times as wide as where edges show most"
)
_MAYBE_NOTE = (
    "it is uncertain whether particles are spheres whose contrast fades towards the edges: sizes "
    "may be {:.3g} times those found, which their range contains"
)


class _Profiles(NamedTuple):
    """Mean brightness over that of the background, (n, n_points), from 0 to 1, by radius."""

    groups: NDArray[np.int64]  # logarithms of radii
    values: FloatArray
    weights: FloatArray  # as many pixels, times squares of contrast


def to_soft_edges(grey: NDArray[np.float32], labels: LabelMap, polarity: str) -> tuple[float, str]:
    """Widen outlines, in place, up to the edges of spheres, if their profiles are those of some.

    Return by how much they may still be too small, as a logarithm, and a note.
    """
    profiles = _profiles(grey, labels, 1 if polarity == "bright" else -1)
    if not len(profiles.groups):
        return 0.0, ""
    flat, _ = _fitted(profiles, *_discs())
    rest, radii = _fitted(profiles, *_spheres())
    typical = float(np.average(radii, weights=profiles.weights.sum(axis=1)))
    if rest > _MAX_REST or typical <= 1 or flat < _MAYBE * rest:
        return 0.0, ""
    if flat < _BETTER * rest or rest > _GOOD:
        return float(np.log(typical)), _MAYBE_NOTE.format(typical) * (typical > _NOTED)
    areas = areas_of(labels, int(labels.max()))
    logs = np.log(np.sqrt(areas[1:] / np.pi).clip(1)) / np.log(_RATIO)
    _widen(labels, areas, np.interp(logs, profiles.groups, radii).clip(1))
    return 0.0, _NOTE.format(typical)


def _profiles(grey: NDArray[np.float32], labels: LabelMap, sign: int) -> _Profiles:
    """Return the profiles of round particles, by their ellipses, those of alike radii in one."""
    n_points, areas = len(_AT), areas_of(labels, int(labels.max(initial=0)))
    windows, sums = ndimage.find_objects(labels), dict[int, FloatArray]()
    for number in (1 + np.argsort(-areas[1:], kind="stable"))[
        :: max(1, -(-(len(areas) - 1) // _MAX_PARTICLES))
    ].tolist():
        window, area = windows[number - 1], int(areas[number])
        ends = zip(window, labels.shape, strict=True)
        if any(side.start == 0 or side.stop == extent for side, extent in ends):
            continue
        places = np.argwhere(labels[window] == number)
        spread = np.cov(places.T, bias=True) + np.eye(2) / 12
        if area < _ROUND * 4 * np.pi * np.sqrt(np.linalg.det(spread)):
            continue
        radius = np.sqrt(area / np.pi)
        more = int(np.ceil((_AT[-1] - 1) * radius)) + 1
        around = tuple(slice(max(0, side.start - more), side.stop + more) for side in window)
        own, values = labels[around], sign * grey[around]
        middle = places.mean(axis=0) + [
            w.start - a.start for w, a in zip(window, around, strict=True)
        ]
        apart = np.indices(own.shape).transpose(1, 2, 0) - middle
        distances = np.sqrt(((apart @ np.linalg.inv(spread)) * apart).sum(axis=2)) / 2
        others = (own > 0) & (own != number)
        free = distances < _AT[-1] + 0.025
        if others.any():
            free &= ~ndimage.binary_dilation(others, iterations=_CLEARANCE)
        at = (distances[free] / 0.05).astype(int)
        counts, totals = (np.bincount(at, w, n_points) for w in (None, values[free]))
        is_beyond, is_middle = _AT > _BEYOND, _AT < _MIDDLE
        n_beyond = counts[is_beyond].sum()
        if n_beyond < _MIN_BEYOND * area * (_AT[-1] ** 2 - _BEYOND**2):
            continue
        outer = totals[is_beyond].sum() / n_beyond
        step = totals[is_middle].sum() / counts[is_middle].sum() - outer
        if step > 0:
            group = round(float(np.log(radius) / np.log(_RATIO)))
            moments = np.stack([counts * step**2, (totals - outer * counts) * step])
            sums[group] = sums.get(group, 0.0) + moments
    groups = np.array(sorted(sums), np.int64)
    weights, totals = (
        np.array([sums[g] for g in groups.tolist()]).reshape(-1, 2, n_points).swapaxes(0, 1)
    )
    return _Profiles(groups, totals / np.maximum(weights, 1e-12), weights)


def _blurred(shapes: FloatArray) -> FloatArray:
    """Return round shapes (..., n_fine) after each blur in two dimensions, (..., n_blurs, n_at)."""
    at, squares = _AT[:, None], _BLURS[:, None, None] ** 2
    kernels = np.exp(-((at - _FINE) ** 2) / (2 * squares)) * i0e(at * _FINE / squares)
    kernels *= (_FINE[1] - _FINE[0]) * _FINE / squares
    return np.asarray(np.einsum("bpf,...f->...bp", kernels, shapes))


@lru_cache(maxsize=1)
def _discs() -> tuple[FloatArray, ...]:
    return (_blurred(np.clip((_RADII[:, None] - _FINE) * 100 + 0.5, 0, 1)),)


@lru_cache(maxsize=1)
def _spheres() -> tuple[FloatArray, ...]:
    chords = np.sqrt(np.clip(1 - (_FINE / _RADII[:, None]) ** 2, 0, 1))
    spheres = [_blurred(1 - np.exp(-most * chords)) for most in _ABSORBED]
    spheres += [spheres[0] / _ABSORBED[0] * (1 - m) + m * _discs()[0] for m in _STEPS]
    return tuple(each[:, :_N_SHARP] for each in spheres)


def _fitted(profiles: _Profiles, *kinds: FloatArray) -> tuple[float, FloatArray]:
    """Return the residual of models with one blur in pixels, and radii over those found, (n,)."""
    weights, values = profiles.weights, profiles.values
    total = weights.sum(axis=1)
    weights = weights / total[:, None]
    centred = values - (weights * values).sum(axis=1)[:, None]
    best, found = np.inf, np.ones(len(values))
    shifts = profiles.groups.max() - profiles.groups
    blurs = np.arange(-int(shifts.max()), len(_BLURS))[:, None] + shifts  # (n_blurs in pixels, n)
    for models in kinds:  # (n_radii, n_blurs, n_points)
        at = blurs.clip(0, models.shape[1] - 1)
        mean = np.einsum("rbp,gp->grb", models, weights)
        square = np.einsum("rbp,gp->grb", models**2, weights) - mean**2
        both = np.einsum("rbp,gp->grb", models, weights * centred)
        rest = (weights * centred**2).sum(axis=1)[:, None, None] - both**2 / np.maximum(
            square, 1e-9
        )
        rest = np.where(both > 0, rest, 1.0).clip(0)
        least, radius = rest.min(axis=1), _RADII[rest.argmin(axis=1)]  # (n, n_blurs)
        every = np.arange(len(values))
        sums = least[every, at] @ total / total.sum()
        if sums.min() < best:
            best, own = float(sums.min()), at[sums.argmin()]
            found = radius[every, own]
    near = np.exp(-(np.subtract.outer(profiles.groups, profiles.groups) ** 2) / 2 / _SMOOTHING**2)
    return best**0.5, np.exp((near * total) @ np.log(found) / (near @ total))


def _widen(labels: LabelMap, areas: NDArray[np.int64], ratios: FloatArray) -> None:
    """Make particles so many times as wide, in place, where no other one is beside them."""
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        area, ratio = int(areas[number]), float(ratios[number - 1])
        more = int(np.ceil((ratio - 1) * np.sqrt(area / np.pi))) + 1
        around = tuple(slice(max(0, side.start - more), side.stop + more) for side in window)
        place = np.pad(labels[around], more, constant_values=-1)  # also beyond the image
        is_own = place == number
        ring = ndimage.binary_dilation(is_own, iterations=more) & ~is_own
        free = ring & (place == 0)
        n = round((ratio**2 - 1) * area * np.count_nonzero(free) / np.count_nonzero(ring))
        near = ndimage.gaussian_filter(is_own.astype(np.float32), more) * free
        place.ravel()[np.argsort(-near, axis=None, kind="stable")[: max(n, 0)]] = number
        labels[around] = place[more:-more, more:-more]
