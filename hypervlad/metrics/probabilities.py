"""Scores of predicted probabilities: are they as right as they claim, and which to trust first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

__all__ = [
    "SelectiveAccuracy",
    "calibration_error_range",
    "expected_calibration_error",
    "selective_accuracy_area",
    "selective_accuracy_curve",
]

FloatArray = NDArray[np.float64]
# Rounding of float32 softmax outputs, no more.
_SUM_TOLERANCE = 1e-3


class SelectiveAccuracy(NamedTuple):
    """Accuracy of the most confident part of the predictions; see `selective_accuracy_curve`."""

    coverage: FloatArray
    accuracy: FloatArray
    threshold: FloatArray


def expected_calibration_error(y_true: ArrayLike, proba: ArrayLike, *, n_bins: int = 10) -> float:
    """How far confidence and accuracy lie apart, on average.

    The confidence of a row is its largest probability, its prediction the class that has it. Rows
    are put in `n_bins` bins of equal width over [0, 1] by confidence, bin m holding ((m - 1) / M,
    m / M]. The error is

        sum over bins of  (rows in bin / all rows) x |accuracy in bin - mean confidence in bin|.

    It is never zero for finite data, however good the probabilities: compare with
    `calibration_error_range`.

    Parameters
    ----------
    y_true : array-like of int, shape (n_samples,)
        Class codes: the columns of `proba` (``np.searchsorted(model.classes_, y)``).
    proba : array-like of float, shape (n_samples, n_classes)
        Probabilities; each row sums to 1.
    n_bins : int, default=10
        Number of bins, at least 1.

    Returns
    -------
    error : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the shapes do not fit, a code is no column, or the rows of `proba` are not probabilities.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML
    2017, section 2. M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated
    probabilities using Bayesian binning", AAAI 2015.

    Examples
    --------
    >>> from hypervlad.metrics import expected_calibration_error
    >>> proba = [[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]]
    >>> expected_calibration_error([0, 0, 0, 1], proba)  # right three times in four, as it says
    0.0
    >>> expected_calibration_error([0, 0, 1, 1], proba)
    0.25
    """
    confidence, correct = _confidence_and_correct(y_true, proba)
    bins = _bins(confidence, n_bins)
    return _binned_gap(confidence, correct, bins, n_bins)


def calibration_error_range(
    proba: ArrayLike,
    *,
    n_bins: int = 10,
    level: float = 0.95,
    n_simulations: int = 1000,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[float, float]:
    """The calibration errors that a perfectly calibrated model with these confidences would show.

    Labels are simulated: each row's prediction is right with the probability that it claims. An
    `expected_calibration_error` above this range is evidence of miscalibration, one inside it is
    not.

    Parameters
    ----------
    proba : array-like of float, shape (n_samples, n_classes)
        Probabilities; each row sums to 1.
    n_bins : int, default=10
        As in `expected_calibration_error`.
    level : float, default=0.95
        Share of the simulations inside the range, in (0, 1); the same share is left out on both
        sides.
    n_simulations : int, default=1000
        Number of simulated sets of labels, at least 1.
    random_state : int, RandomState or None, default=None
        Seed of the simulation.

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        If `proba` does not hold probabilities or a parameter is out of range.

    References
    ----------
    J. Bröcker and L. A. Smith, "Increasing the reliability of reliability diagrams", Weather and
    Forecasting 22, 2007 (consistency resampling).

    Examples
    --------
    >>> from hypervlad.metrics import calibration_error_range
    >>> low, high = calibration_error_range([[0.75, 0.25]] * 100, random_state=0)
    >>> 0 <= low < 0.02 < 0.06 < high < 0.12
    True
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1); got {level!r}.")
    _check_count("n_simulations", n_simulations)
    confidence = _check_proba(proba).max(axis=1)
    bins = _bins(confidence, n_bins)
    rng = check_random_state(random_state)
    errors = np.empty(n_simulations)
    # One set of labels at a time: all of them at once would not fit in memory for a large folder.
    for simulation in range(n_simulations):
        correct = rng.random_sample(len(confidence)) < confidence
        errors[simulation] = _binned_gap(confidence, correct, bins, n_bins)
    low, high = np.quantile(errors, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def selective_accuracy_curve(y_true: ArrayLike, proba: ArrayLike) -> SelectiveAccuracy:
    """Accuracy on the rows that are kept when the least confident ones are left to a person.

    Parameters
    ----------
    y_true : array-like of int, shape (n_samples,)
        Class codes: the columns of `proba`.
    proba : array-like of float, shape (n_samples, n_classes)
        Probabilities; each row sums to 1.

    Returns
    -------
    curve : SelectiveAccuracy
        Three arrays with one entry for each distinct confidence, from the highest down:
        ``threshold``, the confidence; ``coverage``, the share of rows with at least that;
        ``accuracy`` on those rows. Rows of equal confidence come and go together. The last entry
        has coverage 1 and the plain accuracy.

    Raises
    ------
    ValueError
        If the shapes do not fit, a code is no column, or the rows of `proba` are not probabilities.

    References
    ----------
    Y. Geifman and R. El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017.

    Examples
    --------
    >>> from hypervlad.metrics import selective_accuracy_curve
    >>> curve = selective_accuracy_curve([0, 1], [[0.9, 0.1], [0.6, 0.4]])
    >>> curve.coverage.tolist(), curve.accuracy.tolist(), curve.threshold.tolist()
    ([0.5, 1.0], [1.0, 0.5], [0.9, 0.6])
    """
    confidence, correct = _confidence_and_correct(y_true, proba)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    last_of_ties = np.append(sorted_confidence[1:] != sorted_confidence[:-1], True)
    kept = np.arange(1, len(order) + 1)[last_of_ties]
    right = np.cumsum(correct[order])[last_of_ties]
    return SelectiveAccuracy(kept / len(order), right / kept, sorted_confidence[last_of_ties])


def selective_accuracy_area(y_true: ArrayLike, proba: ArrayLike) -> float:
    """The area under the selective-accuracy curve: one number for how well doubt is placed.

    The mean, over k = 1 ... n, of the accuracy on the k most confident rows; rows of equal
    confidence are taken in all orders, on average. For the same accuracy it is the larger, the
    less confident the wrong answers are.

    Parameters
    ----------
    y_true : array-like of int, shape (n_samples,)
        Class codes: the columns of `proba`.
    proba : array-like of float, shape (n_samples, n_classes)
        Probabilities; each row sums to 1.

    Returns
    -------
    area : float
        Between 0 and 1; 1 minus what is called AURC, the area under the risk-coverage curve.

    Raises
    ------
    ValueError
        As in `selective_accuracy_curve`.

    References
    ----------
    Y. Geifman, G. Uziel and R. El-Yaniv, "Bias-reduced uncertainty estimation for deep neural
    classifiers", ICLR 2019.

    Examples
    --------
    >>> from hypervlad.metrics import selective_accuracy_area
    >>> selective_accuracy_area([0, 1], [[0.9, 0.1], [0.6, 0.4]])  # (1 + 1/2) / 2
    0.75
    """
    curve = selective_accuracy_curve(y_true, proba)
    n = len(np.asarray(y_true))
    kept = np.append(0, np.rint(curve.coverage * n))
    right = np.append(0, curve.accuracy * kept[1:])
    k = np.arange(1, n + 1)
    return float((np.interp(k, kept, right) / k).mean())


def _bins(confidence: FloatArray, n_bins: int) -> NDArray[np.intp]:
    _check_count("n_bins", n_bins)
    # Right-closed bins, as published: a confidence of exactly 0.5 belongs to (0.4, 0.5].
    edges = np.arange(1, n_bins) / n_bins
    return np.searchsorted(edges, confidence, side="left")


def _binned_gap(
    confidence: FloatArray, correct: NDArray[np.bool_], bins: NDArray[np.intp], n_bins: int
) -> float:
    # |accuracy - confidence| x rows of a bin is the absolute sum of (correct - confidence) over it.
    gap = np.bincount(bins, weights=correct - confidence, minlength=n_bins)
    return float(np.abs(gap).sum() / len(confidence))


def _confidence_and_correct(
    y_true: ArrayLike, proba: ArrayLike
) -> tuple[FloatArray, NDArray[np.bool_]]:
    table = _check_proba(proba)
    codes = np.asarray(y_true)
    if codes.shape != (len(table),):
        raise ValueError(
            f"y_true has one class code per row of proba: expected shape ({len(table)},), "
            f"got {codes.shape}."
        )
    if codes.dtype.kind not in "iub":
        raise ValueError(
            f"y_true holds column numbers of proba, not labels; got type {codes.dtype}. "
            "Use np.searchsorted(model.classes_, y)."
        )
    if codes.min() < 0 or codes.max() >= table.shape[1]:
        raise ValueError(
            f"y_true has codes from {codes.min()} to {codes.max()}, "
            f"but proba has columns 0 to {table.shape[1] - 1}."
        )
    return table.max(axis=1), table.argmax(axis=1) == codes


def _check_proba(proba: ArrayLike) -> FloatArray:
    table = np.asarray(proba, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise ValueError(
            f"proba is a table of shape (n_samples, n_classes), not empty; got shape {table.shape}."
        )
    # Written so that NaN fails too.
    if not (table >= 0).all() or not (np.abs(table.sum(axis=1) - 1) <= _SUM_TOLERANCE).all():
        raise ValueError("Each row of proba must hold probabilities: not negative, with sum 1.")
    return table


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number, at least 1; got {value!r}.")
