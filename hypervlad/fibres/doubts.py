"""What places show that makes diameters doubtful: shells around fibres, ribbons, bundles.

Limits are beyond what any of 199 drawn mats shows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from hypervlad.fibres.contrast import Values
from hypervlad.fibres.places import (
    PROBABILITY,
    Appearance,
    Field,
    Places,
    followed,
    profiles_across,
)
from hypervlad.statistics.groups import weighted_quantiles

_REACH, _SHAPE = 2.5, (4, 101)  # of profiles: in diameters, and points along and across
_DIM = 0.35  # quantile of profiles along a fibre, which hardly depends on what lies beside it
_RISE = 0.08  # over the fall so far, where something else begins
_VALLEY = 0.75  # at most, of slopes between two steps over that of the outer one
_SHELL = (0.1, 0.85)  # brightness of a shell over that of the middle
_MIN_WIDER = 1.3  # the outer step, than the diameter
_MIN_SHELLS = 0.3  # of the visible length
_MIN_VARIATION = 0.07  # of the logarithm of the diameter along a fibre; of smooth real ones 0.06
_PARALLEL = 0.9  # order parameter; of mats at random, below 0.7
_MUCH_WIDER = 1.25  # D90 over the median
_OF_SHELLS = (
    "along {:.0%} of the fibres, a second, fainter edge shows outside the one that is measured, "
    "{:.2g} times as wide, as of a shell around a core: diameters are those of the cores"
)
_OF_RIBBONS = (
    "diameters differ along the fibres, typically by {:.0%}, as of ribbons or beads: numbers are "
    "of the visible length, not of fibres, and the thinnest parts may be missed"
)
_OF_BUNDLES = (
    "the fibres are nearly parallel, and a tenth of the length is over {:.2g} times as wide as the "
    "median: several fibres that touch may count as one; in drawn bundles, D90 came out a third, "
    "and medians 8 % too large"
)


def shells(field: Field, found: Appearance) -> str:
    """Return a note if a second step of brightness shows outside the edges of fibres, else ""."""
    places = found.places.chosen(found.places.probability > PROBABILITY)
    fibres, lengths = followed(places)
    wider, middle = np.zeros(len(places)), _SHAPE[1] // 2
    profiles = profiles_across(field, found.sign, places, _REACH, _SHAPE).mean(axis=1)
    for fibre in np.flatnonzero(np.bincount(fibres) >= 5):
        own = fibres == fibre
        sides = np.concatenate([profiles[own, middle:], profiles[own, middle::-1]])
        sigma = max(0.04, 0.5 / np.median(places.diameter[own])) * middle / _REACH
        profile = gaussian_filter1d(np.quantile(sides, _DIM, axis=0), sigma)
        step, _ = outer_step(profile, middle / _REACH)
        wider[own] = 2 * _REACH * step / middle
    is_shell = wider >= _MIN_WIDER
    share = float(lengths @ is_shell) / max(float(lengths.sum()), 1e-9)
    return _OF_SHELLS.format(share, np.median(wider[is_shell])) if share > _MIN_SHELLS else ""


def outer_step(profile: NDArray[np.float64], per_diameter: float) -> tuple[int, float]:
    """Return where the brightness falls once more after a core, from its middle; 0 if nowhere.

    With it comes the brightness between both steps. Diameters of the core have `per_diameter`
    points of the profile.
    """
    inside, edge, beyond = (round(share * per_diameter) for share in (0.25, 0.4, 0.75))
    top, lowest = profile[:inside].max(), np.minimum.accumulate(profile)
    rises = (profile - lowest > _RISE * (top - lowest)) & (np.arange(len(profile)) > edge)
    profile = profile[: int(rises.argmax()) if rises.any() else None]
    profile = profile[: int(profile.argmin()) + 1]
    bottom, height = profile[-1], top - profile[-1]
    if len(profile) <= beyond or height <= 0:
        return 0, bottom
    slope = -np.gradient(profile)
    first = inside + int(slope[inside:beyond].argmax())
    after = slope[first:]
    second = int((after - np.minimum.accumulate(after)).argmax())
    valley = int(after[: second + 1].argmin())
    shell = profile[first + valley] - bottom
    is_step = after[valley] < _VALLEY * after[second] and after[second] > 0.1 * after[0]
    if not (is_step and _SHELL[0] * height < shell < _SHELL[1] * height):
        return 0, bottom
    # Edges of flat shells are at half the brightness, of round ones further out.
    outer = first + valley + int((profile[first + valley :] < bottom + shell / 3).argmax())
    return outer, float(bottom + shell)


def ribbons(places: Places, fibres: NDArray[np.int64], lengths: Values) -> str:
    """Return a note if diameters differ along fibres by more than their errors, else "".

    Typically: single wrong places, such as at crossings, make no difference.
    """
    logs, apart = np.log(places.diameter), np.full(len(places), np.nan)
    for fibre in np.flatnonzero(np.bincount(fibres) >= 6):
        own = fibres == fibre
        apart[own] = np.abs(logs[own] - weighted_quantiles(logs[own], lengths[own], [0.5]))
    known = np.isfinite(apart)
    if known.sum() < 20:
        return ""
    both = apart[known], places.error[known]
    typical, error = (float(weighted_quantiles(x, lengths[known], [0.5])[0]) for x in both)
    return _OF_RIBBONS.format(typical) if typical > max(_MIN_VARIATION, error) else ""


def bundles(places: Places, lengths: Values) -> str:
    """Return a note if wide fibres may be several that run side by side, else ""."""
    middle, wide = weighted_quantiles(places.diameter, lengths, [0.5, 0.9])
    order = abs(lengths @ (places.normals @ [1j, 1]) ** 2) / lengths.sum()
    ratio = wide / middle
    return _OF_BUNDLES.format(ratio) if order > _PARALLEL and ratio > _MUCH_WIDER else ""
