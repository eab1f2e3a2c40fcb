"""Scores of predicted probabilities: calibration and selective accuracy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
_SUM_TOLERANCE = 1e-3  # for the rounding of float32 softmax outputs
_N_BINS = 10
_N_SIMULATIONS = 1000
_LEVEL = 0.95  # share of the simulations inside the range


class SelectiveAccuracy(NamedTuple):
    """Accuracy of the most confident part of the predictions.

    Attributes
    ----------
    coverage, accuracy : ndarray of float, shape (m,)
        Share of the rows with at least the confidence `threshold`, rising to 1, and share of
        correct predictions among them.
    threshold : ndarray of float, shape (m,)
        The distinct confidences, from the highest down.
    """

    coverage: FloatArray
    accuracy: FloatArray
    threshold: FloatArray


class ReliabilityBins(NamedTuple):
    """Bins of one width, by confidence.

    Attributes
    ----------
    confidence, accuracy : ndarray of float, shape (n_bins,)
        Means of each bin; the accuracy of an empty bin is NaN.
    counts : ndarray of int, shape (n_bins,)
        Predictions in each bin.
    """

    confidence: FloatArray
    accuracy: FloatArray
    counts: NDArray[np.intp]

    @property
    def calibration_error(self) -> float:
        """Mean distance between confidence and accuracy, weighted by counts; NaN without rows."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(np.average(gaps, weights=self.counts[filled])) if filled.any() else np.nan


def reliability_bins(
    confidence: ArrayLike, correct: ArrayLike, n_bins: int = _N_BINS
) -> ReliabilityBins:
    """Average confidence and correctness over bins of equal width in confidence.

    Bin m of M holds the confidences in ((m - 1) / M, m / M] [1]_.

    Parameters
    ----------
    confidence : array-like of float, shape (n,)
        Between 0 and 1.
    correct : array-like of bool, shape (n,)
    n_bins : int, default=10
        At least 1; a ValueError otherwise.

    Returns
    -------
    ReliabilityBins

    References
    ----------
    .. [1] C. Guo et al., "On calibration of modern neural networks",
       ICML 2017.

    Examples
    --------
    >>> from hypervlad.evaluation import reliability_bins
    >>> reliability_bins([0.6, 0.9, 1.0], [1, 0, 1], n_bins=2).counts.tolist()
    [0, 3]
    """
    values = np.asarray(confidence, dtype=np.float64)
    hits = np.asarray(correct, dtype=np.float64)
    return _averaged(_bins(values, n_bins), values, hits, n_bins)


def expected_calibration_error(y_true: ArrayLike, proba: ArrayLike) -> float:
    """Mean distance between confidence and accuracy in ten bins, weighted by rows [1]_.

    The confidence of a row is its largest probability. Compare the error with
    `calibration_error_range`: it is rarely zero for finite data.

    Parameters
    ----------
    y_true : array-like of int, shape (n,)
        Class codes: the columns of `proba` (``np.searchsorted(model.classes_, y)``).
    proba : array-like of float, shape (n, n_classes)
        Probabilities; each row sums to 1.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the shapes do not fit, a code is no column, or the rows of `proba` are not probabilities.

    References
    ----------
    .. [1] M. P. Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning",
       AAAI 2015.

    Examples
    --------
    >>> from hypervlad.evaluation import expected_calibration_error
    >>> proba = [[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]]
    >>> expected_calibration_error([0, 0, 1, 1], proba)
    0.25
    """
    return reliability_bins(*_confidence_and_correct(y_true, proba)).calibration_error


def calibration_error_range(
    proba: ArrayLike, *, random_state: int | np.random.RandomState | None = None
) -> tuple[float, float]:
    """95 % range of calibration errors of a perfectly calibrated model with the same confidences.

    An `expected_calibration_error` above this range is evidence of miscalibration. In 1,000
    simulations, each prediction is correct with a probability equal to its confidence [1]_.

    Parameters
    ----------
    proba : array-like of float, shape (n, n_classes)
        Probabilities; each row sums to 1. A ValueError otherwise.
    random_state : int, RandomState or None, default=None
        Seed of the simulations.

    Returns
    -------
    low, high : float

    References
    ----------
    .. [1] J. Bröcker and L. A. Smith, "Increasing the reliability of reliability diagrams", Weather
       and Forecasting 22, 2007 (consistency resampling).

    Examples
    --------
    >>> from hypervlad.evaluation import calibration_error_range
    >>> low, high = calibration_error_range([[0.75, 0.25]] * 100, random_state=0)
    >>> 0 <= low < 0.02 < 0.06 < high < 0.12
    True
    """
    confidence = _check_proba(proba).max(axis=1)
    bins = _bins(confidence, _N_BINS)
    from sklearn.utils import check_random_state  # not above: importing it takes long

    rng = check_random_state(random_state)
    errors = np.empty(_N_SIMULATIONS)
    # One set of labels at a time: all sets at once may not fit in memory for a large folder.
    for simulation in range(_N_SIMULATIONS):
        correct = rng.random_sample(len(confidence)) < confidence
        simulated = _averaged(bins, confidence, correct.astype(np.float64), _N_BINS)
        errors[simulation] = simulated.calibration_error
    low, high = np.quantile(errors, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def selective_accuracy_curve(y_true: ArrayLike, proba: ArrayLike) -> SelectiveAccuracy:
    """Accuracy on the most confident rows, at every coverage [1]_.

    Parameters and errors are those of `expected_calibration_error`.

    Returns
    -------
    SelectiveAccuracy

    References
    ----------
    .. [1] Y. Geifman and R. El-Yaniv, "Selective classification for deep neural networks", NeurIPS
       2017.

    Examples
    --------
    >>> from hypervlad.evaluation import selective_accuracy_curve
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


def _bins(confidence: FloatArray, n_bins: int) -> NDArray[np.intp]:
    if isinstance(n_bins, bool) or int(n_bins) != n_bins or n_bins < 1:
        raise ValueError(f"n_bins must be a whole number, at least 1; got {n_bins!r}.")
    # Right-closed bins, as published: a confidence of exactly 0.5 belongs to (0.4, 0.5].
    edges = np.arange(1, n_bins) / n_bins
    return np.searchsorted(edges, confidence, side="left")


def _averaged(
    bins: NDArray[np.intp], confidence: FloatArray, correct: FloatArray, n_bins: int
) -> ReliabilityBins:
    counts = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, confidence, n_bins) / counts
        share = np.bincount(bins, correct, n_bins) / counts
    return ReliabilityBins(mean, share, counts)


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
    # `not (... >= 0)` so that NaN fails too.
    if not (table >= 0).all() or not (np.abs(table.sum(axis=1) - 1) <= _SUM_TOLERANCE).all():
        raise ValueError("Each row of proba must hold probabilities: not negative, with sum 1.")
    return table
