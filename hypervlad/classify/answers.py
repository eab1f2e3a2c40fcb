"""What a classifier answers: predictions that can be trusted or not, explanations, wrong labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import accuracy_score

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.fitting import of_length
from hypervlad.classify.held_out import HeldOut
from hypervlad.classify.training_images import TrainingImages, project_vectors
from hypervlad.common.progress import Sentence, joined_notes, note_of, warn_of_images
from hypervlad.common.wording import percent
from hypervlad.features.encoding import EncodedImages
from hypervlad.features.explanation import ImageEvidence

SURE, AMBIGUOUS, OUT_OF_DISTRIBUTION = "sure", "ambiguous", "out_of_distribution"
UNREADABLE = "unreadable"

# The arrays of a judgement, and what they contain for a skipped image.
_OF_SKIPPED = {
    "proba": np.nan,
    "kind": UNREADABLE,
    "novelty": np.nan,
    "nearest": -1,
    "projected": np.nan,
    "confidence": np.nan,
}
_NAMED_PROBABILITY = 0.9  # classes are named in a reason until they add up to this
_MAX_NAMED = 3
_MIN_THRESHOLD = 2e-6  # of confident learning, as in cleanlab
_FAR = 10  # times the limit: the nearest training images mean nothing then


@dataclass(frozen=True, eq=False)
class Judgement:
    """The predictions for images, and which of them can be trusted.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    proba : ndarray of float, shape (n, n_classes)
    kind : ndarray of str, shape (n,)
        "sure"; "ambiguous": between classes, or no answer of this model can be sure;
        "out_of_distribution": unlike all training images; or "unreadable": skipped.
    reasons : list of n str
    novelty, nearest : ndarray of shape (n,) and (n, k)
        As in :class:`Classification`; NaN and -1 for a skipped image.
    projected : ndarray of float32, shape (n, d)
        Projected vectors of the images, as ``model.training_.points``.
    confidence : ndarray of float, shape (n,)
        The probability of the most probable class, by the learners that predicted held-out images.
    threshold : float
        Lowest confidence of a sure answer; infinite if none is sure.
    """

    classes: NDArray[Any]
    proba: NDArray[np.float64]
    kind: NDArray[np.str_]
    reasons: list[str]
    novelty: NDArray[np.float64]
    nearest: NDArray[np.intp]
    projected: NDArray[np.float32]
    confidence: NDArray[np.float64]
    threshold: float

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def labels(self) -> NDArray[Any]:
        """The most probable class of each image, (n,); None for a skipped image."""
        return most_probable(self.proba, self.classes).astype(object)

    def among_skipped(self, positions: NDArray[np.intp], n: int) -> Judgement:
        """Return the judgement of `n` images, of which those not at `positions` were skipped."""
        if len(positions) == n:
            return self

        found: dict[str, Any] = {"reasons": ["it could not be read"] * n}
        for position, reason in zip(positions, self.reasons, strict=True):
            found["reasons"][position] = reason
        for name, fill in _OF_SKIPPED.items():
            values = getattr(self, name)
            found[name] = np.full((n, *values.shape[1:]), fill, dtype=values.dtype)
            found[name][positions] = values
        return replace(self, **found)


@dataclass(frozen=True, eq=False)
class Classification:
    """The predictions for a list of images, with the images that could not be read.

    Attributes
    ----------
    images : EncodedImages
        Which images were read and which were skipped, without their vectors.
    proba : ndarray of shape (n_read, n_classes)
    novelty : ndarray of float, shape (n_read,)
        Distance from the training images by its limit: above 1, the probabilities mean little.
    nearest : ndarray of int, shape (n_read, k)
        Rows of ``model.training_``, nearest first.
    in_training : ndarray of bool, shape (n_read,)
        Whether an image with the same pixels was given to ``fit``.
    judgement : Judgement or None
        None if it was not requested.
    sets : ndarray of bool, shape (n_read, n_classes), or None
        Prediction sets; None if they were not requested.
    doubts : mapping, default={}
        How files differ from all, or most, training images: facts by their names, by sentence.
    names : sequence of n_read str, default=(), as in `doubts`
    """

    images: EncodedImages
    proba: NDArray[np.float64]
    novelty: NDArray[np.float64]
    nearest: NDArray[np.intp]
    in_training: NDArray[np.bool_]
    judgement: Judgement | None
    sets: NDArray[np.bool_] | None
    doubts: Mapping[Sentence, Mapping[str, Any]] = field(default_factory=dict)
    names: Sequence[str] = ()

    @property
    def unlike_training(self) -> NDArray[np.bool_]:
        """Whether each image is unlike all training images, (n_read,)."""
        return np.asarray(self.novelty > 1)

    @property
    def differences(self) -> tuple[str, ...]:
        """How files differ from the training images: type of pixels, size, and faults."""
        return tuple(sentence(facts) for sentence, facts in self.doubts.items())

    @property
    def notes(self) -> list[str]:
        """The `differences` of each image, for its row in a table, (n_read,)."""
        notes = defaultdict[str, list[str]](list)
        for sentence, facts in self.doubts.items():
            for name, fact in facts.items():
                notes[name].append(note_of(sentence, fact))
        return [joined_notes(notes[name]) for name in self.names]

    def warn(self) -> EncodedImages:
        """Warn of skipped and blank images, as these do, and of `differences`; return `images`."""
        self.images.warn()
        warn_of_images(self.doubts)
        return self.images


class Answers(NamedTuple):
    """The answers to n vectors, one row for each; None for what was not requested."""

    proba: NDArray[np.float64]
    novelty: NDArray[np.float64]
    nearest: NDArray[np.intp]
    confidence: NDArray[np.float64] | None = None
    projected: NDArray[np.float32] | None = None
    sets: NDArray[np.bool_] | None = None

    @classmethod
    def joined(cls, chunks: Sequence[Answers]) -> Answers:
        columns: list[Any] = list(zip(*chunks, strict=True))
        whole: list[Any] = [None if own[0] is None else np.concatenate(own) for own in columns]
        return cls(*whole)

    def judgement(
        self,
        classes: NDArray[Any],
        labels: NDArray[Any],
        threshold: float,
        is_blank: NDArray[np.bool_] | None = None,
    ) -> Judgement:
        """Say which answers are sure, from their confidence; `labels` are of training images."""
        proba, novelty, nearest, confidence, points, _ = self
        assert confidence is not None
        assert points is not None
        kind = np.where(confidence >= threshold, SURE, AMBIGUOUS)
        kind = np.where(novelty > 1, OUT_OF_DISTRIBUTION, kind)
        blank = np.zeros(len(proba), bool) if is_blank is None else is_blank
        reasons = [
            "blank, all pixels equal"
            if blank[i] and kind[i] == OUT_OF_DISTRIBUTION
            else _reason(
                kind[i], classes, proba[i], confidence[i], threshold, novelty[i], labels[nearest[i]]
            )
            for i in range(len(proba))
        ]
        return Judgement(
            classes, proba, kind, reasons, novelty, nearest, points, confidence, threshold
        )


def _reason(
    kind: str,
    classes: NDArray[Any],
    proba: NDArray[np.float64],
    confidence: float,
    threshold: float,
    novelty: float,
    neighbours: NDArray[Any],
) -> str:
    if kind == OUT_OF_DISTRIBUTION:
        if novelty >= _FAR:
            return f"unlike all training images: more than {_FAR} times the limit"
        names = " and ".join(dict.fromkeys(str(label) for label in neighbours))
        return (
            f"unlike all training images: {novelty:.2f} times the limit for images like them (the "
            f"nearest: {names})"
        )
    most = f"{classes[proba.argmax()]} with {percent(proba.max())}"
    if kind == SURE:
        return most
    if np.isinf(threshold):
        return f"{most}, but with this model no answer is sure"
    order = np.argsort(-proba, kind="stable")
    n_named = int(np.searchsorted(np.cumsum(proba[order]), _NAMED_PROBABILITY)) + 1
    *first, last = [
        f"{classes[k]} ({percent(proba[k])})" for k in order[: max(2, min(n_named, _MAX_NAMED))]
    ]
    between = f"between {', '.join(first)} and {last}"
    held_out = f"models trained without some images have a confidence of {percent(confidence)}"
    return f"{between}; {held_out}, and sure answers have {percent(threshold)} or more"


def joined_images(chunks: Sequence[EncodedImages]) -> EncodedImages:
    starts = np.cumsum([0, *(chunk.n_images for chunk in chunks)])
    pairs = list(zip(starts[:-1].tolist(), chunks, strict=True))
    skipped = [
        image._replace(position=start + image.position)
        for start, chunk in pairs
        for image in chunk.skipped
    ]
    return EncodedImages(
        vectors=np.concatenate([chunk.vectors for chunk in chunks]),
        positions=np.concatenate([start + chunk.positions for start, chunk in pairs]),
        info=tuple(info for chunk in chunks for info in chunk.info),
        skipped=tuple(skipped),
        unscaled=tuple(name for chunk in chunks for name in chunk.unscaled),
        n_images=int(starts[-1]),
        n_cached=sum(chunk.n_cached for chunk in chunks),
        blank=tuple(name for chunk in chunks for name in chunk.blank),
    )


def most_probable(proba: NDArray[np.floating], classes: NDArray[Any]) -> NDArray[Any]:
    """Return the label of the highest probability in each row; None for rows of NaN."""
    skipped = np.isnan(proba[:, 0])
    labels: NDArray[Any] = classes[np.where(skipped[:, None], 0.0, proba).argmax(axis=1)]
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
    """Return the accuracy of predicted labels, of which None does not count."""
    n = len(predicted)
    of_length("labels", truth, n)
    read = np.array([label is not None for label in predicted])
    weights = None if sample_weight is None else of_length("weights", sample_weight, n)[read]
    expected, found = np.asarray(truth)[read], predicted[read].astype(classes.dtype)
    return float(accuracy_score(expected, found, sample_weight=weights))


# --- explanations ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where in an image the evidence for each class lies.

    Margins, bias, evidence and trees have mean 0 over the classes, and add up::

        margins == baseline + maps.sum(axis=(1, 2)) + trees

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    blocks : mapping of str to ndarray of shape (n_classes, H, W), float32
        Evidence by position, for each feature block: "joint", "per_layer.TAP" of each tapped layer,
        "pooled". At the positions of the finest tap, or the pixels of the resized image if the
        encoder's ``grid`` is "image".
    words : mapping of str to ndarray of shape (n_classes, K)
        Evidence by codeword, for each block that has codewords.
    codeword_maps : ndarray of int, shape (n_codebooks, H, W)
        The codeword at each position of the upright image, in the order of ``words``.
    baseline, trees : ndarray of shape (n_classes,)
        The class bias, and the margins of trees, which have no position in the image.
    margins, probabilities : ndarray of shape (n_classes,)
    novelty : float
        As in :class:`Classification`.
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

    @cached_property
    def maps(self) -> np.ndarray:
        """Evidence of every position, (n_classes, H, W), float32."""
        total = np.sum(list(self.blocks.values()), axis=0, dtype=np.float64)
        return np.asarray(total, dtype=np.float32)

    @cached_property
    def totals(self) -> dict[str, np.ndarray]:
        """Evidence of each block, summed over the image, (n_classes,)."""
        return {name: m.sum(axis=(1, 2), dtype=np.float64) for name, m in self.blocks.items()}

    @property
    def label(self) -> Any:
        """The most probable class."""
        return self.classes[self.probabilities.argmax()]

    def index_of(self, label: Any) -> int:
        """Return the index of a class in ``classes``; ValueError if there is no such class."""
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
    _, novelty = training.nearest(project_vectors(evidence.row[None]))
    # The trees get the vector as computed in training: they may split at the last digit.
    trees = _centred(learner.tree_margins(evidence.row[None])[0])
    baseline = _centred(learner.linear_intercept_)
    margins = baseline + evidence.vector @ centred_weights(learner) + trees
    return Explanation(
        classes=learner.classes_,
        blocks={name: maps.astype(np.float32) for name, maps in evidence.blocks.items()},
        words=evidence.words,
        codeword_maps=evidence.codeword_maps,
        baseline=baseline,
        trees=trees,
        margins=margins,
        probabilities=softmax(margins),
        novelty=float(novelty[0]),
    )


def centred_weights(learner: Any) -> np.ndarray:
    """Return the weights of the features for each class, (n_features, n_classes), mean 0.

    ValueError if the learner has no linear part.
    """
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
    return _centred(learner.linear_coef_)


def _centred(margins: np.ndarray) -> np.ndarray:
    """Return margins (..., n_margins) as those of every class, with mean 0 over the classes."""
    if margins.shape[-1] == 1:
        return np.concatenate([-margins / 2, margins / 2], axis=-1)
    return np.asarray(margins - margins.mean(axis=-1, keepdims=True))


# --- labels that are probably wrong -------------------------------------------------------------


@dataclass(frozen=True)
class LabelIssue:
    """A label that differs from the prediction of a model fitted without the image.

    Attributes
    ----------
    position : int
        Of the image in the list given to ``fit``.
    name : str
        Path of the image relative to the common folder; "" for an array.
    label, likely : object
        The label given, and the more probable class.
    p_label, p_likely : float
        Their probabilities.
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
    """Search by confident learning: labels below those that are confidently of another class.

    A probability is confident from the mean one of the class where it is the label. Tested against
    `find_label_issues` of cleanlab 2.9 with `filter_by="confident_learning"`.
    """
    proba, codes = held_out.proba, held_out.codes
    own, most = proba[np.arange(len(codes)), codes], proba.argmax(axis=1)
    thresholds = np.full(proba.shape[1], np.inf)
    for code in np.unique(codes):
        thresholds[code] = max(own[codes == code].mean(), _MIN_THRESHOLD)
    is_confident = proba >= thresholds - _MIN_THRESHOLD / 2
    confident = np.where(is_confident.sum(axis=1) > 1, most, is_confident.argmax(axis=1))
    is_issue = is_confident.any(axis=1) & (confident != codes) & (most != codes)
    ranked = np.flatnonzero(is_issue)[np.argsort(own[is_issue], kind="stable")]
    found, names = [], classes.tolist()
    for i in ranked.tolist():
        row, likely = int(held_out.rows[i]), int(most[i])
        image = int(training.positions[row]), training.names[row]
        shares = float(own[i]), float(proba[i, likely])
        found.append(LabelIssue(*image, names[codes[i]], names[likely], *shares))
    return found
