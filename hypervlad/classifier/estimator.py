"""``MicrographClassifier``: from images to classes with probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, is_classifier
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from hypervlad.base import (
    Arrays,
    Field,
    ImageEstimator,
    Labels,
    Maybe,
    Part,
    Record,
    Value,
    seeded_clone,
)
from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.boosting.logistic import decided_classes, with_exact_ties
from hypervlad.classifier.assessment import (
    SURE,
    UNREADABLE,
    Classification,
    Judgement,
    LabelIssue,
    accuracy_of_read,
    judgement_of,
    label_issues,
)
from hypervlad.classifier.calibration import HeldOut
from hypervlad.classifier.explanation import (
    Explanation,
    centred_weights,
    check_linear,
    explanation_of,
)
from hypervlad.classifier.fitting import LabelledImages, fit_parts, warn_of_never_predicted
from hypervlad.classifier.novelty import ImageFormats, TrainingImages, project_vectors
from hypervlad.conformal import check_share
from hypervlad.constraints import (
    VERBOSE,
    Alternatives,
    InstanceOf,
    Integer,
    Number,
    RandomState,
    check_value,
)
from hypervlad.encoder import EncodedImages, HypercolumnVLAD
from hypervlad.images import ImageReadError, check_image_list
from hypervlad.metrics import Evaluation
from hypervlad.modelfile import ModelFileError
from hypervlad.terminal import print_line
from hypervlad.workload import announced

_SETS = "sets of possible classes"
_SURE_ANSWERS = "which answers are sure"


class ProbabilisticClassifier:
    """Classifiers of scikit-learn with ``predict_proba``."""

    def accepts(self, value: Any) -> bool:
        return (
            isinstance(value, BaseEstimator)
            and is_classifier(value)
            and hasattr(value, "predict_proba")
        )

    def __str__(self) -> str:
        return "a BoostedSoftmaxClassifier, another scikit-learn classifier with predict_proba"


def _learner_has_margins(model: Any) -> bool:
    """Return whether a model's learner, fitted or not, has a ``decision_function``."""
    learner = getattr(model, "boosting_", model.boosting)
    return learner is None or hasattr(learner, "decision_function")


class MicrographClassifier(ClassifierMixin, ImageEstimator):
    """Classify micrographs: VLAD of hypercolumns, pooled channels, boosted softmax.

    An encoder turns each image into a vector of feature blocks of different kinds: VLAD and
    averages of channels. Each block has a linear model, their margins are averaged, and trees are
    added if cross-validation shows that they help.

    Parameters
    ----------
    encoder : HypercolumnVLAD, optional
        If not given, :func:`default_encoder`: all blocks, and ``turns=2``, so that the network runs
        on each image twice.
    boosting : BoostedSoftmaxClassifier or other classifier, optional
        The learner; by default, ``BoostedSoftmaxClassifier(prior="sqrt")``. Its ``class_weight``
        and ``prior`` are for rare classes. Any scikit-learn classifier with ``predict_proba`` can
        be used, but :meth:`save` cannot store another learner. If it refuses the labels, as
        xgboost's does, it is given the classes as numbers from 0, in the order of ``classes_``,
        also in a dictionary ``class_weight``.
    calibration_size : float, optional
        The held-out predictions behind :meth:`predict_set`, :meth:`predict_or_reject` and
        :meth:`judge`. None: the learner is fitted five more times, each time without a fold of
        groups, which it then predicts (cross-conformal: all images are used for training, but
        fitting the learner takes about six times as long; encoding does not). A share between 0
        and 1: this share of the groups is held out at random and not used for training
        (split-conformal); copies of an image stay together, and all images are read once more.
        0: nothing is held out, and these methods raise an error.
    random_state : int, RandomState or None, default=None
        Seed of encoder and learner; an encoder or learner with its own seed keeps it.
    verbose : bool or int, default=False
        True or 1: show progress bars, also those of the given encoder or learner. 2: also print a
        summary of the learner's fit and the time of each stage.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the columns of probabilities.
    encoder_ : HypercolumnVLAD
        Fitted: turns images into vectors.
    boosting_ : BoostedSoftmaxClassifier or other classifier
        Fitted: turns vectors into probabilities.
    held_out_ : HeldOut or None
        Predictions of images by learners fitted without them; None if no group could be held out.
    training_ : TrainingImages
        Names (paths relative to their common folder), labels, digests and projected vectors of the
        images given to ``fit``.
    formats_ : ImageFormats
        Types of pixels and sizes of these images.
    n_images_ : int
        Number of images that the learner was trained on.
    fit_seconds_ : dict of str to float
        Seconds that ``fit`` took for the codebook, for encoding all images, for the learner, and
        for the cross-fitted learners. Not saved.

    Notes
    -----
    Probabilities can be trusted for images like the training images. Crops of one micrograph and
    frames of one sample look alike: pass their groups to ``fit``, and split by group for
    evaluation.

    Examples
    --------
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> images, labels = make_tem_images(24, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, random_state=0)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> model.predict_proba(images[:2]).shape
    (2, 4)
    """

    _kind = "micrograph_classifier"
    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {
        "encoder": [InstanceOf(HypercolumnVLAD, "a HypercolumnVLAD"), None],
        "boosting": [ProbabilisticClassifier(), None],
        "calibration_size": [
            Number(at_least=0, below=1, meaning="the share of groups to hold out, a number"),
            None,
        ],
        "random_state": [RandomState(), None],
        "verbose": VERBOSE,
    }
    _part_parameters: ClassVar[Mapping[str, str]] = {
        "encoder": "encoder_",
        "boosting": "boosting_",
    }
    _fitted_state: ClassVar[Mapping[str, Field]] = {
        "encoder_": Part(HypercolumnVLAD),
        "boosting_": Part(BoostedSoftmaxClassifier),
        "classes_": Labels(),
        "held_out_": Maybe(Part(HeldOut)),
        "training_": Part(TrainingImages),
        "formats_": Record(ImageFormats),
        "n_images_": Value(int, Integer()),
    }

    classes_: np.ndarray
    encoder_: HypercolumnVLAD
    boosting_: Any
    held_out_: HeldOut | None
    training_: TrainingImages
    formats_: ImageFormats
    n_images_: int
    fit_seconds_: dict[str, float]

    def __init__(
        self,
        encoder: HypercolumnVLAD | None = None,
        *,
        boosting: BaseEstimator | None = None,
        calibration_size: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.encoder = encoder
        self.boosting = boosting
        self.calibration_size = calibration_size
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
            Paths and/or arrays (H, W) or (H, W, 3), any mix of sizes.
        y : sequence of n labels
        sample_weight : sequence of n floats, optional
            Weights of the images in the learner (not in the codebook). Images of weight 0 are left
            out completely. Not for a learner whose ``fit`` takes no weights.
        groups : sequence of n group names, optional
            Micrograph, sample or paper of each image; inner splits keep groups together.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, lengths that differ, fewer than two classes.
        ImageReadError
            If an image cannot be read; the message names it.

        Warns
        -----
        UserWarning
            If groups are given and the learner's ``fit`` takes none: its own inner splits may then
            separate images of one group. If images are blank, all pixels equal. If images of equal
            pixels have different labels.
        NeverPredictedWarning
            If a class is predicted for none of the held-out images; it is named.
        """
        self.check_parameters()
        data = LabelledImages.of(check_image_list(images), y, groups, sample_weight)
        encoder, learner, seed = self._unfitted_parts()
        with announced(len(data.images)):
            fitted = fit_parts(
                encoder, learner, data, self.calibration_size, seed, verbose=bool(self.verbose)
            )
        # All at the end: a fit that fails leaves the model unchanged.
        self.encoder_, self.boosting_, self.classes_ = encoder, learner, fitted.classes
        self.held_out_, self.training_ = fitted.held_out, fitted.training
        self.formats_, self.n_images_ = fitted.formats, fitted.n_images
        self.fit_seconds_ = fitted.seconds
        if self.verbose > 1:
            stages = ", ".join(f"{name} {value:.1f} s" for name, value in fitted.seconds.items())
            print_line(f"fit: {stages}")
        if self.held_out_ is not None:
            warn_of_never_predicted(self.held_out_.evaluation(self.classes_))
        return self

    @available_if(_learner_has_margins)
    def decision_function(self, images: Sequence[Any]) -> np.ndarray:
        """Return the margins (log-odds up to a constant): (n, n_classes), or (n,) for two classes.

        Only available if the learner has margins, as the default one does. Margins within 1e-6 of
        the largest are equal to it.
        """
        encoded = self._encode(images)
        return encoded.with_missing(self._margins(encoded.vectors))

    def predict_proba(self, images: Sequence[Any]) -> np.ndarray:
        """Return class probabilities.

        Parameters
        ----------
        images : sequence of n images

        Returns
        -------
        ndarray of shape (n, n_classes)
            In the order of ``classes_``. The row of a skipped image is NaN.

        Notes
        -----
        The probabilities of an image that is unlike all training images mean little, however high
        they are. :meth:`classify` also returns which images are.
        """
        encoded = self._encode(images)
        return encoded.with_missing(self._proba(encoded.vectors))

    def predict(self, images: Sequence[Any]) -> np.ndarray:
        """Return the class of each image.

        Parameters
        ----------
        images : sequence of n images

        Returns
        -------
        ndarray of shape (n,)
            The label of the largest margin, or, of a learner without margins, of the highest
            probability; of equal ones, the first in ``classes_``. If images were skipped
            (``on_error="skip"`` in the encoder), an object array with None in their place.
        """
        return self._decided(self._encode(images))

    def predict_set(self, images: Sequence[Any], coverage: float = 0.9) -> np.ndarray:
        """Return for each image the classes that it may belong to, with a given coverage.

        Parameters
        ----------
        images : sequence of n images
        coverage : float, default=0.9
            How often the set contains the true class of an image of a new group.

        Returns
        -------
        ndarray of bool, shape (n, n_classes)
            In the order of ``classes_``. Every set contains the class of :meth:`predict`, and
            classes of a single group, which cannot be held out. The set of an image that is unlike
            all training images has all classes, as about 5 % of usual images are (see
            `classify`). Sets of skipped images are empty.

        Raises
        ------
        ValueError
            If the coverage is not between 0 and 1, or nothing was held out in ``fit``.

        Warns
        -----
        UserWarning
            If there are so few groups that every set has all classes, or if no image of some class
            can be held out.

        Notes
        -----
        The coverage is that of the next group (micrograph, sample, paper): of an image drawn from a
        group like those given to ``fit``, large or small; each image is its own group if none were
        given. Copies of an image count once. With ``calibration_size=`` (split-conformal), the
        coverage is guaranteed. After a plain ``fit`` (cross-conformal), it is what is usually
        attained; the theoretical guarantee is weak, ``2 * coverage - 1`` less about
        ``1 / n_folds``, and not even strict here, because the codebook, which does not use the
        classes, was fitted on all folds. Fewer than ``coverage / (1 - coverage)`` groups, 9 for
        0.9, cannot exclude any class. There is no guarantee for images from elsewhere, such as
        another microscope: see :func:`hypervlad.conformal.prediction_sets`.

        Examples
        --------
        >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
        >>> images, labels = make_tem_images(24, size=64, random_state=0)
        >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4)
        >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
        >>> model.predict_set(images[:2]).shape
        (2, 4)
        """
        self.check_calibrated(coverage=coverage)
        self._fitted_held_out(_SETS).warn_of_sets(coverage)
        found = self._classify_encoded(self._encode(images), coverage, None)
        return found.images.with_missing(found.sets, fill=False)

    def predict_or_reject(
        self, images: Sequence[Any], max_error: float = 0.05, reject_label: Any = "unsure"
    ) -> np.ndarray:
        """Return the class of each image, or a reject label if a person should look at it.

        The answers are those that :meth:`judge` calls sure: confident enough, and for an image like
        the training images.

        Parameters
        ----------
        images : sequence of n images
        max_error : float, default=0.05
            Accepted share of wrong answers. The confidence threshold, at least 0.5, is one for
            which held-out predictions show with 90 % certainty that no more answers are wrong for
            new groups like those trained on. For 0.05, 0.1 and 0.2 this takes at least 45, 22 and
            11 groups, without any wrong answer, and two groups of each class. It is a guarantee
            with ``calibration_size=`` and groups of one image, and usually attained otherwise: see
            :func:`hypervlad.conformal.confidence_for_error`.
        reject_label : object, default="unsure"
            Label of images without an answer; not a class.

        Returns
        -------
        ndarray of shape (n,)
            Of strings or integers if labels and ``reject_label`` both are, otherwise of objects.
            None for a skipped image.

        Raises
        ------
        ValueError
            If max_error is not between 0 and 1, nothing was held out in ``fit``, or the reject
            label is a class.

        Warns
        -----
        UserWarning
            If the held-out predictions cannot show that so few answers are wrong, so all answers
            are rejected.
        """
        self.check_calibrated(max_error=max_error)
        if reject_label is None or reject_label != reject_label or not np.isscalar(reject_label):
            raise ValueError(
                f"reject_label is a text or number, such as 'unsure'; got {reject_label!r}"
            )
        if reject_label in self.classes_.tolist():
            raise ValueError(f"reject_label={reject_label!r} is one of the classes: choose another")
        threshold = self._threshold(max_error)
        judged = self._judge(self._encode(images).with_missing(), threshold)
        answers, read = judged.labels, judged.kind != UNREADABLE
        answers[read & (judged.kind != SURE)] = reject_label
        # With the type of the labels, if the reject label has it too.
        is_alike = np.asarray(reject_label).dtype.kind == self.classes_.dtype.kind
        return np.array(answers.tolist()) if is_alike and read.all() else answers

    def judge(self, images: Sequence[Any], max_error: float = 0.05) -> Judgement:
        """Return for each image whether the answer is sure, and if not, the reason.

        Answers with a low confidence are "ambiguous": at that confidence, held-out predictions do
        not show that few are wrong. If no image of some class can be held out, because all its
        images are of one group, all answers are ambiguous: nothing shows how images of this class
        are answered. Images that are unlike all training images, in the space of the encoder's
        vectors, are "out_of_distribution": their probabilities mean little.

        Parameters
        ----------
        images : sequence of n images
        max_error : float, default=0.05
            Accepted share of wrong answers among the sure ones, as in :meth:`predict_or_reject`.

        Returns
        -------
        Judgement
            Probabilities, kinds, reasons in words, and the nearest training images.

        Raises
        ------
        ValueError
            If max_error is not between 0 and 1, or nothing was held out in ``fit``.

        Warns
        -----
        UserWarning
            If the held-out predictions cannot show that so few answers are wrong, so no answer is
            sure.

        Examples
        --------
        >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
        >>> images, labels = make_tem_images(24, size=64, random_state=0)
        >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4)
        >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
        >>> judged = model.judge(images, max_error=0.75)  # a random network is often wrong
        >>> judged.proba.shape, judged.nearest.shape
        ((24, 4), (24, 3))
        """
        self.check_calibrated(max_error=max_error)
        threshold, encoded = self._threshold(max_error), self._encode(images)
        is_blank = encoded.with_missing(encoded.is_blank, False)
        return self._judge(encoded.with_missing(), threshold, is_blank)

    def judge_vectors(self, vectors: NDArray[np.floating], max_error: float = 0.05) -> Judgement:
        """Do the same as :meth:`judge` for vectors of images.

        Parameters
        ----------
        vectors : ndarray of shape (n, n_features)
            From ``encoder_.transform``; rows of skipped images are NaN.
        max_error : float, default=0.05

        Returns
        -------
        Judgement
        """
        return self._judge(vectors, self._threshold(max_error))

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

        Each image is read and encoded once. Unreadable images give no warning: see
        ``Classification.images`` and :meth:`hypervlad.encoder.EncodedImages.warn`.

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
            If coverage or max_error is not between 0 and 1, or nothing was held out in ``fit``.
        ImageReadError
            If an image cannot be read, unless the encoder's ``on_error`` is "skip".

        Examples
        --------
        >>> import numpy as np
        >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
        >>> images, labels = make_tem_images(24, size=64, random_state=0)
        >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4)
        >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
        >>> found = model.classify([images[0], np.zeros((64, 64))])
        >>> found.proba.shape, found.unlike_training.tolist(), found.in_training.tolist()
        ((2, 4), [False, True], [True, False])
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
        """Raise unless prediction sets or a judgement can be computed, before images are encoded.

        Parameters
        ----------
        coverage, max_error : float, optional
            As in :meth:`classify`; None is not checked.

        Raises
        ------
        ValueError
            If one is not between 0 and 1, or nothing was held out in ``fit``.
        """
        for name, value, purpose in (
            ("coverage", coverage, _SETS),
            ("max_error", max_error, _SURE_ANSWERS),
        ):
            if value is not None:
                check_share(name, value)
                self._fitted_held_out(purpose)

    def held_out_evaluation(self) -> Evaluation:
        """Return how well held-out training images are classified, each without its group.

        Returns
        -------
        Evaluation
            Of the predictions in ``held_out_``: by copies of the learner that were each fitted
            without a fold of whole groups, or, with ``calibration_size=``, by the learner itself.
            Classes whose images could not be held out are its `untested`.

        Raises
        ------
        ValueError
            If nothing was held out in ``fit``.

        Notes
        -----
        The figures estimate the accuracy on new groups like the training images. The learners of
        the folds have a fifth fewer groups than the final one, which makes them slightly worse; the
        codebook, which does not use the labels, was fitted on the images of all folds. Nothing
        follows for another instrument or another kind of sample.

        Examples
        --------
        >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
        >>> images, labels = make_tem_images(24, size=64, random_state=0)
        >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4)
        >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
        >>> result = model.held_out_evaluation()
        >>> len(result.true), result.untested
        (24, [])
        >>> 0 < result.balanced_accuracy < 1
        True
        """
        return self._fitted_held_out("its accuracy").evaluation(self.classes_)

    def label_issues(self) -> list[LabelIssue]:
        """List training images whose label is probably wrong, most probable first.

        Returns
        -------
        list of LabelIssue

        Raises
        ------
        ValueError
            If nothing was held out in ``fit``.
        ImportError
            If cleanlab is not installed (``pip install "hypervlad[review]"``).

        Notes
        -----
        Labels are compared with the held-out predictions, by learners fitted without the image's
        group (with ``calibration_size=``, only the calibration images have them). A label is called
        wrong by confident learning: the probability of another class is above the mean probability
        that this class has among its own images (C. G. Northcutt, L. Jiang and I. L. Chuang,
        "Confident learning: estimating uncertainty in dataset labels", JAIR 70, 2021), as computed
        by cleanlab.
        """
        held_out = self._fitted_held_out("labels that are probably wrong")
        proba, codes, rows = held_out.proba, held_out.codes, held_out.rows
        return label_issues(proba, codes, rows, self.training_, self.classes_)

    def score(
        self,
        images: Sequence[Any],
        y: Sequence[Any],
        sample_weight: Sequence[float] | None = None,
    ) -> float:
        """Return the accuracy, without images skipped by ``on_error="skip"``.

        Parameters
        ----------
        images : sequence of n images
        y : sequence of n labels
        sample_weight : sequence of n floats, optional

        Returns
        -------
        float

        Warns
        -----
        TrainingImagesWarning
            If the model was trained on images with the same pixels.
        """
        encoded = self._encode(images)
        self.training_.warn_of_known([image.digest for image in encoded.info])
        return accuracy_of_read(self._decided(encoded), y, self.classes_, sample_weight)

    def explain(self, image: Any, *, words: Sequence[tuple[str, int]] = ()) -> Explanation:
        """Decompose the margins of an image: which positions are evidence for which class.

        The decomposition of the linear part is exact, not an approximation. Boosted trees, if any
        were kept (``boosting_.n_estimators_``), combine evidence from all positions: their margin
        is one number per class, and the maps explain the rest.

        Parameters
        ----------
        image : path or array
            One image.
        words : sequence of (str, int), optional
            Codewords to map one by one: block and number, for example ``("joint", 12)``.

        Returns
        -------
        Explanation
            Evidence for each class by position, by feature block and by codeword.

        Raises
        ------
        ValueError
            If the learner has no linear part: another scikit-learn classifier, or a
            BoostedSoftmaxClassifier with ``init=None``. If there is no such codeword.
        ImageReadError
            For an image that cannot be read, whatever the encoder's ``on_error``, or a list of
            images.

        Notes
        -----
        Intra-normalisation gives every codeword the same norm, so each occurrence of a rare
        codeword has more evidence.

        Examples
        --------
        >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
        >>> images, labels = make_tem_images(24, size=64, random_state=0)
        >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4)
        >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
        >>> model.explain(images[0]).maps.shape
        (4, 32, 32)
        """
        check_is_fitted(self)
        if isinstance(image, list | tuple):
            raise ImageReadError(
                f"explain takes one image, a path or an array, not a {type(image).__name__}: call "
                "it for each image, as in [model.explain(image) for image in images]"
            )
        check_linear(self.boosting_)
        weights = centred_weights(self.boosting_)
        evidence = self.encoder_.explain_vector(image, weights, words)
        return explanation_of(self.boosting_, evidence, self.training_)

    def to_state(self, *, include_backbone: bool = False) -> tuple[dict[str, Any], Arrays]:
        """Return the fitted model as a JSON-able header and named arrays.

        Parameters
        ----------
        include_backbone : bool, default=False
            Include the network's weights.

        Raises
        ------
        ModelFileError
            If the learner is not a BoostedSoftmaxClassifier.
        """
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

    def check_parameters(self) -> None:
        super().check_parameters()
        if isinstance(self.boosting, BoostedSoftmaxClassifier):
            self.boosting.check_parameters()  # before images are encoded

    def _check_state(self) -> None:
        n_features, width = self.boosting_.n_features_in_, self.encoder_.n_features_out_
        if n_features != width:
            raise ValueError(
                f"the learner takes {n_features} features where the encoder gives {width}"
            )
        self.training_.check(width)
        if not np.array_equal(self.classes_, self.boosting_.classes_):
            raise ValueError("the learner has other classes")
        if not np.isin(self.training_.labels, self.classes_).all():
            raise ValueError("training images have labels that are not among the classes")
        if self.held_out_ is not None:
            self.held_out_ = self.held_out_.with_own_learner(self.boosting_)
            self.held_out_.check(len(self.training_), self.classes_)
            if any(learner.n_features_in_ != width for learner in self.held_out_.learners):
                raise ValueError("the learners of the held-out predictions take other features")

    def _unfitted_parts(self) -> tuple[HypercolumnVLAD, Any, int | None]:
        """Return encoder and learner, unfitted and seeded, and the seed."""
        seed = self.random_state
        if isinstance(seed, np.random.RandomState):
            seed = int(seed.randint(2**31 - 1))
        encoder = default_encoder() if self.encoder is None else self.encoder
        default = BoostedSoftmaxClassifier(prior="sqrt")
        learner = default if self.boosting is None else self.boosting
        return (
            seeded_clone(encoder, seed, verbose=self.verbose),
            seeded_clone(learner, seed, verbose=self.verbose),
            seed,
        )

    def _encode(self, images: Sequence[Any]) -> EncodedImages:
        """Encode images, and warn of those that were skipped."""
        check_is_fitted(self)
        encoded = self.encoder_.encode(images)
        encoded.warn()
        return encoded

    def _fitted_learner(self) -> Any:
        check_is_fitted(self)
        return self.boosting_

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

    def _classify_encoded(
        self, encoded: EncodedImages, coverage: float | None, threshold: float | None
    ) -> Classification:
        vectors = encoded.vectors
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
                    self.classes_,
                    proba,
                    confidence,
                    points,
                    self.training_,
                    threshold,
                    encoded.is_blank,
                )
                nearest, novelty = judgement.nearest, judgement.novelty
            if coverage is not None:
                sets = held_out.sets(by_learner, proba, novelty, coverage)
        known = self.training_.contains([image.digest for image in encoded.info])
        images = replace(encoded, vectors=np.empty((len(vectors), 0), dtype=np.float32))
        return Classification(images, proba, novelty, nearest, known, judgement, sets)

    def _judge(
        self,
        vectors: NDArray[np.floating],
        threshold: float,
        is_blank: NDArray[np.bool_] | None = None,
    ) -> Judgement:
        read = ~np.isnan(vectors[:, 0])
        points = np.full((len(vectors), self.training_.points.shape[1]), np.nan, dtype=np.float32)
        proba = np.full((len(vectors), len(self.classes_)), np.nan)
        confidence = np.full(len(vectors), np.nan)
        readable = vectors if read.all() else vectors[read]  # no copy of vectors if all were read
        points[read], proba[read] = project_vectors(readable), self._proba(readable)
        held_out = self._fitted_held_out(_SURE_ANSWERS)
        by_learner = held_out.by_learner(readable, proba[read])
        confidence[read] = held_out.confidence(by_learner, proba[read])
        return judgement_of(
            self.classes_, proba, confidence, points, self.training_, threshold, is_blank
        )

    def _decided(self, encoded: EncodedImages) -> NDArray[Any]:
        """Return labels, by margins where the learner has one for each class."""
        vectors, scores = encoded.vectors, None
        if len(vectors) and _learner_has_margins(self):
            margins = self._margins(vectors)  # of a support vector machine perhaps one per pair
            if margins.ndim == 1 or margins.shape[1] == len(self.classes_):
                scores = margins
        labels = self.classes_[decided_classes(self._proba(vectors) if scores is None else scores)]
        return encoded.with_missing(labels.astype(object), None) if encoded.skipped else labels

    def _margins(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        return with_exact_ties(np.asarray(self._fitted_learner().decision_function(vectors)))

    def _proba(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities by the learner, also of no image, which it may not accept."""
        learner = self._fitted_learner()
        if not len(vectors):
            return np.empty((0, len(self.classes_)))
        return np.asarray(learner.predict_proba(vectors))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")


def default_encoder(**parameters: Any) -> HypercolumnVLAD:
    """Return the default encoder of `MicrographClassifier`, with the given parameters changed.

    Examples
    --------
    >>> default_encoder(image_size=448).turns
    2
    """
    blocks = ("joint", "per_layer", "pooled_unit")
    return HypercolumnVLAD(**{"blocks": blocks, "turns": 2, **parameters})
