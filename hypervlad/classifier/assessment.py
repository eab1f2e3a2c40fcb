"""How far the answers of a model can be trusted: sure answers, novelty, wrong labels."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, pairwise_distances_chunked
from sklearn.random_projection import SparseRandomProjection

from hypervlad.base import Array, Labels, Value, Values
from hypervlad.classifier.validation import of_length
from hypervlad.conformal import weighted_limit
from hypervlad.constraints import Integer
from hypervlad.encoder import EncodedImages

SURE, AMBIGUOUS, OUT_OF_DISTRIBUTION = "sure", "ambiguous", "out_of_distribution"
UNREADABLE = "unreadable"

DISTANCES_MB = 64  # of pairwise distances in memory at a time
_N_NEAREST = 3
_N_DIRECTIONS = 256
_MAX_POINT = 1e15  # in a file; squares of distances stay finite in single precision
_UNUSUAL_SHARE = 0.02  # of images like the training images
_NAMED_PROBABILITY = 0.9  # classes are named in a reason until they add up to this
_MAX_NAMED = 3


# --- the answers ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Judgement:
    """The predictions for images, and which of them can be trusted.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    proba : ndarray of float, shape (n, n_classes)
    kind : ndarray of str, shape (n,)
        "sure"; "ambiguous": between classes; "out_of_distribution": unlike all training images,
        whatever the probabilities; or "unreadable" for a skipped image, whose numbers are NaN.
    reasons : list of n str
    novelty : ndarray of float, shape (n,)
        Mean distance to the nearest training images, divided by the limit that is usual between
        training images of different groups: above 1 is unusual.
    nearest : ndarray of int, shape (n, k)
        Rows of ``model.training_``, nearest first; -1 for a skipped image.
    projected : ndarray of float32, shape (n, d)
        Projected vectors of the images, as ``model.training_.points``.
    threshold : float
        Answers with at least this confidence are sure; infinite if none is.
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
        """The most probable class of each image (object array); None for a skipped image."""
        codes = np.nan_to_num(self.proba).argmax(axis=1)
        found = self.classes[codes].astype(object)
        found[self.kind == UNREADABLE] = None
        return found


@dataclass(frozen=True, eq=False)
class Classification:
    """The predictions for a list of images, with the images that could not be read.

    Attributes
    ----------
    images : EncodedImages
        Which images were read and which were skipped; without vectors, (n_read, 0).
    proba : ndarray of shape (n_read, n_classes)
    judgement : Judgement or None
        Of the images that were read; None if it was not requested.
    sets : ndarray of bool, shape (n_read, n_classes), or None
        Prediction sets of the images that were read; None if they were not requested.
    """

    images: EncodedImages
    proba: NDArray[np.float64]
    judgement: Judgement | None
    sets: NDArray[np.bool_] | None

    @classmethod
    def joined(cls, chunks: Sequence[Classification]) -> Classification:
        """Join the classifications of consecutive chunks of a list."""
        if len(chunks) == 1:
            return chunks[0]
        judgements = [chunk.judgement for chunk in chunks if chunk.judgement is not None]
        sets = [chunk.sets for chunk in chunks if chunk.sets is not None]
        return cls(
            _joined_images([chunk.images for chunk in chunks]),
            np.concatenate([chunk.proba for chunk in chunks]),
            _joined_judgements(judgements) if judgements else None,
            np.concatenate(sets) if sets else None,
        )


def judgement_of(
    classes: NDArray[Any],
    proba: NDArray[np.float64],
    points: NDArray[np.float32],
    training: TrainingImages,
    threshold: float,
) -> Judgement:
    """Judge images by their probabilities and by their distances to the training images.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
    proba : ndarray of shape (n, n_classes)
        Rows of skipped images are NaN.
    points : ndarray of float32, shape (n, d)
        Projected vectors; rows of skipped images are NaN.
    training : TrainingImages
    threshold : float
        Answers with at least this confidence are sure.

    Returns
    -------
    Judgement
    """
    read = ~np.isnan(proba[:, 0])
    novelty = np.full(len(proba), np.nan)
    nearest = np.full((len(proba), min(_N_NEAREST, len(training))), -1)
    if read.any():
        nearest[read], novelty[read] = training.nearest(points[read])
    confidence = np.where(read, proba.max(axis=1), -np.inf)
    kind = np.where(
        read,
        np.where(
            novelty > 1, OUT_OF_DISTRIBUTION, np.where(confidence >= threshold, SURE, AMBIGUOUS)
        ),
        UNREADABLE,
    )
    neighbours = training.labels[nearest]
    reasons = [
        _reason(kind[i], classes, proba[i], threshold, novelty[i], neighbours[i])
        for i in range(len(proba))
    ]
    return Judgement(classes, proba, kind, reasons, novelty, nearest, points, threshold)


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
    if kind == OUT_OF_DISTRIBUTION:
        names = " and ".join(dict.fromkeys(str(label) for label in neighbours))
        return (
            f"unlike all training images: its distance to the nearest ones ({names}) is "
            f"{novelty:.2f} times the limit for images like them"
        )
    if kind == SURE:
        return f"{classes[proba.argmax()]} with {_percent(proba.max())}"
    required = (
        "no confidence is high enough for so few errors"
        if np.isinf(threshold)
        else f"sure from {_percent(threshold)} on"
    )
    return f"between {_most_probable_in_words(classes, proba)}; {required}"


def _most_probable_in_words(classes: NDArray[Any], proba: NDArray[np.float64]) -> str:
    """Name the two or three most probable classes."""
    order = np.argsort(-proba, kind="stable")
    n_named = int(np.searchsorted(np.cumsum(proba[order]), _NAMED_PROBABILITY)) + 1
    named = [
        f"{classes[k]} ({_percent(proba[k])})" for k in order[: max(2, min(n_named, _MAX_NAMED))]
    ]
    return f"{', '.join(named[:-1])} and {named[-1]}"


def _percent(share: float) -> str:
    """Write a share in percent, but never 100 % for less than 1."""
    return f"{min(share, 0.999):.1%}".replace(".0%", "%").replace("%", " %")


def _joined_images(chunks: Sequence[EncodedImages]) -> EncodedImages:
    starts = np.cumsum([0, *(chunk.n_images for chunk in chunks)])
    skipped = [
        image._replace(position=int(start) + image.position)
        for start, chunk in zip(starts[:-1], chunks, strict=True)
        for image in chunk.skipped
    ]
    return EncodedImages(
        vectors=np.concatenate([chunk.vectors for chunk in chunks]),
        positions=np.concatenate(
            [start + chunk.positions for start, chunk in zip(starts[:-1], chunks, strict=True)]
        ),
        info=tuple(info for chunk in chunks for info in chunk.info),
        skipped=tuple(skipped),
        unscaled=tuple(name for chunk in chunks for name in chunk.unscaled),
        n_images=int(starts[-1]),
        n_cached=sum(chunk.n_cached for chunk in chunks),
    )


def _joined_judgements(chunks: Sequence[Judgement]) -> Judgement:
    return Judgement(
        classes=chunks[0].classes,
        proba=np.concatenate([chunk.proba for chunk in chunks]),
        kind=np.concatenate([chunk.kind for chunk in chunks]),
        reasons=[reason for chunk in chunks for reason in chunk.reasons],
        novelty=np.concatenate([chunk.novelty for chunk in chunks]),
        nearest=np.concatenate([chunk.nearest for chunk in chunks]),
        projected=np.concatenate([chunk.projected for chunk in chunks]),
        threshold=chunks[0].threshold,
    )


def most_probable(proba: NDArray[np.floating], classes: NDArray[Any]) -> NDArray[Any]:
    """Return the label of the highest probability in each row (n, n_classes).

    If some rows are NaN, an object array with None in their place.
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


# --- the training images and the distances to them ----------------------------------------------


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The labelled images given to ``fit``, those that could be read.

    Attributes
    ----------
    names : list of n str
        Paths relative to the common folder of all, with forward slashes; "" for an array.
    labels : ndarray of shape (n,)
    groups : ndarray of int, shape (n,)
    positions : ndarray of int, shape (n,)
        Of each in the list given to ``fit``.
    points : ndarray of float32, shape (n, d)
        Their vectors, as `project_vectors` returns them.
    n_features : int
        Of the vectors before projection.
    limit : float
        Usual distances: of the training images, 2 % have a larger mean distance to the nearest
        three of other groups (none, if there are fewer than fifty groups). Groups have equal
        weights.
    probe : ndarray of float32, shape (1, d), or None
        One fixed vector, projected when the model was saved; None if it never was.
    """

    names: list[str]
    labels: NDArray[Any]
    groups: NDArray[np.intp]
    positions: NDArray[np.intp]
    points: NDArray[np.float32]
    n_features: int
    limit: float
    probe: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls,
        images: Sequence[Any],
        labels: NDArray[Any],
        groups: NDArray[np.intp],
        positions: NDArray[np.intp],
        points: NDArray[np.float32],
        n_features: int,
    ) -> TrainingImages:
        """Return a record of images; see the attributes."""
        usual = np.concatenate([far for _, far in _nearest(points, points, groups)])
        limit = weighted_limit(usual, groups, _UNUSUAL_SHARE)
        return cls(relative_names(images), labels, groups, positions, points, n_features, limit)

    def __len__(self) -> int:
        return len(self.labels)

    def nearest(self, points: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Find the training images nearest to new ones.

        Parameters
        ----------
        points : ndarray of shape (m, d)
            As `project_vectors` returns them.

        Returns
        -------
        rows : ndarray of int, shape (m, k)
            Of the nearest three, or all if there are fewer, nearest first.
        novelty : ndarray of float, shape (m,)
            The mean of their distances, divided by the limit: above 1 is unusual.
        """
        found = list(_nearest(points, self.points))
        far = np.concatenate([distances for _, distances in found])
        rows = np.concatenate([rows for rows, _ in found])
        return rows, far / max(self.limit, np.finfo(np.float64).tiny)

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return header and arrays."""
        labels, _ = Labels(distinct=False).pack(self.labels, include_backbone=False)
        header = {
            "names": self.names,
            "labels": labels,
            "n_features": self.n_features,
            "limit": _LIMIT.pack(self.limit, include_backbone=False)[0],
        }
        arrays = {name: getattr(self, name) for name in ("groups", "positions", "points")}
        return header, arrays | {"probe": _probe(self.n_features)}

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> TrainingImages:
        """Undo `to_state`; ValueError if the arrays do not fit together."""
        found = {name: field.checked(arrays[name], name) for name, field in _ARRAYS.items()}
        training = cls(
            list(Values(str).unpack(header["names"], {})),
            Labels(distinct=False).unpack(header["labels"], {}),
            found["groups"],
            found["positions"],
            found["points"],
            Value(int, Integer(1)).unpack(header["n_features"], {}),
            _LIMIT.unpack(header["limit"], {}),
            found["probe"],
        )
        lengths = {len(training.groups), len(training.positions), len(training.points)}
        if lengths | {len(training)} != {len(training.names)}:
            raise ValueError("the record of the training images is damaged")
        if not training.limit >= 0:
            raise ValueError("the record of the training images is damaged: its limit")
        return training

    def check(self, n_features: int) -> None:
        """Raise a ValueError unless the points are projections of vectors of so many features."""
        if self.n_features != n_features:
            raise ValueError(
                f"the training images have {self.n_features} features where the encoder gives "
                f"{n_features}"
            )
        probe = _probe(n_features)
        if self.points.shape[1:] != probe.shape[1:]:
            raise ValueError("the record of the training images is damaged: its points")
        if self.probe is not None and not (
            self.probe.shape == probe.shape and np.allclose(self.probe, probe, atol=1e-3)
        ):
            raise ValueError(
                "this version of scikit-learn projects vectors differently from the one that the "
                "model was trained with, so novelty would be wrong: install that version"
            )


_LIMIT = Value(float, may_be_infinite=True)
_ARRAYS = {
    "groups": Array("int64", 1),
    "positions": Array("int64", 1, at_least=0),
    "points": Array("float32", 2, -_MAX_POINT, _MAX_POINT),
    "probe": Array("float32", 2),
}


def project_vectors(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Project vectors (n, p) onto 256 fixed random directions; (n, p) if p is less.

    Distances change by about a sixteenth (D. Achlioptas, "Database-friendly random projections",
    Journal of Computer and System Sciences 66, 2003; P. Li, T. Hastie and K. Church, "Very sparse
    random projections", KDD 2006).
    """
    if not len(vectors):
        return np.empty((0, min(vectors.shape[1], _N_DIRECTIONS)), dtype=np.float32)
    if vectors.shape[1] <= _N_DIRECTIONS:
        return vectors.astype(np.float32)
    return np.asarray(_directions(vectors.shape[1]).transform(vectors), dtype=np.float32)


@functools.lru_cache(maxsize=4)
def _directions(n_features: int) -> SparseRandomProjection:
    """Draw the directions; kept, because this takes longer than reading a model does."""
    directions = SparseRandomProjection(_N_DIRECTIONS, dense_output=True, random_state=0)
    return directions.fit(np.zeros((1, n_features), dtype=np.float32))


def relative_names(images: Sequence[Any]) -> list[str]:
    """Name files by their paths relative to the common folder of all; arrays have the name ""."""
    paths = [
        Path(os.path.abspath(image)) if isinstance(image, str | os.PathLike) else None
        for image in images
    ]
    parents = [path.parent for path in paths if path is not None]
    try:
        root = Path(os.path.commonpath(parents)) if parents else Path()
    except ValueError:  # two drives of Windows
        return ["" if path is None else path.name for path in paths]
    return ["" if path is None else path.relative_to(root).as_posix() for path in paths]


def _probe(n_features: int) -> NDArray[np.float32]:
    """Project one fixed vector: the result differs if the random directions do."""
    return project_vectors(np.cos(np.arange(n_features, dtype=np.float64))[None].astype(np.float32))


def _nearest(
    points: NDArray[np.float32], known: NDArray[np.float32], groups: NDArray[Any] | None = None
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Yield rows and mean distances of the nearest known points, for blocks of points.

    If `groups` are given, the points are the known ones, and the nearest ones of other groups are
    found. The distance is infinite if there are none.
    """
    k = min(_N_NEAREST, len(known))
    start = 0
    for distances in pairwise_distances_chunked(points, known, working_memory=DISTANCES_MB):
        if groups is not None:
            own = groups[start : start + len(distances), None]
            distances[own == groups[None]] = np.inf
        start += len(distances)
        rows = np.argpartition(distances, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(distances, rows, axis=1)
        order = np.argsort(near, axis=1, kind="stable")
        near = np.take_along_axis(near, order, axis=1).astype(np.float64)
        yield np.take_along_axis(rows, order, axis=1), _mean_of_finite(near)


def _mean_of_finite(near: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = np.isfinite(near)
    sums = np.where(finite, near, 0).sum(axis=1)
    return np.where(finite.any(axis=1), sums / np.maximum(finite.sum(axis=1), 1), np.inf)


# --- labels that are probably wrong -------------------------------------------------------------


@dataclass(frozen=True)
class LabelIssue:
    """A label that differs from the prediction of a model fitted without the image.

    Attributes
    ----------
    position : int
        Of the image in the list given to ``fit``.
    name : str
        Of the image: its path relative to the common folder; "" for an array.
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
    proba: NDArray[np.float64],
    codes: NDArray[np.intp],
    rows: NDArray[np.intp],
    training: TrainingImages,
    classes: NDArray[Any],
) -> list[LabelIssue]:
    """Find wrong labels by confident learning; see `MicrographClassifier.label_issues`.

    Parameters
    ----------
    proba : ndarray of shape (n, n_classes)
        Held-out predictions.
    codes : ndarray of int, shape (n,)
        Columns of the labels.
    rows : ndarray of int, shape (n,)
        Of the images in `training`.
    training : TrainingImages
    classes : ndarray of shape (n_classes,)
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise ImportError(
            'finding label issues needs cleanlab: pip install "hypervlad[review]"'
        ) from error
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
        row, likely = int(rows[i]), int(proba[i].argmax())
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
