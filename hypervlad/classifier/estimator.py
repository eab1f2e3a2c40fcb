"""``MicrographClassifier``: images in, classes with probabilities out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, column_or_1d, has_fit_parameter

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier import state
from hypervlad.classifier.explanation import Explanation, explain
from hypervlad.classifier.validation import check_labels, check_learner, of_length
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.saving import SaveMixin
from hypervlad.images import check_image_list
from hypervlad.modelfile import register_kind

KIND = "micrograph_classifier"
register_kind(KIND, "hypervlad.classifier:MicrographClassifier")

_Part = TypeVar("_Part", bound=BaseEstimator)


def _learner_has_margins(model: MicrographClassifier) -> bool:
    learner = getattr(model, "boosting_", model.boosting)
    return learner is None or hasattr(learner, "decision_function")


class MicrographClassifier(SaveMixin, ClassifierMixin, BaseEstimator):
    """Classify micrographs: VLAD of hypercolumns, pooled channels, boosted softmax.

    An encoder makes each image a vector of parts that differ in kind, VLAD and channel averages.
    Each part gets a linear model, their margins are averaged, and trees are added where a hold-out
    confirms that they help.

    Parameters
    ----------
    encoder : HypercolumnVLAD, optional
        How images become vectors. If not given, a :class:`HypercolumnVLAD` with
        ``codebook="both"``, ``turns=2`` (the network passes over each image twice) and
        ``pooled=True``.
    boosting : BoostedSoftmaxClassifier or other classifier, optional
        The learner; the defaults of :class:`BoostedSoftmaxClassifier` if not given. Any
        scikit-learn classifier with ``predict_proba`` will do, but a model with another learner
        cannot be saved by :meth:`save`.
    random_state : int, RandomState or None, default=None
        Seeds encoder and learner; an encoder or learner that you give a seed keeps it.
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    classes_ : ndarray
    encoder_ : HypercolumnVLAD
    boosting_ : BoostedSoftmaxClassifier or other classifier
    n_images_ : int
        Images learnt from.

    Notes
    -----
    Probabilities are trustworthy for images like those learnt from. Crops of one micrograph and
    frames of one sample look alike: give their groups to ``fit``, and split by group when you
    evaluate.

    Examples
    --------
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> images, labels = make_tem_images(24, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, random_state=0)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> model.predict_proba(images[:2]).shape
    (2, 4)
    """

    _kind = KIND

    classes_: np.ndarray
    encoder_: HypercolumnVLAD
    boosting_: Any
    n_images_: int

    def __init__(
        self,
        encoder: HypercolumnVLAD | None = None,
        *,
        boosting: BaseEstimator | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.boosting = boosting
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        images: Sequence[Any],
        y: Sequence[Any],
        groups: Sequence[Any] | None = None,
        sample_weight: Sequence[float] | None = None,
    ) -> MicrographClassifier:
        """Learn codebook and classifier.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), any mix of sizes.
        y : sequence of n labels
        groups : sequence of n group names, optional
            Images of one micrograph, sample or paper; inner splits keep them together. A learner
            whose ``fit`` knows no groups does without.
        sample_weight : sequence of n floats, optional
            Not with a learner whose ``fit`` takes none.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, lengths that differ, fewer than two classes.
        ImageReadError
            An image that cannot be read; it is named.
        """
        images = check_image_list(images)
        if y is None:
            raise ValueError(
                "MicrographClassifier requires y to be passed, but the target y is None: give a "
                "label for each image"
            )
        labels = of_length("labels (y)", column_or_1d(y, warn=True), len(images))
        group_of = None if groups is None else of_length("groups", groups, len(images))
        check_labels(labels, group_of)
        weights = None
        if sample_weight is not None:
            weights = of_length("sample weights", sample_weight, len(images))
        self._make_parts()
        facts = self._facts_for_learner(sample_weight=weights, groups=group_of)
        vectors = self.encoder_.fit_transform(images)
        readable = ~np.isnan(vectors[:, 0])
        self.n_images_ = int(readable.sum())
        if not readable.all():  # else no copy: whole VLAD vectors may be most of the memory
            vectors = vectors[readable]
        known: dict[str, Any] = {name: values[readable] for name, values in facts.items()}
        if has_fit_parameter(self.boosting_, "views"):
            known["views"] = list(self.encoder_.feature_parts.values())
        self.boosting_.fit(vectors, labels[readable], **known)
        self.classes_ = self.boosting_.classes_
        return self

    @available_if(_learner_has_margins)
    def decision_function(self, images: Sequence[Any]) -> np.ndarray:
        """Return the margins (log-odds up to a constant): (n, n_classes), or (n,) for two.

        Only if the learner has them, as the default one does.
        """
        return self._of_readable(images, self._boosted().decision_function)

    def predict_proba(self, images: Sequence[Any]) -> np.ndarray:
        """Return class probabilities.

        Parameters
        ----------
        images : sequence of n images

        Returns
        -------
        ndarray of shape (n, n_classes)
            In the order of ``classes_``. A row of an image skipped is NaN.
        """
        return self._of_readable(images, self._boosted().predict_proba)

    def predict(self, images: Sequence[Any]) -> np.ndarray:
        """Return the most probable class of each image.

        Parameters
        ----------
        images : sequence of n images

        Returns
        -------
        ndarray of shape (n,)
            Labels. With ``on_error="skip"`` in the encoder and an image unreadable, an object
            array with None in its place.
        """
        proba = self.predict_proba(images)
        skipped = np.isnan(proba[:, 0])
        labels = self.classes_[np.where(skipped[:, None], 0.0, proba).argmax(axis=1)]
        if skipped.any():
            labels = labels.astype(object)
            labels[skipped] = None
        return labels

    def score(
        self,
        images: Sequence[Any],
        y: Sequence[Any],
        sample_weight: Sequence[float] | None = None,
    ) -> float:
        """Return the accuracy; images that ``on_error="skip"`` left out do not count.

        Parameters
        ----------
        images : sequence of n images
        y : sequence of n labels
        sample_weight : sequence of n floats, optional

        Returns
        -------
        float
        """
        predicted = self.predict(images)
        read = np.array([label is not None for label in predicted])
        weights = None if sample_weight is None else np.asarray(sample_weight)[read]
        truth, found = np.asarray(y)[read], predicted[read].astype(self.classes_.dtype)
        return float(accuracy_score(truth, found, sample_weight=weights))

    def explain(self, image: Any, *, words: Sequence[tuple[str, int]] = ()) -> Explanation:
        """Take the model's answer apart: which places of an image speak for which class.

        The linear part of the model is taken apart exactly, not approximated. Boosted trees, if
        any were kept (``boosting_.n_estimators_``), see the whole vector: what they add is given
        as one number a class, and the maps explain the rest.

        Parameters
        ----------
        image : path or array
            One image.
        words : sequence of (str, int), optional
            Visual words to map one by one: part and number, such as ``("joint", 12)``.

        Returns
        -------
        Explanation
            Evidence for each class by place, by part of the vector and by visual word.

        Raises
        ------
        ValueError
            If the learner has no linear part: another scikit-learn classifier, or a
            BoostedSoftmaxClassifier with ``init=None``. If there is no such word.
        ImageReadError
            An image that cannot be read, whatever the encoder's ``on_error``; a list of images.

        Notes
        -----
        Intra-normalisation makes every visual word equally loud, so a word seen in few places
        gives each of them more evidence.

        Examples
        --------
        >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
        >>> images, labels = make_tem_images(24, size=64, random_state=0)
        >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4)
        >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
        >>> model.explain(images[0]).maps.shape
        (4, 32, 32)
        """
        return explain(self, image, words)

    def to_state(
        self, *, include_backbone: bool = False
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the fitted model as a JSON-able header and named arrays."""
        check_is_fitted(self)
        return state.pack(self, include_backbone)

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> MicrographClassifier:
        """Undo :meth:`to_state`."""
        return state.unpack(cls, header, arrays)

    def _make_parts(self) -> None:
        self._seed = self.random_state
        if isinstance(self._seed, np.random.RandomState):
            self._seed = int(self._seed.randint(2**31 - 1))
        encoder = default_encoder(verbose=self.verbose)
        boosting = BoostedSoftmaxClassifier(verbose=self.verbose)
        if not isinstance(self.encoder, HypercolumnVLAD | None):
            raise ValueError(
                f"encoder must be a HypercolumnVLAD or None, not {type(self.encoder).__name__}"
            )
        check_learner(self.boosting)
        self.encoder_ = self._part(self.encoder, encoder)
        self.encoder_.set_output(transform="default")  # frames, if asked for, are not for in here
        self.boosting_ = self._part(self.boosting, boosting)

    def _part(self, given: Any, default: _Part) -> _Part:
        """Return an unfitted copy of a part, seeded where it has no seed of its own."""
        part: _Part = default if given is None else clone(given)
        for name, value in part.get_params().items():
            if value is None and (name == "random_state" or name.endswith("__random_state")):
                part.set_params(**{name: self._seed})
        return part

    def _facts_for_learner(self, **given: np.ndarray | None) -> dict[str, np.ndarray]:
        """Pick what the learner's fit takes; groups may be lost on it, weights must not."""
        if given["sample_weight"] is not None and not has_fit_parameter(
            self.boosting_, "sample_weight"
        ):
            raise ValueError(
                f"sample_weight is given, but the learner, {type(self.boosting_).__name__}, takes "
                "none: leave it out or give boosting= a learner whose fit takes it"
            )
        return {
            name: values
            for name, values in given.items()
            if values is not None and has_fit_parameter(self.boosting_, name)
        }

    def _boosted(self) -> Any:
        check_is_fitted(self)
        return self.boosting_

    def _of_readable(self, images: Sequence[Any], function: Any) -> np.ndarray:
        """Apply a function of vectors to the images that could be read; NaN elsewhere."""
        vectors = self.encoder_.transform(images)
        readable = ~np.isnan(vectors[:, 0])
        if readable.all():
            return function(vectors)
        values = function(vectors[readable])
        result = np.full((len(vectors), *values.shape[1:]), np.nan, dtype=values.dtype)
        result[readable] = values
        return result

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


def default_encoder(**parameters: Any) -> HypercolumnVLAD:
    """Return the encoder that `MicrographClassifier` takes if none is given, with changes.

    Examples
    --------
    >>> default_encoder(image_size=448).turns
    2
    """
    return HypercolumnVLAD(**{"codebook": "both", "turns": 2, "pooled": True, **parameters})
