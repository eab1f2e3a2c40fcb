"""Training images whose label is probably wrong."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier.heldout import HeldOut
from hypervlad.classifier.training import TrainingImages


@dataclass(frozen=True)
class LabelIssue:
    """A label that models which had not seen the image disagree with.

    Attributes
    ----------
    position : int
        Of the image in the list given to ``fit``.
    name : str
        Of the image: its path below the folder that all lie in; "" for an array.
    label : object
        As given.
    likely : object
        The class that is more probable.
    p_label, p_likely : float
        Probabilities of the two.
    """

    position: int
    name: str
    label: Any
    likely: Any
    p_label: float
    p_likely: float


def label_issues(
    held_out: HeldOut, training: TrainingImages, classes: NDArray[Any]
) -> list[LabelIssue]:
    """Find them by confident learning; see `MicrographClassifier.label_issues`."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise ImportError(
            'suspect labels are found by cleanlab: pip install "hypervlad[review]"'
        ) from error
    proba, codes = held_out.proba, held_out.codes
    with warnings.catch_warnings():  # of classes that were never held out
        warnings.simplefilter("ignore", UserWarning)
        ranked = find_label_issues(
            codes,
            proba,
            filter_by="confident_learning",
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )
    found, names = [], classes.tolist()
    for i in np.asarray(ranked, dtype=np.intp).tolist():
        row, likely = int(held_out.rows[i]), int(proba[i].argmax())
        if likely != codes[i]:
            found.append(
                LabelIssue(
                    int(training.positions[row]),
                    training.names[row],
                    names[codes[i]],
                    names[likely],
                    float(proba[i, codes[i]]),
                    float(proba[i, likely]),
                )
            )
    return found
