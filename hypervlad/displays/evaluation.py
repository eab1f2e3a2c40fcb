"""The figures of an evaluation: accuracy and its interval, the baseline, scores of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.metrics import (
    SelectiveAccuracy,
    calibration_error_range,
    expected_calibration_error,
    selective_accuracy_area,
    selective_accuracy_curve,
)

_Z95 = 1.959963984540054
_FEWEST_GROUPS = 10
_N_RESAMPLES = 2000


@dataclass(frozen=True)
class ClassScores:
    """How well one class is recognised; not-a-number where a score has no meaning.

    Attributes
    ----------
    label : str
    precision : float
        Of the images that the model put into the class, the share that belongs there.
    recall : float
        Of the images of the class, the share that the model found.
    f1 : float
        The harmonic mean of the two.
    support : int
        Images of the class.
    known : bool
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
    """Predictions beside the truth, and what follows from them.

    Labels are compared as text. A true label that is not among `classes` is allowed: the model
    cannot be right about it, so it counts as a mistake.

    Attributes
    ----------
    y_true : sequence of n labels
    proba : ndarray of shape (n, n_classes)
    classes : sequence of n_classes labels
    groups : sequence of n hashables, optional
        Images of one group (one sample, one micrograph) are not independent of each other.

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
            raise ValueError(f"got {shape[0]} true labels but {len(self.groups)} groups.")

    @cached_property
    def true(self) -> list[str]:
        """The true labels as text."""
        return [str(label) for label in self.y_true]

    @cached_property
    def said(self) -> list[str]:
        """The predicted labels as text."""
        names = [str(label) for label in self.classes]
        return [names[k] for k in np.asarray(self.proba).argmax(axis=1)]

    @cached_property
    def confidence(self) -> NDArray[np.floating[Any]]:
        """The probability of the predicted class, shape (n,)."""
        highest: NDArray[np.floating[Any]] = np.asarray(self.proba).max(axis=1)
        return highest

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, shape (n,)."""
        return np.array([a == b for a, b in zip(self.true, self.said, strict=True)])

    @cached_property
    def unknown(self) -> list[str]:
        """True labels that the model was not trained on, sorted."""
        return sorted(set(self.true) - {str(label) for label in self.classes})

    @cached_property
    def labels(self) -> list[str]:
        """The model's classes in its order, then the unknown labels."""
        return [str(label) for label in self.classes] + self.unknown

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy; see `accuracy_interval`."""
        return accuracy_interval(self.correct, self.groups)

    @property
    def baseline(self) -> tuple[str, float]:
        """The most common true class, and the accuracy of always naming it."""
        (label, count), *_ = sorted(Counter(self.true).items(), key=lambda kv: (-kv[1], kv[0]))
        return label, count / len(self.true)

    @property
    def calibration_error(self) -> float:
        """The expected calibration error; see `hypervlad.metrics.expected_calibration_error`."""
        return expected_calibration_error(*self._codes_and_proba)

    @property
    def calibration_range(self) -> tuple[float, float]:
        """The calibration errors that chance alone would give a perfectly calibrated model."""
        return calibration_error_range(self.proba, random_state=0)

    @property
    def selective_curve(self) -> SelectiveAccuracy:
        """Accuracy of the surest answers; see `hypervlad.metrics.selective_accuracy_curve`."""
        return selective_accuracy_curve(*self._codes_and_proba)

    @property
    def selective_area(self) -> float:
        """The area under that curve; see `hypervlad.metrics.selective_accuracy_area`."""
        return selective_accuracy_area(*self._codes_and_proba)

    @cached_property
    def _codes_and_proba(self) -> tuple[list[int], NDArray[np.floating[Any]]]:
        """True labels as columns; unknown ones get a column of their own, with probability 0."""
        place = {str(label): code for code, label in enumerate(self.classes)}
        codes = [place.get(label, len(place)) for label in self.true]
        return codes, np.pad(np.asarray(self.proba), ((0, 0), (0, 1)))

    @property
    def scores(self) -> list[ClassScores]:
        """Scores of each label, in the order of `labels`."""
        known = len(self.classes)
        return [self._score(label, known=index < known) for index, label in enumerate(self.labels)]

    @property
    def confusions(self) -> list[tuple[str, str, int]]:
        """(true, said, count) of every kind of mistake, most frequent first."""
        pairs = Counter(
            (true, said) for true, said in zip(self.true, self.said, strict=True) if true != said
        )
        return sorted(((*pair, n) for pair, n in pairs.items()), key=lambda item: (-item[2], item))

    def _score(self, label: str, *, known: bool) -> ClassScores:
        true = np.array([name == label for name in self.true])
        said = np.array([name == label for name in self.said])
        hits = int((true & said).sum())
        return ClassScores(
            label,
            precision=_ratio(hits, int(said.sum())),
            recall=_ratio(hits, int(true.sum())),
            f1=_ratio(2 * hits, int(said.sum() + true.sum())),
            support=int(true.sum()),
            known=known,
        )


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """The 95 % score interval of a proportion [1]_.

    Parameters
    ----------
    share : float
        The observed proportion.
    n : float
        Of how many independent trials.

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

    Without groups it is Wilson's. With at least ten groups it is the percentile interval of 2,000
    resamples of whole groups, as images of one group stand or fall together. With fewer groups, or
    where every resample is alike, it is Wilson's with the number of groups in place of the number
    of images, which errs on the side of caution.

    Parameters
    ----------
    correct : array-like of bool of shape (n,)
    groups : sequence of n hashables, optional

    Returns
    -------
    low, high : float
        The same at every call: the resampling is seeded.
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
    if n_groups >= _FEWEST_GROUPS:
        drawn = np.random.default_rng(0).integers(n_groups, size=(_N_RESAMPLES, n_groups))
        low, high = np.quantile(hits[drawn].sum(1) / sizes[drawn].sum(1), [0.025, 0.975])
        if low < high:
            return float(low), float(high)
    return wilson_interval(share, n_groups)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
