"""95 % intervals of what several groups give together, from what one group less would change.

A group is whatever was drawn independently of the others: a sample, a micrograph, a field, a
window. What lies in one group is not independent, however much of it there is. So one group has no
interval, and two have a wide one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit  # not scipy.stats, which takes long to import

from hypervlad.common.wording import counted

Values = NDArray[np.float64]
LEVEL = 0.95
#: Standard errors that an interval reaches whose standard error is known.
NORMAL_FACTOR = float(-ndtri((1 - LEVEL) / 2))
OPEN = math.log(1000)  # an end at a thousand times a number, or a thousandth, is open
_N_PRINTED = 10  # pairs of groups
_ROUNDED = 1e-9  # relative error of sums of weights


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes
    ----------
    low, high : float
        Of a direction, `low` may be below 0 and `high` above pi, so that `low` <= `high`.
    """

    low: float
    high: float


class Ratio(NamedTuple):
    """By what factor a number is larger in one group than in the other, with a 95 % interval.

    Attributes
    ----------
    one, other : str
        Groups.
    value : float
    interval : Interval
        An end that is NaN is open; both are if a group has a single sample, as one is no group.
    """

    one: str
    other: str
    value: float
    interval: Interval

    @classmethod
    def between(cls, one: str, other: str, numbers: Mapping[str, ArrayLike]) -> Self:
        """Return the ratio of two of the `numbers` of groups, each with the ends of its interval.

        The distances to the ends add up as independent errors do, on a logarithmic scale (Zou and
        Donner 2008, "Construction of confidence limits about effect measures: a general approach",
        Statistics in Medicine 27). With more than two groups they are longer, by Bonferroni's
        correction of normal errors.

        >>> Ratio.between("b", "a", {"a": (10, 8, 12.5), "b": (20, 16, 25)}).text("D50")
        'D50 of b over a: 2 (95 % 1.459 to 2.742): they differ'
        >>> Ratio.between("b", "a", {"a": (10, 8, 12.5), "b": (20, 1e-9, 25)}).interval.low
        nan
        >>> Ratio.between("b", "a", {"a": (1e-5, 1e-9, 0.1), "b": (20, 16, 25)}).verdict
        'they differ'
        """
        with np.errstate(divide="ignore", invalid="ignore"):  # there may be none
            logs = {name: np.log(np.asarray(ends, np.float64)) for name, ends in numbers.items()}
            n_known = sum(bool(np.isfinite(each[1:]).any()) for each in logs.values())
            factor = -ndtri((1 - LEVEL) / 2 / max(math.comb(n_known, 2), 1)) / NORMAL_FACTOR
            (best, low, high), (best_other, low_other, high_other) = logs[one], logs[other]
            # Not by hypot, for which an infinite distance is longer than one that is not known.
            below = factor * math.sqrt((best - low) ** 2 + (high_other - best_other) ** 2)
            above = factor * math.sqrt((high - best) ** 2 + (best_other - low_other) ** 2)
            value = float(np.exp(best - best_other))
        return cls.reaching(one, other, value, below, above)

    @classmethod
    def reaching(cls, one: str, other: str, value: float, below: float, above: float) -> Self:
        """Return a ratio, with how far its logarithm may reach `below` and `above` it.

        A far end is open, NaN, unless it shows that the groups differ.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = map(float, value * np.exp([-below, above]))
        low = math.nan if below > OPEN and low <= 1 else low
        high = math.nan if above > OPEN and high >= 1 else high
        return cls(one, other, value, Interval(low, high))

    @property
    def is_of_both(self) -> bool:
        """Whether both groups have any, so that there is a ratio."""
        return 0 < self.value < math.inf

    @property
    def verdict(self) -> str:
        """Whether the groups differ, in words."""
        if not self.is_of_both:
            return "there is none in one of them at least"
        low, high = self.interval.low, self.interval.high
        if low > 1 or high < 1:
            return "they differ"
        if math.isnan(low) and math.isnan(high):
            return "more images are needed, of several samples"
        return "no difference shown"

    def sureness(self) -> float:
        """Return a number to sort by: those that differ most surely come first."""
        low, high = np.log([self.interval.low, self.interval.high])
        return -float(np.fmax(np.fmax(low, -high), -math.inf))

    def text(self, what: str) -> str:
        """Return the ratio of `what`, its interval, and the `verdict`, as commands print it."""
        low, high = self.interval.low, self.interval.high
        ends = f" (95 % {low:.4g} to {high:.4g})"
        if low != low or high != high:
            known = [f"from {low:.4g}"] * (low == low) + [f"up to {high:.4g}"] * (high == high)
            ends = f" (95 % {known[0]})" if known else ""
        value = f"{self.value:.4g}{ends}: " * self.is_of_both
        return f"{what} of {self.one} over {self.other}: {value}{self.verdict}"


def ratio_lines(of: Mapping[str, Sequence[Ratio]], rest: str) -> list[str]:
    """Return how groups differ, by what differs, as commands print it.

    Of many pairs they are those that differ most surely; `rest` says where the others are.

    >>> ratios = [Ratio(str(n), "0", n, Interval(n / 2, n * 2)) for n in range(1, 13)]
    >>> lines = ratio_lines({"D50": ratios}, "the page has them all")
    >>> lines[0], lines[-1]  # doctest: +NORMALIZE_WHITESPACE
    ('D50 of 12 over 0: 12 (95 % 6 to 24): they differ',
     'D50 of 2 other pairs: no difference shown (2); the page has them all')
    """
    lines = []
    for what, ratios in of.items():
        shown = ratios
        if len(ratios) > _N_PRINTED:
            of_both = [each for each in ratios if each.is_of_both]
            shown = sorted(of_both, key=Ratio.sureness)[:_N_PRINTED]
        lines += [each.text(what) for each in shown]
        others = Counter(each.verdict for each in ratios)
        others.subtract(each.verdict for each in shown)
        if others.total():
            said = ", ".join(f"{verdict} ({n})" for verdict, n in others.items() if n)
            pairs = counted(others.total(), "other pair" if shown else "pair")
            lines.append(f"{what} of {pairs}: {said}; {rest}")
    return lines


def student_factor(n: float) -> float:
    """Return how many standard errors from n groups an interval reaches; NaN for one group."""
    return float(stdtrit(n - 1, (1 + LEVEL) / 2)) if n > 1 else math.nan


def left_out_interval(
    whole: ArrayLike,
    without: ArrayLike,
    *,
    also: ArrayLike | None = None,
    least: ArrayLike = 0.0,
    worth: float = math.inf,
    unbiased: bool = False,
) -> tuple[Values, Values, Values]:
    """Return the ends of the interval of a statistic, and its standard errors; NaN with one group.

    It is Student's, with the standard error of the jackknife that leaves out one group at a time
    (Efron and Stein 1981, "The jackknife estimate of variance", Annals of Statistics 9: it is too
    large rather than too small). The statistic, or several, is `whole`, (...), of all groups, and
    `without`, (n_groups, ...), of all but one. It should be on a scale on which it is about normal,
    such as a logarithm. The standard errors, (2, ...), are from the groups and from the others;
    together they are those of the interval.

    - `also`, (n_others, ...): the statistic without each of other groups that it depends on as
      well, such as those of a calibration. Student's factor is then that of the effective number of
      groups (Satterthwaite 1946, "An approximate distribution of estimates of variance components",
      Biometrics Bulletin 2).
    - `least`, (...): the variance that the statistic would have if groups did not differ, from what
      is in them. No interval is narrower than with it, as few groups can be alike by chance.
    - `worth`: how many groups of equal size these are worth, for Student's factor.
    - `unbiased`: whether the interval is about the statistic without bias (Quenouille 1956, "Notes
      on bias in estimation", Biometrika 43); it contains the statistic.

    >>> means = np.array([3.0, 2.5, 2.0])  # of 2 and 4, 1 and 4, 1 and 3
    >>> low, high, _ = left_out_interval(2.5, means)
    >>> round(float(low), 2), round(float(high), 2)
    (0.02, 4.98)
    """
    whole, without = np.asarray(whole, np.float64), np.asarray(without, np.float64)
    n = len(without)
    n_worth = max(min(worth, n), min(n, 2))
    squares, factor = _left_out_variance(whole, without), np.asarray(student_factor(n_worth))
    others = np.zeros(0) if also is None else np.asarray(also, np.float64)
    rest = np.zeros(())
    if len(others) > 1:
        rest = _left_out_variance(whole, others)
        # What differs from one of the others to the next differs between these groups too, though
        # few of them may be alike by chance.
        shared = rest * len(others) / n
        own_freedom = np.where(squares >= shared, n_worth, len(others)) - 1
        squares = np.maximum(squares, shared)
        with np.errstate(invalid="ignore"):  # nothing varies
            parts = squares**2 / own_freedom + rest**2 / (len(others) - 1)
            freedom = (squares + rest) ** 2 / parts
        factor = stdtrit(np.where(freedom > 0, freedom, n - 1), (1 + LEVEL) / 2)
    floor = np.asarray(least, np.float64)
    reach = np.maximum(factor * np.sqrt(squares + rest), NORMAL_FACTOR * np.sqrt(floor + rest))
    middle = n * whole - (n - 1) * without.mean(axis=0) if unbiased else whole
    errors = np.sqrt(np.array(np.broadcast_arrays(np.maximum(squares, floor), rest)))
    return np.minimum(middle - reach, whole), np.maximum(middle + reach, whole), errors


def _left_out_variance(whole: Values, without: Values) -> Values:
    """Return the variance of a statistic, from what it is without each of n groups; NaN if 1."""
    n = len(without)
    factor = math.nan if n == 1 else max(n - 1, 0) / max(n, 1)
    return np.asarray(np.square(without - whole).sum(axis=0) * factor)


def with_error(
    low: ArrayLike,
    best: ArrayLike,
    high: ArrayLike,
    error: ArrayLike,
    instead_of: ArrayLike = 0.0,
) -> tuple[Values, Values]:
    """Widen the interval of a positive number by an independent error, a share within 95 %.

    It may also be two: that below the number, and that above. It may replace one that the interval
    contains.

    >>> low, high = with_error(90.0, 100.0, 110.0, 0.1)
    >>> round(float(low), 1), round(float(high), 1)
    (86.8, 114.4)
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 has no relative error
        ends = np.log(np.array([low, high], np.float64) / np.asarray(best, np.float64))
        shares, replaced = (
            np.broadcast_to(each, 2).reshape(2, *[1] * (ends.ndim - 1))
            for each in (error, instead_of)
        )
        others = np.maximum(ends**2 - np.log1p(replaced) ** 2, 0)
        below, above = np.sqrt(others + np.log1p(shares) ** 2)
        wide = np.exp([-below, above]) * best
    known = np.array([low, high], np.float64)
    found = np.where(np.isfinite(wide) & (shares + replaced > 0), wide, known)
    return found[0], found[1]


def widened(found: Sequence[float], least: float, most: float) -> tuple[float, float]:
    """Widen the interval of a share (share, low, high) by an independent range around the share.

    >>> widened((0.5, 0.46, 0.54), 0.47, 0.53)
    (0.45, 0.55)
    """
    best, low, high = found
    below, above = math.hypot(best - low, best - least), math.hypot(high - best, most - best)
    return max(best - below, 0.0), min(best + above, 1.0)


def opened(low: ArrayLike, high: ArrayLike, below: float) -> tuple[Values, Values]:
    """Open intervals that reach below a size, of which nothing is known: the end there is NaN.

    They contain all that lies between that size and the other end.
    """
    lower, upper = np.asarray(low, np.float64), np.asarray(high, np.float64)
    is_open = lower < below
    return np.where(is_open, np.nan, lower), np.where(is_open, np.maximum(upper, below), upper)


def sums_without(parts: NDArray[Any]) -> NDArray[Any]:
    """Return the sum over groups, (n_groups, ...), without each of them."""
    return np.asarray(parts.sum(axis=0) - parts)


def weighted_quantiles(values: ArrayLike, weights: ArrayLike, shares: ArrayLike) -> Values:
    """Return the values below which shares of a weight lie; NaN without weight, or outside 0 to 1.

    Half the weight of each of the sorted values lies below it; between them, it is interpolated.

    >>> weighted_quantiles([3.0, 1.0], [1.0, 3.0], [0.375, 0.5, 0.9, 1.1]).tolist()
    [1.0, 1.5, 3.0, nan]
    """
    asked, table = np.asarray(shares, np.float64), np.array([weights, values], np.float64)
    weight, value = table[:, np.lexsort(table)]
    if not weight.sum() > 0:
        return np.full(asked.shape, np.nan)
    middle = (np.cumsum(weight) - weight / 2) / weight.sum()
    return np.where((asked >= 0) & (asked <= 1), np.interp(asked, middle, value), np.nan)


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """The 95 % score interval (low, high) of a share that was observed in n trials [1]_.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
       J. Am. Stat. Assoc. 22, 1927.

    Examples
    --------
    >>> low, high = wilson_interval(1.0, 20)
    >>> f"{low:.3f} {high:.3f}"
    '0.839 1.000'
    """
    square = NORMAL_FACTOR**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = NORMAL_FACTOR * np.sqrt(share * (1 - share) / n + square / (4 * n**2)) / (1 + square / n)
    # The limits of everything and of nothing are exact, which rounding would hide.
    return (
        0.0 if share <= 0 else max(0.0, float(centre - half)),
        1.0 if share >= 1 else min(1.0, float(centre + half)),
    )


def share_interval(
    share: ArrayLike,
    without: ArrayLike,
    n: ArrayLike,
    parts: ArrayLike,
    sizes: ArrayLike,
    also: ArrayLike | None = None,
) -> tuple[Values, Values]:
    """Return Wilson's interval of a share, for as many trials as its groups are worth.

    These are as many as would vary like the groups (Rao and Scott 1992, "A simple method for the
    analysis of clustered binary data", Biometrics 48), at most `n`, the values; fewer if that is
    found from few groups (Korn and Graubard 1998, "Confidence intervals for proportions with small
    expected number of positive counts estimated from survey data", Survey Methodology 24), or few
    that have both what is `parts` and what is not. If all groups agree, they are not worth more
    than the number of groups: others may differ. NaN for one group.

    `parts` and `sizes`, (n_groups, ...), are what the share is of in each group; `without` and
    `also` are as for :func:`left_out_interval`.

    >>> low, high = share_interval(1.0, [1.0, 1.0, 1.0], 20, [5, 5, 10], [5, 5, 10])
    >>> round(float(low), 2), float(high)
    (0.41, 1.0)
    """
    given = share, n, parts, sizes
    best, most, parts, sizes = (np.asarray(each, np.float64) for each in given)
    low, high, errors = left_out_interval(best, without, also=also)
    variance, n_each = np.square(errors).sum(axis=0), len(np.asarray(without))

    def of_few(k: Any) -> Any:
        return np.nan_to_num(np.square(NORMAL_FACTOR / stdtrit(k - 1, (1 + LEVEL) / 2)))

    with np.errstate(invalid="ignore", divide="ignore"):  # nothing varies, or there is nothing
        n_groups = np.square(sizes.sum(axis=0)) / np.square(sizes).sum(axis=0)  # if of equal size
        is_both = (parts > 0).sum(axis=0), (sizes - parts > _ROUNDED * sizes).sum(axis=0)
        mixed = np.minimum(np.minimum(*is_both), n_groups)
        varies = variance > _ROUNDED**2
        # Of values on their own, exactly their number: a variance is of one value less.
        worth = np.where(varies, np.fmin(best * (1 - best) / variance + 1, most), most)
        freedom = np.square(2 * NORMAL_FACTOR / (high - low)) * variance / of_few(n_each)
        few = np.where(varies, freedom, 1.0)  # other than 1 only if it is from `also`, too
        by_groups = np.minimum(worth * of_few(n_groups) * few, n_groups)
        less = np.maximum(np.maximum(worth * of_few(mixed) * few, by_groups), 1.0)
        worth = np.where(most > n_groups * (1 + _ROUNDED), less, np.maximum(worth, 1.0))
        ends = np.vectorize(wilson_interval)(best, worth)
    low, high = (np.where(np.isnan(low + high), np.nan, each) for each in ends)
    return low, high


@dataclass(frozen=True, eq=False)
class Sample:
    """Weighted values, (n,), of `groups`, (n,), which differ independently of each other.

    `others`, (n_others, n), are the weights without each of other groups on which they depend, such
    as those of a calibration; see `also` of :func:`left_out_interval`. In a group, values are
    independent, but those of one label of `within`, (n,), such as those along one fibre.

    >>> Sample.of(np.array([1.0, 2.0, 6.0])).mean()[0]
    3.0
    """

    values: Values
    weights: Values
    groups: NDArray[Any]
    others: Values = field(default_factory=lambda: np.zeros((0, 1)), repr=False)
    within: NDArray[Any] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, values: Values) -> Self:
        """Return the sample of values that are independent of each other, with equal weights."""
        return cls(values, np.ones(len(values)), np.arange(len(values)))

    def where(self, is_own: NDArray[np.bool_]) -> Sample:
        others = self.others[:, is_own] if len(self.others) else self.others
        within = None if self.within is None else self.within[is_own]
        values, weights, groups = self.values[is_own], self.weights[is_own], self.groups[is_own]
        return Sample(values, weights, groups, others, within)

    @cached_property
    def _codes(self) -> NDArray[np.intp]:
        return np.unique(self.groups, return_inverse=True)[1]

    @property
    def n_groups(self) -> int:
        return int(self._codes.max(initial=-1)) + 1

    def quantiles(self, shares: ArrayLike) -> Values:
        """Return quantiles, the ends of Woodruff's intervals, and relative errors, (5, n_shares).

        An end beyond all values is NaN. The standard errors are from the groups, not smaller than
        if what is independent within them was drawn on its own, and from the others.
        """
        shares, weights = np.asarray(shares, np.float64), self.weights
        best, total = weighted_quantiles(self.values, weights, shares), weights.sum()
        if np.isnan(best).any():
            return np.array([best] * 5)
        is_below = (self.values <= best[:, None]).astype(np.float64)
        # Of equal sizes, more than the share lie up to the size: what counts is how fields differ.
        averages = own, *_ = self._averages(is_below)
        # Also where no value, or each, is part: another draw would have had others.
        sure = shares * (1 - shares) * np.square(self._drawn(weights)).sum()
        drawn = np.square(self._drawn(weights * (is_below - own[:, None]))).sum(axis=1)
        least = np.maximum(sure, drawn) / total**2
        low, high, errors = self._interval(averages, least)
        limits = [each - own + shares for each in (low, high)]
        ends = np.array([weighted_quantiles(self.values, weights, each) for each in limits])
        with np.errstate(invalid="ignore", divide="ignore"):  # an open end, equal sizes
            slopes = (ends - best) / (np.array(limits) - shares) / best
        slope = np.ma.masked_invalid(slopes).mean(axis=0).filled(np.nan)
        # Nothing comes from what does not exist, also where slopes are unknown.
        return np.array([best, *ends, *np.where(errors == 0, 0.0, errors * slope)])

    def share(self, is_part: NDArray[np.bool_]) -> tuple[float, ...]:
        """Return the share of a part, and the ends of its interval; see `share_interval`."""
        if not (total := self.weights.sum()) > 0:
            return (math.nan,) * 3
        most = total**2 / np.square(self._drawn(self.weights)).sum()
        best, without, also = self._averages(is_part.astype(np.float64))
        parts, sizes = (
            np.bincount(self._codes, own) for own in (self.weights * is_part, self.weights)
        )
        ends = share_interval(best, without, most, parts, sizes, also)
        return float(best), *map(float, ends)

    def mean(self) -> tuple[float, float, float]:
        """Return the mean, and the ends of its interval, from how much groups differ.

        It is that of the logarithm, unless a value is negative. NaN with one group, or if all
        values are equal, which tells nothing of others, as is an upper end that few cannot tell.
        """
        if not self.weights.sum() > 0:
            return math.nan, math.nan, math.nan
        means = self._averages(self.values)
        best = float(means[0])
        if self.values.min() == self.values.max():
            return best, math.nan, math.nan
        drawn = self._drawn(self.weights * (self.values - best))
        least = np.square(drawn).sum() / self.weights.sum() ** 2
        # Half of a usual one, so that the mean without the only group with any has a logarithm.
        parts, half = self.weights * self.values, 0.0
        if (is_log := best > 0 <= self.values.min()) and not self.values.all():
            half = float(parts @ parts / parts.sum() / self.weights.sum() / 2)
        if is_log:
            least, means = least / (best + half) ** 2, [np.log(each + half) for each in means]
        low, high = map(float, self._interval(means, least)[:2])
        if is_log:
            high = math.exp(high) - half if high < math.log(best) + OPEN else math.nan
            low = max(math.exp(low) - half, 0.0)
        return best, low, high

    def _interval(self, averages: Sequence[Values], least: ArrayLike) -> tuple[Values, ...]:
        totals = np.bincount(self._codes, self.weights)
        worth = float(np.square(totals.sum()) / np.square(totals).sum())
        whole, without, also = averages
        return left_out_interval(whole, without, also=also, least=least, worth=worth)

    def _drawn(self, values: Values) -> Values:
        """Return sums of values (..., n) over what is drawn together."""
        if self.within is None:
            return values
        codes = np.unique(self.within, return_inverse=True)[1]
        sums = np.zeros((codes.max(initial=-1) + 1, *values.shape[:-1]))
        np.add.at(sums, codes, values.T)
        return np.asarray(sums.T)

    def _averages(self, values: Values) -> list[Values]:
        """Return means of values (..., n): of all, without each group, and each of the others."""
        n = self.n_groups
        sums = np.zeros((n, *values.shape[:-1]))
        np.add.at(sums, self._codes, (values * self.weights).T)
        totals = np.bincount(self._codes, self.weights, n).reshape(n, *[1] * (values.ndim - 1))
        others = self.others if len(self.others) else np.zeros((0, len(self.weights)))
        with np.errstate(invalid="ignore", divide="ignore"):  # one group: 0 / 0
            without = sums_without(sums) / sums_without(totals)
            more = (others @ values.T).T / others.sum(axis=1)
        return [sums.sum(axis=0) / totals.sum(), without, more.T]


def groups_needed(n: int, error: float, wanted: float) -> int:
    """Return from how many groups an interval reaches at most as far as `wanted` to each side.

    The groups are to differ like n groups, from which a statistic has the standard `error`.

    >>> groups_needed(4, 0.1, 0.318 / 2)
    9
    """
    spread = error * math.sqrt(n)
    first = max(2, math.floor((1.95 * spread / wanted) ** 2))  # Student's factor is larger
    return next(k for k in count(first) if student_factor(k) * spread / math.sqrt(k) <= wanted)
