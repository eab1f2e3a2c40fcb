"""From training images to examples, and to scores of images by models that had not seen them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hypervlad.defects.thresholds import Judged
from hypervlad.defects.truth import MIXED
from hypervlad.encoder.encoding import random_pixels
from hypervlad.patches import NORMAL
from hypervlad.splits import group_folds, joined_groups

_MOST_WINDOWS = 50_000  # of all images together, of a class
_FEWEST_AN_IMAGE = 20
_FOLDS = 5


class Scores(Protocol):
    """A model of windows; a higher score is more defective."""

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.floating]: ...


@dataclass(frozen=True, eq=False)
class ImageWindows:
    """An image's windows, some at a time, and what is known of them.

    Attributes
    ----------
    position : int
        Of the image in the list.
    digest : str
        Of the image.
    blocks : iterator of ndarray of shape (n, n_features)
    labels : ndarray of str
        Of all windows.
    """

    position: int
    digest: str
    blocks: Iterator[NDArray[np.float32]]
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
    digests : dict from int to str
        Of the images by position, in the order of the digests.
    is_all : bool
        Whether no window was left out but mixed ones.
    """

    X: NDArray[np.float32]
    labels: NDArray[np.str_]
    weights: NDArray[np.float64]
    images: NDArray[np.intp]
    digests: dict[int, str]
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
            X = _rows_at(image.blocks, chosen)
            found.append((image.digest, image.position, X, image.labels[chosen], weights))
        found.sort(key=lambda each: each[:2])
        counts = [len(X) for _, _, X, _, _ in found]
        return cls(
            np.concatenate([X for _, _, X, _, _ in found]),
            np.concatenate([labels for *_, labels, _ in found]),
            np.concatenate([weights for *_, weights in found]),
            np.repeat([position for _, position, *_ in found], counts),
            {position: digest for digest, position, *_ in found},
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
                "images, or take a smaller patch. In a mask, white (or True) is the defect"
            )

    def of_images(self, positions: NDArray[np.intp]) -> Examples:
        """Return the examples of some images."""
        rows = np.isin(self.images, positions)
        return replace(
            self,
            X=self.X[rows],
            labels=self.labels[rows],
            weights=self.weights[rows],
            images=self.images[rows],
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


def _rows_at(
    blocks: Iterator[NDArray[np.float32]], chosen: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Pick windows out of an image's; the others are forgotten at once."""
    found, start, order = [], 0, np.sort(chosen)
    for block in blocks:
        inside = order[(order >= start) & (order < start + len(block))]
        found.append(block[inside - start])
        start += len(block)
    back = np.argsort(np.argsort(chosen))
    return np.concatenate(found)[back]


def held_out(
    whole: Scores,
    examples: Examples,
    images: Callable[[], Iterator[ImageWindows]],
    fit: Callable[[Examples], Scores],
    groups: NDArray[Any],
    seed: int,
) -> Iterator[Judged]:
    """Score all windows of the images with models learnt from the other groups of images.

    Images that no fold can spare are left out, unless windows of a kind would be missing without
    them: then the model of all examples, which has seen them, scores them.

    Parameters
    ----------
    whole : Scores
        Learnt from all examples.
    examples : Examples
    images : callable
        Reads the images once more, if examples are not all windows that they have.
    fit : callable
        From examples to a model.
    groups : ndarray of shape (n_images,)
    seed : int

    Yields
    ------
    Judged

    Warns
    -----
    UserWarning
        If images are scored that the model has seen.
    """
    positions = np.array(list(examples.digests))  # in an order that the list's has no part in
    own = joined_groups(groups[positions], list(examples.digests.values()))
    defective = set(examples.images[examples.labels != NORMAL].tolist())
    model_of: dict[int, Scores] = {}
    for train, test in _folds([at in defective for at in positions.tolist()], own, seed):
        model = fit(examples.of_images(positions[train]))
        model_of |= dict.fromkeys(positions[test].tolist(), model)
    if not _has_all_kinds(examples, list(model_of)):
        unspared = [at for at in positions.tolist() if at not in model_of]
        warnings.warn(
            f"{len(unspared)} of {len(positions)} images cannot be held out, because there are too "
            "few groups of images (with defects, or without), so the threshold is chosen on what "
            "was learnt from; it will call too much defective. Give images of more groups, or "
            "set_threshold",
            UserWarning,
            stacklevel=4,
        )
        model_of |= dict.fromkeys(unspared, whole)
    if examples.is_all:
        yield from _of_examples(examples, model_of)
        return
    for image in images():
        if image.position in model_of:
            model = model_of[image.position]
            scores = np.concatenate([model.scores(block) for block in image.blocks])
            yield Judged.of(scores, image.labels)


def _of_examples(examples: Examples, model_of: Mapping[int, Scores]) -> Iterator[Judged]:
    """Score the examples themselves, all of one model at once."""
    for model in dict.fromkeys(model_of.values()):
        own = [at for at, its in model_of.items() if its is model]
        rows = np.flatnonzero(np.isin(examples.images, own))
        scores, images = model.scores(examples.X[rows]), examples.images[rows]
        for at in own:
            yield Judged.of(scores[images == at], examples.labels[rows[images == at]])


def _has_all_kinds(examples: Examples, positions: list[int]) -> bool:
    """Say whether some images have windows of every kind that all of them have."""
    is_normal = examples.labels == NORMAL
    inside = np.isin(examples.images, positions)
    return bool(set(is_normal[inside].tolist()) == set(is_normal.tolist()))


def _folds(
    has_defects: list[bool], groups: NDArray[np.intp], seed: int
) -> Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    if len(np.unique(groups)) < 2:
        return []
    return group_folds(has_defects, groups, n_splits=_FOLDS, random_state=seed)
