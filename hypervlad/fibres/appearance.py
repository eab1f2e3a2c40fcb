"""How the fibres of an image look: their polarity, the shape of their profiles, and the blur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hypervlad.fibres.gradients import FloatMap
from hypervlad.fibres.places import (
    N_ROWS,
    Chains,
    Field,
    FittedPlaces,
    Places,
    by_bank,
    fit_places,
    next_places,
    profiles,
    without_rims,
)
from hypervlad.fibres.profiles import (
    BLUR_STEP,
    FLAT,
    LINE,
    N_SAMPLES,
    RIMS,
    SHAPES,
    Shape,
    Values,
    bank,
    match,
)
from hypervlad.fibres.ridges import find_ridges

_N_PLACES = 3000  # tried at first, per image of up to a megapixel
_N_MOST_PLACES = 8000
_LEAST = 20  # places from which shape and blur are chosen
_N_JUDGED = 240
_CLEAN = 0.6  # of these places, those that some shape fits best
_STEPS = tuple(range(-6, 7))  # of the blur, from that of the spectrum
_SPECTRAL = 0.06  # added to the misfit, times the squared logarithm of the ratio of these blurs
_LIKE = 0.004  # difference of misfits of shapes that fit about as well
_N_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Followed:
    """Places of an image, fitted with one shape and one blur."""

    places: FittedPlaces
    chains: Chains
    shape: Shape
    blur: float

    @property
    def explained(self) -> float:
        """How much of the squared brightness the followed fibres explain."""
        here = self.chains.followed
        return float((self.places.explained[here] * self.chains.length[here]).sum())


@dataclass(frozen=True, eq=False)
class Appearance:
    """What fits the fibres of an image best."""

    sign: float  # 1 for bright fibres, -1 for dark ones
    followed: Followed
    shift: float  # of the logarithm of diameters, to the mean of all that fits about as well
    error: float  # standard deviation of the same
    line: float  # misfit of blurred lines without a body less that of the best shape


def follow(
    field: Field,
    sign: float,
    start: Places,
    shape: Shape,
    blur: float,
    *,
    resolved: bool,
) -> Followed:
    """Fit places, and more places where fibres continue."""
    places = fit_places(field, sign, start, shape, blur, resolved=resolved)
    places = without_rims(places)
    more = next_places(places, Chains.of(places))
    if len(more):
        fitted = fit_places(field, sign, more, shape, blur, resolved=resolved)
        places = without_rims(places.joined(fitted.chosen(fitted.accepted)))
    return Followed(places, Chains.of(places), shape, blur)


def find_appearance(contrast: FloatMap, field: Field, signs: Sequence[float]) -> Appearance | None:
    """Return what fits the fibres best, None if no fibres can be followed.

    Fibres are followed with two shapes, to begin with: flat and bright-rimmed. The polarity is that
    in which they explain more of the image. Then shape and blur are chosen from the profiles of
    the fibres that were followed, which are fitted anew, until the choice does not change.
    """
    n = int(np.clip(_N_PLACES * contrast.size / 2**20, _N_PLACES, _N_MOST_PLACES))
    first: dict[float, list[Followed]] = {}
    for sign in signs:
        ridges = find_ridges(contrast if sign > 0 else -contrast, field.noise, field.largest)
        ridges = ridges.chosen(np.flatnonzero(field.allows(ridges.positions)))
        if not len(ridges.lengths):
            continue
        start = Places.on_ridges(ridges, n)
        first[sign] = [
            follow(field, sign, start, shape, field.blur, resolved=False) for shape in (FLAT, RIMS)
        ]
    if not first:
        return None
    sign = max(first, key=lambda each: max(one.explained for one in first[each]))
    found = [_settled(field, sign, each) for each in first[sign]]
    return max(
        (each for each in found if each), key=lambda each: each.followed.explained, default=None
    )


def _settled(field: Field, sign: float, followed: Followed) -> Appearance | None:
    choice: _Choice | None = None
    for _ in range(_N_ROUNDS):
        if followed.chains.followed.sum() < _LEAST:
            return None
        before, choice = choice, _choice(field, sign, followed)
        if before and (choice.shape, choice.blur) == (before.shape, before.blur):
            break
        diameter = followed.places.diameter * np.exp(choice.ratio)
        diameter[choice.judged] = choice.diameter
        start = replace(followed.places, diameter=diameter)
        followed = follow(field, sign, start, choice.shape, choice.blur, resolved=True)
    if choice is None or followed.chains.followed.sum() < _LEAST:
        return None
    return Appearance(sign, followed, choice.shift, choice.error, choice.line)


@dataclass(frozen=True, eq=False)
class _Choice:
    shape: Shape
    blur: float
    judged: NDArray[np.intp]  # places that were looked at
    diameter: Values  # of these
    ratio: float  # log diameter, over that of the fit before
    shift: float
    error: float
    line: float


def _choice(field: Field, sign: float, followed: Followed) -> _Choice:
    """Choose the shape and the blur with which profiles are fitted best.

    The misfit is the mean logarithm of squared residuals, of the places that some shape fits best:
    at others, there are neighbours or crossings.
    """
    judged = np.flatnonzero(followed.chains.followed)
    if len(judged) > _N_JUDGED:
        judged = np.sort(np.random.default_rng(0).permutation(judged)[:_N_JUDGED])
    shapes = [each for each in SHAPES if sign < 0 or each.name != "transmission"]
    squares = np.zeros((len(shapes) + 1, len(_STEPS), len(judged)))
    logs = np.zeros_like(squares)
    some = followed.places.chosen(judged)
    for number, index, own in by_bank(some, field.blur, coarse=2):
        across = bank(FLAT, number, True, _STEPS).across
        seen = profiles(field, sign, own, across[-1] * own.diameter).mean(axis=1)
        for i, shape in enumerate([*shapes, LINE]):
            found = match(bank(shape, number, True, _STEPS), seen)
            squares[i][:, index] = found.energy.T / N_SAMPLES
            logs[i][:, index] = np.log(own.diameter) + found.log.T
    floor = field.noise**2 / N_ROWS / 4 + 1e-6
    misfits = np.log(squares + floor)
    least = misfits[:-1].min(axis=(0, 1))
    clean = least <= np.quantile(least, _CLEAN)
    misfit = misfits[:, :, clean].mean(axis=2)
    misfit += _SPECTRAL * (np.log(BLUR_STEP) * np.asarray(_STEPS)) ** 2
    line, misfit = misfit[-1].min(), misfit[:-1]
    best = np.unravel_index(misfit.argmin(), misfit.shape)
    share = np.exp(-(misfit - misfit[best]) / _LIKE)
    share /= share.sum()
    ratios = np.median(logs[:-1][:, :, clean] - logs[best][clean], axis=2)
    shift = float((share * ratios).sum())
    return _Choice(
        shape=shapes[best[0]],
        blur=field.blur * BLUR_STEP ** _STEPS[best[1]],
        judged=judged,
        diameter=np.exp(logs[best]),
        ratio=float(np.median(logs[best] - np.log(some.diameter))),
        shift=shift,
        error=float(np.sqrt((share * (ratios - shift) ** 2).sum())),
        line=float(line - misfit[best]),
    )
