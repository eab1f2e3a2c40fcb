"""Models that have not seen some of the images, and what they said of those."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import pairwise_distances_chunked

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier.training import CHUNK_MB
from hypervlad.conformal import Calibration
from hypervlad.encoder.state import arrays_under
from hypervlad.splits import first_appearance_codes, group_folds, linked_groups

_FOLDS = 5
_SAME = 1e-4  # of an image's length: other batches change the last digits


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Learners, and how far they were right on images that they had not learnt from.

    Attributes
    ----------
    learners : list of classifiers
        One a fold; the model's own learner if images were set apart.
    proba : ndarray of float, shape (n, n_classes)
        Of each image, by a learner that had not seen it.
    codes : ndarray of int, shape (n,)
        Columns of the true classes.
    groups : ndarray of int, shape (n,)
    models : ndarray of int, shape (n,)
        Which learner judged each image.
    rows : ndarray of int, shape (n,)
        Which of the model's training images each is.
    """

    learners: list[Any]
    proba: NDArray[np.float64]
    codes: NDArray[np.intp]
    groups: NDArray[np.intp]
    models: NDArray[np.intp]
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def accuracy(self) -> float:
        """Share of the images that were named rightly."""
        return float((self.proba.argmax(axis=1) == self.codes).mean())

    @cached_property
    def calibration(self) -> Calibration:
        """What is known of right and wrong."""
        return Calibration.of(self.proba, self.codes, self.groups, self.models)

    def to_state(self, whole: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return header and arrays, without the model's own learner if that is what judged."""
        headers, arrays = [], dict[str, NDArray[Any]]()
        for number, learner in enumerate(each for each in self.learners if each is not whole):
            header, own = learner.to_state()
            headers.append(header)
            arrays |= {f"{number}.{name}": array for name, array in own.items()}
        return {"learners": headers}, arrays | {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], whole: Any
    ) -> HeldOut:
        """Undo `to_state`."""
        learners = [
            BoostedSoftmaxClassifier.from_state(own, arrays_under(f"{number}.", arrays))
            for number, own in enumerate(header["learners"])
        ]
        return cls(learners or [whole], **{name: arrays[name] for name in _ARRAYS})

    def check(self, n_training: int) -> None:
        """Raise a ValueError unless the parts fit together."""
        n, n_classes = self.proba.shape
        shapes = {getattr(self, name).shape for name in _ARRAYS if name != "proba"}
        if shapes != {(n,)} or not 0 <= self.codes.min() <= self.codes.max() < n_classes:
            raise ValueError("what was held out is damaged")
        if (
            not np.isfinite(self.proba).all()
            or not 0 <= self.rows.min() <= self.rows.max() < n_training
        ):
            raise ValueError("what was held out is damaged")
        if not 0 <= self.models.min() <= self.models.max() < len(self.learners):
            raise ValueError("a learner of what was held out is missing")
        if any(len(learner.classes_) != n_classes for learner in self.learners):
            raise ValueError("learners of other classes")

    def predict_proba(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what each learner says: (n_learners, n, n_classes)."""
        return np.stack([learner.predict_proba(vectors) for learner in self.learners])


_ARRAYS = [field.name for field in fields(HeldOut) if field.name != "learners"]


def group_codes(groups: NDArray[Any] | None, n: int) -> NDArray[np.intp]:
    """Return the group of each of n images as a number; each is its own if there are none."""
    return np.arange(n) if groups is None else first_appearance_codes(groups.tolist(), "groups")


def sides(
    labels: NDArray[Any], groups: NDArray[np.intp], share: float | None, seed: int | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to learn from, and those to set apart: none but for a share above 0.

    Groups are set apart by lot, not by class or size: those that come later are no other. Only a
    class that would be left with none to learn from gets one back.
    """
    if not share:
        return np.arange(len(labels)), np.empty(0, dtype=np.intp)
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    apart = list(order[: max(1, round(share * len(order)))])
    for label in np.unique(labels):
        own = groups[labels == label]
        if np.isin(own, apart).all():
            apart.remove(next(group for group in apart if group in own))
    is_apart = np.isin(groups, apart)
    return np.flatnonzero(~is_apart), np.flatnonzero(is_apart)


def with_copies_joined(points: NDArray[np.floating], groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Put images at the same place, and with them their groups, into one group; numbers anew.

    Parameters
    ----------
    points : ndarray of shape (n, d)
        Equal up to the rounding of different batches.
    groups : ndarray of int, shape (n,)
    """
    near = _SAME * float(np.sqrt(np.mean(np.sum(np.square(points, dtype=np.float64), axis=1))))
    _, first_of_group, own = np.unique(groups, return_index=True, return_inverse=True)
    distances = pairwise_distances_chunked(points, working_memory=CHUNK_MB)
    first_copy = np.concatenate([(block <= near).argmax(axis=1) for block in distances])
    rows = np.arange(len(groups))
    links = [np.column_stack([rows, first]) for first in (first_of_group[own], first_copy)]
    return linked_groups(np.concatenate(links), len(groups))


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
    by = np.concatenate(models)
    return HeldOut(learners, np.concatenate(proba), truth, groups[tested], by, tested)


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
) -> HeldOut | None:
    """Judge images that had been set apart by the learner that did not see them.

    Parameters
    ----------
    learner : fitted classifier
    vectors : ndarray of shape (m, n_features)
    labels : ndarray of shape (m,)
    groups : ndarray of int, shape (n,)
        Of all training images: those set apart come last.

    Returns
    -------
    HeldOut or None
        Without copies of images learnt from; None if nothing is left.
    """
    n_learnt = len(groups) - len(labels)
    of_apart = groups[n_learnt:]
    fine = np.isin(labels, learner.classes_) & ~np.isin(of_apart, groups[:n_learnt])
    if not fine.any():
        return None
    truth, rows = np.searchsorted(learner.classes_, labels[fine]), n_learnt + np.flatnonzero(fine)
    proba = learner.predict_proba(vectors[fine])
    return HeldOut([learner], proba, truth, of_apart[fine], np.zeros_like(rows), rows)
