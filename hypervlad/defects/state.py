"""A fitted defect scorer as a JSON-able header and named arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.base import clone

from hypervlad.defects.models import LabelledWindows, NormalWindows
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.parameters import plain
from hypervlad.encoder.state import arrays_under, plain_seed
from hypervlad.modelfile import ModelFileError

if TYPE_CHECKING:
    from hypervlad.defects.estimator import PatchDefectScorer

_Scorer = TypeVar("_Scorer", bound="PatchDefectScorer")

_ENCODER, _MODEL = "encoder.", "windows."
_KEPT = ("patch", "stride", "threshold", "fpr", "n_codewords", "min_fraction", "tile_size")


def pack(
    scorer: PatchDefectScorer, include_backbone: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays."""
    encoder, encoder_arrays = scorer.encoder_.to_state(include_backbone=include_backbone)
    boosting = None
    if isinstance(scorer.model_, LabelledWindows):
        boosting, model_arrays = scorer.model_.to_state()
    else:
        model_arrays = scorer.model_.to_arrays()
    parameters = {name: plain(getattr(scorer, name)) for name in _KEPT}
    parameters["random_state"] = plain_seed(scorer.random_state)
    header = {
        "parameters": parameters,
        "patch": scorer.patch_,
        "stride": scorer.stride_,
        "threshold": scorer.threshold_,
        "n_images": scorer.n_images_,
        "encoder": encoder,
        "boosting": boosting,
    }
    arrays = {_ENCODER + name: array for name, array in encoder_arrays.items()}
    return header, arrays | {_MODEL + name: array for name, array in model_arrays.items()}


def unpack(
    cls: type[_Scorer], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> _Scorer:
    """Return a fitted scorer.

    Raises
    ------
    ModelFileError
        If something is missing or does not fit.
    """
    model_arrays = arrays_under(_MODEL, arrays)
    try:
        scorer = cls(**header["parameters"])
        scorer.patch_, scorer.stride_ = int(header["patch"]), int(header["stride"])
        scorer.threshold_, scorer.n_images_ = float(header["threshold"]), int(header["n_images"])
        scorer.encoder_ = HypercolumnVLAD.from_state(
            header["encoder"], arrays_under(_ENCODER, arrays)
        )
        scorer.encoder = clone(scorer.encoder_)
        if header["boosting"] is None:
            scorer.model_ = NormalWindows.from_arrays(model_arrays)
        else:
            scorer.model_ = LabelledWindows.from_state(header["boosting"], model_arrays)
            scorer.boosting = clone(scorer.model_.learner)
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"the defect scorer is incomplete ({type(error).__name__}: {error}): it was written by "
            "another version of hypervlad, or not by hypervlad; train it again"
        ) from error
    return scorer
