"""A fitted alignment classifier as a JSON-able header and named arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.base import clone

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.state import arrays_under, plain_seed
from hypervlad.modelfile import ModelFileError

if TYPE_CHECKING:
    from hypervlad.alignment.estimator import AlignmentClassifier

_Classifier = TypeVar("_Classifier", bound="AlignmentClassifier")

_ENCODER, _BOOSTING = "encoder.", "boosting."


def pack(
    model: AlignmentClassifier, include_backbone: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays."""
    encoder, encoder_arrays = model.encoder_.to_state(include_backbone=include_backbone)
    boosting, boosting_arrays = model.boosting_.to_state()
    header = {
        "parameters": {
            "window": int(model.window),
            "tile_size": int(model.tile_size),
            "random_state": plain_seed(model.random_state),
        },
        "window": model.window_,
        "n_images": model.n_images_,
        "n_windows": model.n_windows_,
        "aligned_share": model.aligned_share_,
        "encoder": encoder,
        "boosting": boosting,
    }
    arrays = {_ENCODER + name: array for name, array in encoder_arrays.items()}
    return header, arrays | {_BOOSTING + name: array for name, array in boosting_arrays.items()}


def unpack(
    cls: type[_Classifier], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> _Classifier:
    """Return a fitted classifier.

    Raises
    ------
    ModelFileError
        If something is missing or does not fit.
    """
    try:
        model = cls(**header["parameters"])
        model.window_ = int(header["window"])
        model.n_images_, model.n_windows_ = int(header["n_images"]), int(header["n_windows"])
        model.aligned_share_ = float(header["aligned_share"])
        model.encoder_ = HypercolumnVLAD.from_state(
            header["encoder"], arrays_under(_ENCODER, arrays)
        )
        model.encoder = clone(model.encoder_)
        model.boosting_ = BoostedSoftmaxClassifier.from_state(
            header["boosting"], arrays_under(_BOOSTING, arrays)
        )
        model.boosting = clone(model.boosting_)
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"the alignment classifier is incomplete ({type(error).__name__}: {error}): it was "
            "written by another version of hypervlad, or not by hypervlad; train it again"
        ) from error
    return model
