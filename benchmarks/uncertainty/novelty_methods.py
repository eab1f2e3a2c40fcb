"""Scores of novelty: the package's, and those of the literature that it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances

from hypervlad.classifier.novelty import TrainingImages, project_vectors, weighted_limit
from hypervlad.splits import group_folds

SHARE = 0.05  # of images like the training images, above the limit
N_NEAREST = 3
N_COMPONENTS = 64
N_FOLDS = 5

Split = tuple[np.ndarray, np.ndarray, np.ndarray]
#: From training vectors and labels, and other vectors, to the novelty of these.
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Vectors:
    """Vectors and margins of training images and others.

    Attributes
    ----------
    train, empty : ndarray of shape (n, n_features), (m, n_features)
        Of the training images, and of images without content.
    labels, groups : ndarray of shape (n,)
        Of the training images.
    new : tuple of three ndarrays of n_features columns
        New images of known classes, of the class left out, and of no class.
    margins : ndarray of shape (n, n_classes)
        Of the training images, each by a learner fitted without its group.
    new_margins : tuple of three ndarrays of n_classes columns
    pooled : slice
        The features that are averages of channels.
    """

    train: np.ndarray
    empty: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    new: Split
    margins: np.ndarray
    new_margins: Split
    pooled: slice

    @classmethod
    def of(cls, found: dict[str, np.ndarray]) -> Vectors:
        names = ("known", "unseen", "outside")
        return cls(
            found["train"],
            found["empty"],
            found["labels"],
            found["groups"],
            (found[names[0]], found[names[1]], found[names[2]]),
            found["margins_train"],
            (
                found[f"margins_{names[0]}"],
                found[f"margins_{names[1]}"],
                found[f"margins_{names[2]}"],
            ),
            slice(*found["pooled"].tolist()),
        )


def in_units_of_limit(held_out: np.ndarray, groups: np.ndarray, new: Split) -> Split:
    """Shift and scale scores so that 5 % of those held out are above 1, and the median is 0."""
    usable = np.isfinite(held_out)
    limit = weighted_limit(held_out[usable], groups[usable], SHARE)
    middle = float(np.median(held_out[usable]))
    known, unseen, outside = ((each - middle) / max(limit - middle, 1e-12) for each in new)
    return known, unseen, outside


def cross_calibrated(score: Score, part: Callable[[Vectors], slice]) -> Callable[[Vectors], Split]:
    """Return a method whose limit is that of training images held out in folds of groups."""

    def method(given: Vectors) -> Split:
        own = part(given)
        train = given.train[:, own].astype(np.float64)
        held_out = np.full(len(train), np.nan)
        folds = group_folds(given.labels, given.groups, n_splits=N_FOLDS, random_state=0)
        for fitted, tested in folds:
            held_out[tested] = score(train[fitted], given.labels[fitted], train[tested])
        known, unseen, outside = (score(train, given.labels, each[:, own]) for each in given.new)
        return in_units_of_limit(held_out, given.groups, (known, unseen, outside))

    return method


def whole(given: Vectors) -> slice:
    return slice(None)


def pooled(given: Vectors) -> slice:
    return given.pooled


def vlad(given: Vectors) -> slice:
    return slice(0, given.pooled.start)


def nearest(train: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the mean distance to the nearest three (Sun, Ming, Zhu and Li 2022)."""
    distances = pairwise_distances(new, train)
    return np.sort(distances, axis=1)[:, :N_NEAREST].mean(axis=1)


def mahalanobis(train: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the distance to the nearest class (Lee, Lee, Lee and Shin 2018).

    On 64 principal components, with the shrunk covariance of Ledoit and Wolf within classes.
    """
    return np.sqrt(_squares(*_components(train, new), labels).min(axis=1))


def relative_mahalanobis(train: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the same less the distance to all training images (Ren et al. 2021)."""
    own, others = _components(train, new)
    one_class = np.zeros(len(labels))
    return (_squares(own, others, labels) - _squares(own, others, one_class)).min(axis=1)


def _components(train: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n_components = min(N_COMPONENTS, len(train) - 1, train.shape[1])
    reduced = PCA(n_components, svd_solver="full").fit(train)
    return reduced.transform(train), reduced.transform(new)


def _squares(train: np.ndarray, new: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return squared Mahalanobis distances to the classes, (m, n_classes)."""
    classes, own = np.unique(labels, return_inverse=True)
    means = np.stack([train[own == code].mean(axis=0) for code in range(len(classes))])
    precision = LedoitWolf(assume_centered=True).fit(train - means[own]).precision_
    centred = new[:, None] - means[None]
    return np.einsum("icj,jk,ick->ic", centred, precision, centred)


def energy(given: Vectors) -> Split:
    """Return the free energy of the margins (Liu, Wang, Owens and Li 2020)."""
    return _of_margins(given, lambda margins: -logsumexp(margins, axis=1))


def low_confidence(given: Vectors) -> Split:
    """Return 1 - the largest probability (Hendrycks and Gimpel 2017)."""
    return _of_margins(given, lambda margins: 1 - softmax(margins, axis=1).max(axis=1))


def _of_margins(given: Vectors, score: Callable[[np.ndarray], np.ndarray]) -> Split:
    known, unseen, outside = (score(margins) for margins in given.new_margins)
    return in_units_of_limit(score(given.margins), given.groups, (known, unseen, outside))


def distance_by_class(given: Vectors) -> Split:
    """Return the package's first score alone."""
    return _of_package(given, with_empty=False)


def package(given: Vectors) -> Split:
    """Return the package's score: distance by class, and emptiness."""
    return _of_package(given, with_empty=True)


def _of_package(given: Vectors, *, with_empty: bool) -> Split:
    n = len(given.train)
    empty = project_vectors(given.empty if with_empty else given.empty[:0])
    training = TrainingImages.of(
        [""] * n,
        given.labels,
        given.groups,
        np.arange(n),
        np.zeros((n, 32), dtype=np.uint8),
        project_vectors(given.train),
        empty,
        given.train.shape[1],
    )
    known, unseen, outside = (training.nearest(project_vectors(each))[1] for each in given.new)
    return known, unseen, outside


METHODS: dict[str, Callable[[Vectors], Split]] = {
    "hypervlad": package,
    "distance by class alone": distance_by_class,
    "nearest three": cross_calibrated(nearest, whole),
    "nearest three, VLAD": cross_calibrated(nearest, vlad),
    "nearest three, pooled": cross_calibrated(nearest, pooled),
    "Mahalanobis": cross_calibrated(mahalanobis, whole),
    "Mahalanobis, VLAD": cross_calibrated(mahalanobis, vlad),
    "Mahalanobis, pooled": cross_calibrated(mahalanobis, pooled),
    "relative Mahalanobis": cross_calibrated(relative_mahalanobis, whole),
    "relative Mahalanobis, pooled": cross_calibrated(relative_mahalanobis, pooled),
    "energy": energy,
    "low confidence": low_confidence,
}
