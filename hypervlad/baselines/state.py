"""A fitted patch classifier as a JSON-able header and named arrays, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hypervlad.baselines.training import Curves
from hypervlad.encoder.parameters import check_read_options, plain
from hypervlad.encoder.state import arrays_under, plain_seed
from hypervlad.modelfile import ModelFileError

if TYPE_CHECKING:
    from hypervlad.baselines.patch_cnn import PatchCNNClassifier

_Classifier = TypeVar("_Classifier", bound="PatchCNNClassifier")

_WEIGHTS = "weights."
# What belongs to this machine and this run, not to the model.
_NOT_KEPT = ("device", "verbose", "random_state", "read_options")


def pack(model: PatchCNNClassifier) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays."""
    parameters = {
        name: _plain(value) for name, value in model.get_params().items() if name not in _NOT_KEPT
    }
    header = {
        "parameters": parameters | {"random_state": plain_seed(model.random_state)},
        "read_options": dataclasses.asdict(check_read_options(model.read_options)),
        "classes": model.classes_.tolist(),
        "architecture": {name: _plain(v) for name, v in model.architecture_.items()},
        "n_parameters": model.n_parameters_,
        "curves": dataclasses.asdict(model.curves_),
    }
    return header, {_WEIGHTS + name: array for name, array in model.weights_.items()}


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
        model = cls(**header["parameters"], read_options=dict(header["read_options"]))
        for name in ("filters", "kernel_sizes"):
            setattr(model, name, tuple(getattr(model, name)))
        model.classes_ = np.array(header["classes"])
        model.architecture_ = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in header["architecture"].items()
        }
        model.patch_ = model.architecture_["patch"]
        model.n_channels_ = model.architecture_["n_channels"]
        model.n_parameters_ = int(header["n_parameters"])
        model.curves_ = Curves(**header["curves"])
        model.weights_ = arrays_under(_WEIGHTS, arrays)
        model._fitted_network()  # do the weights fit?
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(
            f"the patch classifier is incomplete ({type(error).__name__}: {error}): it was written "
            "by another version of hypervlad, or not by hypervlad; train it again"
        ) from error
    return model


def _plain(value: Any) -> Any:
    return [plain(each) for each in value] if isinstance(value, list | tuple) else plain(value)
