"""The fit of a `MicrographClassifier`: checks, codebook, vectors, learner, held-out predictions."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.metrics import pairwise_distances_chunked
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, has_fit_parameter

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.boosting.linear import FeatureBlocks
from hypervlad.classify.held_out import HeldOut
from hypervlad.classify.novelty import (
    DISTANCES_MB,
    KnownPoints,
    empty_vectors,
    project_vectors,
)
from hypervlad.classify.training_images import ImageFormats, TrainingImages
from hypervlad.common.progress import ProgressBar
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.features.encoder.estimator import HypercolumnVLAD
from hypervlad.features.encoder.loading import ImageInfo, warn_of_blank_training_images
from hypervlad.images import read_micrographs
from hypervlad.images.options import check_read_options
from hypervlad.images.pixels import ImageDigests
from hypervlad.images.reading import is_particle, relative_names
from hypervlad.statistics.splits import (
    check_column,
    check_groups,
    first_appearance_codes,
    group_folds,
    joined_groups,
    linked_groups,
    order_by_digest,
)

_N_FOLDS = 5
_COPY_TOLERANCE = 1e-4  # of a vector's length: the last digits depend on the batch


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


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images to train on, with checked labels, groups and weights.

    `positions` are those in the list given to ``fit``; `given` has "groups" and "sample_weight", if
    any.
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
    n_images: int
    seconds: dict[str, float]


def fit_parts(
    encoder: HypercolumnVLAD,
    learner: Any,
    data: LabelledImages,
    calibration_size: float | None,
    seed: int | None,
    *,
    verbose: bool = False,
) -> FittedParts:
    """Fit encoder and learner, in place, and predict images that are held out."""
    if isinstance(learner, BoostedSoftmaxClassifier):
        learner.check_labels(data.labels)  # before images are encoded
    accepted, codes = _accepted_by(learner, data.given), data.group_codes()
    digests = _digests(data.images, encoder) if calibration_size else None
    train, calibration = calibration_split(data.labels, codes, calibration_size, seed, digests)
    train_images = [data.images[i] for i in train]
    seconds: dict[str, float] = {}
    with _timed(seconds, "codebook"):
        encoder.fit_checked(train_images)  # warns of skipped images
    with _timed(seconds, "encoding"):
        encoded = encoder.encode(train_images)
        if len(encoded.positions) < encoder.n_images_:
            encoded.report.warn()  # of images that could be read before, but not again
        vectors, train = encoded.vectors, train[encoded.positions]
        held, calibration, held_info = _encode_calibration(
            encoder, data, calibration, data.labels[train]
        )
    rows = np.concatenate([train, calibration])
    labels = data.labels[rows]
    points = np.concatenate([project_vectors(vectors), project_vectors(held)])
    info = [*encoded.info, *held_info]
    digests = [image.digest for image in info]
    names = relative_names([data.images[i] for i in rows])
    shown = [name or f"image {i}" for name, i in zip(names, data.positions[rows], strict=True)]
    is_blank = np.array([image.is_blank for image in info], bool)
    blank = [name for name, own in zip(shown, is_blank, strict=True) if own]
    warn_of_blank_training_images(blank, len(info))
    _warn_of_contradictions(digests, labels, shown)
    groups = groups_with_copies(points, codes[rows], is_blank)
    classes = np.unique(labels[: len(train)])
    fit_params: dict[str, Any] = {name: values[train] for name, values in accepted.items()}
    has_groups = "groups" in fit_params or len(np.unique(groups)) < len(groups)
    if has_groups and has_fit_parameter(learner, "groups"):
        fit_params["groups"] = groups[: len(train)]
    with _timed(seconds, "learner"):
        if isinstance(learner, BoostedSoftmaxClassifier):
            widths = list(encoder.feature_blocks.values())
            fit_params["blocks"] = FeatureBlocks(vectors, widths)
            learner.fit(vectors, labels[: len(train)], **fit_params)
            targets = labels
        else:  # it may depend on the order of its rows
            by_digest = order_by_digest(digests[: len(train)], labels[: len(train)])
            targets = _fit_other_learner(learner, vectors, labels, classes, fit_params, by_digest)
    held_out = None
    if calibration_size is None:
        with _timed(seconds, "cross-fitted learners"):
            held_out = cross_predict_calibration(
                learner,
                vectors,
                targets,
                groups,
                fit_params,
                seed,
                digests=digests,
                verbose=verbose,
            )
    elif len(calibration):
        held_out = predict_calibration(learner, held, targets, groups)
    if held_out is not None:
        _warn_of_never_predicted(held_out, classes)
    # A particle has been outlined, so even one without any texture is not empty.
    empty = project_vectors(vectors[:0] if info[0].outline else empty_vectors(encoder))
    usual, limits = KnownPoints(points, labels, empty).learn(groups)
    training = TrainingImages(
        names,
        labels,
        groups,
        data.positions[rows],
        ImageDigests.of(digests),
        points,
        empty,
        usual,
        limits,
        vectors.shape[1],
    )
    formats = ImageFormats.of(info)
    return FittedParts(classes, held_out, training, formats, len(train), seconds)


def _digests(images: list[Any], encoder: HypercolumnVLAD) -> list[str]:
    """Return the digests of images, empty for those that cannot be read and are skipped later."""
    digests = [""] * len(images)
    options = check_read_options(encoder.read_options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the encoder warns of the same
        for position, image in read_micrographs(images, options=options, on_error=encoder.on_error):
            digests[position] = image.digest
    return digests


def _encode_calibration(
    encoder: HypercolumnVLAD,
    data: LabelledImages,
    rows: NDArray[np.intp],
    trained_labels: NDArray[Any],
) -> tuple[NDArray[np.float32], NDArray[np.intp], list[ImageInfo]]:
    """Return vectors, rows and facts of the calibration images that can be used.

    Those of a class without any readable training image cannot.
    """
    if not len(rows):
        return np.empty((0, encoder.n_features_out_), dtype=np.float32), rows, []
    encoded = encoder.encode([data.images[i] for i in rows])
    encoded.report.warn()
    rows = rows[encoded.positions]
    usable = np.flatnonzero(np.isin(data.labels[rows], trained_labels))
    return encoded.vectors[usable], rows[usable], [encoded.info[i] for i in usable]


def _warn_of_contradictions(
    digests: Sequence[str], labels: NDArray[Any], names: Sequence[str]
) -> None:
    rows_of = defaultdict(list)
    for row, digest in enumerate(digests):
        rows_of[digest].append(row)
    listed = [
        " = ".join(f"{names[row]} ({labels[row]})" for row in rows)
        for rows in rows_of.values()
        if len(set(labels[rows].tolist())) > 1
    ]
    if listed:
        warn_user(
            f"training images of equal pixels have different labels: {name_some(listed)}. "
            "Keep each image in one class only",
        )


def _warn_of_never_predicted(held_out: HeldOut, classes: NDArray[Any]) -> None:
    codes = np.setdiff1d(held_out.codes, held_out.proba.argmax(axis=1))
    if len(codes):
        warn_user(
            f"{verb(len(codes), 'a class is', 'classes are')} never predicted for the "
            f"{counted(len(held_out), 'image')} held out in training: "
            f"{name_some([str(name) for name in classes[codes]])}. "
            "More images of such a class help most; a BoostedSoftmaxClassifier (boosting=) with "
            'prior="uniform" or class_weight="balanced" finds more images of rare classes',
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
        return (
            isinstance(value, BaseEstimator)
            and is_classifier(value)
            and hasattr(value, "predict_proba")
        )

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


def _fit_silently(
    learner: Any,
    vectors: NDArray[np.floating],
    labels: NDArray[Any],
    fit_params: Mapping[str, Any],
    rows: NDArray[np.intp],
) -> Any:
    """Fit without messages and warnings: the fit on all images has given them already."""
    if "verbose" in learner.get_params():
        learner.set_params(verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return _fit_to_rows(learner, vectors, labels, fit_params, rows)


def _fit_other_learner(
    learner: Any,
    vectors: NDArray[np.float32],
    labels: NDArray[Any],
    classes: NDArray[Any],
    fit_params: Mapping[str, Any],
    rows: NDArray[np.intp],
) -> NDArray[Any]:
    """Fit a learner that is not ours to some rows, and return all labels as it takes them.

    If it refuses the labels themselves, they are the numbers of the classes.
    """
    try:
        _fit_to_rows(learner, vectors, labels, fit_params, rows)
    except Exception:
        numbers = np.searchsorted(classes, labels)
        if numbers.tolist() == labels.tolist():
            raise
        _encode_class_weights(learner, classes)
        _fit_to_rows(learner, vectors, numbers, fit_params, rows)
        return numbers
    return labels


def _encode_class_weights(learner: Any, classes: NDArray[Any]) -> None:
    names = classes.tolist()
    for name, value in learner.get_params().items():
        if name.rpartition("__")[2] == "class_weight" and isinstance(value, Mapping):
            unknown = [label for label in value if label not in names]
            if unknown:
                raise ValueError(
                    f"{name} has a weight for {unknown[0]!r}, which is none of the classes {names}"
                )
            learner.set_params(**{name: {names.index(k): weight for k, weight in value.items()}})


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
            "not keep groups together, so parameters chosen by them are optimistic",
        )
    return accepted


# --- held-out predictions -------------------------------------------------------------------------


def calibration_split(
    labels: NDArray[Any],
    groups: NDArray[np.intp],
    share: float | None,
    seed: int | None,
    digests: Sequence[str] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split rows into training rows and, from a `share` of the groups, calibration rows.

    The groups are sampled at random. A class without any training group gets one back. With
    `digests` of the images, neither their order nor the names of groups change the split, and
    images whose digest is empty are not held out.
    """
    rows = np.arange(len(labels))
    if not share:
        return rows, rows[:0]
    keys = rows if digests is None else np.array(digests)
    by_digest = order_by_digest(keys, labels)
    by_digest = by_digest[keys[by_digest] != ""]
    if not len(by_digest):
        return rows, rows[:0]
    own = joined_groups(groups[by_digest], keys[by_digest])
    order = np.random.default_rng(seed).permutation(own.max() + 1)
    chosen = list(order[: max(1, round(share * len(order)))])
    for label in dict.fromkeys(labels[by_digest].tolist()):
        of_label = own[labels[by_digest] == label]
        if np.isin(of_label, chosen).all():
            chosen.remove(next(group for group in chosen if group in of_label))
    calibration = np.sort(by_digest[np.isin(own, chosen)])
    return np.setdiff1d(rows, calibration), calibration


def groups_with_copies(
    points: NDArray[np.floating], groups: NDArray[np.intp], is_blank: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Number the groups of images, (n,), joining those with copies: equal `points`, (n, d).

    Blank images, such as particles of one pixel, are alike without being copies.
    """
    mean_square = np.mean(np.sum(np.square(points, dtype=np.float64), axis=1))
    tolerance = _COPY_TOLERANCE * float(np.sqrt(mean_square))
    _, first_of_group, own = np.unique(groups, return_index=True, return_inverse=True)
    distances = pairwise_distances_chunked(points, working_memory=DISTANCES_MB)
    # A link to the first copy is enough to connect all copies.
    first_copy = np.concatenate([(block <= tolerance).argmax(axis=1) for block in distances])
    rows = np.arange(len(groups))
    first_copy = np.where(is_blank, rows, first_copy)
    links = [np.column_stack([rows, first]) for first in (first_of_group[own], first_copy)]
    return linked_groups(np.concatenate(links), len(groups))


def cross_predict_calibration(
    learner: Any,
    vectors: NDArray[np.floating],
    labels: NDArray[Any],
    groups: NDArray[np.intp],
    fit_params: Mapping[str, Any],
    seed: int | None,
    *,
    digests: Sequence[str] | None = None,
    verbose: bool = False,
) -> HeldOut | None:
    """Fit a copy of a learner without each fold of groups, and predict that fold with it.

    The folds depend on the order of the images' `digests`, if given, instead of that of the rows.
    None if no group can be held out.
    """
    by_digest = np.arange(len(labels)) if digests is None else order_by_digest(digests, labels)
    folds = [
        (by_digest[train], by_digest[test])
        for train, test in group_folds(
            labels[by_digest], groups[by_digest], n_splits=_N_FOLDS, random_state=seed
        )
    ]
    if not folds:
        return None
    learners, proba, models = [], [], []
    shown = ProgressBar(
        folds, desc="held-out folds", unit="fold", disable=None if verbose else True
    )
    for number, (train, test) in enumerate(shown):
        learners.append(_fit_silently(clone(learner), vectors, labels, fit_params, train))
        proba.append(learners[-1].predict_proba(vectors[test]))
        models.append(np.full(len(test), number))
    rows = np.concatenate([test for _, test in folds])
    codes = np.searchsorted(learner.classes_, labels[rows])
    return HeldOut(
        learners,
        np.concatenate(proba),
        codes,
        groups[rows],
        np.concatenate(models),
        rows,
        lone=np.setdiff1d(np.arange(len(learner.classes_)), codes),
    )


def predict_calibration(
    learner: Any,
    vectors: NDArray[np.floating],
    labels: NDArray[Any],
    groups: NDArray[np.intp],
) -> HeldOut | None:
    """Predict calibration images with the learner that was fitted without them.

    Their `vectors` are the last ones of the labels and groups. Copies of training images are left
    out; None if no image is left.
    """
    n_train = len(groups) - len(vectors)
    own = groups[n_train:]
    usable = np.isin(labels[n_train:], learner.classes_) & ~np.isin(own, groups[:n_train])
    if not usable.any():
        return None
    rows = n_train + np.flatnonzero(usable)
    codes = np.searchsorted(learner.classes_, labels[rows])
    proba = learner.predict_proba(vectors[usable])
    # A class may also have no image here by chance: the split as a whole represents new groups.
    n_groups = [len(np.unique(groups[labels == label])) for label in learner.classes_]
    return HeldOut(
        [learner],
        proba,
        codes,
        own[usable],
        np.zeros_like(rows),
        rows,
        lone=np.flatnonzero(np.array(n_groups) == 1),
        is_split=True,
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
