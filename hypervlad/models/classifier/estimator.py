"""``MicrographClassifier``: from images to classes with probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, is_classifier
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from hypervlad.common.base import (
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
from hypervlad.common.constraints import (
    VERBOSE,
    Alternatives,
    InstanceOf,
    Integer,
    Number,
    RandomState,
)
from hypervlad.common.modelfile import ModelFileError
from hypervlad.common.progress import announced, print_line
from hypervlad.features.encoder import EncodedImages, HypercolumnVLAD
from hypervlad.images import ImageReadError
from hypervlad.images.reading import check_image_list
from hypervlad.models.boosting import BoostedSoftmaxClassifier
from hypervlad.models.boosting.logistic import decided_classes, with_exact_ties
from hypervlad.models.classifier.answers import HeldOutAnswers
from hypervlad.models.classifier.assessment import (
    accuracy_of_read,
)
from hypervlad.models.classifier.explanation import (
    Explanation,
    centred_weights,
    check_linear,
    explanation_of,
)
from hypervlad.models.classifier.fitting import LabelledImages, fit_parts, warn_of_never_predicted
from hypervlad.models.classifier.held_out import HeldOut
from hypervlad.models.classifier.novelty import ImageFormats, TrainingImages


class ProbabilisticClassifier:
    def accepts(self, value: Any) -> bool:
        return (
            isinstance(value, BaseEstimator)
            and is_classifier(value)
            and hasattr(value, "predict_proba")
        )

    def __str__(self) -> str:
        return "a BoostedSoftmaxClassifier, another scikit-learn classifier with predict_proba"


def _learner_has_margins(model: Any) -> bool:
    learner = getattr(model, "boosting_", model.boosting)
    return learner is None or hasattr(learner, "decision_function")


class MicrographClassifier(HeldOutAnswers, ClassifierMixin, ImageEstimator):
    """Classify micrographs: VLAD of hypercolumns, pooled channels, boosted softmax.

    An encoder turns each image into a vector of feature blocks. Each block has a linear model,
    their margins are averaged, and trees are added if cross-validation shows that they help.

    Parameters
    ----------
    encoder : HypercolumnVLAD, optional
        By default, as :func:`default_encoder` returns it.
    boosting : BoostedSoftmaxClassifier or other classifier, optional
        The learner; by default, ``BoostedSoftmaxClassifier(prior="sqrt")``. Any scikit-learn
        classifier with ``predict_proba`` can be used, but :meth:`save` cannot store it.
    calibration_size : float, optional
        How images are held out for :meth:`predict_set`, :meth:`predict_or_reject` and
        :meth:`judge`. None: in folds of groups, by learners fitted without them. Between 0 and 1:
        this share of the groups, not used for training. 0: not at all, and these methods raise an
        error.
    random_state : int, RandomState or None, default=None
        Seed of encoder and learner, unless these have their own.
    verbose : bool or int, default=False
        True or 1: show progress bars. 2: also print a summary of the learner's fit and the time of
        each stage.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, in the order of the columns of probabilities.
    encoder_ : HypercolumnVLAD
    boosting_ : BoostedSoftmaxClassifier or other classifier
    held_out_ : HeldOut or None
        Predictions of images by learners fitted without them; None if no group could be held out.
    training_ : TrainingImages
        The images given to ``fit``.
    formats_ : ImageFormats
        Types of pixels and sizes of these images.
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
    >>> found = model.classify([images[0], np.zeros((64, 64))])
    >>> found.unlike_training.tolist(), found.in_training.tolist()
    ([False, True], [True, False])
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
            Weights of the images in the learner, not in the codebook; those of weight 0 are left
            out.
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
            If the learner's ``fit`` takes no groups, or if images are blank or equal with different
            labels.
        NeverPredictedWarning
            If a class is predicted for none of the held-out images.
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
            warn_of_never_predicted(self.held_out_, self.classes_)
        return self

    @available_if(_learner_has_margins)
    def decision_function(self, images: Sequence[Any]) -> np.ndarray:
        """Return the margins (log-odds up to a constant): (n, n_classes), or (n,) for two classes.

        Those within 1e-6 of the largest are equal to it. Not for a learner without margins.
        """
        encoded = self._encode(images)
        return encoded.with_missing(self._margins(encoded.vectors))

    def predict_proba(self, images: Sequence[Any]) -> np.ndarray:
        """Return class probabilities (n, n_classes) in the order of ``classes_``; NaN for skipped
        images.
        """
        encoded = self._encode(images)
        return encoded.with_missing(self._proba(encoded.vectors))

    def predict(self, images: Sequence[Any]) -> np.ndarray:
        """Return the class of the largest margin (or probability) of each image, (n,).

        If images were skipped (``on_error="skip"``), an object array with None in their place.
        """
        return self._decided(self._encode(images))

    def score(
        self,
        images: Sequence[Any],
        y: Sequence[Any],
        sample_weight: Sequence[float] | None = None,
    ) -> float:
        """Return the accuracy on the images that are not skipped.

        A TrainingImagesWarning if the model was trained on images with the same pixels.
        """
        encoded = self._encode(images)
        self.training_.warn_of_known([image.digest for image in encoded.info])
        return accuracy_of_read(self._decided(encoded), y, self.classes_, sample_weight)

    def explain(self, image: Any, *, words: Sequence[tuple[str, int]] = ()) -> Explanation:
        """Decompose the margins of an image: which positions are evidence for which class.

        Exact for the linear part; the margin of boosted trees is one number per class.

        Parameters
        ----------
        image : path or array
            One image.
        words : sequence of (str, int), optional
            Codewords to map one by one: block and number, for example ``("joint", 12)``.

        Returns
        -------
        Explanation

        Raises
        ------
        ValueError
            If the learner has no linear part, or if there is no such codeword.
        ImageReadError
            If the image cannot be read, whatever the encoder's ``on_error``.
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
        """Return JSON and arrays; a ModelFileError for a learner of another kind."""
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
        check_is_fitted(self)
        encoded = self.encoder_.encode(images)
        encoded.warn()
        return encoded

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
        return with_exact_ties(np.asarray(self.boosting_.decision_function(vectors)))

    def _proba(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities by the learner, also of no image, which it may not accept."""
        if not len(vectors):
            return np.empty((0, len(self.classes_)))
        return np.asarray(self.boosting_.predict_proba(vectors))

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
