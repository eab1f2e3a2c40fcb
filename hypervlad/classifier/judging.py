"""Which answers of a model are sure, and why the others are not: in numbers and in words."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier.training import N_NEAREST, projected
from hypervlad.conformal import check_share, confidence_for_error, prediction_sets

if TYPE_CHECKING:
    from hypervlad.classifier.estimator import MicrographClassifier

SURE, BOUNDARY, UNKNOWN, UNREADABLE = "sure", "boundary", "unknown", "unreadable"
_LEAST = 0.5  # confidence of a sure answer
_TOLD = 0.9  # of the probability is named, class by class
_MOST_TOLD = 3


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a model says of images, and how far it is to be relied on.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    proba : ndarray of float, shape (n, n_classes)
    kind : ndarray of str, shape (n,)
        "sure"; "boundary", between classes; "unknown", unlike all training images, whatever the
        probabilities; or "unreadable" for an image skipped, whose numbers are NaN.
    reasons : list of n str
    novelty : ndarray of float, shape (n,)
        Distance to the nearest training images; above 1 it is farther than is usual between
        training images of different groups.
    nearest : ndarray of int, shape (n, k)
        Rows of ``model.training_``, nearest first; -1 for an image skipped.
    projected : ndarray of float32, shape (n, d)
        Where the images lie, as ``model.training_.points``.
    threshold : float
        The confidence from which on an answer is sure; infinite if none is.
    """

    classes: NDArray[Any]
    proba: NDArray[np.float64]
    kind: NDArray[np.str_]
    reasons: list[str]
    novelty: NDArray[np.float64]
    nearest: NDArray[np.intp]
    projected: NDArray[np.float32]
    threshold: float

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def labels(self) -> NDArray[Any]:
        """The most probable class of each image (object array); None for one skipped."""
        codes = np.nan_to_num(self.proba).argmax(axis=1)
        found = self.classes[codes].astype(object)
        found[self.kind == UNREADABLE] = None
        return found


def judge_vectors(
    model: MicrographClassifier, vectors: NDArray[np.floating], max_error: float = 0.05
) -> Judgement:
    """Judge images by their vectors.

    Parameters
    ----------
    model : fitted MicrographClassifier
        With images held out: not ``calibration_size=0``.
    vectors : ndarray of shape (n, n_features)
        What ``model.encoder_.transform`` gives. A row of an image skipped is NaN.
    max_error : float, default=0.05
        Share of the sure answers that may be wrong.

    Returns
    -------
    Judgement

    Raises
    ------
    ValueError
        If the error is no share between 0 and 1, or nothing was held out in ``fit``.

    Warns
    -----
    UserWarning
        If no confidence keeps the error so low, and no answer is sure.
    """
    threshold = confidence_for(model, max_error)
    read = ~np.isnan(vectors[:, 0])
    n, n_classes = len(vectors), len(model.classes_)
    points = np.full((n, model.training_.points.shape[1]), np.nan, dtype=np.float32)
    proba, novelty = np.full((n, n_classes), np.nan), np.full(n, np.nan)
    nearest = np.full((n, min(N_NEAREST, len(model.training_))), -1)
    if read.any():
        points[read] = projected(vectors[read])
        proba[read] = model.boosting_.predict_proba(vectors[read])
        nearest[read], novelty[read] = model.training_.nearest(points[read])
    kind = np.full(n, UNREADABLE, dtype=f"<U{len(UNREADABLE)}")
    is_sure = proba.max(axis=1) >= threshold
    kind[read] = np.where(novelty > 1, UNKNOWN, np.where(is_sure, SURE, BOUNDARY))[read]
    labels = model.training_.labels
    reasons = [
        _reason(kind[i], model.classes_, proba[i], threshold, novelty[i], labels[nearest[i]])
        for i in range(n)
    ]
    return Judgement(model.classes_, proba, kind, reasons, novelty, nearest, points, threshold)


def vector_sets(
    model: MicrographClassifier, vectors: NDArray[np.floating], coverage: float
) -> NDArray[np.bool_]:
    """Return the classes that images may be of; see `MicrographClassifier.predict_set`.

    Parameters
    ----------
    model : fitted MicrographClassifier
    vectors : ndarray of shape (n, n_features)
        Without NaN.
    coverage : float

    Returns
    -------
    ndarray of bool, shape (n, n_classes)
    """
    held_out = model._held_out()
    sets = prediction_sets(held_out.predict_proba(vectors), held_out.calibration, coverage)
    sets[np.arange(len(sets)), model.boosting_.predict_proba(vectors).argmax(axis=1)] = True
    return sets


def check_asked(
    model: MicrographClassifier, coverage: float | None, max_error: float | None
) -> None:
    """Find out before images are encoded that a set or judgement asked for cannot be had."""
    for name, value in {"coverage": coverage, "max_error": max_error}.items():
        if value is not None:
            check_share(name, value)
            model._held_out()


def confidence_for(model: MicrographClassifier, max_error: float) -> float:
    """Return the confidence from which on answers are wrong no more often, but at least a half.

    An answer that is more probably wrong than right is not sure, however right the others are.
    Warns if no confidence will do.
    """
    threshold = confidence_for_error(model._held_out().calibration, max_error)
    if np.isinf(threshold):
        warnings.warn(
            f"no confidence keeps the share of wrong answers below {max_error:g} on images that "
            "the model had not seen: no answer is sure; allow more, or give more images (groups) "
            "to fit",
            UserWarning,
            stacklevel=4,
        )
    return max(threshold, _LEAST)


def _reason(
    kind: str,
    classes: NDArray[Any],
    proba: NDArray[np.float64],
    threshold: float,
    novelty: float,
    neighbours: NDArray[Any],
) -> str:
    if kind == UNREADABLE:
        return "it could not be read"
    if kind == UNKNOWN:
        kinds = " and ".join(dict.fromkeys(str(label) for label in neighbours))
        return (
            f"unlike all training images: {novelty:.2f} times as far from the nearest ones "
            f"({kinds}) as such images are from each other at most"
        )
    if kind == SURE:
        return f"{classes[proba.argmax()]} with {_percent(proba.max())}"
    enough = (
        "no answer is sure enough for so few errors"
        if np.isinf(threshold)
        else f"sure from {_percent(threshold)} on"
    )
    return f"between {_in_words(classes, proba)}; {enough}"


def _in_words(classes: NDArray[Any], proba: NDArray[np.float64]) -> str:
    """Name the most probable classes, two or three."""
    order = np.argsort(-proba, kind="stable")
    enough = int(np.searchsorted(np.cumsum(proba[order]), _TOLD)) + 1
    told = [
        f"{classes[k]} ({_percent(proba[k])})" for k in order[: max(2, min(enough, _MOST_TOLD))]
    ]
    return f"{', '.join(told[:-1])} and {told[-1]}"


def _percent(share: float) -> str:
    """Write a share in percent, and never 100 % of what is less."""
    return f"{min(share, 0.999):.1%}".replace(".0%", "%").replace("%", " %")
