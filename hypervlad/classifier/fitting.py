"""The fit of a `MicrographClassifier`: codebook, vectors, learner, held-out predictions."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import has_fit_parameter

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier.calibration import (
    HeldOut,
    calibration_split,
    cross_predict_calibration,
    groups_with_copies,
    predict_calibration,
)
from hypervlad.classifier.learner import accepted_by
from hypervlad.classifier.novelty import (
    TrainingImages,
    digests_of,
    empty_vectors,
    project_vectors,
    relative_names,
)
from hypervlad.classifier.validation import LabelledImages, contradictions
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.wording import name_some


class FittedParts(NamedTuple):
    """What a fit leaves besides the fitted encoder and learner.

    Attributes
    ----------
    held_out : HeldOut or None
    training : TrainingImages
    n_images : int
        Number of images that the learner was fitted on.
    seconds : dict of str to float
        By stage.
    """

    held_out: HeldOut | None
    training: TrainingImages
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
    accepted, codes = accepted_by(learner, data.given), data.group_codes()
    train, calibration = calibration_split(data.labels, codes, calibration_size, seed)
    train_images = [data.images[i] for i in train]
    seconds: dict[str, float] = {}
    with _timed(seconds, "codebook"):
        encoder.fit_checked(train_images)  # warns of skipped images
    with _timed(seconds, "encoding"):
        encoded = encoder.encode_checked(train_images)
        if len(encoded.positions) < encoder.n_images_:
            encoded.warn()  # of images that could be read before, but not again
        vectors, train = encoded.vectors, train[encoded.positions]
        held, calibration, held_digests = _encode_calibration(
            encoder, data, calibration, data.labels[train]
        )
    rows = np.concatenate([train, calibration])
    labels = data.labels[rows]
    points = np.concatenate([project_vectors(vectors), project_vectors(held)])
    digests = [image.digest for image in encoded.info] + held_digests
    names = relative_names([data.images[i] for i in rows])
    _warn_of_contradictions(digests, labels, names, data.positions[rows])
    groups = groups_with_copies(points, codes[rows])
    fit_params: dict[str, Any] = {name: values[train] for name, values in accepted.items()}
    has_groups = "groups" in fit_params or len(np.unique(groups)) < len(groups)
    if has_groups and has_fit_parameter(learner, "groups"):
        fit_params["groups"] = groups[: len(train)]
    if isinstance(learner, BoostedSoftmaxClassifier):
        fit_params["blocks"] = list(encoder.feature_blocks.values())
    with _timed(seconds, "learner"):
        learner.fit(vectors, data.labels[train], **fit_params)
    held_out = None
    if calibration_size is None:
        with _timed(seconds, "cross-fitted learners"):
            held_out = cross_predict_calibration(
                learner, vectors, labels, groups, fit_params, seed, verbose=verbose
            )
    elif len(calibration):
        held_out = predict_calibration(learner, held, labels, groups)
    training = TrainingImages.of(
        names,
        labels,
        groups,
        data.positions[rows],
        digests_of(digests),
        points,
        project_vectors(empty_vectors(encoder)),
        vectors.shape[1],
    )
    return FittedParts(held_out, training, len(train), seconds)


def _encode_calibration(
    encoder: HypercolumnVLAD,
    data: LabelledImages,
    rows: NDArray[np.intp],
    trained_labels: NDArray[Any],
) -> tuple[NDArray[np.float32], NDArray[np.intp], list[str]]:
    """Return vectors, rows and digests of the calibration images that can be read.

    Those of a class without any readable training image are left out.
    """
    if not len(rows):
        return np.empty((0, encoder.n_features_out_), dtype=np.float32), rows, []
    encoded = encoder.encode_checked([data.images[i] for i in rows])
    encoded.warn()
    rows = rows[encoded.positions]
    usable = np.flatnonzero(np.isin(data.labels[rows], trained_labels))
    return encoded.vectors[usable], rows[usable], [encoded.info[i].digest for i in usable]


def _warn_of_contradictions(
    digests: Sequence[str],
    labels: NDArray[Any],
    names: Sequence[str],
    positions: NDArray[np.intp],
) -> None:
    """Warn of training images of equal pixels and different labels."""
    listed = [
        " = ".join(f"{names[row] or f'image {positions[row]}'} ({labels[row]})" for row in rows)
        for rows in contradictions(digests, labels)
    ]
    if listed:
        warnings.warn(
            f"training images of equal pixels have different labels: {name_some(listed)}. "
            "Keep each image in one class only",
            UserWarning,
            stacklevel=4,
        )


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage takes."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
