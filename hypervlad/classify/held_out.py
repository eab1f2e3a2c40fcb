"""Held-out predictions: what prediction sets, confidence thresholds and accuracies come from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.common.progress import by_reader
from hypervlad.common.stored import Array, Each, Part, StoredPart
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.statistics.classification import Evaluation
from hypervlad.statistics.conformal import (
    CERTAINTY,
    Calibration,
    check_share,
    confidence_for_error,
    groups_for_error,
    prediction_sets,
)

_MIN_CONFIDENCE = 0.5  # of a sure answer: one that is more probably wrong than right is not sure


class SureAnswers(NamedTuple):
    """How many of the held-out images have a sure answer, and how many of these are wrong.

    Attributes
    ----------
    max_error : float
        Accepted share of wrong answers among the sure ones.
    threshold : float
        Lowest confidence of a sure answer; infinite if none is sure.
    n_sure, n_wrong : int
    """

    max_error: float
    threshold: float
    n_sure: int
    n_wrong: int


@dataclass(frozen=True, eq=False)
class HeldOut(StoredPart):
    """Predictions of images by learners that were not fitted on them.

    Attributes
    ----------
    learners : list of classifiers
        One per fold.
    proba : ndarray of float, shape (n, n_classes)
    codes, groups, models, rows : ndarray of int, shape (n,)
        Of each image: the column of its class, its group, the index of the learner that predicted
        it, and its row in ``model.training_``.
    lone : ndarray of int
        Columns of classes of a single group, which cannot be held out.
    """

    learners: Annotated[list[Any], Each(Part(BoostedSoftmaxClassifier), list)]
    proba: Annotated[NDArray[np.float64], Array("float64", 2, at_least=0, at_most=1)]
    codes: Annotated[NDArray[np.intp], Array("int64", 1)]
    groups: Annotated[NDArray[np.intp], Array("int64", 1)]
    models: Annotated[NDArray[np.intp], Array("int64", 1)]
    rows: Annotated[NDArray[np.intp], Array("int64", 1)]
    lone: Annotated[NDArray[np.intp], Array("int64", 1)]

    def __len__(self) -> int:
        return len(self.codes)

    def evaluation(self, classes: NDArray[Any]) -> Evaluation:
        has_groups = len(np.unique(self.groups)) < len(self)
        truth = [classes[code] for code in self.codes]
        groups = self.groups.tolist() if has_groups else None
        return Evaluation(truth, self.proba, classes.tolist(), groups)

    def threshold(self, max_error: float) -> float:
        """Return the lowest confidence of a sure answer, at least 0.5; infinite if none is sure."""
        if len(self.lone):
            check_share("max_error", max_error)
            return float("inf")
        return max(confidence_for_error(self.calibration, max_error), _MIN_CONFIDENCE)

    def checked_threshold(self, max_error: float) -> float:
        """Return the `threshold`, and warn if no answer is sure."""
        threshold = self.threshold(max_error)
        if np.isinf(threshold):
            n_groups, n_needed = self.calibration.n_groups, groups_for_error(max_error)
            remedy = "accept more errors or train on images of more groups"
            remedy = by_reader(remedy, "write the classes of more images")
            if len(self.lone):
                why = f"no image of {self._lone_names()} can be held out"
                remedy = "train on images of at least two groups of each class"
            elif n_groups < n_needed:
                why = (
                    f"this takes held-out predictions for at least {counted(n_needed, 'group')}, "
                    f"and there are {n_groups}"
                )
            else:
                groups = counted(n_groups, "group")
                why = f"too many held-out predictions of the {groups} were wrong"
            warn_user(
                f"no answer is sure: that at most {max_error:g} of the sure answers are wrong "
                f"cannot be shown with {CERTAINTY:.0%} certainty ({why}); {remedy} (without "
                "groups, each image is one)"
            )
        return threshold

    def warn_of_sets(self, coverage: float) -> None:
        """Warn if prediction sets of this coverage always have a class, or all."""
        n_groups = self.calibration.n_groups
        if 1 / (n_groups + 1) > 1 - coverage + 1e-12:
            message = (
                f"with a coverage of {coverage:g}, every prediction set has all classes: there are "
                f"too few groups ({n_groups}); "
                + by_reader(
                    "ask for a lower coverage or train on images of more groups",
                    "write the classes of more images",
                )
            )
        elif len(self.lone):
            message = (
                f"every prediction set has {self._lone_names()}, of which no image can be held "
                "out: train on images of at least two groups of each class"
            )
        else:
            return
        warn_user(f"{message} (without groups, each image is one)")

    def _lone_names(self) -> str:
        return name_some([str(label) for label in self.learners[0].classes_[self.lone]])

    def sets(
        self,
        by_learner: NDArray[np.floating],
        proba: NDArray[np.floating],
        novelty: NDArray[np.floating],
        coverage: float,
    ) -> NDArray[np.bool_]:
        """Return prediction sets of new images, (n, n_classes), by their probabilities.

        They contain the most probable class and the `lone` ones; with `novelty` above 1, all.
        """
        sets = prediction_sets(by_learner, self.calibration, coverage)
        sets[np.arange(len(sets)), proba.argmax(axis=1)] = True
        sets[:, self.lone] = True
        sets[novelty > 1] = True
        return sets

    def sure_answers(self, max_error: float = 0.05) -> SureAnswers:
        """Count the held-out images that have a sure answer; by default, for an error of 5 %."""
        threshold = self.threshold(max_error)
        sure = self.calibration.confidence >= threshold
        wrong = sure & (self.proba.argmax(axis=1) != self.codes)
        return SureAnswers(max_error, threshold, int(sure.sum()), int(wrong.sum()))

    @cached_property
    def calibration(self) -> Calibration:
        """The predictions compared with the true classes."""
        return Calibration.of(self.proba, self.codes, self.groups, self.models)

    def confidence(
        self, by_learner: NDArray[np.floating], proba: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return the confidence of the model's answers for new images, (n,).

        It is the mean of the learners that predicted held-out images, for the most probable class
        of `proba`: the model's own learner was fitted on more images.
        """
        answers = by_learner[:, np.arange(len(proba)), proba.argmax(axis=1)]
        return np.asarray(answers.mean(axis=0))

    def by_learner(
        self, vectors: NDArray[np.floating], proba: NDArray[np.floating]
    ) -> NDArray[np.floating]:
        """Return the probabilities of new images by each learner, (n_learners, n, n_classes).

        `proba` are those by the model's own learner.
        """
        if not len(vectors):  # which a learner may refuse
            return np.empty((len(self.learners), *proba.shape))
        return np.stack([learner.predict_proba(vectors) for learner in self.learners])

    def check(self, n_training: int, learner: BoostedSoftmaxClassifier) -> None:
        """Raise a ValueError unless the attributes fit each other and the model's own learner."""
        n, n_classes = self.proba.shape
        if not n:
            raise ValueError("the held-out predictions are empty")
        shapes = {each.shape for each in (self.codes, self.groups, self.models, self.rows)}
        within = (
            shapes == {(n,)}
            and 0 <= self.codes.min() <= self.codes.max() < n_classes
            and 0 <= self.rows.min() <= self.rows.max() < n_training
            and 0 <= self.models.min() <= self.models.max() < len(self.learners)
            and np.isin(self.lone, np.arange(n_classes)).all()
        )
        if not within:
            raise ValueError("the held-out predictions are damaged")
        classes = learner.classes_
        if n_classes != len(classes) or not all(
            np.array_equal(each.classes_, classes) for each in self.learners
        ):
            raise ValueError("the held-out predictions have learners of other classes")
        if any(each.n_features_in_ != learner.n_features_in_ for each in self.learners):
            raise ValueError("the learners of the held-out predictions take other features")
