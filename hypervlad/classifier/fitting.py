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
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, has_fit_parameter

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.boosting.linear import FeatureBlocks
from hypervlad.classifier.calibration import (
    HeldOut,
    calibration_split,
    cross_predict_calibration,
    fit_to_rows,
    groups_with_copies,
    predict_calibration,
)
from hypervlad.classifier.novelty import (
    ImageFormats,
    TrainingImages,
    empty_vectors,
    project_vectors,
)
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.loading import ImageInfo, warn_of_blank_training_images
from hypervlad.images import ImageDigests, read_micrographs
from hypervlad.images.options import check_read_options
from hypervlad.images.reading import relative_names
from hypervlad.metrics import Evaluation
from hypervlad.splits import check_column, first_appearance_codes, order_by_digest
from hypervlad.user_warnings import warn_user
from hypervlad.wording import counted, name_some, verb


class NeverPredictedWarning(UserWarning):
    """A classifier predicts a class for none of its held-out training images."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images to train on, with checked labels, groups and weights.

    Attributes
    ----------
    images : list of n paths and arrays
    labels : ndarray of shape (n,)
    positions : ndarray of int, shape (n,)
        Of the images in the list given.
    given : dict of str to ndarray of shape (n,)
        "groups" and "sample_weight", if given.
    """

    images: list[Any]
    labels: NDArray[Any]
    positions: NDArray[np.intp]
    given: dict[str, NDArray[Any]]

    @classmethod
    def of(cls, images: list[Any], y: Any, groups: Any, sample_weight: Any) -> LabelledImages:
        """Check what ``fit`` is given; leave out images of weight 0.

        Raises
        ------
        ValueError
            For lengths that differ, missing values, unusable weights, or fewer than two classes.
        """
        labels = checked_labels(y, len(images))
        values = {"groups": groups, "sample_weight": sample_weight}
        for name, own in values.items():
            if own is not None:
                check_column(name, own, "weights" if name == "sample_weight" else "groups")
        given = {
            name: of_length(f"{name} values", own, len(images))
            for name, own in values.items()
            if own is not None
        }
        positions = np.arange(len(images))
        if "sample_weight" in given:
            positions = np.flatnonzero(checked_weights(given["sample_weight"]))
            images, labels = [images[i] for i in positions], labels[positions]
            given = {name: own[positions] for name, own in given.items()}
        check_classes(labels, given.get("groups"))
        return cls(images, labels, positions, given)

    def group_codes(self) -> NDArray[np.intp]:
        """Return the group of each image as a number; its own if no groups are given."""
        if "groups" not in self.given:
            return np.arange(len(self.images))
        return first_appearance_codes(self.given["groups"].tolist(), "groups")


class FittedParts(NamedTuple):
    """What a fit leaves besides the fitted encoder and learner.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    held_out : HeldOut or None
    training : TrainingImages
    formats : ImageFormats
        Of the same images.
    n_images : int
        Number of images that the learner was fitted on.
    seconds : dict of str to float
        By stage.
    """

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
    """Fit encoder and learner to labelled images, and predict images that are held out.

    Parameters
    ----------
    encoder, learner
        Unfitted; they are fitted in place.
    data : LabelledImages
    calibration_size : float or None
        See `MicrographClassifier`.
    seed : int or None
        Of the split or the folds.
    verbose : bool, default=False
        Show progress bars where stderr is a terminal.

    Returns
    -------
    FittedParts
    """
    if isinstance(learner, BoostedSoftmaxClassifier):
        learner.check_labels(data.labels)  # before images are encoded
    accepted, codes = _accepted_by(learner, data.given), data.group_codes()
    train, calibration = calibration_split(
        data.labels,
        codes,
        calibration_size,
        seed,
        lambda: _digests(data.images, encoder),
    )
    train_images = [data.images[i] for i in train]
    seconds: dict[str, float] = {}
    with _timed(seconds, "codebook"):
        encoder.fit_checked(train_images)  # warns of skipped images
    with _timed(seconds, "encoding"):
        encoded = encoder.encode_checked(train_images)
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
    blank = [name for name, image in zip(shown, info, strict=True) if image.is_blank]
    warn_of_blank_training_images(blank, len(info))
    _warn_of_contradictions(digests, labels, shown)
    groups = groups_with_copies(points, codes[rows])
    classes = np.unique(labels[: len(train)])
    fit_params: dict[str, Any] = {name: values[train] for name, values in accepted.items()}
    has_groups = "groups" in fit_params or len(np.unique(groups)) < len(groups)
    if has_groups and has_fit_parameter(learner, "groups"):
        fit_params["groups"] = groups[: len(train)]
    with _timed(seconds, "learner"):
        if isinstance(learner, BoostedSoftmaxClassifier):
            widths = list(encoder.feature_blocks.values())
            weight = fit_params.get("sample_weight")
            # Images of weight 0 are left out, of the directions as well.
            is_shared = weight is None or np.all(np.asarray(weight) > 0)
            fit_params["blocks"] = FeatureBlocks(vectors, widths) if is_shared else widths
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
    training = TrainingImages.of(
        names,
        labels,
        groups,
        data.positions[rows],
        ImageDigests.of(digests).digests,
        points,
        project_vectors(empty_vectors(encoder)),
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
        for position, image in read_micrographs(
            images, options=options, on_error=encoder.on_error, n_jobs=encoder.n_jobs
        ):
            digests[position] = image.digest
    return digests


def _fit_other_learner(
    learner: Any,
    vectors: NDArray[np.float32],
    labels: NDArray[Any],
    classes: NDArray[Any],
    fit_params: Mapping[str, Any],
    rows: NDArray[np.intp],
) -> NDArray[Any]:
    """Fit a learner that is not ours to some rows, and return the labels of all as it takes them.

    These are the labels themselves, which its parameters may mention, or, if it refuses them, the
    numbers of the classes.
    """
    try:
        fit_to_rows(learner, vectors, labels, fit_params, rows)
    except Exception:
        numbers = np.searchsorted(classes, labels)
        if numbers.tolist() == labels.tolist():
            raise
        _encode_class_weights(learner, classes)
        fit_to_rows(learner, vectors, numbers, fit_params, rows)
        return numbers
    return labels


def _encode_class_weights(learner: Any, classes: NDArray[Any]) -> None:
    """Name classes by their numbers in dictionaries of class weights, as the labels are."""
    names = classes.tolist()
    for name, value in learner.get_params().items():
        if name.rpartition("__")[2] == "class_weight" and isinstance(value, Mapping):
            unknown = [label for label in value if label not in names]
            if unknown:
                raise ValueError(
                    f"{name} has a weight for {unknown[0]!r}, which is none of the classes {names}"
                )
            learner.set_params(**{name: {names.index(k): weight for k, weight in value.items()}})


def _encode_calibration(
    encoder: HypercolumnVLAD,
    data: LabelledImages,
    rows: NDArray[np.intp],
    trained_labels: NDArray[Any],
) -> tuple[NDArray[np.float32], NDArray[np.intp], list[ImageInfo]]:
    """Return vectors, rows and facts of the calibration images that can be read.

    Those of a class without any readable training image are left out.
    """
    if not len(rows):
        return np.empty((0, encoder.n_features_out_), dtype=np.float32), rows, []
    encoded = encoder.encode_checked([data.images[i] for i in rows])
    encoded.report.warn()
    rows = rows[encoded.positions]
    usable = np.flatnonzero(np.isin(data.labels[rows], trained_labels))
    return encoded.vectors[usable], rows[usable], [encoded.info[i] for i in usable]


def _warn_of_contradictions(
    digests: Sequence[str], labels: NDArray[Any], names: Sequence[str]
) -> None:
    """Warn of training images of equal pixels and different labels."""
    listed = [
        " = ".join(f"{names[row]} ({labels[row]})" for row in rows)
        for rows in contradictions(digests, labels)
    ]
    if listed:
        warn_user(
            f"training images of equal pixels have different labels: {name_some(listed)}. "
            "Keep each image in one class only",
        )


def warn_of_never_predicted(held_out: Evaluation) -> None:
    """Warn of classes that are predicted for no held-out image, and say what to do.

    Parameters
    ----------
    held_out : Evaluation
        Of the held-out predictions.

    Warns
    -----
    NeverPredictedWarning
    """
    names = held_out.never_predicted
    if names:
        warn_user(
            f"{verb(len(names), 'a class is', 'classes are')} never predicted for the "
            f"{counted(len(held_out.true), 'image')} held out in training: {name_some(names)}. "
            "More images of such a class help most; a BoostedSoftmaxClassifier (boosting=) with "
            'prior="uniform" or class_weight="balanced" finds more images of rare classes',
            NeverPredictedWarning,
        )


def _accepted_by(learner: Any, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return those of "groups" and "sample_weight" that the learner's ``fit`` takes.

    Raises
    ------
    ValueError
        If weights are given and the learner takes none.

    Warns
    -----
    UserWarning
        If groups are given and the learner takes none.
    """
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


def contradictions(digests: Sequence[str], labels: NDArray[Any]) -> list[list[int]]:
    """Return sets of images of equal pixels and different labels, as row numbers.

    Parameters
    ----------
    digests : sequence of n str
        Of the pixels.
    labels : ndarray of shape (n,)

    Examples
    --------
    >>> contradictions(["ab", "cd", "ab", "cd"], np.array(["x", "y", "z", "y"]))
    [[0, 2]]
    """
    rows_of = defaultdict(list)
    for row, digest in enumerate(digests):
        rows_of[digest].append(row)
    return [rows for rows in rows_of.values() if len(set(labels[rows].tolist())) > 1]


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage takes."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


# --- checks before any image is encoded ---------------------------------------------------------


def checked_labels(y: Any, n_images: int) -> np.ndarray:
    """Return n labels as an array; ValueError if one is missing."""
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


def check_classes(labels: np.ndarray, groups: np.ndarray | None) -> None:
    """Raise a ValueError unless there are two classes or more, and no group is missing."""
    check_classification_targets(labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"the labels (y) have one class only, {classes.tolist()[:1]}: two or more are needed"
        )
    if groups is not None:
        first_appearance_codes(groups.tolist(), "groups")


def checked_weights(weights: Any) -> np.ndarray:
    """Return weights as floats; ValueError unless finite, not negative and not all zero."""
    values = np.asarray(weights, dtype=np.float64)
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
    """Return values as an array; ValueError unless there is one for each image."""
    # As an array of objects: in a list of strings with a missing one, NumPy would make NaN "nan".
    found = np.array(values, dtype=object) if isinstance(values, list) else np.asarray(values)
    if len(found) != n_images:
        raise ValueError(
            f"{len(found)} {what} for {counted(n_images, 'image')}: give one for each image"
        )
    return found
