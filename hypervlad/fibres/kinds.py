"""Kinds of fibres in a distribution of diameters."""

from __future__ import annotations

import numpy as np

from hypervlad.fibres.contrast import Values
from hypervlad.statistics.groups import weighted_quantiles

_MAX_KINDS = 3
_MIN_SPREAD = 0.03  # of the logarithm of diameters of one kind
_N_STEPS = 60
# Fibres, for one kind, two and three. A few long ones among short ones make kinds by chance, so for
# several kinds as many must be worth as much.
_LEAST = (6, 20, 30)
_APART = 2.0  # of neighbouring kinds, in root mean squares of their spreads
# Of two kinds: fibres of each, share of the variance of logarithms, and ratio of diameters.
_LEAST_OF_TWO, _EXPLAINED, _RATIO = 2, 0.85, 1.6
# Between these shares of the thinner kind, either may have the median: wide fibres among thin ones,
# or thin ones between wide ones, are missed more.
_EVEN = 0.35, 0.75


def fit_kinds(logs: Values, weights: Values) -> Values:
    """Return median, spread and share of up to three kinds of fibres, thin ones first.

    Each fibre has one diameter, as logarithm, and a weight. Fibres of unequal weights are worth as
    many as would have equal ones (Kish 1965, "Survey sampling", section 11.7). The number of kinds
    is that of the lowest BIC among those whose kinds are apart: neighbours differ by more than two
    of their spreads (Ashman, Bird and Zepf 1994, "Detecting bimodality in astronomical datasets",
    Astronomical Journal 108). One kind needs six fibres, two need 20 that are worth 20, three 30;
    of fewer than 20 that are clearly of two widths, there is none.
    """
    best, found = np.inf, np.zeros((0, 3))
    share = weights / weights.sum()
    worth = 1 / float(share @ share) if len(logs) else 0.0
    for n_kinds in range(1, _MAX_KINDS + 1):
        few = _LEAST[n_kinds - 1]
        if (len(logs) if n_kinds == 1 else round(worth, 6)) < few:
            break
        middle = weighted_quantiles(logs, weights, list((np.arange(n_kinds) + 0.5) / n_kinds))
        spread = np.full(n_kinds, max(float(logs.std()) / n_kinds, _MIN_SPREAD))
        part = np.full(n_kinds, 1 / n_kinds)
        for _ in range(_N_STEPS):
            z = (logs[:, None] - middle) / spread
            joint = part * np.exp(-(z**2) / 2) / (spread * np.sqrt(2 * np.pi)) + 1e-300
            belongs = joint / joint.sum(axis=1, keepdims=True) * share[:, None]
            part = np.maximum(belongs.sum(axis=0), 1e-9)
            middle = (belongs * logs[:, None]).sum(axis=0) / part
            spread = np.sqrt((belongs * (logs[:, None] - middle) ** 2).sum(axis=0) / part)
            spread = np.maximum(spread, _MIN_SPREAD)
        likelihood = worth * float(share @ np.log(joint.sum(axis=1)))
        criterion = (3 * n_kinds - 1) * np.log(worth) - 2 * likelihood
        ordered = np.argsort(middle)
        middle, spread, part = middle[ordered], spread[ordered], part[ordered]
        apart = np.diff(middle) / np.hypot(spread[1:], spread[:-1]) * np.sqrt(2)
        if criterion < best and (apart > _APART).all():
            best, found = criterion, np.stack([np.exp(middle), spread, part], axis=1)
    if worth < _LEAST[1] and not np.isnan(_two_sides(logs, weights)[2]):
        return np.zeros((0, 3))  # the one that was fitted has a width that no fibre has
    return found


def two_around_median(logs: Values, weights: Values) -> tuple[float, float] | None:
    """Return the medians of two kinds of fibres, if the whole's may be in either.

    Each fibre has one diameter, as logarithm, and a weight.

    >>> np.round(two_around_median(np.log([8, 8.1, 8, 20, 20.3, 20]), np.ones(6)), 6).tolist()
    [8.0, 20.0]
    """
    thinner, wider, share = _two_sides(logs, weights)
    return (thinner, wider) if _EVEN[0] <= share <= _EVEN[1] else None


def _two_sides(logs: Values, weights: Values) -> tuple[float, float, float]:
    """Return the medians of fibres that are clearly of two widths, and the share of the thinner.

    The sides are those of the split that explains most of the variance (Otsu 1979, "A threshold
    selection method from gray-level histograms", IEEE Transactions on Systems, Man, and Cybernetics
    9). The share is NaN unless it explains 85 %, and the medians are 1.6 times apart.
    """
    if len(logs) < 2 * _LEAST_OF_TWO:
        return np.nan, np.nan, np.nan
    order = np.argsort(logs)
    logs, weights = logs[order], weights[order] / weights.sum()
    mean = float(weights @ logs)
    shares, sums = np.cumsum(weights), np.cumsum(weights * (logs - mean))
    shares, sums = (each[_LEAST_OF_TWO - 1 : -_LEAST_OF_TWO] for each in (shares, sums))
    between = sums**2 / (shares * (1 - shares))
    best = int(between.argmax())
    n_thin = best + _LEAST_OF_TWO
    thinner, wider = (
        float(weighted_quantiles(logs[side], weights[side], [0.5])[0])
        for side in (slice(n_thin), slice(n_thin, None))
    )
    explained = between[best] > _EXPLAINED * float(weights @ (logs - mean) ** 2)
    are_two = explained and wider - thinner > np.log(_RATIO)
    return float(np.exp(thinner)), float(np.exp(wider)), float(shares[best] if are_two else np.nan)
