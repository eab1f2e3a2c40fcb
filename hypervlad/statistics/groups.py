"""95 % intervals of what several groups give together, from what one group less would change.

A group is whatever was drawn independently of the others: a sample, a micrograph, a field, a
window. What lies in one group is not independent, however much of it there is. So one group has no
interval, and two have a wide one.
"""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from scipy.stats import t as student_t

Values = NDArray[np.float64]
LEVEL = 0.95
#: Standard errors that an interval reaches whose standard error is known.
NORMAL_FACTOR = float(norm.isf((1 - LEVEL) / 2))


def student_factor(n: int) -> float:
    """Return how many standard errors from n groups an interval reaches; NaN for one group."""
    return float(student_t.ppf((1 + LEVEL) / 2, n - 1)) if n > 1 else math.nan


def left_out_interval(
    whole: ArrayLike,
    without: ArrayLike,
    *,
    also: ArrayLike | None = None,
    least: ArrayLike = 0.0,
    unbiased: bool = False,
) -> tuple[Values, Values]:
    """Return the interval of a statistic; NaN with one group.

    It is Student's, with the standard error of the jackknife that leaves out one group at a time
    [1]_. The statistic should be on a scale on which it is about normal, such as a logarithm.

    Parameters
    ----------
    whole : array-like of shape (...)
        The statistic, or several, of all groups.
    without : array-like of shape (n_groups, ...)
        The same of all groups but one.
    also : array-like of shape (n_others, ...), optional
        The statistic without each of other groups that it depends on as well, such as those of a
        calibration. Student's factor is then that of the effective number of groups [3]_.
    least : array-like of shape (...), default=0
        The variance that the statistic would have if groups did not differ, from what is in them.
        No interval is narrower than with this variance, as few groups can be alike by chance.
    unbiased : bool, default=False
        Whether the interval is about the statistic without its bias [2]_. It contains the statistic
        in any case.

    References
    ----------
    .. [1] B. Efron and C. Stein, "The jackknife estimate of variance", Annals of Statistics 9,
       1981: it is too large rather than too small.
    .. [2] M. H. Quenouille, "Notes on bias in estimation",
       Biometrika 43, 1956.
    .. [3] F. E. Satterthwaite, "An approximate distribution of estimates of variance components",
       Biometrics Bulletin 2, 1946.

    Examples
    --------
    >>> means = np.array([3.0, 2.5, 2.0])  # of 2 and 4, 1 and 4, 1 and 3
    >>> low, high = left_out_interval(2.5, means)
    >>> round(float(low), 2), round(float(high), 2)
    (0.02, 4.98)
    """
    whole, without = np.asarray(whole, np.float64), np.asarray(without, np.float64)
    n = len(without)
    squares, factor = left_out_variance(whole, without), np.asarray(student_factor(n))
    others = np.zeros(0) if also is None else np.asarray(also, np.float64)
    rest = np.zeros(())
    if len(others) > 1 and n > 1:
        rest = left_out_variance(whole, others)
        # What differs from one of the others to the next differs between these groups too, though
        # few of them may be alike by chance.
        shared = rest * len(others) / n
        own_freedom = np.where(squares >= shared, n, len(others)) - 1
        squares = np.maximum(squares, shared)
        with np.errstate(invalid="ignore"):  # nothing varies
            parts = squares**2 / own_freedom + rest**2 / (len(others) - 1)
            freedom = (squares + rest) ** 2 / parts
        factor = student_t.ppf((1 + LEVEL) / 2, np.where(freedom > 0, freedom, n - 1))
        squares = squares + rest
    reach = factor * np.sqrt(squares)
    reach = np.maximum(reach, NORMAL_FACTOR * np.sqrt(np.asarray(least, np.float64) + rest))
    middle = n * whole - (n - 1) * without.mean(axis=0) if unbiased else whole
    return np.minimum(middle - reach, whole), np.maximum(middle + reach, whole)


def left_out_variance(whole: ArrayLike, without: ArrayLike) -> Values:
    """Return the variance of a statistic, from what it is without each of n groups.

    It is NaN with one group, and 0 without any, as nothing varies then.
    """
    away = np.asarray(without, np.float64) - np.asarray(whole, np.float64)
    n = len(away)
    factor = math.nan if n == 1 else max(n - 1, 0) / max(n, 1)
    return np.asarray(np.square(away).sum(axis=0) * factor)


def with_error(
    low: ArrayLike, best: ArrayLike, high: ArrayLike, error: float
) -> tuple[Values, Values]:
    """Widen the interval of a positive number by an independent error, a share within 95 %.

    >>> low, high = with_error(90.0, 100.0, 110.0, 0.1)
    >>> round(float(low), 1), round(float(high), 1)
    (86.8, 114.4)
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 has no relative error
        ends = np.log(np.array([low, high], np.float64) / np.asarray(best, np.float64))
        below, above = np.sqrt(ends**2 + math.log1p(error) ** 2)
        wide = np.exp([-below, above]) * best
    known = np.array([low, high], np.float64)
    found = np.where(np.isfinite(wide) & (error > 0), wide, known)
    return found[0], found[1]


def sums_without(parts: NDArray[Any]) -> NDArray[Any]:
    """Return the sum over groups, (n_groups, ...), without each of them."""
    return np.asarray(parts.sum(axis=0) - parts)


def share_intervals(
    is_part: NDArray[np.bool_],
    weights: Values,
    groups: NDArray[np.intp],
    shares: ArrayLike,
    others: Values,
) -> tuple[Values, Values, Values]:
    """Return the ends of the intervals of shares of a weight; below 0 or above 1 they are open.

    Their standard errors follow, (2, n_shares): from the groups, NaN with one, and from the others.
    Those of the groups are not smaller than if each of the n were drawn on its own.

    Parameters
    ----------
    is_part : ndarray of bool, shape (n_shares, n)
        What makes up each share.
    weights : ndarray of shape (n,)
    groups : ndarray of int, shape (n,)
        From 0 without a gap.
    shares : array-like of shape (n_shares,)
    others : ndarray of shape (n_others, n)
        The weights without each of other groups, as `also` of :func:`left_out_interval`.
    """
    shares = np.asarray(shares, np.float64)
    totals = np.bincount(groups, weights)
    parts = np.array([np.bincount(groups, weights * each) for each in is_part]).T
    with np.errstate(invalid="ignore", divide="ignore"):  # one group: 0 / 0
        without = sums_without(parts) / sums_without(totals)[:, None]
    # Of equal sizes, more than the share lie up to the size: what counts is how much fields differ.
    own = parts.sum(axis=0) / totals.sum()
    also = others @ is_part.T / others.sum(axis=1)[:, None]
    # Also where no value, or each, is part: another draw would have had others.
    sure = shares * (1 - shares) * (weights @ weights)
    drawn = np.square(weights * (is_part - own[:, None])).sum(axis=1)
    least = np.maximum(sure, drawn) / totals.sum() ** 2
    low, high = left_out_interval(own, without, also=also, least=least)
    of_groups = np.maximum(left_out_variance(own, without), least)
    errors = np.sqrt([of_groups, left_out_variance(own, also)])
    return low - own + shares, high - own + shares, errors


def weighted_quantiles(values: ArrayLike, weights: ArrayLike, shares: ArrayLike) -> Values:
    """Return the values below which shares of a weight lie; NaN without weight, or outside 0 to 1.

    Half the weight of each of the sorted values lies below it; between them, it is interpolated.

    Examples
    --------
    >>> weighted_quantiles([3.0, 1.0], [1.0, 3.0], [0.375, 0.5, 0.9, 1.1]).tolist()
    [1.0, 1.5, 3.0, nan]
    """
    asked, table = np.asarray(shares, np.float64), np.array([weights, values], np.float64)
    weight, value = table[:, np.lexsort(table)]
    if not weight.sum() > 0:
        return np.full(asked.shape, np.nan)
    middle = (np.cumsum(weight) - weight / 2) / weight.sum()
    return np.where((asked >= 0) & (asked <= 1), np.interp(asked, middle, value), np.nan)


def quantile_intervals(
    values: Values, weights: Values, groups: NDArray[np.intp], shares: ArrayLike
) -> tuple[Values, Values, Values]:
    """Return weighted quantiles, and the ends of Woodruff's intervals; see `share_intervals`."""
    best = weighted_quantiles(values, weights, shares)
    if not len(values):
        return best, best, best
    others = np.zeros((0, len(values)))
    *ends, _ = share_intervals(values <= best[:, None], weights, groups, shares, others)
    low, high = (weighted_quantiles(values, weights, each) for each in ends)
    return best, low, high


def mean_interval(
    values: Values, weights: Values, groups: NDArray[np.intp], others: ArrayLike = ()
) -> tuple[float, float]:
    """Return the interval of a weighted mean, from how much groups differ.

    It is that of the logarithm, unless a mean is not positive; NaN with one group, or if all values
    are equal, which tells nothing of others. `others` are the weights without each of other groups,
    as for `share_intervals`.
    """
    if not len(values) or values.min() == values.max():
        return math.nan, math.nan
    more = np.reshape(others, (-1, len(values)))
    weighted, total = (np.bincount(groups, weights * each) for each in (values, values**0))
    whole = np.asarray(weighted.sum() / total.sum())
    least = np.square(weights * (values - whole)).sum() / total.sum() ** 2
    with np.errstate(invalid="ignore", divide="ignore"):  # one group: 0 / 0
        without = sums_without(weighted) / sums_without(total)
        means = whole, without, np.asarray(more @ values / more.sum(axis=1))
    if is_log := all(bool((each > 0).all()) for each in means):
        least, means = least / whole**2, (np.log(whole), np.log(without), np.log(means[2]))
    ends = left_out_interval(*means[:2], also=means[2], least=least)
    low, high = np.exp(ends) if is_log else ends
    return float(low), float(high)


def groups_needed(n: int, error: float, wanted: float) -> int:
    """Return from how many groups an interval reaches at most as far as `wanted` to each side.

    The groups are to differ like n groups, from which a statistic has the standard `error`.

    >>> groups_needed(4, 0.1, 0.318 / 2)
    9
    """
    spread = error * math.sqrt(n)
    first = max(2, math.floor((1.95 * spread / wanted) ** 2))  # Student's factor is larger
    return next(k for k in count(first) if student_factor(k) * spread / math.sqrt(k) <= wanted)
