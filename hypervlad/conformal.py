"""Sets of classes that hold the true one as often as asked, and answers that are better refused.

Both rest on images whose class is known and that the model which judged them had not seen. Images
of one group (a micrograph, a sample, a paper) are alike, so groups are what counts: each has the
same weight, shared by its images.

*Split*: one model, and images kept apart from it. Let S = 1 - p(true class) be how ill each of
them fits its class, and w its weight, so that those of G groups sum to G / (G + 1). A class y
belongs to the set of a new image x where

    sum of w over the images with S >= 1 - p_y(x)  +  1 / (G + 1)  >  1 - coverage,

which holds for the true class with at least the coverage asked for, if the new image is of a group
exchangeable with those (Dunn, Wasserman and Ramdas 2023, "Distribution-free prediction sets for
two-layer hierarchical models", JASA).

*Cross*: every image is judged by a model learnt from the other folds, and the new image is compared
with it by that same model (CV+: Romano, Sesia and Candès 2020, "Classification with valid and
adaptive coverage", NeurIPS; in groups: Lee, Barber and Willett 2023, "Distribution-free inference
with hierarchical data"). No image is lost to the model. What is seen is usually the coverage; what
is guaranteed for n exchangeable groups in K folds is only 2 coverage - 1, less the smaller of
2 (1 - 1 / K) / (n / K + 1) and (1 - K / n) / (K + 1): for 0.9 with five folds, 0.65 to 0.8.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Calibration",
    "check_share",
    "confidence_for_error",
    "group_weights",
    "prediction_sets",
    "weighted_limit",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What models said of images that they had not seen, beside the truth.

    Attributes
    ----------
    misfit : ndarray of float, shape (n,)
        1 - the probability of the true class.
    confidence : ndarray of float, shape (n,)
        The largest probability.
    correct : ndarray of bool, shape (n,)
        Whether the class that has it is the true one.
    groups : ndarray of int, shape (n,)
    models : ndarray of int, shape (n,)
        Which model judged each image.
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
        """Compare probabilities with the truth.

        Parameters
        ----------
        proba : array-like of shape (n, n_classes)
            Of each image, by a model that had not seen it.
        codes : array-like of int, shape (n,)
            Columns of the true classes.
        groups, models : array-like of int, shape (n,)
        """
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
        """How many groups there are."""
        return len(np.unique(self.groups))

    @property
    def weights(self) -> FloatArray:
        """Of each image, as `group_weights` gives them."""
        return group_weights(self.groups)


def group_weights(groups: ArrayLike) -> NDArray[np.float64]:
    """Return the weight of each image: 1 / (groups + 1), shared by the images of its group.

    Parameters
    ----------
    groups : array-like of shape (n,)
    """
    _, own, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1 / ((len(counts) + 1) * counts[own]))


def weighted_limit(values: ArrayLike, groups: ArrayLike, share: float) -> float:
    """Return what values of new groups seldom exceed.

    Parameters
    ----------
    values : array-like of float, shape (n,)
    groups : array-like of shape (n,)
    share : float
        Of the values of a group exchangeable with these, how many may exceed it.

    Returns
    -------
    float
        One of the values: the lowest of which the promise holds, the highest if the groups are
        too few for any.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.conformal import weighted_limit
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


def prediction_sets(
    proba: ArrayLike, calibration: Calibration, coverage: float = 0.9
) -> NDArray[np.bool_]:
    """Return the classes that a new image may be of.

    Parameters
    ----------
    proba : array-like of shape (n_models, n, n_classes)
        What each model of the calibration says of the new images.
    calibration : Calibration
    coverage : float, default=0.9
        How often the set is to hold the true class of an image of a new group, between 0 and 1.

    Returns
    -------
    ndarray of bool, shape (n, n_classes)
        A set may be empty: then no class fits as well as it should. Where there are fewer than
        coverage / (1 - coverage) groups, it is all classes: so few cannot exclude any.

    Raises
    ------
    ValueError
        If the coverage is no share.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.conformal import Calibration, prediction_sets
    >>> seen = np.linspace(0.05, 0.95, 19)  # probabilities of the first class, which is the true
    >>> table = np.column_stack([seen, 1 - seen])
    >>> calibration = Calibration.of(table, np.zeros(19), np.arange(19), np.zeros(19))
    >>> prediction_sets([[[0.9, 0.1], [0.5, 0.5]]], calibration, coverage=0.8)
    array([[ True, False],
           [ True,  True]])
    """
    allowed = 1 - check_share("coverage", coverage)
    misfits = 1 - np.asarray(proba, dtype=np.float64)
    support = np.full(misfits.shape[1:], 1 / (calibration.n_groups + 1))
    weights = calibration.weights
    for number, of_model in enumerate(misfits):
        own = calibration.models == number
        support += _weight_above(calibration.misfit[own], weights[own], of_model)
    # Sums of weights have rounding errors: what would be equal to the share is not above it.
    return np.asarray(support > allowed + 1e-12)


def _weight_above(values: FloatArray, weights: FloatArray, bounds: FloatArray) -> FloatArray:
    """Return the weight of the values that are at least as large as each bound."""
    order = np.argsort(values, kind="stable")
    above = np.append(np.cumsum(weights[order][::-1])[::-1], 0)
    return np.asarray(above[np.searchsorted(values[order], bounds, side="left")])


def confidence_for_error(calibration: Calibration, max_error: float) -> float:
    """Return the lowest confidence from which on answers are wrong no more often than that.

    One wrong answer of weight 1 / (groups + 1) is added to those seen, so that few groups promise
    little. It is an estimate: the confidence is chosen by the same images that it is judged by.

    Parameters
    ----------
    calibration : Calibration
    max_error : float
        Share of the answers that may be wrong, between 0 and 1.

    Returns
    -------
    float
        ``inf`` if no confidence will do: all answers are then better refused.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.conformal import Calibration, confidence_for_error
    >>> confidence = np.linspace(0.5, 0.99, 50)
    >>> table = np.column_stack([confidence, 1 - confidence])
    >>> truth = (confidence < 0.6).astype(int)  # the least sure tenth is wrong
    >>> calibration = Calibration.of(table, truth, np.arange(50), np.zeros(50))
    >>> round(confidence_for_error(calibration, 0.05), 2)
    0.59
    """
    most = check_share("max_error", max_error)
    order = np.argsort(-calibration.confidence, kind="stable")
    confidence, weights = calibration.confidence[order], calibration.weights[order]
    one = 1 / (calibration.n_groups + 1)
    wrong = np.cumsum(weights * ~calibration.correct[order]) + one
    error = wrong / (np.cumsum(weights) + one)
    is_last = np.append(confidence[1:] < confidence[:-1], True)  # equal ones go together
    fine = np.flatnonzero(is_last & (error <= most + 1e-12))
    return float(confidence[fine[-1]]) if len(fine) else float("inf")


def check_share(name: str, value: Any) -> float:
    """Return a share between 0 and 1, both excluded."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 < float(value) < 1:
        example = 0.05 if "error" in name else 0.9
        raise ValueError(f"{name} is a share between 0 and 1, such as {example}; got {value!r}")
    return float(value)
