"""Why a model predicts a class: its margins, decomposed by position and codeword."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import softmax

from hypervlad.features.encoder.explanation import ImageEvidence
from hypervlad.models.boosting import BoostedSoftmaxClassifier
from hypervlad.models.classifier.novelty import TrainingImages, project_vectors


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where in an image the evidence for each class lies.

    The margin of a class is the sum of a class bias, the evidence of all positions, and the margin
    of boosted trees. Each has mean 0 over the classes. ::

        margins == baseline + maps.sum(axis=(1, 2)) + trees

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    blocks : mapping of str to ndarray of shape (n_classes, H, W), float32
        Evidence by position, for each feature block: "joint", "per_layer.TAP" for the codewords of
        each tapped layer, "pooled". At the positions of the finest tap, or the pixels of the
        resized image if the encoder's ``grid`` is "image" or a number.
    words : mapping of str to ndarray of shape (n_classes, K)
        Evidence by codeword, for each block that has codewords.
    codeword_maps : ndarray of int, shape (n_codebooks, H, W)
        The codeword at each position of the upright image, in the order of ``words``.
    baseline, trees : ndarray of shape (n_classes,)
        The class bias, and the margins of trees, which have no position in the image.
    margins : ndarray of shape (n_classes,)
        Their softmax is ``probabilities``.
    probabilities : ndarray of shape (n_classes,)
    novelty : float
        As in :class:`Classification`.
    word_maps : mapping of (str, int) to ndarray of shape (n_classes, H, W), float32
        Evidence by position of each requested codeword, by block and number.
    """

    classes: np.ndarray
    blocks: Mapping[str, np.ndarray]
    words: Mapping[str, np.ndarray]
    codeword_maps: np.ndarray
    baseline: np.ndarray
    trees: np.ndarray
    margins: np.ndarray
    probabilities: np.ndarray
    novelty: float
    word_maps: Mapping[tuple[str, int], np.ndarray]

    @cached_property
    def maps(self) -> np.ndarray:
        """Evidence of every position: (n_classes, H, W), float32."""
        total = np.sum(list(self.blocks.values()), axis=0, dtype=np.float64)
        return np.asarray(total, dtype=np.float32)

    @cached_property
    def totals(self) -> dict[str, np.ndarray]:
        """Evidence of each block, (n_classes,) each: its sum over the image."""
        return {name: m.sum(axis=(1, 2), dtype=np.float64) for name, m in self.blocks.items()}

    @property
    def label(self) -> Any:
        """The most probable class."""
        return self.classes[self.probabilities.argmax()]

    def index_of(self, label: Any) -> int:
        """Return the index of a class in ``classes``; a ValueError if there is no such class."""
        places = np.flatnonzero(self.classes == label)
        if not len(places):
            raise ValueError(
                f"the model has no class {label!r}; its classes are {self.classes.tolist()}"
            )
        return int(places[0])

    def __repr__(self) -> str:
        n_classes, height, width = self.maps.shape
        return (
            f"Explanation(label={str(self.label)!r}, probability={self.probabilities.max():.3f}, "
            f"{n_classes} maps of {height} x {width})"
        )


def explanation_of(
    learner: BoostedSoftmaxClassifier, evidence: ImageEvidence, training: TrainingImages
) -> Explanation:
    """Decompose the margins of an image, by its evidence with the `centred_weights`."""
    _, novelty = training.nearest(project_vectors(evidence.row[None]))
    # The trees get the vector as computed in training: they may split at the last digit.
    trees = _centred(learner.tree_margins(evidence.row[None])[0])
    baseline = _centred(learner.linear_intercept_)
    margins = baseline + evidence.vector @ centred_weights(learner) + trees
    return Explanation(
        classes=learner.classes_,
        blocks={name: maps.astype(np.float32) for name, maps in evidence.blocks.items()},
        word_maps={word: maps.astype(np.float32) for word, maps in evidence.word_maps.items()},
        words=evidence.words,
        codeword_maps=evidence.codeword_maps,
        baseline=baseline,
        trees=trees,
        margins=margins,
        probabilities=softmax(margins),
        novelty=float(novelty[0]),
    )


def check_linear(learner: Any) -> None:
    """Raise a ValueError unless a learner has a linear part that can be decomposed."""
    if not isinstance(learner, BoostedSoftmaxClassifier):
        raise ValueError(
            f"the learner is a {type(learner).__name__}; only the linear part of a "
            "BoostedSoftmaxClassifier can be decomposed by position. Train with "
            "boosting=BoostedSoftmaxClassifier(...) or None"
        )
    if learner.linear_coef_ is None:
        raise ValueError(
            "the learner has no linear part (init=None), and the margins of trees have no position "
            "in the image: train with BoostedSoftmaxClassifier(init='linear')"
        )


def centred_weights(learner: BoostedSoftmaxClassifier) -> np.ndarray:
    """Return the weights of the features for each class, (n_features, n_classes), mean 0."""
    assert learner.linear_coef_ is not None
    return _centred(learner.linear_coef_)


def _centred(margins: np.ndarray) -> np.ndarray:
    """Return margins (..., n_margins) as those of every class, with mean 0 over the classes."""
    if margins.shape[-1] == 1:
        return np.concatenate([-margins / 2, margins / 2], axis=-1)
    centred: np.ndarray = margins - margins.mean(axis=-1, keepdims=True)
    return centred
