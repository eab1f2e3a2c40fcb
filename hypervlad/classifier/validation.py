"""What an image classifier accepts, found out before any image is encoded."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, has_fit_parameter

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.splits import first_appearance_codes, group_folds


def check_learner(learner: Any) -> None:
    """Raise unless it is a classifier with probabilities and usable parameters, or None."""
    if isinstance(learner, BoostedSoftmaxClassifier):
        learner.check_parameters()
    elif learner is not None and not (
        isinstance(learner, BaseEstimator)
        and is_classifier(learner)
        and hasattr(learner, "predict_proba")
    ):
        raise ValueError(
            "boosting must be a BoostedSoftmaxClassifier, another scikit-learn classifier with "
            f"predict_proba, or None, not {learner!r}"
        )


def check_calibration_size(value: Any) -> None:
    """Raise unless it is None, 0 or a share below 1."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 <= float(value) < 1):
        raise ValueError(
            "calibration_size is None (all images, in turns), a share of the images between 0 and "
            f"1, or 0 (none); got {value!r}"
        )


def check_reject_label(label: Any, classes: np.ndarray) -> None:
    """Refuse what cannot be told from a class, or from an image skipped."""
    if label is None or label != label or not np.isscalar(label):
        raise ValueError(f"reject_label is a text or number, such as 'unsure'; got {label!r}")
    if label in classes.tolist():
        raise ValueError(f"reject_label={label!r} is one of the classes: take another")


def checked_labels(y: Any, n_images: int) -> np.ndarray:
    """Return n labels as an array; ValueError where one is missing."""
    if y is None:
        raise ValueError(
            "this classifier requires y to be passed, but the target y is None: give a label for "
            "each image"
        )
    labels = column_or_1d(of_length("labels (y)", y, n_images), warn=True)
    first_appearance_codes(labels.tolist(), "y")  # refuses missing ones
    # Without the holes that they were looked through for, texts are texts again.
    return np.array(labels.tolist()) if isinstance(y, list | tuple) else labels


def check_classes(labels: np.ndarray, groups: np.ndarray | None) -> None:
    """Find out before the images are encoded, not after, that there is nothing to learn."""
    check_classification_targets(labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"the labels (y) have one class only, {classes.tolist()[:1]}: two or more are needed"
        )
    group_folds(labels, groups, n_splits=2, random_state=0)  # refuses unusable groups


def checked_weights(weights: Any) -> np.ndarray:
    """Return weights as floats; ValueError unless finite, not negative and not all zero."""
    values = np.asarray(weights, dtype=np.float64)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        raise ValueError(
            f"sample_weight must be finite and not negative; image {wrong.argmax()} has "
            f"{values[wrong.argmax()]}"
        )
    if not values.any():
        raise ValueError("sample_weight: all weights are zero, so there is no image to learn from")
    return values


def facts_for(learner: Any, given: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Pick what the learner's fit takes; ValueError if weights would be lost on it."""
    known = {name: v for name, v in given.items() if has_fit_parameter(learner, name)}
    if "sample_weight" in given and "sample_weight" not in known:
        raise ValueError(
            f"sample_weight is given, but the learner, {type(learner).__name__}, takes none: leave "
            "it out or give boosting= a learner whose fit takes it"
        )
    if "groups" in given and "groups" not in known:
        warnings.warn(
            f"the learner, a {type(learner).__name__}, takes no groups: what it chooses by inner "
            "splits of its own, if anything, is chosen on images of groups that it has seen",
            UserWarning,
            stacklevel=3,
        )
    return known


def of_length(what: str, values: Any, n_images: int) -> np.ndarray:
    """Return values as an array; ValueError unless there is one for each image."""
    # A list of texts with a hole in it, [..., nan], must not become the text "nan".
    values = np.array(values, dtype=object) if isinstance(values, list) else np.asarray(values)
    if len(values) != n_images:
        raise ValueError(f"{len(values)} {what} for {n_images} images: give one for each image")
    return values
