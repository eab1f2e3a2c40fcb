"""Prediction sets with a requested coverage, and confidence thresholds for a maximum error.

Both are based on held-out predictions. All groups have equal weights, divided among their images.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from hypervlad.statistics.splits import group_weights

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

CERTAINTY = 0.9  # that no more of the sure answers are wrong than requested
_ROUNDING = 1e-9  # of rates such as 0.05, times a number of images


@dataclass(frozen=True, eq=False)
class Calibration:
    """Held-out predictions compared with the true classes.

    Parameters
    ----------
    misfit, confidence : ndarray of float, shape (n,)
        1 - the probability of the true class, and the largest probability.
    correct : ndarray of bool, shape (n,)
        Whether the most probable class is the true one.
    groups, models : ndarray of int, shape (n,)
        The group of each image, and the index of the model that predicted it.
    """

    misfit: FloatArray
    confidence: FloatArray
    correct: BoolArray
    groups: IntArray
    models: IntArray

    @classmethod
    def of(
        cls, proba: ArrayLike, codes: ArrayLike, groups: ArrayLike, models: ArrayLike
    ) -> Calibration:
        """Compare probabilities (n, n_classes) with the columns of the true classes, (n,)."""
        table, truth = np.asarray(proba, dtype=np.float64), np.asarray(codes, dtype=np.intp)
        return cls(
            1 - table[np.arange(len(table)), truth],
            table.max(axis=1),
            table.argmax(axis=1) == truth,
            np.asarray(groups, dtype=np.intp),
            np.asarray(models, dtype=np.intp),
        )

    def __len__(self) -> int:
        return len(self.misfit)

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(np.unique(self.groups))

    @property
    def weights(self) -> FloatArray:
        """Of each image: 1 / (groups + 1), divided among the images of its group."""
        return group_weights(self.groups)


def prediction_sets(
    proba: ArrayLike, calibration: Calibration, coverage: float = 0.9
) -> NDArray[np.bool_]:
    """Return the prediction sets of new images.

    Let S = 1 - p(true class) be the misfit of each held-out image, and w its weight, so that the
    weights of G groups sum to G / (G + 1). A class y belongs to the set of a new image x if ::

        sum of w over the images with S >= 1 - p_y(x)  +  1 / (G + 1)  >  1 - coverage

    With one model, the coverage is guaranteed for images of exchangeable groups [1]_. With models
    of folds (CV+ [2]_, in groups [3]_), 2 coverage - 1, less a term for the folds, is guaranteed.

    Parameters
    ----------
    proba : array-like of shape (n_models, n, n_classes)
        Probabilities of the new images by each model of the calibration.
    calibration : Calibration
    coverage : float, default=0.9
        How often the set contains the true class of an image of a new group, between 0 and 1.

    Returns
    -------
    ndarray of bool, shape (n, n_classes)
        A set is empty if no class fits. With fewer than coverage / (1 - coverage) groups, every set
        has all classes.

    Raises
    ------
    ValueError
        If ``coverage`` is not between 0 and 1.

    References
    ----------
    .. [1] R. Dunn et al., "Distribution-free prediction sets for two-layer hierarchical models",
       J. Am. Stat. Assoc., 2023.
    .. [2] Y. Romano et al., "Classification with valid and adaptive coverage",
       NeurIPS 2020.
    .. [3] Y. Lee et al., "Distribution-free inference with hierarchical data",
       2023.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.evaluation import Calibration, prediction_sets
    >>> p_true = np.linspace(0.05, 0.95, 19)  # probabilities of the first class, the true one
    >>> table = np.column_stack([p_true, 1 - p_true])
    >>> calibration = Calibration.of(table, np.zeros(19), np.arange(19), np.zeros(19))
    >>> prediction_sets([[[0.9, 0.1], [0.5, 0.5]]], calibration, coverage=0.8).tolist()
    [[True, False], [True, True]]
    """
    allowed = 1 - check_share("coverage", coverage)
    misfits = 1 - np.asarray(proba, dtype=np.float64)
    support = np.full(misfits.shape[1:], 1 / (calibration.n_groups + 1))
    weights = calibration.weights
    for number, of_model in enumerate(misfits):
        own = calibration.models == number
        support += _weight_above(calibration.misfit[own], weights[own], of_model)
    # A tolerance for rounding errors: equal to the share is not above it.
    return np.asarray(support > allowed + 1e-12)


def _weight_above(values: FloatArray, weights: FloatArray, bounds: FloatArray) -> FloatArray:
    """Return the weight of the values that are at least as large as each bound."""
    order = np.argsort(values, kind="stable")
    above = np.append(np.cumsum(weights[order][::-1])[::-1], 0)
    return np.asarray(above[np.searchsorted(values[order], bounds, side="left")])


def weighted_limit(values: ArrayLike, groups: ArrayLike, share: float) -> float:
    """Return the lowest of n values that at most a share of the values of new groups exceed.

    It is the highest value if there are too few groups for any guarantee.

    >>> weighted_limit(np.arange(99), np.arange(99), 0.1)
    89.0
    """
    weights = group_weights(groups)
    order = np.argsort(-np.asarray(values, dtype=np.float64), kind="stable")
    ordered = np.asarray(values, dtype=np.float64)[order]
    before = np.append(0, np.cumsum(weights[order]))[np.searchsorted(-ordered, -ordered, "left")]
    new = 1 / (len(np.unique(groups)) + 1)
    fine = np.flatnonzero(before + new <= share + 1e-12)
    return float(ordered[fine[-1]] if len(fine) else ordered[0])


def groups_for_error(max_error: float) -> int:
    """Return how many groups without a wrong answer show that at most `max_error` are wrong.

    Examples
    --------
    >>> from hypervlad.evaluation import groups_for_error
    >>> groups_for_error(0.05), groups_for_error(0.2)
    (45, 11)
    """
    return math.ceil(math.log(1 - CERTAINTY) / math.log1p(-check_share("max_error", max_error)))


def confidence_for_error(calibration: Calibration, max_error: float) -> float:
    """Return the lowest confidence from which, with 90 % certainty, few answers are wrong.

    Learn then Test [1]_, with the binomial test: let a threshold accept the answers for n groups, k
    of them wrong, where an image counts as 1 / (images of its group). It passes if ::

        P(at most k of n are wrong | each is wrong with probability max_error) <= 0.1

    Thresholds are tested from 1 - ``max_error`` downwards, or from a lower one if that accepts
    fewer groups than `groups_for_error`, until the first failure.

    Parameters
    ----------
    calibration : Calibration
    max_error : float
        Share of the answers that may be wrong, between 0 and 1; a ValueError otherwise.

    Returns
    -------
    float
        ``inf`` if no answer is sure.

    References
    ----------
    .. [1] A. N. Angelopoulos et al., "Learn then test: calibrating predictive algorithms to achieve
       risk control", arXiv 2110.01052, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.evaluation import Calibration, confidence_for_error
    >>> confidence = np.linspace(0.5, 0.999, 500)
    >>> table = np.column_stack([confidence, 1 - confidence])
    >>> truth = (confidence < 0.6).astype(int)  # the least sure fifth is wrong
    >>> calibration = Calibration.of(table, truth, np.arange(500), np.zeros(500))
    >>> round(confidence_for_error(calibration, 0.05), 2)
    0.59
    """
    most = check_share("max_error", max_error)
    order = np.argsort(-calibration.confidence, kind="stable")
    confidence, groups = calibration.confidence[order], calibration.groups[order]
    _, own, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    answers = 1 / sizes[own]
    last = np.flatnonzero(np.append(confidence[1:] < confidence[:-1], True))  # equal ones together
    n = np.floor(np.cumsum(answers)[last] + 1e-9)
    wrong = np.ceil(np.cumsum(answers * ~calibration.correct[order])[last] - 1e-9)
    thresholds = confidence[last]
    first = max(
        int(np.count_nonzero(thresholds >= 1 - most)) - 1,
        int(np.searchsorted(n, groups_for_error(most))),
    )
    passed = binom.cdf(wrong, n, most)[first:] <= 1 - CERTAINTY
    n_passed = int(np.argmin(np.append(passed, False)))
    return float(thresholds[first + n_passed - 1]) if n_passed else float("inf")


def check_share(name: str, value: Any) -> float:
    """Return a value between 0 and 1, both excluded, as a float; a ValueError for another."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and 0 < float(value) < 1:
        return float(value)
    per_cent, least = (5.0, 1) if "error" in name else (90.0, 50)
    if is_number and least <= float(value) < 100:
        per_cent = float(value)
    raise ValueError(
        f"{name} is a share above 0 and below 1; got {value!r} ({per_cent:g} % is written "
        f"{per_cent / 100:g})"
    )


def n_groups_needed(rate: float) -> int:
    """Return how many groups of images a threshold at this rate needs: 19 for 0.05."""
    return max(1, math.ceil(1 / rate - 1 - _ROUNDING))
