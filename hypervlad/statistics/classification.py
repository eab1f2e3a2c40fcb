"""Evaluation of a classifier: accuracies with intervals, calibration, scores by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.wording import counted
from hypervlad.statistics.groups import Sample, student_factor, wilson_interval
from hypervlad.statistics.probabilities import (
    ReliabilityBins,
    SelectiveAccuracy,
    calibration_error_range,
    expected_calibration_error,
    reliability_bins,
    selective_accuracy_curve,
)

_MAX_UNCERTAINTY = 0.1  # of an accuracy that shows whether the model is calibrated


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; NaN where a score is not defined.

    Attributes
    ----------
    label : str
    precision, recall, f1 : float
    support : int
        Number of images of the class.
    known : bool, default=True
        Whether the model was trained on the class.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    known: bool = True


@dataclass(frozen=True)
class Evaluation:
    """Predicted probabilities compared with the true labels; labels are compared as text.

    A ValueError if there are no images, or the lengths differ.

    Parameters
    ----------
    y_true : sequence of n labels
        A label that is not among `classes` counts as a mistake.
    proba : ndarray of shape (n, n_classes)
    classes : sequence of n_classes labels
    groups : sequence of n hashables, default=None
        Images of one group are not independent of each other. None makes each image its own group.

    Examples
    --------
    >>> result = Evaluation(["a", "b"], np.array([[0.9, 0.1], [0.6, 0.4]]), ["a", "b"])
    >>> result.accuracy, result.baseline
    (0.5, ('a', 0.5))
    """

    y_true: Sequence[Any]
    proba: NDArray[np.floating[Any]]
    classes: Sequence[Any]
    groups: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.y_true), len(self.classes))
        if np.shape(self.proba) != shape:
            raise ValueError(
                f"got {shape[0]} true labels and {shape[1]} classes, so expected probabilities of "
                f"shape {shape}; got {np.shape(self.proba)}."
            )
        if shape[0] == 0:
            raise ValueError("there are no images to evaluate; give at least one.")
        if self.groups is not None and len(self.groups) != shape[0]:
            raise ValueError(
                f"got {counted(shape[0], 'true label')} but {counted(len(self.groups), 'group')}."
            )

    def subset(self, chosen: NDArray[np.bool_]) -> Evaluation | None:
        """Return the evaluation of some images, chosen by a mask (n,); None for no image."""
        rows = np.flatnonzero(chosen).tolist()
        if not rows:
            return None
        groups = None if self.groups is None else [self.groups[i] for i in rows]
        truth = [self.y_true[i] for i in rows]
        return Evaluation(truth, np.asarray(self.proba)[rows], self.classes, groups)

    @cached_property
    def _names(self) -> list[str]:
        return [str(label) for label in self.classes]

    @cached_property
    def true(self) -> list[str]:
        """The true labels as text."""
        return [str(label) for label in self.y_true]

    @cached_property
    def predicted(self) -> list[str]:
        """The predicted labels as text."""
        return [self._names[k] for k in np.asarray(self.proba).argmax(axis=1)]

    @cached_property
    def confidence(self) -> NDArray[np.floating[Any]]:
        """The probability of the predicted class, shape (n,)."""
        highest: NDArray[np.floating[Any]] = np.asarray(self.proba).max(axis=1)
        return highest

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, shape (n,)."""
        return np.array([a == b for a, b in zip(self.true, self.predicted, strict=True)])

    @cached_property
    def unknown(self) -> list[str]:
        """True labels that the model was not trained on, sorted."""
        return sorted(set(self.true) - set(self._names))

    @property
    def never_predicted(self) -> list[str]:
        """Classes of the model that have images here, and are predicted for none."""
        expected, found = set(self.true), set(self.predicted)
        return [name for name in self._names if name in expected - found]

    @property
    def untested(self) -> list[str]:
        """Classes of the model that have no images here."""
        expected = set(self.true)
        return [name for name in self._names if name not in expected]

    @cached_property
    def labels(self) -> list[str]:
        """The model's classes in its order, then the unknown labels."""
        return self._names + self.unknown

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % `accuracy_interval`."""
        return accuracy_interval(self.correct, self.groups)

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have images, including unknown ones."""
        return float(np.mean([score.recall for score in self.scores if score.support]))

    @property
    def balanced_interval(self) -> tuple[float, float]:
        """The 95 % `balanced_accuracy_interval`."""
        return balanced_accuracy_interval(self.correct, self.true, self.groups)

    @property
    def baseline(self) -> tuple[str, float]:
        """The most common true class, and the accuracy of always naming it."""
        (label, count), *_ = sorted(Counter(self.true).items(), key=lambda kv: (-kv[1], kv[0]))
        return label, count / len(self.true)

    def reliability_bins(self, n_bins: int = 10) -> ReliabilityBins:
        """The :func:`reliability_bins` of these predictions."""
        return reliability_bins(self.confidence, self.correct, n_bins)

    @property
    def calibration_error(self) -> float:
        """The `expected_calibration_error`."""
        return expected_calibration_error(*self._codes_and_proba)

    @property
    def calibration_range(self) -> tuple[float, float]:
        """The `calibration_error_range`."""
        return calibration_error_range(self.proba, random_state=0)

    @property
    def calibration(self) -> Literal["calibrated", "overconfident", "underconfident", "unknown"]:
        """Whether the mean confidence differs from the accuracy by more than chance (5 %).

        By Student's test of the sums by group. "unknown" if the difference may be chance and half
        the 95 % interval of the accuracy is wider than ten percentage points.
        """
        excess = np.asarray(self.confidence, dtype=np.float64) - self.correct
        sums = np.bincount(_group_codes(self.groups, len(excess)), excess)
        n_groups = len(sums)
        of_groups = np.sum((sums - sums.mean()) ** 2) * n_groups / max(1, n_groups - 1)
        independent = np.sum(self.confidence * (1 - self.confidence))
        limit = student_factor(max(2, n_groups))
        if abs(sums.sum()) <= limit * np.sqrt(max(of_groups, independent)):
            low, high = self.interval
            return "calibrated" if (high - low) / 2 <= _MAX_UNCERTAINTY else "unknown"
        return "overconfident" if sums.sum() > 0 else "underconfident"

    @property
    def selective_curve(self) -> SelectiveAccuracy:
        """The `selective_accuracy_curve`."""
        return selective_accuracy_curve(*self._codes_and_proba)

    @cached_property
    def _codes_and_proba(self) -> tuple[list[int], NDArray[np.floating[Any]]]:
        """True labels as column numbers; unknown labels share a further column of probability 0."""
        place = {name: code for code, name in enumerate(self._names)}
        codes = [place.get(label, len(place)) for label in self.true]
        return codes, np.pad(np.asarray(self.proba), ((0, 0), (0, 1)))

    @cached_property
    def scores(self) -> list[ClassScores]:
        """Scores of each label, in the order of `labels`."""
        from sklearn.metrics import precision_recall_fscore_support  # not above: it takes long

        scores: Any = precision_recall_fscore_support(
            self.true, self.predicted, labels=self.labels, zero_division=np.nan
        )
        is_known = np.arange(len(self.labels)) < len(self.classes)
        columns = self.labels, *(each.tolist() for each in (*scores, is_known))
        return [ClassScores(*row) for row in zip(*columns, strict=True)]

    @property
    def confusions(self) -> list[tuple[str, str, int]]:
        """(true, predicted, count) of every kind of mistake, most frequent first."""
        pairs = Counter(zip(self.true, self.predicted, strict=True))
        mistakes = [(*pair, n) for pair, n in pairs.items() if pair[0] != pair[1]]
        return sorted(mistakes, key=lambda item: (-item[2], item))


def accuracy_interval(
    correct: ArrayLike, groups: Sequence[Any] | None = None
) -> tuple[float, float]:
    """The 95 % interval of an accuracy: Wilson's, for as many trials as the images are worth.

    Images in groups are worth as many independent images as would vary like the groups, and fewer
    if that is found from few groups or few with a mistake or a correct answer. Without a mistake,
    they are worth no more than the number of groups.

    Parameters
    ----------
    correct : array-like of bool of shape (n,)
    groups : sequence of n hashables, default=None
        None makes all images independent of each other.

    Returns
    -------
    low, high : float
        Of one group, those of a single trial.

    Raises
    ------
    ValueError
        If there are no images, or the lengths differ.

    Examples
    --------
    >>> low, high = accuracy_interval([1] * 27 + [0] * 3, [i // 3 for i in range(30)])
    >>> f"{low:.2f} {high:.2f}"
    '0.54 0.99'
    """
    right = np.asarray(correct, dtype=float)
    return _weighted_interval(right, np.ones(len(right)), groups)


def intervals_of_highest(
    values: ArrayLike, groups: Sequence[Any] | None = None
) -> list[tuple[float, float]]:
    """The `accuracy_interval` of the share of the highest of n values, for 0 to n of these."""
    table = np.asarray(values)
    n, ranks = len(table), np.argsort(np.argsort(-table))
    if groups is None:
        return [wilson_interval(k / n, n) for k in range(n + 1) if n]
    return [accuracy_interval(ranks < k, groups) for k in range(n + 1)]


def balanced_accuracy_interval(
    correct: ArrayLike, y_true: Sequence[Any], groups: Sequence[Any] | None = None
) -> tuple[float, float]:
    """The 95 % interval of a balanced accuracy, the mean of the recalls of the classes.

    As `accuracy_interval`, with the true labels (n,), and with images that count more if their
    class has fewer images.

    Examples
    --------
    >>> low, high = balanced_accuracy_interval([1] * 30 + [0, 1], ["a"] * 30 + ["b"] * 2)
    >>> f"{low:.2f} {high:.2f}"
    '0.29 0.96'
    """
    right = np.asarray(correct, dtype=float)
    if len(y_true) != len(right):
        labels, images = counted(len(y_true), "label"), counted(len(right), "image")
        raise ValueError(f"got {labels} for {images}")
    codes = _group_codes(y_true, len(right))
    return _weighted_interval(right, 1 / np.bincount(codes)[codes], groups)


def _weighted_interval(
    right: NDArray[np.float64], weights: NDArray[np.float64], groups: Sequence[Any] | None
) -> tuple[float, float]:
    n_images = len(right)
    if not n_images or (groups is not None and len(groups) != n_images):
        of_groups = "" if groups is None else f" and {counted(len(groups), 'group')}"
        raise ValueError(
            "expected at least one image, and a group for each if there are groups; got "
            f"{counted(n_images, 'image')}{of_groups}"
        )
    sample = Sample(right, weights, _group_codes(groups, n_images))
    share, low, high = sample.share(right > 0)
    return wilson_interval(share, 1) if sample.n_groups == 1 else (low, high)


def _group_codes(groups: Sequence[Any] | None, n: int) -> NDArray[np.intp]:
    """Number the groups of n images, whose names are compared as text; None makes each its own."""
    if groups is None:
        return np.arange(n)
    return np.unique([str(group) for group in groups], return_inverse=True)[1].ravel()
