"""Confidence intervals of an accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_Z95 = 1.959963984540054
_MIN_GROUPS = 10
_N_RESAMPLES = 2000


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """The 95 % score interval of a proportion [1]_.

    Parameters
    ----------
    share : float
        The observed proportion.
    n : float
        Number of independent trials.

    Returns
    -------
    low, high : float

    References
    ----------
    .. [1] Wilson. "Probable inference, the law of succession, and statistical inference",
       J. Am. Stat. Assoc. 22, 1927.

    Examples
    --------
    >>> low, high = wilson_interval(1.0, 20)
    >>> f"{low:.3f} {high:.3f}"
    '0.839 1.000'
    """
    square = _Z95**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = _Z95 * np.sqrt(share * (1 - share) / n + square / (4 * n**2)) / (1 + square / n)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def accuracy_interval(
    correct: ArrayLike, groups: Sequence[Any] | None = None
) -> tuple[float, float]:
    """The 95 % interval of an accuracy.

    Without groups it is Wilson's interval. With at least ten groups it is the percentile interval
    of 2,000 bootstrap samples of whole groups, because the images of a group are not independent.
    With fewer groups, or if all bootstrap samples are equal, it is Wilson's interval for as many
    trials as there are groups, which is conservative.

    Parameters
    ----------
    correct : array-like of bool of shape (n,)
    groups : sequence of n hashables, optional

    Returns
    -------
    low, high : float
        The same at every call: the bootstrap is seeded.
    """
    right = np.asarray(correct, dtype=float)
    share = float(right.mean())
    if groups is None:
        return wilson_interval(share, len(right))
    codes = np.unique([str(group) for group in groups], return_inverse=True)[1].ravel()
    sizes, hits = np.bincount(codes), np.bincount(codes, right)
    n_groups = len(sizes)
    if n_groups == len(right):
        return wilson_interval(share, n_groups)
    if n_groups >= _MIN_GROUPS:
        sampled = np.random.default_rng(0).integers(n_groups, size=(_N_RESAMPLES, n_groups))
        low, high = np.quantile(hits[sampled].sum(1) / sizes[sampled].sum(1), [0.025, 0.975])
        if low < high:
            return float(low), float(high)
    return wilson_interval(share, n_groups)
