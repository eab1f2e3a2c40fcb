"""What places show that makes diameters doubtful: ribbons, parallel fibres that touch.

Limits are beyond what any of 199 drawn mats shows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hypervlad.fibres.contrast import Values
from hypervlad.fibres.places import Places
from hypervlad.statistics.groups import weighted_quantiles

_MIN_VARIATION = 0.07  # of the logarithm of the diameter along a fibre; of smooth real ones 0.06
_NEAR = 6.0  # median diameters, within which directions are compared
_LOCALLY_PARALLEL, _BY_CHANCE = 0.15, 2.0  # order parameter within that; more, over few fibres
# Narrower places within a wide one, in its diameters and radians.
_STRIP, _ASIDE, _WITHIN, _NARROWER, _TURN = 8.0, 0.08, 0.85, 0.85, 0.3
_MIN_LENGTH = 0.3  # of such places
_OF_RIBBONS = (
    "diameters differ along the fibres, typically by {:.0%}, as of ribbons or beads: numbers are "
    "of the visible length, not of fibres, and the thinnest parts may be missed"
)


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
