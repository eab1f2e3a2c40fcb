"""Whether particles are brighter or darker than the background, by what is found of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.morphology import grown
from hypervlad.images.resampling import areas_of
from hypervlad.objects.windows import LabelMap

Polarity: TypeAlias = Literal["bright", "dark"]

OPPOSITE: dict[Polarity, Polarity] = {"bright": "dark", "dark": "bright"}
_MANY_OTHERS = 4  # particles of the other polarity for each one
_WITHIN = 0.8  # of a particle's area, within one of the other polarity
# Particles within larger regions of the other polarity and beside these, at least so many each, and
# how many times as large the regions are, at least: holes of a film, or fringes.
_MIN_UPON, _LARGER, _BESIDE = 2, 1.5, 5  # the last in pixels, of what is around regions
_FAINTER = 0.75  # contrast, over that of regions, with which concave ones upon these are gaps
SURE = 0.55  # of the polarity, above which the other one is not mentioned


class PolarityFound(NamedTuple):
    """The particles of one polarity, numbered."""

    labels: LabelMap
    areas: NDArray[np.int64]
    weights: NDArray[np.float64]  # area times contrast of convex ones
    n_unclear: int  # regions that are as the texture of the background, or corners of the image
    concave: float  # a tenth of the particles are more so

    def within(self, other: PolarityFound) -> NDArray[np.float64]:
        """Return the share of each that lies within those of another polarity."""
        return areas_of(self.labels[other.labels > 0], len(self.areas))[1:] / self.areas


def chosen_polarity(
    every: Mapping[Polarity, PolarityFound], grey: NDArray[np.float32]
) -> tuple[Polarity, float]:
    """Return the polarity of most weight, and how sure that is."""
    weights = {name: _weight(own, every.get(OPPOSITE[name])) for name, own in every.items()}
    known = max(weights, key=lambda name: weights[name])
    other, total = every.get(OPPOSITE[known]), sum(weights.values())
    if other is not None and (is_upon := _lie_upon(other, every[known], grey)):
        known, other = OPPOSITE[known], every[known]
        weights[known] = float(every[known].weights.sum())
    if other is not None and (is_upon or len(other.weights) > len(every[known].weights)):
        total = weights[known] + other.weights.sum()  # also of what lies upon a larger region
    confidence = max(0.0, float(2 * weights[known] / total - 1)) if total else 0.0
    if other is not None and len(other.weights) > _MANY_OTHERS * len(every[known].weights):
        confidence *= SURE  # particles upon a larger region, perhaps
    return known, confidence


def _weight(own: PolarityFound, other: PolarityFound | None) -> float:
    """Return the weight of a polarity, without what lies within particles of the other one."""
    is_counted = True if other is None else own.within(other) < _WITHIN
    return float(own.weights[is_counted].sum())


def _lie_upon(own: PolarityFound, other: PolarityFound, grey: NDArray[np.float32]) -> bool:
    """Return whether particles lie upon regions of the other polarity.

    On films with holes, they lie in some of these, and beside them, too; what is fainter and less
    convex is gaps and shades. If one is in the middle of each region, that may be its rim, or a
    fringe beside the focus, which is fainter than it.
    """
    if not _MIN_UPON <= len(other.areas) <= len(own.areas):
        return False
    within = own.within(other)
    is_in = np.append(False, within >= _WITHIN)[own.labels] & (other.labels > 0)
    n_below = len(np.unique(other.labels[is_in]))
    if n_below > _WITHIN * len(other.areas):
        region = other.labels > 0
        beside = grown(region, _BESIDE) & ~region
        places = (each & (own.labels == 0) for each in (region, beside))
        levels = (grey[each].mean() if each.any() else 0 for each in (is_in, *places))
        core, rim, outer = levels
        return bool((core - outer) * (rim - outer) < 0 and abs(core - outer) > abs(rim - outer))
    step, step_of_regions = (np.median(each.weights / each.areas) for each in (own, other))
    if own.concave > other.concave and step < _FAINTER * step_of_regions:
        return False
    n_both = [np.count_nonzero(each) for each in (within >= _WITHIN, within < 1 - _WITHIN)]
    is_larger = np.median(other.areas) >= _LARGER * np.median(own.areas)
    return bool(is_larger and min(n_both) >= _MIN_UPON)
