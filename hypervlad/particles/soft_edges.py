"""Where particles end whose edges are soft: blurred, or fading as the thickness falls to zero.

An outline in the middle of what fades is too small, as absorption goes by the chord; of a blurred
disc it is too large. Mean profiles from the middles of round particles outwards are therefore
compared with blurred models, whose radii are those of the particles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import i0e

from hypervlad.common.progress import joined_notes
from hypervlad.images.morphology import grown
from hypervlad.images.resampling import areas_of
from hypervlad.objects.windows import BoolMap, LabelMap, grown_window
from hypervlad.particles.contrast import pixel_noise

FloatArray = NDArray[np.float64]

_MAX_PARTICLES = 60  # that are looked at
_ROUND = 0.97  # area over that of the ellipse with the same second moments; a square has 0.955
# Of profiles, in radii as found: points, and where the middle ends and the background begins.
_AT, _MIDDLE, _BEYOND = np.arange(0.025, 1.7, 0.05), 0.5, 1.3
_MIN_BEYOND = 0.25  # of the pixels there, that no other particle is near
_CLEARANCE = 3  # pixels around other particles
# Models: radii, standard deviations of the blur, both in radii as found, and absorption along a
# diameter. Blurs and groups of particles have one ratio, so that blurs in pixels are known of all.
_RADII, _RATIO = np.linspace(0.8, 1.4, 61), 1.1
_BLURS, _ABSORBED = 0.02 * _RATIO ** np.arange(33), (0.01, 1.0, 2.5)
_STEP, _CORES = 0.35, (0.5, 0.65, 0.8)
_FINE, _POINTS = (np.arange(220) + 0.5) / 100, np.arange(-2, 3) / 100
_SHARP = 1.5  # pixels: a blur that edges have anyway
# Residuals of profiles from 0 to 1: good ones, some that may be, and how many times more others
# have than the best, with less than which all are possible.
_GOOD, _MAX_REST, _BETTER, _ALIKE = 0.018, 0.05, 1.3, 0.009
_MAYBE = 1.05  # times more of discs, from which on it is uncertain
_NOTED = 1.1  # times as wide: what may be that much too small is mentioned
_SMOOTHING = 2.0  # of the logarithms of radii, in groups
_GAP = 5  # groups between small and large particles, whose edges may be of other kinds
# Where a fringe is, in radii, and how pale, over the contrast, if it is mentioned: in focus, up to
# 0.03. How many times that, as a logarithm, particles may be smaller: out of focus, up to 3.
_NEAR_EDGES, _MIN_FRINGE, _OF_FRINGE = (1.0, 1.6), 0.05, 3.0
_OVER_NOISE, _AT_MOST = 5.62, 2048  # standard errors of the mean profile; pixels, for the noise
# Where a shell is, in radii, and what is surely beyond; its least strength, over the contrast, and
# by how much that may vary, over itself, unlike that of glowing light; the group of radii of 6
# pixels, from which on it shows.
_IN_SHELL, _BEYOND_SHELL, _MIN_SHELL, _MAX_SLOPE, _LEAST_SHOWN = (1.15, 1.32), 1.52, 0.05, 0.22, 19
_SHELL_NOTE = (
    "a paler zone surrounds the outlines, as a shell around a core, or what particles lie on: "
    "whole particles may be {:.3g} times as large, which their range contains"
)
_FRINGE_NOTE = (
    "a pale fringe surrounds the particles, as in transmission out of focus, or after sharpening: "
    "they may be smaller than their outlines, which their range contains"
)
_NOTE = (
    "contrast fades towards the edges as that of spheres in transmission, or of other particles "
    "that are thin there: outlines are where the thickness falls to zero, {:.3g} times as wide as "
    "where edges show most"
)
_MAYBE_NOTE = (
    "it is uncertain whether edges are blurred, or particles fade towards them: sizes may be "
    "{:.3g} times those found, which their range contains"
)


class _Profiles(NamedTuple):
    """Mean brightness over that of the background, (n, n_points), from 0 to 1, by radius."""

    groups: NDArray[np.int64]  # logarithms of radii
    values: FloatArray
    weights: FloatArray  # as many pixels, times squares of contrast

    def by_size(self) -> list[tuple[_Profiles, float]]:
        """Return those of all sizes, or of small and large ones apart, and from which group on.

        Large ones may be saturated, and look flat, where small ones of the same kind do not.
        """
        gaps = np.diff(self.groups)
        found, at = [(self, -np.inf)], int(gaps.argmax()) + 1 if len(gaps) else 0
        if at and gaps[at - 1] >= _GAP:
            groups, values, weights = self
            small, large = (
                _Profiles(groups[part], values[part], weights[part])
                for part in (slice(at), slice(at, None))
            )
            found = [(small, -np.inf), (large, self.groups[at - 1 : at + 1].mean())]
        return found

    def fringe(self, noise: float) -> float:
        """Return by how much of the contrast the brightness beyond edges is below the ground's.

        `noise` is the `pixel_noise` of the image.
        """
        mean, error = self._mean(noise, slice(None))
        low, high = _NEAR_EDGES
        is_near = (low < _AT) & (high > _AT) & (-mean > _OVER_NOISE * error)
        fringe = -float(mean[is_near].min(initial=0))
        return fringe if fringe > _MIN_FRINGE else 0.0

    def shell(self, noise: float) -> float:
        """Return the radius of a zone of even brightness beyond edges, over theirs; 1 of none."""
        mean, error = self._mean(noise, self.groups >= _LEAST_SHOWN)
        near, far = _IN_SHELL
        zone = (near < _AT) & (far > _AT)
        mean -= mean[_AT > _BEYOND_SHELL].mean()
        least, most = float(mean[zone].min()), float(mean[zone].max())
        if least <= max(_MIN_SHELL, _OVER_NOISE * float(error[zone].max())):
            return 1.0
        if most - least > _MAX_SLOPE * least:
            return 1.0
        return float(_AT[(near < _AT) & (mean < least / 2)][0])

    def _mean(self, noise: float, of: slice | BoolMap) -> tuple[FloatArray, FloatArray]:
        """Return the mean profile of some groups, and its standard errors."""
        weights = self.weights[of].sum(axis=0).clip(1e-12)
        return (self.values * self.weights)[of].sum(axis=0) / weights, noise / np.sqrt(weights)


class _Fit(NamedTuple):
    """The best of some models: its residual, radii over those found, (n,), and blur in pixels."""

    rest: float
    radii: FloatArray
    blur: float


class _Edges(NamedTuple):
    """Edges of particles: their kind, radii over those found, (n,), and what is uncertain."""

    kind: str
    radii: FloatArray
    doubt: float  # by how much they may be too small still, as a logarithm
    note: str


def to_soft_edges(
    grey: NDArray[np.float32], labels: LabelMap, polarity: str
) -> tuple[dict[str, float], str]:
    """Put outlines, in place, where soft edges end, if mean profiles tell that.

    Return by how much they may still be too small ("soft", "shell"), and too large ("fringe"), as
    logarithms, nothing if no profile is seen, and a note.
    """
    areas = areas_of(labels, int(labels.max(initial=0)))
    numbers = 1 + np.argsort(-areas[1:], kind="stable")
    numbers = numbers[:: max(1, -(-len(numbers) // _MAX_PARTICLES))]
    profiles = _profiles(grey, labels, 1 if polarity == "bright" else -1, numbers)
    if not len(profiles.groups):
        return {}, ""
    logs = np.log(np.sqrt(areas[1:] / np.pi).clip(1)) / np.log(_RATIO)
    ratios, soft, notes = np.ones(len(logs)), 0.0, list[str]()
    parts = [(own, least, _fits(own)) for own, least in profiles.by_size()]
    kinds = [_soft_edges(own, fits).kind for own, _, fits in parts]
    for number, (own, least, fits) in enumerate(parts):
        others = {*kinds[:number], *kinds[number + 1 :]} - {"flat"}
        _, radii, wide, note = _soft_edges(own, fits, others)
        of_size = logs >= least
        ratios[of_size] = np.interp(logs[of_size], own.groups, radii)
        soft = max(soft, wide)
        notes.append(note)
    if (ratios != 1).any():
        _resize(labels, areas, ratios)
    noise = pixel_noise(grey[:_AT_MOST, :_AT_MOST])
    fringe = profiles.fringe(noise) if polarity == "dark" else 0.0
    shell = profiles.shell(noise)
    notes += [_FRINGE_NOTE * (fringe > 0), _SHELL_NOTE.format(shell) * (shell > 1)]
    facts = {"soft": soft, "fringe": _OF_FRINGE * fringe, "shell": float(np.log(shell))}
    return facts, joined_notes(notes)


def _soft_edges(
    profiles: _Profiles, fits: Mapping[str, _Fit], others: Collection[str] = ()
) -> _Edges:
    """Return the edges of particles of one size: of the kind that `others` show, if they may be."""
    same = np.ones(len(profiles.groups))
    weights = profiles.weights.sum(axis=1)
    typical = {kind: float(np.average(fit.radii, weights=weights)) for kind, fit in fits.items()}
    flat, least = fits["flat"], min(fit.rest for fit in fits.values())
    possible = {k for k, f in fits.items() if f.rest <= min(max(_BETTER * least, _ALIKE), _GOOD)}
    chosen, ratio = min(fits, key=lambda kind: fits[kind].rest), 1.0
    if chosen in others and least <= _MAX_REST:
        possible = {chosen}
    elif chosen == "slight" or not possible or "flat" in possible:
        chosen = "flat"
    if "flat" in possible and flat.blur <= _SHARP and flat.rest <= _BETTER * least:
        return _Edges("flat", same, 0.0, "")
    if not possible and fits["round"].rest <= min(flat.rest / _MAYBE, _MAX_REST):
        possible = {"round"}
    radii = same
    if chosen in possible:
        radii = fits[chosen].radii.clip(*((0, 1) if chosen == "flat" else (1, None)))
        ratio = typical[chosen]
    wide = max((typical[kind] / ratio for kind in possible), default=1.0)
    maybe = _MAYBE_NOTE.format(wide) if wide > _NOTED else ""
    note = joined_notes([_NOTE.format(ratio) if chosen != "flat" else "", maybe])
    return _Edges(chosen, radii, float(np.log(max(wide, 1))), note)


def is_sphere(grey: NDArray[np.float32], labels: LabelMap, sign: int, number: int) -> bool:
    """Return whether the profile of a particle is that of a sphere in transmission."""
    fits = _fits(_profiles(grey, labels, sign, np.array([number])))
    best = min(fits, key=lambda kind: fits[kind].rest, default="flat")
    return best == "round" and fits[best].rest <= _GOOD


def _profiles(
    grey: NDArray[np.float32], labels: LabelMap, sign: int, numbers: NDArray[np.int64]
) -> _Profiles:
    """Return the profiles of round particles, by their ellipses, those of alike radii in one."""
    windows, found, sizes = ndimage.find_objects(labels), list[FloatArray](), list[int]()
    for number in numbers.tolist():
        window = windows[number - 1]
        places = np.argwhere(labels[window] == number)
        spread = np.cov(places.T, bias=True) + np.eye(2) / 12
        ends = zip(window, labels.shape, strict=True)
        is_cut = any(side.start == 0 or side.stop == extent for side, extent in ends)
        if is_cut or len(places) < _ROUND * 4 * np.pi * np.sqrt(np.linalg.det(spread)):
            continue
        reach = (_AT[-1] - 1) * np.sqrt(len(places) / np.pi)
        around = grown_window(window, int(np.ceil(reach)) + 1)
        starts = [w.start - a.start for w, a in zip(window, around, strict=True)]
        own, values = labels[around], sign * grey[around]
        apart = np.indices(own.shape).transpose(1, 2, 0) - (places.mean(axis=0) + starts)
        distances = np.sqrt(((apart @ np.linalg.inv(spread)) * apart).sum(axis=2)) / 2
        free = distances < _AT[-1] + 0.025
        if (others := (own > 0) & (own != number)).any():
            free &= ~grown(others, _CLEARANCE)
        at = (distances[free] / 0.05).astype(int)
        found.append(np.stack([np.bincount(at, w, len(_AT)) for w in (None, values[free])]))
        sizes.append(len(places))
    counts, totals = np.reshape(found, (-1, 2, len(_AT))).swapaxes(0, 1)
    areas, beyond, middle = np.array(sizes), _AT > _BEYOND, _AT < _MIDDLE
    n_middle, n_beyond = (counts[:, each].sum(axis=1) for each in (middle, beyond))
    outer = totals[:, beyond].sum(axis=1) / n_beyond.clip(1)
    steps = totals[:, middle].sum(axis=1) / n_middle.clip(1) - outer
    is_seen = n_beyond >= _MIN_BEYOND * areas * (_AT[-1] ** 2 - _BEYOND**2)
    is_seen &= (n_middle > 0) & (steps > 0)  # others may lie over its middle
    counts, totals, steps = counts[is_seen], totals[is_seen], steps[is_seen, None]
    logs = np.log(np.sqrt(areas[is_seen] / np.pi)) / np.log(_RATIO)
    groups, of_group = np.unique(np.rint(logs).astype(np.int64), return_inverse=True)
    weights, sums = np.zeros((2, len(groups), len(_AT)))
    np.add.at(weights, of_group, counts * steps**2)
    np.add.at(sums, of_group, (totals - outer[is_seen, None] * counts) * steps)
    return _Profiles(groups, sums / weights.clip(1e-12), weights)


@lru_cache(maxsize=1)
def _models() -> dict[str, FloatArray]:
    """Return round shapes by their kinds, blurred in two dimensions, (n, n_blurs, n_points)."""
    at, squares = (_AT[:, None] + _POINTS)[..., None], _BLURS[:, None, None, None] ** 2
    kernels = np.exp(-((at - _FINE) ** 2) / (2 * squares)) * i0e(at * _FINE / squares) * _FINE
    kernels = (kernels / kernels.sum(axis=-1, keepdims=True)).mean(axis=2)
    gauge = _FINE / _RADII[:, None]
    within, chords = 1 - gauge, np.sqrt(np.clip(1 - gauge**2, 0, 1))
    disc = np.clip(_RADII[:, None] * within * 100 + 0.5, 0, 1)
    shapes = {
        "flat": [disc],
        "round": [1 - np.exp(-most * chords) for most in _ABSORBED],
        "lens": [chords**2],
        "bevel": [np.clip(within / 0.3, 0, 1)],
        "slight": [np.clip(within / 0.15, 0, 1)],
        "core": [0.4 * chords + 0.6 * np.sqrt((c**2 - gauge**2).clip(0)) / c for c in _CORES],
    }
    shapes["round"].append((1 - _STEP) * chords + _STEP * disc)
    return {
        kind: np.einsum("bpf,nf->nbp", kernels, np.concatenate(own)) for kind, own in shapes.items()
    }


def _fits(profiles: _Profiles) -> dict[str, _Fit]:
    """Fit each kind of models, with one blur in pixels; nothing if there is no profile."""
    groups, values, weights = profiles
    if not len(groups):
        return {}
    total, every = weights.sum(axis=1), np.arange(len(groups))
    weights = weights / total[:, None]
    centred = values - (weights * values).sum(axis=1)[:, None]
    near = np.exp(-(np.subtract.outer(groups, groups) ** 2) / 2 / _SMOOTHING**2) * total
    shifts = groups.max() - groups
    blurs = np.arange(-int(shifts.max()), len(_BLURS))[:, None] + shifts  # (n_blurs in pixels, n)
    at, found = blurs.clip(0, len(_BLURS) - 1), dict[str, _Fit]()
    for kind, models in _models().items():
        mean = np.einsum("rbp,gp->grb", models, weights)
        square = np.einsum("rbp,gp->grb", models**2, weights) - mean**2
        both = np.einsum("rbp,gp->grb", models, weights * centred)
        rest = (weights * centred**2).sum(axis=1)[:, None, None] - both**2 / square.clip(1e-9)
        rest = np.where(both > 0, rest, 1.0).clip(0)
        least, radii = rest.min(axis=1), np.log(_RADII)[rest.argmin(axis=1) % len(_RADII)]
        sums = least[every, at] @ total / total.sum()
        own = at[sums.argmin()]
        blur = _BLURS[own[-1]] * _RATIO ** groups[-1]
        radii = np.exp(near @ radii[every, own] / near.sum(axis=1))
        found[kind] = _Fit(float(sums.min() ** 0.5), radii, float(blur))
    return found


def _resize(labels: LabelMap, areas: NDArray[np.int64], ratios: FloatArray) -> None:
    """Make particles so many times as wide, in place, where no other one is beside them."""
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        area, ratio = int(areas[number]), float(ratios[number - 1])
        more = int(np.ceil(abs(ratio - 1) * np.sqrt(area / np.pi))) + 1
        around = grown_window(window, more)
        place = np.pad(labels[around], more, constant_values=-1)  # also beyond the image
        is_own = place == number
        ring = grown(is_own, more) & ~is_own
        free = ring & (place == 0)
        n = round((ratio**2 - 1) * area * np.count_nonzero(free) / np.count_nonzero(ring))
        # What is nearest to the own pixels is added, what is nearest to the background removed.
        added, beside, new = (free, is_own, number) if n > 0 else (is_own, place == 0, 0)
        near = ndimage.gaussian_filter(beside.astype(np.float32), more) * added
        place.ravel()[np.argsort(-near, axis=None, kind="stable")[: abs(n)]] = new
        labels[around] = place[more:-more, more:-more]
