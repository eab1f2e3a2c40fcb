"""What an image classifier accepts, found out before any image is encoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils.multiclass import check_classification_targets

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.boosting.validation import check_parameters
from hypervlad.splits import group_folds


def check_learner(learner: Any) -> None:
    """Raise unless it is a classifier with probabilities and usable parameters, or None."""
    if isinstance(learner, BoostedSoftmaxClassifier):
        check_parameters(learner)
    elif learner is not None and not (
        isinstance(learner, BaseEstimator)
        and is_classifier(learner)
        and hasattr(learner, "predict_proba")
    ):
        raise ValueError(
            "boosting must be a BoostedSoftmaxClassifier, another scikit-learn classifier with "
            f"predict_proba, or None, not {learner!r}"
        )


def check_labels(labels: np.ndarray, groups: np.ndarray | None) -> None:
    """Find out before the images are encoded, not after, that there is nothing to learn."""
    if (labels != labels).any():  # only NaN differs from itself
        raise ValueError("the labels (y) hold NaN: leave such images out, or name their class")
    check_classification_targets(labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"the labels (y) have one class only, {classes.tolist()[0]!r}: two or more are needed"
        )
    group_folds(labels, groups, n_splits=2, random_state=0)  # refuses unusable groups


def of_length(what: str, values: Any, n_images: int) -> np.ndarray:
    """Return values as an array; ValueError unless there is one for each image."""
    # A list of texts with a hole in it, [..., nan], must not become the text "nan".
    values = np.array(values, dtype=object) if isinstance(values, list) else np.asarray(values)
    if len(values) != n_images:
        raise ValueError(f"{len(values)} {what} for {n_images} images: give one for each image")
    return values
