"""Models that have not seen some of the images, and what they said of those."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.conformal import Calibration
from hypervlad.encoder.state import arrays_under
from hypervlad.splits import first_appearance_codes, group_folds, holdout_split

_FOLDS = 5
_FIELDS = fields(Calibration)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Learners, and how far they were right on images that they had not learnt from.

    Attributes
    ----------
    learners : list of classifiers
        One a fold; the model's own learner if images were set apart.
    calibration : Calibration
    """

    learners: list[Any]
    calibration: Calibration

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return header and arrays."""
        headers, arrays = [], dict[str, NDArray[Any]]()
        for number, learner in enumerate(self.learners):
            header, own = learner.to_state()
            headers.append(header)
            arrays |= {f"{number}.{name}": array for name, array in own.items()}
        kept = {field.name: getattr(self.calibration, field.name) for field in _FIELDS}
        return {"learners": headers}, arrays | kept

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> HeldOut:
        """Undo `to_state`."""
        learners = [
            BoostedSoftmaxClassifier.from_state(own, arrays_under(f"{number}.", arrays))
            for number, own in enumerate(header["learners"])
        ]
        return cls(learners, Calibration(**{field.name: arrays[field.name] for field in _FIELDS}))

    def predict_proba(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what each learner says: (n_learners, n, n_classes)."""
        return np.stack([learner.predict_proba(vectors) for learner in self.learners])


def group_codes(groups: NDArray[Any] | None, n: int) -> NDArray[np.intp]:
    """Return the group of each of n images as a number; each is its own if there are none."""
    return np.arange(n) if groups is None else first_appearance_codes(groups.tolist(), "groups")


def sides(
    labels: NDArray[Any], groups: NDArray[np.intp], share: float | None, seed: int | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to learn from, and those to set apart: none but for a share above 0."""
    if not share:
        return np.arange(len(labels)), np.empty(0, dtype=np.intp)
    return holdout_split(labels, groups, test_size=share, random_state=seed)


def cross_held_out(
    learner: Any,
    vectors: NDArray[np.floating],
    labels: NDArray[Any],
    groups: NDArray[np.intp],
    known: Mapping[str, Any],
    seed: int | None,
) -> HeldOut | None:
    """Fit a copy of a fitted learner without each fold of groups, and judge that fold by it.

    Parameters
    ----------
    learner : classifier
        Fitted; its classes are those of all copies.
    vectors : ndarray of shape (n, n_features)
    labels : ndarray of shape (n,)
    groups : ndarray of int, shape (n,)
    known : mapping
        What else ``fit`` takes: values a row as arrays, all else as lists.
    seed : int, optional

    Returns
    -------
    HeldOut or None
        None if no group can be spared.
    """
    folds = group_folds(labels, groups, n_splits=_FOLDS, random_state=seed)
    if not folds:
        return None
    learners, proba, rows, models = [], [], [], []
    for number, (train, test) in enumerate(folds):
        own = {
            name: values[train] if isinstance(values, np.ndarray) else values
            for name, values in known.items()
        }
        learners.append(_quietly_fitted(clone(learner), vectors[train], labels[train], own))
        proba.append(learners[-1].predict_proba(vectors[test]))
        rows.append(test)
        models.append(np.full(len(test), number))
    tested = np.concatenate(rows)
    truth = np.searchsorted(learner.classes_, labels[tested])
    parts = (np.concatenate(proba), truth, groups[tested], np.concatenate(models))
    return HeldOut(learners, Calibration.of(*parts))


def _quietly_fitted(
    learner: Any, vectors: NDArray[np.floating], labels: NDArray[Any], known: Mapping[str, Any]
) -> Any:
    """Fit a learner that says nothing: what there is to say, that of all images has said."""
    if "verbose" in learner.get_params():
        learner.set_params(verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return learner.fit(vectors, labels, **known)


def judged_apart(
    learner: Any,
    vectors: NDArray[np.floating],
    labels: NDArray[Any],
    groups: NDArray[np.intp],
) -> HeldOut:
    """Judge images that had been set apart by the learner that did not see them."""
    read = ~np.isnan(vectors[:, 0]) & np.isin(labels, learner.classes_)
    truth = np.searchsorted(learner.classes_, labels[read])
    proba = learner.predict_proba(vectors[read])
    return HeldOut([learner], Calibration.of(proba, truth, groups[read], np.zeros(len(truth))))
