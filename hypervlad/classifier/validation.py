"""Checks of the labels, groups and weights given to ``fit``, before any image is encoded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from hypervlad.splits import check_column, first_appearance_codes
from hypervlad.wording import counted


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images to train on, with checked labels, groups and weights.

    Attributes
    ----------
    images : list of n paths and arrays
    labels : ndarray of shape (n,)
    positions : ndarray of int, shape (n,)
        Of the images in the list given.
    given : dict of str to ndarray of shape (n,)
        "groups" and "sample_weight", if given.
    """

    images: list[Any]
    labels: NDArray[Any]
    positions: NDArray[np.intp]
    given: dict[str, NDArray[Any]]

    @classmethod
    def of(cls, images: list[Any], y: Any, groups: Any, sample_weight: Any) -> LabelledImages:
        """Check what ``fit`` is given; leave out images of weight 0.

        Raises
        ------
        ValueError
            For lengths that differ, missing values, unusable weights, or fewer than two classes.
        """
        labels = checked_labels(y, len(images))
        values = {"groups": groups, "sample_weight": sample_weight}
        for name, own in values.items():
            if own is not None:
                check_column(name, own, "weights" if name == "sample_weight" else "groups")
        given = {
            name: of_length(f"{name} values", own, len(images))
            for name, own in values.items()
            if own is not None
        }
        positions = np.arange(len(images))
        if "sample_weight" in given:
            positions = np.flatnonzero(checked_weights(given["sample_weight"]))
            images, labels = [images[i] for i in positions], labels[positions]
            given = {name: own[positions] for name, own in given.items()}
        check_classes(labels, given.get("groups"))
        return cls(images, labels, positions, given)

    def group_codes(self) -> NDArray[np.intp]:
        """Return the group of each image as a number; its own if no groups are given."""
        if "groups" not in self.given:
            return np.arange(len(self.images))
        return first_appearance_codes(self.given["groups"].tolist(), "groups")


def contradictions(digests: Sequence[str], labels: NDArray[Any]) -> list[list[int]]:
    """Return sets of images of equal pixels and different labels, as row numbers.

    Parameters
    ----------
    digests : sequence of n str
        Of the pixels.
    labels : ndarray of shape (n,)

    Examples
    --------
    >>> contradictions(["ab", "cd", "ab", "cd"], np.array(["x", "y", "z", "y"]))
    [[0, 2]]
    """
    rows_of = defaultdict(list)
    for row, digest in enumerate(digests):
        rows_of[digest].append(row)
    return [rows for rows in rows_of.values() if len(set(labels[rows].tolist())) > 1]


def checked_labels(y: Any, n_images: int) -> np.ndarray:
    """Return n labels as an array; ValueError if one is missing."""
    if y is None:
        raise ValueError(
            "this classifier requires y to be passed, but the target y is None: give a label for "
            "each image"
        )
    check_column("y", y, "labels")
    labels = column_or_1d(of_length("labels (y)", y, n_images), warn=True)
    first_appearance_codes(labels.tolist(), "y")  # raises for missing labels
    # No label is missing, so the array need not be of objects any more.
    return np.array(labels.tolist()) if isinstance(y, list | tuple) else labels


def check_classes(labels: np.ndarray, groups: np.ndarray | None) -> None:
    """Raise a ValueError unless there are two classes or more, and no group is missing."""
    check_classification_targets(labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"the labels (y) have one class only, {classes.tolist()[:1]}: two or more are needed"
        )
    if groups is not None:
        first_appearance_codes(groups.tolist(), "groups")


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
        raise ValueError("sample_weight: all weights are zero, so there is no image to train on")
    return values


def of_length(what: str, values: Any, n_images: int) -> np.ndarray:
    """Return values as an array; ValueError unless there is one for each image."""
    # As an array of objects: in a list of strings with a missing one, NumPy would make NaN "nan".
    values = np.array(values, dtype=object) if isinstance(values, list) else np.asarray(values)
    if len(values) != n_images:
        raise ValueError(
            f"{len(values)} {what} for {counted(n_images, 'image')}: give one for each image"
        )
    return values
