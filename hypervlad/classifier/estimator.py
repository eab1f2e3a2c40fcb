"""``MicrographClassifier``: images in, classes with probabilities out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier import state
from hypervlad.classifier.answers import accuracy_of_read, most_probable
from hypervlad.classifier.explanation import Explanation, explain
from hypervlad.classifier.heldout import (
    HeldOut,
    cross_held_out,
    group_codes,
    judged_apart,
    sides,
    with_copies_joined,
)
from hypervlad.classifier.judging import (
    Judgement,
    check_asked,
    confidence_for,
    judge_vectors,
    vector_sets,
)
from hypervlad.classifier.suspects import LabelIssue, label_issues
from hypervlad.classifier.training import TrainingImages, projected
from hypervlad.classifier.validation import (
    check_calibration_size,
    check_classes,
    check_learner,
    check_reject_label,
    checked_labels,
    checked_weights,
    facts_for,
    of_length,
)
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.listing import ImageListEstimator
from hypervlad.encoder.saving import SaveMixin
from hypervlad.images import check_image_list
from hypervlad.modelfile import register_kind

KIND = "micrograph_classifier"
register_kind(KIND, "hypervlad.classifier:MicrographClassifier")


def _learner_has_margins(model: MicrographClassifier) -> bool:
    learner = getattr(model, "boosting_", model.boosting)
    return learner is None or hasattr(learner, "decision_function")


class MicrographClassifier(SaveMixin, ClassifierMixin, ImageListEstimator):
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
    calibration_size : float, optional
        What :meth:`predict_set` and :meth:`predict_or_reject` are founded on. None: the learner is
        fitted five times more, each time without a fold of groups, and judged by that fold
        (cross-conformal; no image is lost, but learning takes about five times as long, encoding
        as long as before). A share between 0 and 1: so many groups are set apart by lot and not
        learnt from (split-conformal). 0: nothing; these methods then raise.
    random_state : int, RandomState or None, default=None
        Seeds encoder and learner; an encoder or learner that you give a seed keeps it.
    verbose : bool, default=False
        Show progress bars, also those of an encoder or learner that you give.

    Attributes
    ----------
    classes_ : ndarray
    encoder_ : HypercolumnVLAD
    boosting_ : BoostedSoftmaxClassifier or other classifier
    held_out_ : HeldOut or None
        What models said of images that they had not seen; None if no group could be spared.
    training_ : TrainingImages
        Names (paths below their common folder), labels and places of the images given to ``fit``.
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
    held_out_: HeldOut | None
    training_: TrainingImages
    n_images_: int

    def __init__(
        self,
        encoder: HypercolumnVLAD | None = None,
        *,
        boosting: BaseEstimator | None = None,
        calibration_size: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
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
        """Learn codebook and classifier.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), any mix of sizes.
        y : sequence of n labels
        sample_weight : sequence of n floats, optional
            What an image counts in the learner (not in the codebook); an image of weight 0 is left
            out of everything. Not with a learner whose ``fit`` takes none.
        groups : sequence of n group names, optional
            Images of one micrograph, sample or paper; inner splits keep them together.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, lengths that differ, fewer than two classes.
        ImageReadError
            An image that cannot be read; it is named.

        Warns
        -----
        UserWarning
            If there are groups and the learner's ``fit`` takes none: what it chooses by inner
            splits of its own is then chosen on images that it has seen.
        """
        images = check_image_list(images)
        labels = checked_labels(y, len(images))
        facts = {"groups": groups, "sample_weight": sample_weight}
        given = {
            name: of_length(f"{name} values", values, len(images))
            for name, values in facts.items()
            if values is not None
        }
        positions = np.arange(len(images))
        if "sample_weight" in given:
            counts = checked_weights(given["sample_weight"]) > 0
            images = [image for image, kept in zip(images, counts, strict=True) if kept]
            labels, positions = labels[counts], positions[counts]
            given = {k: v[counts] for k, v in given.items()}
        check_classes(labels, given.get("groups"))
        encoder, learner, seed = self._parts()
        known, codes = facts_for(learner, given), group_codes(given.get("groups"), len(images))
        learnt, apart = sides(labels, codes, self.calibration_size, seed)
        vectors, learnt = _readable(encoder.fit_transform([images[i] for i in learnt]), learnt)
        of_apart = vectors[:0]
        if len(apart):
            of_apart, apart = _readable(encoder.transform([images[i] for i in apart]), apart)
        fine = np.isin(labels[apart], labels[learnt])  # of classes whose images could be read
        of_apart, apart = of_apart[fine], apart[fine]
        points = np.concatenate([projected(vectors), projected(of_apart)])
        rows = np.concatenate([learnt, apart])
        own, held_out = with_copies_joined(points, codes[rows]), None
        known = {name: values[learnt] for name, values in known.items()}
        if has_fit_parameter(learner, "groups") and (
            "groups" in known or len(set(own.tolist())) < len(own)
        ):
            known["groups"] = own[: len(learnt)]
        if has_fit_parameter(learner, "blocks"):
            known["blocks"] = list(encoder.feature_blocks.values())
        learner.fit(vectors, labels[learnt], **known)
        if self.calibration_size is None:
            held_out = cross_held_out(learner, vectors, labels[learnt], own, known, seed)
        elif len(apart):
            held_out = judged_apart(learner, of_apart, labels[apart], own)
        training = TrainingImages.of(
            [images[i] for i in rows], labels[rows], own, positions[rows], points
        )
        # All at the end: a fit that fails leaves the model as it was.
        self.encoder_, self.boosting_, self.classes_ = encoder, learner, learner.classes_
        self.held_out_, self.training_, self.n_images_ = held_out, training, len(learnt)
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
        return most_probable(self.predict_proba(images), self.classes_)

    def predict_set(self, images: Sequence[Any], coverage: float = 0.9) -> np.ndarray:
        """Return the classes that each image may be of, so that the true one is among them.

        Parameters
        ----------
        images : sequence of n images
        coverage : float, default=0.9
            How often the set is to hold the true class: the share for the next group.

        Returns
        -------
        ndarray of bool, shape (n, n_classes)
            In the order of ``classes_``. Every set holds what :meth:`predict` says; that of an
            image skipped is empty.

        Raises
        ------
        ValueError
            If the coverage is no share between 0 and 1.

        Notes
        -----
        What is covered is the next group (micrograph, sample, paper): an image drawn from a group
        like those given to ``fit``, large or small; each image is its own group if there were
        none. Copies of an image count once. With ``calibration_size=`` (split-conformal) that is
        guaranteed, but for classes of so few groups that none could be set apart. After a plain
        ``fit`` (cross-conformal) it is what is usually attained; the guarantee of theory is weak,
        ``2 * coverage - 1`` less about ``1 / n_folds``, and not even strict here, because the
        codebook, which knows no classes, has seen all folds. Fewer than
        ``coverage / (1 - coverage)`` groups, 9 for 0.9, can exclude no class. Images from
        elsewhere, another microscope, say, have no guarantee. See :mod:`hypervlad.conformal`.

        Examples
        --------
        >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
        >>> images, labels = make_tem_images(24, size=64, random_state=0)
        >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4)
        >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
        >>> model.predict_set(images[:2]).shape
        (2, 4)
        """
        check_asked(self, coverage, None)
        return self._of_readable(
            images, lambda vectors: vector_sets(self, vectors, coverage), False
        )

    def predict_or_reject(
        self, images: Sequence[Any], max_error: float = 0.05, reject_label: Any = "unsure"
    ) -> np.ndarray:
        """Return the class of each image, or that it is better looked at by a person.

        Parameters
        ----------
        images : sequence of n images
        max_error : float, default=0.05
            Share of the answers given that may be wrong. An answer is given from the lowest
            confidence on, a half at least, at which images that the model had not seen were wrong
            no more often: an estimate, not a guarantee, and rough where groups are few.
        reject_label : object, default="unsure"
            What stands where no answer is given; not a class.

        Returns
        -------
        ndarray of shape (n,)
            Of texts or integers if labels and ``reject_label`` both are; else of objects. None for
            an image skipped.

        Raises
        ------
        ValueError
            If the error is no share between 0 and 1, or the label is one of a class.

        Warns
        -----
        UserWarning
            If no confidence keeps the error so low, and all answers are refused.
        """
        check_asked(self, None, max_error)
        check_reject_label(reject_label, self.classes_)
        threshold = confidence_for(self, max_error)
        proba = self.predict_proba(images)
        skipped = np.isnan(proba[:, 0])
        answers = self.classes_[np.where(skipped[:, None], 0.0, proba).argmax(axis=1)]
        answers = answers.astype(object)
        answers[~(proba.max(axis=1) >= threshold)] = reject_label
        answers[skipped] = None
        # As labels are, if what stands for no answer is one of their kind.
        is_alike = np.asarray(reject_label).dtype.kind == self.classes_.dtype.kind
        return np.array(answers.tolist()) if is_alike and not skipped.any() else answers

    def judge(self, images: Sequence[Any], max_error: float = 0.05) -> Judgement:
        """Say of each image whether the answer is sure, and if it is not, why.

        An image between classes ("boundary") has a confidence at which too many answers are wrong;
        an "unknown" one lies farther from its nearest training images than these do from each
        other, in the space of the encoder's vectors, so that no probability means much.

        Parameters
        ----------
        images : sequence of n images
        max_error : float, default=0.05
            Share of the sure answers that may be wrong, as in :meth:`predict_or_reject`.

        Returns
        -------
        Judgement
            Probabilities, kinds, reasons in words, and the nearest training images.

        Raises
        ------
        ValueError
            If the error is no share between 0 and 1, or nothing was held out in ``fit``.

        Warns
        -----
        UserWarning
            If no confidence keeps the error so low, and no answer is sure.

        Examples
        --------
        >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
        >>> images, labels = make_tem_images(24, size=64, random_state=0)
        >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4)
        >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
        >>> judged = model.judge(images, max_error=0.6)
        >>> judged.proba.shape, judged.nearest.shape
        ((24, 4), (24, 3))
        """
        check_asked(self, None, max_error)
        return judge_vectors(self, self.encoder_.transform(images), max_error)

    def label_issues(self) -> list[LabelIssue]:
        """List training images whose label is probably wrong, the likeliest first.

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
        Each image is judged by a model that had not seen its group (with ``calibration_size=``,
        only images set apart are judged). A label is called wrong by confident learning: the
        probability of another class is above the mean probability that this class has among its
        own images (C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident learning: estimating
        uncertainty in dataset labels", JAIR 70, 2021), as cleanlab computes it.
        """
        return label_issues(self._held_out(), self.training_, self.classes_)

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
        return accuracy_of_read(self.predict(images), y, self.classes_, sample_weight)

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

    def _parts(self) -> tuple[HypercolumnVLAD, Any, int | None]:
        """Return encoder and learner, unfitted and seeded, and the seed."""
        seed = self.random_state
        if isinstance(seed, np.random.RandomState):
            seed = int(seed.randint(2**31 - 1))
        if not isinstance(self.encoder, HypercolumnVLAD | None):
            raise ValueError(
                f"encoder must be a HypercolumnVLAD or None, not {type(self.encoder).__name__}"
            )
        check_learner(self.boosting)
        check_calibration_size(self.calibration_size)
        encoder = default_encoder() if self.encoder is None else clone(self.encoder)
        learner = BoostedSoftmaxClassifier() if self.boosting is None else clone(self.boosting)
        encoder.set_output(transform="default")  # frames, if asked for, are not for in here
        for part in (encoder, learner):
            complete(part, seed, self.verbose)
        return encoder, learner, seed

    def _boosted(self) -> Any:
        check_is_fitted(self)
        return self.boosting_

    def _held_out(self) -> HeldOut:
        check_is_fitted(self)
        if self.held_out_ is None:
            raise ValueError(
                "no images were held out in fit: calibration_size was 0, or each group was needed "
                "to learn its class (sets and refusals need at least two groups a class)"
            )
        return self.held_out_

    def _of_readable(
        self, images: Sequence[Any], function: Any, elsewhere: Any = np.nan
    ) -> np.ndarray:
        """Apply a function of vectors to the images that could be read."""
        vectors = self.encoder_.transform(images)
        readable = ~np.isnan(vectors[:, 0])
        if readable.all():
            return function(vectors)
        values = function(vectors[readable])
        result = np.full((len(vectors), *values.shape[1:]), elsewhere, dtype=values.dtype)
        result[readable] = values
        return result

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")


def _readable(vectors: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep the images that could be read; no copy, of what may be most of the memory, if all."""
    readable = ~np.isnan(vectors[:, 0])
    return (vectors, rows) if readable.all() else (vectors[readable], rows[readable])


def seeded(part: Any, seed: int, verbose: bool) -> Any:
    """Return a copy of an encoder or learner, seeded where it has no seed of its own."""
    part = clone(part)
    complete(part, seed, verbose)
    return part


def complete(part: BaseEstimator, seed: int | None, verbose: bool) -> None:
    """Seed a part where it has no seed of its own; let it speak if the whole is to."""
    for name, value in part.get_params().items():
        if value is None and (name == "random_state" or name.endswith("__random_state")):
            part.set_params(**{name: seed})
    if verbose and isinstance(part, HypercolumnVLAD | BoostedSoftmaxClassifier):
        part.set_params(verbose=True)


def default_encoder(**parameters: Any) -> HypercolumnVLAD:
    """Return the encoder that `MicrographClassifier` takes if none is given, with changes.

    Examples
    --------
    >>> default_encoder(image_size=448).turns
    2
    """
    return HypercolumnVLAD(**{"codebook": "both", "turns": 2, "pooled": True, **parameters})
