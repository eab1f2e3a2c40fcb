"""Why a model says what it says of an image: its margins, taken apart place by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.encoder.evidence import image_evidence
from hypervlad.images import ImageReadError

if TYPE_CHECKING:
    from hypervlad.classifier.estimator import MicrographClassifier


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where in an image the evidence for each class lies.

    A class's margin is a sum: ``baseline`` (what the model says before it looks), the evidence of
    every place, and what boosted trees add, if there are any. ::

        margins == baseline + maps.sum(axis=(1, 2)) + trees

    A softmax does not see what is added to all classes alike, so all of these are centred: their
    mean over the classes is 0. Positive evidence speaks for a class and against the mean of all.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    parts : mapping of str to ndarray of shape (n_classes, H, W), float32
        Evidence by place, for each part of the vector: "joint", "per_layer.TAP" for the words of
        each tapped layer, "pooled". On the positions of the finest tap, or on the resized image's
        pixels where the encoder's ``grid`` is "image" or a number. Turned copies are turned back.
    words : mapping of str to ndarray of shape (n_classes, K)
        Evidence by visual word, for each part that has words.
    codeword_maps : ndarray of int, shape (n_codebooks, H, W)
        The visual word at each place of the upright image, in the order of ``words``.
    baseline, trees : ndarray of shape (n_classes,)
        The trees look at the whole vector: what they add has no place in the image.
    margins : ndarray of shape (n_classes,)
        Their softmax is ``probabilities``.
    probabilities : ndarray of shape (n_classes,)
    word_maps : mapping of (str, int) to ndarray of shape (n_classes, H, W), float32
        Evidence by place of each visual word that was asked for, by part and number.
    """

    classes: np.ndarray
    parts: Mapping[str, np.ndarray]
    words: Mapping[str, np.ndarray]
    codeword_maps: np.ndarray
    baseline: np.ndarray
    trees: np.ndarray
    margins: np.ndarray
    probabilities: np.ndarray
    word_maps: Mapping[tuple[str, int], np.ndarray]

    @cached_property
    def maps(self) -> np.ndarray:
        """Evidence of every place: (n_classes, H, W), float32."""
        total = np.sum(list(self.parts.values()), axis=0, dtype=np.float64)
        return np.asarray(total, dtype=np.float32)

    @cached_property
    def totals(self) -> dict[str, np.ndarray]:
        """Evidence of each part, (n_classes,) each: its sum over the image."""
        return {name: m.sum(axis=(1, 2), dtype=np.float64) for name, m in self.parts.items()}

    @property
    def label(self) -> Any:
        """The most probable class."""
        return self.classes[self.probabilities.argmax()]

    def index_of(self, label: Any) -> int:
        """Return a class's place in ``classes``.

        Raises
        ------
        ValueError
            If the model does not know the class.
        """
        places = np.flatnonzero(self.classes == label)
        if not len(places):
            raise ValueError(
                f"the model knows no class {label!r}; it knows {self.classes.tolist()}"
            )
        return int(places[0])

    def __repr__(self) -> str:
        n_classes, height, width = self.maps.shape
        return (
            f"Explanation(label={str(self.label)!r}, probability={self.probabilities.max():.3f}, "
            f"{n_classes} maps of {height} x {width})"
        )


def explain(
    model: MicrographClassifier, image: Any, words: Sequence[tuple[str, int]] = ()
) -> Explanation:
    """See `MicrographClassifier.explain`."""
    check_is_fitted(model)
    _check_one_image(image)
    learner = _linear_learner(model.boosting_)
    assert learner.linear_coef_ is not None
    evidence = image_evidence(model.encoder_, image, _centred(learner.linear_coef_), words)
    # A tree may split between a sum in double precision and the one that it was trained on.
    added = learner.tree_margins(evidence.row[None])
    baseline, trees = _centred(learner.linear_intercept_), _centred(added[0])
    linear = evidence.vector @ _centred(learner.linear_coef_)
    margins = baseline + linear + trees
    return Explanation(
        classes=learner.classes_,
        parts={name: maps.astype(np.float32) for name, maps in evidence.parts.items()},
        word_maps={word: maps.astype(np.float32) for word, maps in evidence.word_maps.items()},
        words=evidence.words,
        codeword_maps=evidence.codeword_maps,
        baseline=baseline,
        trees=trees,
        margins=margins,
        probabilities=softmax(margins),
    )


def _check_one_image(image: Any) -> None:
    if isinstance(image, list | tuple):
        raise ImageReadError(
            f"explain takes one image, a path or an array, not a {type(image).__name__}: call it "
            "for each image, as in [model.explain(image) for image in images]"
        )


def _linear_learner(learner: Any) -> BoostedSoftmaxClassifier:
    if not isinstance(learner, BoostedSoftmaxClassifier):
        raise ValueError(
            f"the learner is a {type(learner).__name__}; only the linear part of a "
            "BoostedSoftmaxClassifier can be taken apart place by place. Train with "
            "boosting=BoostedSoftmaxClassifier(...) or None"
        )
    if learner.linear_coef_ is None:
        raise ValueError(
            "the learner has no linear part (init=None), and what trees say of a whole vector "
            "has no place in the image: train with BoostedSoftmaxClassifier(init='linear')"
        )
    return learner


def _centred(margins: np.ndarray) -> np.ndarray:
    """Turn margins (..., n_margins) into those of every class, with mean 0 over the classes."""
    if margins.shape[-1] == 1:
        return np.concatenate([-margins / 2, margins / 2], axis=-1)
    centred: np.ndarray = margins - margins.mean(axis=-1, keepdims=True)
    return centred
