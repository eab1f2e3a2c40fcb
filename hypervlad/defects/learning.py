"""From training images to a model of their windows, and to a threshold on images not seen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import median_abs_deviation, norm

from hypervlad.defects.truth import MIXED
from hypervlad.encoder.sampling import random_pixels
from hypervlad.patches import NORMAL
from hypervlad.splits import group_folds

_MOST_WINDOWS = 50_000  # of all images together, of a class
_FEWEST_AN_IMAGE = 20
_FOLDS = 5


class Scores(Protocol):
    """A model of windows; a higher score is more defective."""

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.floating]: ...


@dataclass(frozen=True, eq=False)
class ImageWindows:
    """An image's windows, a row at a time, and what is known of them.

    Attributes
    ----------
    position : int
        Of the image in the list.
    digest : str
        Of the image.
    rows : iterator of ndarray of shape (S, n_features)
    labels : ndarray of str, shape (R S,)
    """

    position: int
    digest: str
    rows: Iterator[NDArray[np.float32]]
    labels: NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Examples:
    """Windows to learn from.

    Attributes
    ----------
    X : ndarray of shape (n, n_features)
    labels : ndarray of str, shape (n,)
    weights : ndarray of float, shape (n,)
        Windows of its image and class that each stands for.
    images : ndarray of int, shape (n,)
        Position of the image that each is from.
    is_all : bool
        Whether no window was left out but mixed ones.
    """

    X: NDArray[np.float32]
    labels: NDArray[np.str_]
    weights: NDArray[np.float64]
    images: NDArray[np.intp]
    is_all: bool

    @classmethod
    def of(cls, images: Iterator[ImageWindows], n_images: int, seed: int) -> Examples:
        """Choose windows of each image, of each class equally many at most.

        What is chosen depends on the seed and the image alone, and the examples come in the order
        of the images' digests.
        """
        most = max(_FEWEST_AN_IMAGE, _MOST_WINDOWS // n_images)
        found, is_all = [], True
        for image in images:
            chosen, weights = _chosen(image.labels, most, image.digest, seed)
            is_all &= bool((weights == 1).all())
            X = _rows_at(image.rows, chosen)
            found.append((image.digest, image.position, X, image.labels[chosen], weights))
        found.sort(key=lambda each: each[:2])
        counts = [len(X) for _, _, X, _, _ in found]
        return cls(
            np.concatenate([X for _, _, X, _, _ in found]),
            np.concatenate([labels for *_, labels, _ in found]),
            np.concatenate([weights for *_, weights in found]),
            np.repeat([position for _, position, *_ in found], counts),
            is_all,
        )

    def check_both_kinds(self) -> None:
        """Raise a ValueError unless there are sound and defective windows."""
        is_normal = self.labels == NORMAL
        if is_normal.all():
            raise ValueError(
                "no window is defective by the masks: fit on good images alone, without masks, or "
                "lower min_fraction"
            )
        if not is_normal.any():
            raise ValueError(
                "no window is free of defects by the masks, so none shows what is sound: add "
                "images, or take a smaller patch"
            )

    def of_images(self, positions: NDArray[np.intp]) -> Examples:
        """Return the examples of some images."""
        rows = np.isin(self.images, positions)
        return Examples(
            self.X[rows], self.labels[rows], self.weights[rows], self.images[rows], self.is_all
        )


def _chosen(
    labels: NDArray[np.str_], most: int, digest: str, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    chosen, weights = [], []
    for label in np.unique(labels[labels != MIXED]):
        rows = np.flatnonzero(labels == label)
        taken = rows
        if len(rows) > most:
            taken = np.sort(rows[random_pixels(seed, digest, len(rows), most)])
        chosen.append(taken)
        weights.append(np.full(len(taken), len(rows) / len(taken)))
    if not chosen:
        return np.empty(0, dtype=np.intp), np.empty(0)
    return np.concatenate(chosen), np.concatenate(weights)


def _rows_at(rows: Iterator[NDArray[np.float32]], chosen: NDArray[np.intp]) -> NDArray[np.float32]:
    """Pick windows out of an image's rows of windows; the others are forgotten at once."""
    blocks, start, order = [], 0, np.sort(chosen)
    for row in rows:
        inside = order[(order >= start) & (order < start + len(row))]
        blocks.append(row[inside - start])
        start += len(row)
    back = np.argsort(np.argsort(chosen))
    return np.concatenate(blocks)[back]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores of windows by models that had not seen their images.

    Attributes
    ----------
    scores : list of ndarray of shape (n,)
        An array an image.
    labels : list of ndarray of str, shape (n,)
    """

    scores: list[NDArray[np.floating]]
    labels: list[NDArray[np.str_]]

    def threshold_at_rate(self, rate: float) -> float:
        """Return a score that about this share of such images reaches in a sound place.

        By the median of the images' highest scores and the spread around it (the median absolute
        deviation, as of a normal distribution), which a few bad images among the good do not move.
        """
        highest = [
            scores[labels == NORMAL].max()
            for scores, labels in zip(self.scores, self.labels, strict=True)
            if (labels == NORMAL).any()
        ]
        spread = median_abs_deviation(highest, scale="normal")
        usual = np.float32(np.median(highest) + norm.isf(rate) * spread)
        return float(np.nextafter(usual, np.float32(np.inf)))

    def threshold_of_best_f1(self) -> float:
        """Return the score from which on calling windows defective has the best F1."""
        scores, labels = np.concatenate(self.scores), np.concatenate(self.labels)
        known = labels != MIXED
        scores, defective = scores[known], labels[known] != NORMAL
        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], np.cumsum(defective[order])
        called = np.arange(1, len(scores) + 1)
        f1 = 2 * hits / (called + defective.sum())
        is_last = np.append(scores[1:] < scores[:-1], True)  # equal scores go together
        best = int(np.argmax(np.where(is_last, f1, -1)))
        following = scores[best + 1] if best + 1 < len(scores) else scores[best] - 1
        return float((scores[best] + following) / 2)


def held_out(
    whole: Scores,
    examples: Examples,
    images: Callable[[], Iterator[ImageWindows]],
    fit: Callable[[Examples], Scores],
    groups: NDArray[Any],
    seed: int,
) -> HeldOut:
    """Score all windows of the images with models learnt from the other groups of images.

    Parameters
    ----------
    whole : Scores
        Learnt from all examples; scores the images that no fold can spare.
    examples : Examples
    images : callable
        Reads the images once more, if examples are not all windows that they have.
    fit : callable
        From examples to a model.
    groups : ndarray of shape (n_images,)
    seed : int

    Warns
    -----
    UserWarning
        If there are too few groups to hold one out.
    """
    positions = np.unique(examples.images)
    has_defects = np.isin(positions, examples.images[examples.labels != NORMAL])
    folds = _folds(has_defects, groups[positions], seed)
    model_of = dict.fromkeys(positions.tolist(), whole)
    for train, test in folds:
        model = fit(examples.of_images(positions[train]))
        model_of |= dict.fromkeys(positions[test].tolist(), model)
    if examples.is_all:
        return _of_examples(examples, model_of)
    scores, labels = [], []
    for image in images():
        if image.position in model_of:
            model = model_of[image.position]
            scores.append(np.concatenate([model.scores(row) for row in image.rows]))
            labels.append(image.labels)
    return HeldOut(scores, labels)


def _of_examples(examples: Examples, model_of: Mapping[int, Scores]) -> HeldOut:
    """Score the examples themselves, all of one model at once."""
    scores = np.empty(len(examples.X))
    for model in dict.fromkeys(model_of.values()):
        rows = np.isin(examples.images, [at for at, own in model_of.items() if own is model])
        scores[rows] = model.scores(examples.X[rows])
    order = np.argsort(examples.images, kind="stable")
    cuts = np.flatnonzero(np.diff(examples.images[order])) + 1
    return HeldOut(np.split(scores[order], cuts), np.split(examples.labels[order], cuts))


def _folds(
    has_defects: NDArray[np.bool_], groups: NDArray[Any], seed: int
) -> Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    if len(np.unique(groups)) < 2:
        warnings.warn(
            "all images belong to one group, so the threshold is chosen on what was learnt from; "
            "it will call too much defective. Give more images, or set_threshold",
            UserWarning,
            stacklevel=5,
        )
        return []
    return group_folds(has_defects, groups, n_splits=_FOLDS, random_state=seed)
