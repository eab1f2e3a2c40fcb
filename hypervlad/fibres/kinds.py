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
_GAP, _CLEAR = 0.25, 2.0  # between two kinds of few fibres: in logarithms, and over their ranges
# Between these shares of thinner kinds, any may have the median: thin fibres are missed more.
_EVEN = 0.3, 0.65


def fit_kinds(logs: Values, weights: Values) -> Values:
    """Return median, spread and share of up to three kinds of fibres, thin ones first.

    Each fibre has one diameter, as logarithm, and a weight. Fibres of unequal weights are worth as
    many as would have equal ones (Kish 1965, "Survey sampling", section 11.7). The number of kinds
    is that of the lowest BIC among those whose kinds are apart: neighbours differ by more than two
    of their spreads (Ashman, Bird and Zepf 1994, "Detecting bimodality in astronomical datasets",
    Astronomical Journal 108). One kind needs six fibres, two need 20 that are worth 20, three 30.
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
    return found


def kinds_around_median(kinds: Values) -> tuple[float, float] | None:
    """Return the medians of neighbouring kinds, of `fit_kinds`, if the whole's may be in either.

    >>> kinds_around_median(np.array([[8.0, 0.1, 0.45], [20.0, 0.1, 0.55]]))
    (8.0, 20.0)
    """
    for thinner, wider, share in zip(kinds, kinds[1:], np.cumsum(kinds[:, 2]), strict=False):
        if _EVEN[0] <= share <= _EVEN[1]:
            return float(thinner[0]), float(wider[0])
    return None


def gap_around_median(logs: Values, weights: Values) -> tuple[float, float] | None:
    """Return the medians on both sides of a clear gap between few fibres, where it has the median.

    The gap is at least twice as wide as the range of either side, which has two fibres or more.

    >>> sides = gap_around_median(np.log([8, 8.1, 8, 20, 20.3, 20]), np.ones(6))
    >>> np.round(sides, 6).tolist()
    [8.0, 20.0]
    """
    order = np.argsort(logs)
    logs, weights = logs[order], weights[order]
    shares = np.cumsum(weights) / weights.sum()
    for n in range(2, len(logs) - 1):
        thin, wide = logs[:n], logs[n:]
        least = max(_GAP, _CLEAR * max(np.ptp(thin), np.ptp(wide)))
        if _EVEN[0] <= shares[n - 1] <= _EVEN[1] and wide[0] - thin[-1] > least:
            sides = (thin, weights[:n]), (wide, weights[n:])
            thinner, wider = (weighted_quantiles(*side, [0.5])[0] for side in sides)
            return float(np.exp(thinner)), float(np.exp(wider))
    return None
