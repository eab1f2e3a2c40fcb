"""The fit of a `MicrographClassifier`: checks, codebook, vectors, learner, held-out predictions."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, has_fit_parameter

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.boosting.linear import FeatureBlocks
from hypervlad.classify.held_out import HeldOut
from hypervlad.classify.training_images import (
    ImageFormats,
    TrainingImages,
    empty_vectors,
    project_vectors,
)
from hypervlad.common.progress import ProgressBar
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.loading import warn_of_blank_training_images
from hypervlad.folders.copy_groups import keep_copies_together
from hypervlad.images.pixels import ImageDigests
from hypervlad.images.reading import is_particle, relative_names
from hypervlad.statistics.splits import (
    check_column,
    check_groups,
    first_appearance_codes,
    group_folds,
    order_by_digest,
)

_N_FOLDS = 5


class NeverPredictedWarning(UserWarning):
    """A classifier predicts a class for none of its held-out training images."""


def default_encoder(*, particles: bool = False, **parameters: Any) -> HypercolumnVLAD:
    """Return the default encoder of `MicrographClassifier`, with the given parameters changed.

    That of ``particles`` has their shape as a further block of features.

    Examples
    --------
    >>> default_encoder(image_size=448).turns
    2
    """
    blocks = ("joint", "per_layer", "pooled_unit", *(["shape"] if particles else []))
    return HypercolumnVLAD(**{"blocks": blocks, "turns": 2, **parameters})


# Finds more images of rare classes than shares as in training.
default_learner = partial(BoostedSoftmaxClassifier, prior="sqrt")


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images to train on, with checked labels, groups and weights.

    `positions` are those in the list given to ``fit``; `given` may have "groups", "sample_weight".
    """

    images: list[Any]
    labels: NDArray[Any]
    positions: NDArray[np.intp]
    given: dict[str, NDArray[Any]]

    @classmethod
    def of(cls, images: list[Any], y: Any, groups: Any, sample_weight: Any) -> LabelledImages:
        """Check what ``fit`` is given; leave out images of weight 0."""
        labels = checked_labels(y, len(images))
        given: dict[str, NDArray[Any]] = {}
        if groups is not None:
            given["groups"] = check_groups(groups, len(images))
        positions = np.arange(len(images))
        if sample_weight is not None:
            given["sample_weight"] = checked_weights(sample_weight, len(images))
            positions = np.flatnonzero(given["sample_weight"])
            images, labels = [images[i] for i in positions], labels[positions]
            given = {name: own[positions] for name, own in given.items()}
        check_classes(labels)
        return cls(images, labels, positions, given)

    def group_codes(self) -> NDArray[np.intp]:
        if "groups" in self.given:
            return first_appearance_codes(self.given["groups"], "groups")
        if all(map(is_particle, self.images)):
            return first_appearance_codes([each.micrograph for each in self.images], "groups")
        return np.arange(len(self.images))


class FittedParts(NamedTuple):
    classes: NDArray[Any]
    held_out: HeldOut | None
    training: TrainingImages
    formats: ImageFormats
    seconds: dict[str, float]


def fit_parts(
    encoder: HypercolumnVLAD,
    learner: Any,
    data: LabelledImages,
    seed: int | None,
    *,
    calibrate: bool,
    verbose: bool = False,
) -> FittedParts:
    """Fit encoder and learner, in place, and predict images that are held out."""
    is_boosted = isinstance(learner, BoostedSoftmaxClassifier)
    if is_boosted:
        learner.check_labels(data.labels)  # before images are encoded
    accepted, codes = _accepted_by(learner, data.given), data.group_codes()
    seconds: dict[str, float] = {}
    with _timed(seconds, "codebook"):
        encoder.fit_checked(data.images)  # warns of skipped images
    with _timed(seconds, "encoding"):
        encoded = encoder.encode(data.images)
        if len(encoded.positions) < encoder.n_images_:
            encoded.report.warn()  # of images that could be read before, but not again
    rows, vectors, info = encoded.positions, encoded.vectors, encoded.info
    labels, points = data.labels[rows], project_vectors(vectors)
    digests = [image.digest for image in info]
    names = relative_names([data.images[i] for i in rows])
    shown = [name or f"image {i}" for name, i in zip(names, data.positions[rows], strict=True)]
    blank = [name for name, own in zip(shown, encoded.is_blank, strict=True) if own]
    warn_of_blank_training_images(blank, len(info))
    warn_of_contradictions(digests, labels, shown, "training images")
    with _timed(seconds, "copies"):
        groups, n_joined = keep_copies_together(
            [data.images[i] for i in rows],
            codes[rows],
            labels,
            options=encoder.fitted_params_.read_options,
            names=shown,
            verbose=verbose,
        )
    fit_params: dict[str, Any] = {name: values[rows] for name, values in accepted.items()}
    has_groups = "groups" in fit_params or len(np.unique(groups)) < len(groups)
    if has_groups and has_fit_parameter(learner, "groups"):
        fit_params["groups"] = groups
    by_digest = order_by_digest(digests, labels)
    with _timed(seconds, "learner"):
        if is_boosted:
            fit_params["blocks"] = FeatureBlocks(vectors, list(encoder.feature_blocks.values()))
            learner.fit(vectors, labels, **fit_params)
        else:  # it may depend on the order of its rows
            _fit_to_rows(learner, vectors, labels, fit_params, by_digest)
    held_out = None
    if calibrate:
        with _timed(seconds, "cross-fitted learners"):
            held_out = cross_predict(
                learner, vectors, labels, groups, fit_params, seed, by_digest, verbose=verbose
            )
    if held_out is not None:
        _warn_of_never_predicted(held_out, learner.classes_)
    # A particle has been outlined, so even one without any texture is not empty.
    empty = project_vectors(vectors[:0] if info[0].outline else empty_vectors(encoder))
    training = TrainingImages(
        names,
        labels,
        groups,
        data.positions[rows],
        ImageDigests.of(digests),
        points,
        empty,
        vectors.shape[1],
        n_joined,
    ).with_limits()
    return FittedParts(np.unique(labels), held_out, training, ImageFormats.of(info), seconds)


def warn_of_contradictions(
    digests: Sequence[str], labels: Sequence[Any] | NDArray[Any], names: Sequence[str], what: str
) -> None:
    names_of = defaultdict[str, dict[Any, str]](dict)
    for digest, label, name in zip(digests, labels, names, strict=True):
        names_of[digest].setdefault(label, name)
    listed = [
        " = ".join(f"{name} ({label})" for label, name in own.items())
        for own in names_of.values()
        if len(own) > 1
    ]
    if listed:
        warn_user(
            f"{what} of equal pixels have different labels: {name_some(listed)}. "
            "Keep each image in one class only"
        )


def _warn_of_never_predicted(held_out: HeldOut, classes: NDArray[Any]) -> None:
    codes = np.setdiff1d(held_out.codes, held_out.proba.argmax(axis=1))
    if len(codes):
        warn_user(
            f"{verb(len(codes), 'a class is', 'classes are')} never predicted for the "
            f"{counted(len(held_out), 'image')} held out in training: "
            f"{name_some([str(name) for name in classes[codes]])}. "
            "More images of such a class help most; a BoostedSoftmaxClassifier (boosting=) with "
            'prior="uniform" finds more images of rare classes',
            NeverPredictedWarning,
        )


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


# --- learners -------------------------------------------------------------------------------------


class ProbabilisticClassifier:
    """A constraint: the learners that a `MicrographClassifier` takes."""

    def accepts(self, value: Any) -> bool:
        is_own_kind = isinstance(value, BaseEstimator) and is_classifier(value)
        return is_own_kind and hasattr(value, "predict_proba")

    def __str__(self) -> str:
        return "a BoostedSoftmaxClassifier, another scikit-learn classifier with predict_proba"


def _fit_to_rows(
    learner: Any,
    vectors: NDArray[np.floating],
    labels: NDArray[Any],
    fit_params: Mapping[str, Any],
    rows: NDArray[np.intp],
) -> Any:
    own = {
        name: values[rows] if isinstance(values, np.ndarray | FeatureBlocks) else values
        for name, values in fit_params.items()
    }
    return learner.fit(vectors[rows], labels[rows], **own)


def _accepted_by(learner: Any, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return those of "groups" and "sample_weight" that the learner's ``fit`` takes."""
    accepted = {name: own for name, own in given.items() if has_fit_parameter(learner, name)}
    kind = type(learner).__name__
    if "sample_weight" in given and "sample_weight" not in accepted:
        raise ValueError(
            f"sample_weight is given, but the learner, {kind}, takes none: leave it out or "
            "use boosting= with a learner whose fit takes it"
        )
    if "groups" in given and "groups" not in accepted:
        warn_user(
            f"the learner, a {kind}, takes no groups: its own inner splits, if it has any, do "
            "not keep groups together, so parameters chosen by them are optimistic"
        )
    return accepted


# --- held-out predictions -------------------------------------------------------------------------


def cross_predict(
    learner: Any,
    vectors: NDArray[np.floating],
    labels: NDArray[Any],
    groups: NDArray[np.intp],
    fit_params: Mapping[str, Any],
    seed: int | None,
    order: NDArray[np.intp],
    *,
    verbose: bool,
) -> HeldOut | None:
    """Fit a copy of a learner without each fold of groups, and predict that fold with it.

    The folds depend on the `order` of the rows. None if no group can be held out.
    """
    found = group_folds(labels[order], groups[order], n_splits=_N_FOLDS, random_state=seed)
    folds = [(order[train], order[test]) for train, test in found]
    if not folds:
        return None
    learners, proba, models = [], [], []
    shown = ProgressBar(folds, "held-out folds", unit="fold", shown=verbose)
    for number, (train, test) in enumerate(shown):
        own = clone(learner)
        if "verbose" in own.get_params():
            own.set_params(verbose=False)
        with warnings.catch_warnings():  # the fit on all images has given them already
            warnings.simplefilter("ignore", UserWarning)
            learners.append(_fit_to_rows(own, vectors, labels, fit_params, train))
        proba.append(learners[-1].predict_proba(vectors[test]))
        models.append(np.full(len(test), number))
    rows = np.concatenate([test for _, test in folds])
    codes = np.searchsorted(learner.classes_, labels[rows])
    lone = np.setdiff1d(np.arange(len(learner.classes_)), codes)
    return HeldOut(
        learners,
        np.concatenate(proba),
        codes,
        groups[rows],
        np.concatenate(models),
        rows,
        lone=lone,
    )


# --- checks before any image is encoded -----------------------------------------------------------


def checked_labels(y: Any, n_images: int) -> np.ndarray:
    if y is None:
        raise ValueError(
            "this classifier requires y to be passed, but the target y is None: give a label for "
            "each image"
        )
    check_column("y", y, "labels")
    labels = column_or_1d(of_length("labels (y)", y, n_images), warn=True)
    first_appearance_codes(labels.tolist(), "y")  # raises for missing labels
    # No label is missing, so the array need not be of objects any more.
    return np.array(labels.tolist()) if isinstance(y, list | tuple) else labels


def check_classes(labels: np.ndarray) -> None:
    check_classification_targets(labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"the labels (y) have one class only, {classes.tolist()[:1]}: two or more are needed"
        )


def checked_weights(weights: Any, n_images: int) -> np.ndarray:
    check_column("sample_weight", weights, "weights")
    values = of_length("sample_weight values", weights, n_images).astype(np.float64)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        raise ValueError(
            f"sample_weight must be finite and not negative; image {wrong.argmax()} has "
            f"{values[wrong.argmax()]}"
        )
    if not values.any():
        raise ValueError("sample_weight: all weights are zero, so there is no image to train on")
    return values


def of_length(what: str, values: Any, n_images: int) -> np.ndarray:
    # As an array of objects: in a list of strings with a missing one, NumPy would make NaN "nan".
    found = np.array(values, dtype=object) if isinstance(values, list) else np.asarray(values)
    if len(found) != n_images:
        raise ValueError(
            f"{len(found)} {what} for {counted(n_images, 'image')}: give one for each image"
        )
    return found
