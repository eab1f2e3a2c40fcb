"""``MicrographClassifier``: from images to classes with probabilities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from hypervlad.classify.answers import (
    Answers,
    Classification,
    Explanation,
    Judgement,
    LabelIssue,
    accuracy_of_read,
    centred_weights,
    explanation_of,
    joined_images,
    label_issues,
)
from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.boosting.logistic import decided_classes, with_exact_ties
from hypervlad.classify.fitting import (
    LabelledImages,
    ProbabilisticClassifier,
    default_encoder,
    default_learner,
    fit_parts,
)
from hypervlad.classify.held_out import HeldOut
from hypervlad.classify.training_images import (
    OF_SIZE_ON_CLASSES,
    ImageFormats,
    TrainingImages,
    project_vectors,
)
from hypervlad.common.base import ImageEstimator, PartParameter
from hypervlad.common.constraints import (
    BOOLEAN,
    SEEDED,
    Alternatives,
    InstanceOf,
    Integer,
    check_value,
)
from hypervlad.common.modelfile import ModelFileError
from hypervlad.common.progress import Sentence, announced, warn_of_images
from hypervlad.common.stored import Array, Arrays, Each, Labels, Maybe, Part, Record, Value
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.encoding import EncodedImages
from hypervlad.images import ImageReadError
from hypervlad.images.faults import ON_CLASSES
from hypervlad.images.reading import check_image_list, image_name, is_particle
from hypervlad.statistics.classification import Evaluation
from hypervlad.statistics.conformal import check_share

_SETS = "sets of possible classes"
_SURE_ANSWERS = "which answers are sure"


def _learner_has_margins(model: Any) -> bool:
    learner = getattr(model, "boosting_", model.boosting)
    return learner is None or hasattr(learner, "decision_function")


class MicrographClassifier(ClassifierMixin, ImageEstimator):
    """Classify micrographs: VLAD of hypercolumns, averages of channels, a linear softmax.

    An encoder turns each image into a vector of feature blocks. Each block has a linear model,
    their margins are averaged, and trees are added if cross-validation shows that they help.

    Parameters
    ----------
    encoder : HypercolumnVLAD or None, default=None
        None: that of :func:`default_encoder`, for particles with the block "shape", which one that
        ``set_params(encoder__...)`` makes does not have.
    boosting : BoostedSoftmaxClassifier, other classifier or None, default=None
        The learner. None: ``BoostedSoftmaxClassifier(prior="sqrt")``. Any scikit-learn classifier
        with ``predict_proba`` that takes the labels can be used, but :meth:`save` cannot store it.
    calibrate : bool, default=True
        Predict the training images in folds of groups, by learners fitted without them, which
        :meth:`predict_set`, :meth:`judge` and :meth:`held_out_evaluation` need.
    random_state : int, RandomState or None, default=None
        Seed of encoder and learner, unless these have their own.
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the columns of probabilities.
    encoder_, boosting_ : HypercolumnVLAD and BoostedSoftmaxClassifier or other classifier
        The fitted encoder and learner.
    held_out_ : HeldOut or None
        Predictions by learners fitted without the image; None if none could be held out.
    training_, formats_ : TrainingImages and ImageFormats
        The images given to ``fit``, the types of their pixels and their sizes.
    chosen_ : ndarray of bool, shape (n,), optional
        Which were labelled in a review, as a model was unsure of them: not from ``fit``, but
        written by ``hypervlad train`` and ``review retrain``.
    wrong_outlines_ : list of str, optional
        Likewise, digests of outlines of no particle, which :class:`hypervlad.particles.FoundFolder`
        never counts.
    n_images_ : int
        Number of images that the learner was trained on.
    fit_seconds_ : dict of str to float
        Seconds that each stage of ``fit`` took. Not saved.

    Examples
    --------
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> images, labels = make_tem_images(24, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, random_state=0)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> model.predict_proba(images[:2]).shape, model.predict_set(images[:2]).shape
    ((2, 4), (2, 4))
    """

    _kind = "micrograph_classifier"
    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {
        "encoder": [InstanceOf(HypercolumnVLAD, "a HypercolumnVLAD"), None],
        "boosting": [ProbabilisticClassifier(), None],
        "calibrate": [BOOLEAN],
        **SEEDED,
    }
    _part_parameters: ClassVar[Mapping[str, PartParameter]] = {
        "encoder": PartParameter("encoder_", default_encoder),
        "boosting": PartParameter("boosting_", default_learner),
    }

    classes_: Annotated[np.ndarray, Labels()]
    encoder_: Annotated[HypercolumnVLAD, Part(HypercolumnVLAD)]
    boosting_: Annotated[Any, Part(BoostedSoftmaxClassifier)]
    held_out_: Annotated[HeldOut | None, Maybe(Part(HeldOut))]
    training_: Annotated[TrainingImages, Part(TrainingImages)]
    formats_: Annotated[ImageFormats, Record(ImageFormats)]
    chosen_: Annotated[NDArray[np.bool_] | None, Maybe(Array("bool", 1), may_be_missing=True)]
    wrong_outlines_: Annotated[list[str] | None, Maybe(Each(Value(str), list), may_be_missing=True)]
    n_images_: Annotated[int, Value(int, Integer())]
    fit_seconds_: dict[str, float]

    def __init__(
        self,
        encoder: HypercolumnVLAD | None = None,
        *,
        boosting: BaseEstimator | None = None,
        calibrate: bool = True,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.boosting = boosting
        self.calibrate = calibrate
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        images: Sequence[Any],
        y: Sequence[Any],
        sample_weight: Sequence[float] | None = None,
        *,
        groups: Sequence[Any] | None = None,
    ) -> MicrographClassifier:
        """Fit the codebook and the learner.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), any mix of sizes; or particles, from
            :func:`hypervlad.particles.cut_particles`.
        y : sequence of n labels
        sample_weight : sequence of n floats, default=None
            Weights in the learner, not in the codebook. Images of weight 0 are left out. None: 1.
        groups : sequence of n group names, default=None
            Micrograph, sample or paper of each image; inner splits keep groups together. None: each
            image is a group; of particles, each micrograph. Those of copies are joined.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If parameters or labels are unusable, lengths differ, or only some images are particles.
        ImageReadError
            If an image cannot be read, unless the encoder's ``on_error`` is "skip".

        Warns
        -----
        UserWarning
            If the learner's ``fit`` takes no groups, if images are blank, if equal images have
            different labels, or if near copies, which now share a group, were in several.
        NeverPredictedWarning
            If a class is predicted for none of the held-out images.
        """
        self.check_parameters()
        data = LabelledImages.of(check_image_list(images), y, groups, sample_weight)
        seed = self.random_state
        if isinstance(seed, np.random.RandomState):
            seed = int(seed.randint(2**31 - 1))
        encoder = self._new_part("encoder", seed, particles=all(map(is_particle, data.images)))
        learner = self._new_part("boosting", seed)
        with announced():
            fitted = fit_parts(
                encoder, learner, data, seed, calibrate=self.calibrate, verbose=bool(self.verbose)
            )
        # All at the end: a fit that fails leaves the model unchanged.
        self.encoder_, self.boosting_, self.classes_ = encoder, learner, fitted.classes
        self.held_out_, self.training_ = fitted.held_out, fitted.training
        self.formats_, self.n_images_ = fitted.formats, len(fitted.training)
        self.fit_seconds_ = fitted.seconds
        for of_earlier_fit in ("chosen_", "wrong_outlines_"):
            self.__dict__.pop(of_earlier_fit, None)
        return self

    @available_if(_learner_has_margins)
    def decision_function(self, images: Sequence[Any]) -> np.ndarray:
        """Return the learner's margins, (n, n_classes), or (n,) for two classes.

        Those within 1e-6 of the largest are equal to it.
        """
        check_is_fitted(self)
        encoded = self._encoded(images)
        return encoded.with_missing(self._margins(encoded.vectors))

    def predict_proba(self, images: Sequence[Any]) -> np.ndarray:
        """Return class probabilities, (n, n_classes); NaN for skipped images."""
        check_is_fitted(self)
        encoded = self._encoded(images)
        return encoded.with_missing(self._proba(encoded.vectors))

    def predict(self, images: Sequence[Any]) -> np.ndarray:
        """Return the most probable class of each image, (n,); None for skipped images."""
        check_is_fitted(self)
        return self._decided(self._encoded(images))

    def score(
        self, images: Sequence[Any], y: Sequence[Any], sample_weight: Sequence[float] | None = None
    ) -> float:
        """Return the accuracy on images that are not skipped; warn if any are training images."""
        check_is_fitted(self)
        encoded = self._encoded(images)
        self.training_.warn_of_known([image.digest for image in encoded.info])
        return accuracy_of_read(self._decided(encoded), y, self.classes_, sample_weight)

    def explain(self, image: Any) -> Explanation:
        """Decompose the margins of an image: which positions are evidence for which class.

        Parameters
        ----------
        image : path or array

        Returns
        -------
        Explanation

        Raises
        ------
        ValueError
            If the learner has no linear part, or the encoder takes random pixels.
        ImageReadError
            If the image cannot be read.
        """
        check_is_fitted(self)
        if isinstance(image, list | tuple):
            raise ImageReadError(
                f"explain takes one image, a path or an array, not a {type(image).__name__}: call "
                "it for each image, as in [model.explain(image) for image in images]"
            )
        evidence = self.encoder_.explain_vector(image, centred_weights(self.boosting_))
        return explanation_of(self.boosting_, evidence, self.training_)

    def predict_set(self, images: Sequence[Any], coverage: float = 0.9) -> np.ndarray:
        """Return for each image the classes that it may belong to, with a given coverage.

        Parameters
        ----------
        images : sequence of n images
        coverage : float, default=0.9
            Share of images of new groups whose set contains their true class: see
            :func:`hypervlad.evaluation.prediction_sets`.

        Returns
        -------
        ndarray of bool, shape (n, n_classes)
            Each set contains the class of ``predict``, and classes that cannot be held out, being
            of one group. That of an image unlike all training images has all classes; that of a
            skipped image is empty.

        Raises
        ------
        ValueError
            If the coverage is not between 0 and 1, or nothing was held out in ``fit``.

        Warns
        -----
        UserWarning
            If all sets have all classes, or a class that cannot be held out.
        """
        found = self.classify(images, coverage=coverage)
        return found.warn().with_missing(found.sets, fill=False)

    def judge(self, images: Sequence[Any], max_error: float = 0.05) -> Judgement:
        """Return for each image whether the answer is sure, and if not, the reason.

        Parameters
        ----------
        images : sequence of n images
        max_error : float, default=0.05
            Accepted share of wrong answers among the sure ones; see
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
        found = self.classify(images, max_error=max_error)
        assert found.judgement is not None
        read = found.warn()
        return found.judgement.among_skipped(read.positions, read.n_images)

    def judge_vectors(self, vectors: NDArray[np.floating], max_error: float = 0.05) -> Judgement:
        """Judge images as :meth:`judge` does, by their vectors from ``encoder_.transform``."""
        threshold = self._fitted_held_out(_SURE_ANSWERS).checked_threshold(max_error)
        read = np.flatnonzero(~np.isnan(vectors[:, 0]))
        readable = vectors if len(read) == len(vectors) else vectors[read]  # no copy if all
        answers = self._answers(readable, with_confidence=True)
        judged = answers.judgement(self.classes_, self.training_.labels, threshold)
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

        It gives no warning of images: see :meth:`hypervlad.models.Classification.warn`.

        Parameters
        ----------
        images : sequence of n images
        coverage : float or None, default=None
            Coverage of the prediction sets, as in :meth:`predict_set`. None: no sets.
        max_error : float or None, default=None
            As in :meth:`judge`. None: no judgement.
        chunk_size : int or None, default=None
            Maximum number of images whose vectors are in memory at a time. None: all.
        progress : callable or None, default=None
            Called after each chunk with its number of images.

        Returns
        -------
        Classification

        Raises
        ------
        ValueError
            As in :meth:`predict_set` and :meth:`judge`.
        ImageReadError
            If an image cannot be read, unless the encoder's ``on_error`` is "skip".
        """
        check_is_fitted(self)
        check_value("chunk_size", chunk_size, [Integer(1), None])
        self.check_calibrated(coverage=coverage, max_error=max_error)
        images = check_image_list(images)
        threshold = None
        if max_error is not None:
            threshold = self._fitted_held_out(_SURE_ANSWERS).checked_threshold(max_error)
        if coverage is not None:
            self._fitted_held_out(_SETS).warn_of_sets(coverage)
        size = chunk_size or len(images)
        chunks, tables = [], []
        with announced():
            for start in range(0, len(images), size):
                encoded = self.encoder_.encode(images[start : start + size])
                tables.append(
                    self._answers(encoded.vectors, coverage, with_confidence=threshold is not None)
                )
                chunks.append(replace(encoded, vectors=np.empty((len(encoded.info), 0), "f4")))
                if progress is not None:
                    progress(encoded.n_images)
        read, answers = joined_images(chunks), Answers.joined(tables)
        judgement = None
        if threshold is not None:
            labels = self.training_.labels
            judgement = answers.judgement(self.classes_, labels, threshold, read.is_blank)
        known = self.training_.digests.contains([image.digest for image in read.info])
        return Classification(
            read,
            answers.proba,
            answers.novelty,
            answers.nearest,
            known,
            judgement,
            answers.sets,
            *self._doubts(images, read),
        )

    def check_calibrated(
        self, *, coverage: float | None = None, max_error: float | None = None
    ) -> None:
        """Raise a ValueError unless sets or a judgement, if requested, can be computed."""
        if coverage is not None:
            check_share("coverage", coverage)
            self._fitted_held_out(_SETS)
        if max_error is not None:
            check_share("max_error", max_error)
            self._fitted_held_out(_SURE_ANSWERS)

    def held_out_evaluation(self) -> Evaluation:
        """Return the `Evaluation` of the held-out predictions: an estimate for new groups.

        What is learnt without labels, the codebook and, of more than 2,048 images, the principal
        directions of their vectors, is learnt from all images.

        Raises a ValueError if nothing was held out in ``fit``.
        """
        return self._fitted_held_out("its accuracy").evaluation(self.classes_)

    def label_issues(self) -> list[LabelIssue]:
        """List training images whose label is probably wrong, most probable first.

        By confident learning (C. G. Northcutt, L. Jiang and I. L. Chuang, JAIR 70, 2021).

        Raises
        ------
        ValueError
            If nothing was held out in ``fit``.
        """
        held_out = self._fitted_held_out("labels that are probably wrong")
        return label_issues(held_out, self.training_, self.classes_)

    def to_state(self, *, include_backbone: bool = False) -> tuple[dict[str, Any], Arrays]:
        """Return JSON and arrays; a ModelFileError unless the learner is a boosted softmax."""
        check_is_fitted(self)
        if not isinstance(self.boosting_, BoostedSoftmaxClassifier):
            raise ModelFileError(
                f"a model whose learner is a {type(self.boosting_).__name__} cannot be saved: "
                "without pickle, only a BoostedSoftmaxClassifier can. Train with "
                "boosting=BoostedSoftmaxClassifier(...), or save the encoder "
                "(model.encoder_.save(path)) and store the learner (model.boosting_) in another "
                "way, such as joblib.dump, in a place that you trust"
            )
        return super().to_state(include_backbone=include_backbone)

    def _check_state(self) -> None:
        n_features, width = self.boosting_.n_features_in_, self.encoder_.n_features_out_
        if n_features != width:
            raise ValueError(
                f"the learner takes {n_features} features where the encoder gives {width}"
            )
        if not np.array_equal(self.classes_, self.boosting_.classes_):
            raise ValueError("the learner has other classes")
        self.training_.check(width, self.classes_)
        if (chosen := getattr(self, "chosen_", None)) is not None and len(chosen) != self.n_images_:
            raise ValueError(f"{len(chosen)} marks of chosen images, not {self.n_images_}")
        if self.held_out_ is not None:
            self.held_out_.check(len(self.training_), self.boosting_)

    def _encoded(self, images: Sequence[Any]) -> EncodedImages:
        """Encode images, and warn of those that cannot be read, are blank, or differ."""
        images = check_image_list(images)
        encoded = self.encoder_.encode(images).warn()
        warn_of_images(self._doubts(images, encoded)[0])
        return encoded

    def _doubts(
        self, images: Sequence[Any], read: EncodedImages
    ) -> tuple[dict[Sentence, dict[str, Any]], list[str]]:
        """Return how images differ from the training images, and their names there."""
        names = dict[str, None]()  # one each: an image may be in the list twice
        for at in read.positions.tolist():
            name = image_name(images[at], at)
            names[image_name(None, at) if name in names else name] = None
        doubts = defaultdict[Sentence, dict[str, Any]](dict)
        params = self.encoder_.fitted_params_
        for name, info in zip(names, read.info, strict=True):
            known = self.formats_.differences(info, params, ON_CLASSES, OF_SIZE_ON_CLASSES)
            for sentence, fact in known:
                doubts[sentence][name] = fact
        return dict(doubts), [*names]

    def _decided(self, encoded: EncodedImages) -> NDArray[Any]:
        """Return labels: by margins if the learner has one for each class."""
        vectors, scores = encoded.vectors, None
        if len(vectors) and _learner_has_margins(self):
            margins = self._margins(vectors)  # of a support vector machine perhaps one per pair
            if margins.ndim == 1 or margins.shape[1] == len(self.classes_):
                scores = margins
        labels = self.classes_[decided_classes(self._proba(vectors) if scores is None else scores)]
        return encoded.with_missing(labels.astype(object), None) if encoded.skipped else labels

    def _margins(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        return with_exact_ties(np.asarray(self.boosting_.decision_function(vectors)))

    def _proba(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities, also of no image, which the learner may refuse."""
        if not len(vectors):
            return np.empty((0, len(self.classes_)))
        return np.asarray(self.boosting_.predict_proba(vectors))

    def _fitted_held_out(self, purpose: str) -> HeldOut:
        check_is_fitted(self)
        if self.held_out_ is None:
            why = (
                "it was trained with calibrate=False"
                if not self.calibrate
                else "no group could be spared; that takes a class with images of two groups, such "
                "as two samples"
            )
            raise ValueError(
                f"this model cannot tell {purpose}: that takes predictions of training images that "
                f"were held out, and none was, because {why}"
            )
        return self.held_out_

    def _answers(
        self,
        vectors: NDArray[np.floating],
        coverage: float | None = None,
        *,
        with_confidence: bool = False,
    ) -> Answers:
        proba, points = self._proba(vectors), project_vectors(vectors)
        nearest, novelty = self.training_.nearest(points)
        answers = Answers(proba, novelty, nearest)
        if coverage is None and not with_confidence:
            return answers
        held_out = self._fitted_held_out(_SURE_ANSWERS)
        by_learner = held_out.by_learner(vectors, proba)
        if with_confidence:
            confidence = held_out.confidence(by_learner, proba)
            answers = answers._replace(confidence=confidence, projected=points)
        if coverage is not None:
            sets = held_out.sets(by_learner, proba, novelty, coverage)
            answers = answers._replace(sets=sets)
        return answers
