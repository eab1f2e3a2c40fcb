"""From probabilities, some of images that could not be read, to labels and their accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score

from hypervlad.classifier.validation import of_length


def most_probable(proba: NDArray[np.floating], classes: NDArray[Any]) -> NDArray[Any]:
    """Return the label of the highest probability in each row (n, n_classes).

    Where rows are NaN, an object array with None in their place.
    """
    skipped = np.isnan(proba[:, 0])
    labels = classes[np.where(skipped[:, None], 0.0, proba).argmax(axis=1)]
    if skipped.any():
        labels = labels.astype(object)
        labels[skipped] = None
    return labels


def accuracy_of_read(
    predicted: NDArray[Any],
    truth: Sequence[Any],
    classes: NDArray[Any],
    sample_weight: Sequence[float] | None = None,
) -> float:
    """Return the accuracy of labels as `most_probable` gives them; None does not count."""
    n = len(predicted)
    of_length("labels", truth, n)
    read = np.array([label is not None for label in predicted])
    weights = None if sample_weight is None else of_length("weights", sample_weight, n)[read]
    expected, found = np.asarray(truth)[read], predicted[read].astype(classes.dtype)
    return float(accuracy_score(expected, found, sample_weight=weights))
