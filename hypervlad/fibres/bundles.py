"""Several fibres that are found as one, and fibres that are none: bundles, ribbons.

The mean profile across a bundle has a hump, or a pair of rims, for each of its fibres. A small
network, which has learnt from drawn profiles of fibres, tubes, cores in shells and bundles
(`benchmarks/fibres/bundles.py`), says of each long fibre whether it is a bundle, and how many times
as wide as one of its fibres.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import expit

from hypervlad.common.dense import DenseLayers
from hypervlad.fibres.contrast import FloatMap, Values
from hypervlad.fibres.places import ALONG, Appearance, Field, LongFibres, Places
from hypervlad.statistics.groups import weighted_quantiles

# What the network sees. It has learnt with these values, so others need another network.
_REACH, _SHAPE = 0.8, (9, 81)  # of profiles: in diameters, and points along and across
_FINER = 2.5  # than for the diameter of the bundle
ACROSS = np.linspace(-2 * _REACH, 2 * _REACH, _SHAPE[1])  # in radii as found
_BODY, _INNER = np.abs(ACROSS) < 1.2, np.abs(ACROSS) < 0.8
_LEAST_NOISE = 0.003

_SURE = 0.8  # probability of a bundle: with 0.5, twice as many intervals of such images miss
_MIN_SHOWN = 0.35  # of the length of long fibres; more in 2 of 270 plain drawn images
# By which the network's logarithm of a ratio of widths is multiplied, by 160 drawn images: fibres
# of bundles in images are less even than in its profiles, and lie in layers.
_LESS = 0.85
# Of the logarithm of the diameter of a fibre in a bundle, and of the median: of flat ones that
# touch, it came out up to 1.5 times too large. Where bundles show in less than the last share, they
# may be none, as in three of some 400 plain drawn images: either answer is possible.
_ERROR, _OF_BUNDLES, _CLEARLY_SHOWN = 0.15, 0.45, 0.6
_WORDS = (
    "bundles of fibres that touch side by side show in {:.0%} of the length of long fibres, "
    "typically {:.2g} fibres wide"
)

# Of ribbons, and of parallel fibres: beyond what any of 199 drawn mats shows.
_MIN_VARIATION = 0.07  # of the logarithm of the diameter along a fibre; of smooth real ones 0.06
_NEAR = 6.0  # median diameters, within which directions are compared
_LOCALLY_PARALLEL, _BY_CHANCE = 0.15, 2.0  # order parameter within that; more, over few fibres
# Narrower places within a wide one, in its diameters and radians.
_STRIP, _ASIDE, _WITHIN, _NARROWER, _TURN = 8.0, 0.08, 0.85, 0.85, 0.3
_MIN_LENGTH = 0.3  # of such places
_OF_RIBBONS = (
    "diameters differ along the fibres, typically by {:.0%}, as of ribbons, beads or twisted ropes "
    "of several fibres: numbers are of the visible length, and the thinnest parts may be missed"
)


def bundle_facts(mean: Values, noise: float, radius: float, blur: float) -> FloatMap:
    """Return what the network sees: a mean profile, of any gain and offset, its noise and blur."""
    body = mean[_BODY]
    deviation = body.std() + 1e-6
    seen = np.clip((mean - body.mean()) / deviation, -4, 4)
    facts = np.log([blur / radius, noise / deviation + _LEAST_NOISE]) + np.array([2, 3])
    return np.concatenate([seen, facts]).astype(np.float32)


def find_bundles(
    field: Field, found: Appearance, long: LongFibres
) -> tuple[Values, list[tuple[str, float]]]:
    """Return how many fibres wide each place is, and, if bundles show, a note and its doubt.

    That is by how much the logarithm of the median may be wrong.
    """
    n_wide = np.ones(len(long.places))
    of_fibres = long.profiles(field, found.sign, _REACH, _SHAPE, _FINER)
    pairs = zip(of_fibres, long.lengths, strict=True)
    probability, ratio = _judged(np.stack([_facts(*own, n, found.blur) for own, n in pairs]))
    is_bundle = probability > _SURE
    share = long.lengths @ is_bundle / long.lengths.sum()
    if share < _MIN_SHOWN:
        return n_wide, []
    ratio = np.where(is_bundle, np.maximum(ratio, 1), 1)
    (typical,) = weighted_quantiles(ratio, long.lengths * is_bundle, [0.5])
    either = np.log(typical) if share < _CLEARLY_SHOWN else 0.0
    doubt = _WORDS.format(share, typical), math.hypot(_OF_BUNDLES, either)
    return long.at_places(ratio), [doubt]


def within_bundles(places: Places, n_wide: Values) -> Places:
    """Return places on one of the fibres side by side, n wide each."""
    several = n_wide > 1
    diameter = places.diameter / n_wide
    aside = np.where(several & (np.rint(n_wide) % 2 == 0), diameter / 2, 0)
    return replace(
        places,
        positions=places.positions + aside[:, None] * places.normals,
        diameter=diameter,
        error=np.where(several, np.hypot(places.error, _ERROR), places.error),
    )


def _facts(places: Places, profiles: Values, length: float, blur: float) -> FloatMap:
    """Return what the network sees of a fibre. What differs between its profiles is noise."""
    inner, across = profiles[:, _INNER], ACROSS[_INNER]
    apart = inner - inner.mean(axis=1, keepdims=True)
    apart = apart - np.outer(apart @ across / (across @ across), across)
    diameter, (share, least, most) = float(np.median(places.diameter)), ALONG
    n_apart = length / (2 * np.clip(share * diameter, least, most))  # others overlap
    noise = np.sqrt(np.median(apart.var(axis=0)) / np.clip(n_apart, 1, len(places)))
    return bundle_facts(profiles.mean(axis=0), float(noise), diameter / 2, blur)


def _judged(seen: FloatMap) -> tuple[Values, Values]:
    """Return probabilities of bundles, and their widths over those of single fibres."""
    n, network = len(ACROSS), DenseLayers.stored(__package__, "bundle_network.npz")
    both = np.stack([seen, np.concatenate([seen[:, n - 1 :: -1], seen[:, n:]], axis=1)])
    last = network.layer("last", network.hidden(both, "first", "second")).mean(axis=0)
    odds, ratio = last.astype(np.float64).T
    return expit(odds), np.exp(_LESS * ratio)


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


def several_wide(places: Places, fibres: NDArray[np.int64], lengths: Values) -> NDArray[np.bool_]:
    """Return which places of parallel fibres are probably several fibres wide.

    Fibres that touch part later: narrower places lie within the strip of such a place, beside its
    middle. Without parallel fibres, none is.
    """
    position, normals, diameter = places.positions, places.normals, places.diameter
    tree, near = cKDTree(position), _NEAR * np.median(diameter)
    one, other = tree.query_pairs(near, output_type="ndarray").T
    both = lengths[one] * lengths[other] * (fibres[one] != fibres[other])
    cosine = (normals[one] * normals[other]).sum(axis=1)
    least = _LOCALLY_PARALLEL + _BY_CHANCE / len(np.unique(fibres))
    if both @ (2 * cosine**2 - 1) <= least * both.sum():
        return np.zeros(len(places), dtype=bool)
    beside = tree.query_ball_point(position, _STRIP * diameter)
    one = np.repeat(np.arange(len(places)), [len(each) for each in beside])
    other = np.concatenate(beside).astype(np.intp)
    apart, wide, thin = position[other] - position[one], diameter[one], diameter[other]
    across = np.abs((apart * normals[one]).sum(axis=1))
    turn = np.abs((normals[one] * normals[other]).sum(axis=1))
    within = (across > _ASIDE * wide) & (across + thin / 2 < _WITHIN * wide)
    shown = within & (thin < _NARROWER * wide) & (turn > np.cos(_TURN))
    length = np.bincount(one[shown], lengths[other[shown]], len(places))
    return np.asarray(length > _MIN_LENGTH * diameter)
