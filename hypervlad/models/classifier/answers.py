"""What a classifier of images answers besides a class: sets, sure answers, novelty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from hypervlad.common.constraints import Integer, check_value
from hypervlad.common.progress import announced
from hypervlad.evaluation import Evaluation
from hypervlad.evaluation.conformal import check_share
from hypervlad.features.encoder import EncodedImages, HypercolumnVLAD
from hypervlad.images.reading import check_image_list
from hypervlad.models.classifier.assessment import (
    SURE,
    UNREADABLE,
    Classification,
    Judgement,
    LabelIssue,
    judgement_of,
    label_issues,
)
from hypervlad.models.classifier.held_out import HeldOut
from hypervlad.models.classifier.novelty import ImageFormats, TrainingImages, project_vectors

_SETS = "sets of possible classes"
_SURE_ANSWERS = "which answers are sure"


class HeldOutAnswers:
    """Sets, sure answers and novelty: what a fitted `MicrographClassifier` knows of its doubt."""

    calibration_size: float | None
    classes_: np.ndarray
    encoder_: HypercolumnVLAD
    boosting_: Any
    held_out_: HeldOut | None
    training_: TrainingImages
    formats_: ImageFormats

    def _encode(self, images: Sequence[Any]) -> EncodedImages:
        raise NotImplementedError

    def _proba(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        raise NotImplementedError

    def predict_set(self, images: Sequence[Any], coverage: float = 0.9) -> np.ndarray:
        """Return for each image the classes that it may belong to, with a given coverage.

        Every set contains the class of ``predict``, and classes of a single group, which cannot be
        held out. The set of an image that is unlike all training images has all classes.

        Parameters
        ----------
        images : sequence of n images
        coverage : float, default=0.9
            How often the set contains the true class of an image of a new group: see
            :func:`hypervlad.evaluation.prediction_sets`.

        Returns
        -------
        ndarray of bool, shape (n, n_classes)
            In the order of ``classes_``. Sets of skipped images are empty.

        Raises
        ------
        ValueError
            If the coverage is not between 0 and 1, or nothing was held out in ``fit``.

        Warns
        -----
        UserWarning
            If all sets have all classes, or a class that cannot be held out.
        """
        self.check_calibrated(coverage=coverage)
        self._fitted_held_out(_SETS).warn_of_sets(coverage)
        found = self._classify_encoded(self._encode(images), coverage, None)
        return found.images.with_missing(found.sets, fill=False)

    def predict_or_reject(
        self, images: Sequence[Any], max_error: float = 0.05, reject_label: Any = "unsure"
    ) -> np.ndarray:
        """Return the class of each image, or a reject label if :meth:`judge` does not call it sure.

        Parameters
        ----------
        images, max_error
            As in :meth:`judge`, with its errors and warnings.
        reject_label : object, default="unsure"
            Label of images without an answer; not a class.

        Returns
        -------
        ndarray of shape (n,)
            Of strings or integers if labels and ``reject_label`` both are, otherwise of objects.
            None for a skipped image.
        """
        self.check_calibrated(max_error=max_error)
        if reject_label is None or reject_label != reject_label or not np.isscalar(reject_label):
            raise ValueError(
                f"reject_label is a text or number, such as 'unsure'; got {reject_label!r}"
            )
        if reject_label in self.classes_.tolist():
            raise ValueError(f"reject_label={reject_label!r} is one of the classes: choose another")
        judged = self._judge(images, max_error)
        answers, read = judged.labels, judged.kind != UNREADABLE
        answers[read & (judged.kind != SURE)] = reject_label
        # With the type of the labels, if the reject label has it too.
        is_alike = np.asarray(reject_label).dtype.kind == self.classes_.dtype.kind
        return np.array(answers.tolist()) if is_alike and read.all() else answers

    def judge(self, images: Sequence[Any], max_error: float = 0.05) -> Judgement:
        """Return for each image whether the answer is sure, and if not, the reason.

        Parameters
        ----------
        images : sequence of n images
        max_error : float, default=0.05
            Accepted share of wrong answers among the sure ones. For 0.05, 0.1 and 0.2 this takes at
            least 45, 22 and 11 groups, and two groups of each class. See
            :func:`hypervlad.evaluation.confidence_for_error`.

        Returns
        -------
        Judgement

        Raises
        ------
        ValueError
            If max_error is not between 0 and 1, or nothing was held out in ``fit``.

        Warns
        -----
        UserWarning
            If no answer is sure.
        """
        self.check_calibrated(max_error=max_error)
        return self._judge(images, max_error)

    def judge_vectors(self, vectors: NDArray[np.floating], max_error: float = 0.05) -> Judgement:
        """Do the same as :meth:`judge` for vectors as from ``encoder_.transform``."""
        threshold, held_out = self._threshold(max_error), self._fitted_held_out(_SURE_ANSWERS)
        read = np.flatnonzero(~np.isnan(vectors[:, 0]))
        readable = vectors if len(read) == len(vectors) else vectors[read]  # no copy if all
        proba, points = self._proba(readable), project_vectors(readable)
        confidence = held_out.confidence(held_out.by_learner(readable, proba), proba)
        judged = judgement_of(self.classes_, proba, confidence, points, self.training_, threshold)
        return judged.among_skipped(read, len(vectors))

    def classify(
        self,
        images: Sequence[Any],
        *,
        coverage: float | None = None,
        max_error: float | None = None,
        chunk_size: int | None = None,
        progress: Callable[[int], Any] | None = None,
    ) -> Classification:
        """Return probabilities and novelty, and on request sets and a judgement, in one pass.

        Unreadable images give no warning: see :meth:`hypervlad.features.EncodedImages.warn`.

        Parameters
        ----------
        images : sequence of n images
        coverage : float, optional
            Return the prediction sets of :meth:`predict_set`.
        max_error : float, optional
            Return the judgement of :meth:`judge`.
        chunk_size : int, optional
            Maximum number of images whose vectors are in memory at a time. None: all.
        progress : callable, optional
            Called after each chunk with its number of images.

        Returns
        -------
        Classification

        Raises
        ------
        ValueError
            As :meth:`predict_set` and :meth:`judge`.
        ImageReadError
            If an image cannot be read, unless the encoder's ``on_error`` is "skip".
        """
        check_is_fitted(self)
        check_value("chunk_size", chunk_size, [Integer(1), None])
        self.check_calibrated(coverage=coverage, max_error=max_error)
        images = check_image_list(images)
        threshold = None if max_error is None else self._threshold(max_error)
        if coverage is not None:
            self._fitted_held_out(_SETS).warn_of_sets(coverage)
        size = chunk_size or len(images)
        chunks = []
        with announced(len(images)):
            for start in range(0, len(images), size):
                encoded = self.encoder_.encode_checked(images[start : start + size])
                chunks.append(self._classify_encoded(encoded, coverage, threshold))
                if progress is not None:
                    progress(encoded.n_images)
        found = Classification.joined(chunks)
        params = self.encoder_.fitted_params_
        differences = self.formats_.differences(
            found.images.info,
            with_types=params.read_options.scaling not in ("percentile", "minmax"),
            with_sizes=params.pixel_size is None,
        )
        return replace(found, differences=tuple(differences))

    def check_calibrated(
        self, *, coverage: float | None = None, max_error: float | None = None
    ) -> None:
        """Raise a ValueError unless sets, or a judgement, can be computed."""
        for name, value, purpose in (
            ("coverage", coverage, _SETS),
            ("max_error", max_error, _SURE_ANSWERS),
        ):
            if value is not None:
                check_share(name, value)
                self._fitted_held_out(purpose)

    def held_out_evaluation(self) -> Evaluation:
        """Return the `Evaluation` of the held-out predictions, each without the image's group.

        It estimates the accuracy on new groups. ValueError if nothing was held out in ``fit``.
        """
        return self._fitted_held_out("its accuracy").evaluation(self.classes_)

    def label_issues(self) -> list[LabelIssue]:
        """List training images whose label is probably wrong, as `LabelIssue`, most probable first.

        By confident learning on held-out predictions (C. G. Northcutt, L. Jiang and I. L. Chuang,
        "Confident learning: estimating uncertainty in dataset labels", JAIR 70, 2021).

        Raises
        ------
        ValueError
            If nothing was held out in ``fit``.
        ImportError
            If cleanlab is not installed (``pip install "hypervlad[review]"``).
        """
        held_out = self._fitted_held_out("labels that are probably wrong")
        proba, codes, rows = held_out.proba, held_out.codes, held_out.rows
        return label_issues(proba, codes, rows, self.training_, self.classes_)

    def _fitted_held_out(self, purpose: str) -> HeldOut:
        check_is_fitted(self)
        if self.held_out_ is None:
            why = (
                "it was trained with a calibration size of 0"
                if self.calibration_size == 0
                else "no group could be spared; that takes a class with images of two groups, such "
                "as two samples"
            )
            raise ValueError(
                f"this model cannot tell {purpose}: that takes predictions of training images that "
                f"were held out, and none was, because {why}"
            )
        return self.held_out_

    def _threshold(self, max_error: float) -> float:
        return self._fitted_held_out(_SURE_ANSWERS).checked_threshold(max_error)

    def _judge(self, images: Sequence[Any], max_error: float) -> Judgement:
        threshold, encoded = self._threshold(max_error), self._encode(images)
        judged = self._classify_encoded(encoded, None, threshold).judgement
        assert judged is not None
        return judged.among_skipped(encoded.positions, encoded.n_images)

    def _classify_encoded(
        self, encoded: EncodedImages, coverage: float | None, threshold: float | None
    ) -> Classification:
        vectors, blank = encoded.vectors, encoded.is_blank
        proba, points = self._proba(vectors), project_vectors(vectors)
        judgement, sets = None, None
        if threshold is None:
            nearest, novelty = self.training_.nearest(points)
        if coverage is not None or threshold is not None:
            held_out = self._fitted_held_out(_SETS)
            by_learner = held_out.by_learner(vectors, proba)
            if threshold is not None:
                confidence = held_out.confidence(by_learner, proba)
                judgement = judgement_of(
                    self.classes_, proba, confidence, points, self.training_, threshold, blank
                )
                nearest, novelty = judgement.nearest, judgement.novelty
            if coverage is not None:
                sets = held_out.sets(by_learner, proba, novelty, coverage)
        known = self.training_.contains([image.digest for image in encoded.info])
        images = replace(encoded, vectors=np.empty((len(vectors), 0), dtype=np.float32))
        return Classification(images, proba, novelty, nearest, known, judgement, sets)
