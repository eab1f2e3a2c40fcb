"""A fitted image classifier as a JSON-able header and named arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.base import clone

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier.heldout import HeldOut
from hypervlad.classifier.training import TrainingImages, check_directions
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.state import arrays_under, plain_seed
from hypervlad.modelfile import ModelFileError

if TYPE_CHECKING:
    from hypervlad.classifier.estimator import MicrographClassifier

_Model = TypeVar("_Model", bound="MicrographClassifier")

_ENCODER, _BOOSTING, _HELD_OUT, _TRAINING = "encoder.", "boosting.", "held_out.", "training."


def pack(
    model: MicrographClassifier, include_backbone: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays.

    Raises
    ------
    ModelFileError
        If the learner is one that needs pickle.
    """
    if not isinstance(model.boosting_, BoostedSoftmaxClassifier):
        raise ModelFileError(
            f"a model whose learner is a {type(model.boosting_).__name__} cannot be saved: "
            "without pickle, only a BoostedSoftmaxClassifier can. Train with "
            "boosting=BoostedSoftmaxClassifier(...), or save the encoder "
            "(model.encoder_.save(path)) and keep the learner (model.boosting_) by your own "
            "means, such as joblib.dump, in a place that you trust"
        )
    encoder, encoder_arrays = model.encoder_.to_state(include_backbone=include_backbone)
    boosting, boosting_arrays = model.boosting_.to_state()
    held_out, held_out_arrays = None, dict[str, np.ndarray]()
    if model.held_out_ is not None:
        held_out, held_out_arrays = model.held_out_.to_state(model.boosting_)
    size = model.calibration_size
    training, training_arrays = model.training_.to_state(
        model.classes_, model.boosting_.n_features_in_
    )
    header = {
        "random_state": plain_seed(model.random_state),
        "calibration_size": size if size is None else float(size),
        "held_out": held_out,
        "training": training,
        "n_images": model.n_images_,
        "encoder": encoder,
        "boosting": boosting,
    }
    arrays = {_ENCODER + name: array for name, array in encoder_arrays.items()}
    arrays |= {_BOOSTING + name: array for name, array in boosting_arrays.items()}
    arrays |= {_HELD_OUT + name: array for name, array in held_out_arrays.items()}
    arrays |= {_TRAINING + name: array for name, array in training_arrays.items()}
    return header, arrays


def unpack(
    cls: type[_Model], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> _Model:
    """Return a fitted classifier.

    Raises
    ------
    ModelFileError
        If something is missing, or encoder and learner do not fit together.
    """
    try:
        model = cls(
            calibration_size=header["calibration_size"], random_state=header["random_state"]
        )
        model.n_images_ = int(header["n_images"])
        encoder, boosting, held_out = header["encoder"], header["boosting"], header["held_out"]
        model.boosting_ = BoostedSoftmaxClassifier.from_state(
            boosting, arrays_under(_BOOSTING, arrays)
        )
        model.classes_ = model.boosting_.classes_
        model.training_ = TrainingImages.from_state(
            header["training"], arrays_under(_TRAINING, arrays), model.classes_
        )
        probe = arrays[_TRAINING + "probe"]
        model.held_out_ = None
        if held_out is not None:
            model.held_out_ = HeldOut.from_state(
                held_out, arrays_under(_HELD_OUT, arrays), model.boosting_
            )
            model.held_out_.check(len(model.training_))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"the model is incomplete ({error!r}): it was written by another version of "
            "hypervlad, or not by hypervlad; train the model again"
        ) from error
    model.encoder_ = HypercolumnVLAD.from_state(encoder, arrays_under(_ENCODER, arrays))
    model.encoder_.set_output(transform="default")
    width = model.encoder_._n_features_out
    if model.boosting_.n_features_in_ != width:
        raise ModelFileError(
            f"the model's learner takes {model.boosting_.n_features_in_} features where its "
            f"encoder gives {width}"
        )
    try:
        check_directions(probe, width)
    except ValueError as error:
        raise ModelFileError(
            f"the model is incomplete here ({error}): what it says of novelty would be wrong; "
            "install the version that it was trained with, or train it again"
        ) from error
    model.encoder, model.boosting = clone(model.encoder_), clone(model.boosting_)
    return model
