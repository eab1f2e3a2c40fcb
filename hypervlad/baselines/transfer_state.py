"""A fitted transfer classifier as a JSON-able header and named arrays, and back."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hypervlad.backbones import Preprocessing
from hypervlad.base import Labels
from hypervlad.baselines.softmax_head import SoftmaxHead
from hypervlad.baselines.training import CurvesFromStart
from hypervlad.baselines.transfer_parameters import TransferRecipe
from hypervlad.encoder.parameters import check_read_options, plain
from hypervlad.encoder.state import arrays_under, check_backbone, plain_seed, portable_weights
from hypervlad.modelfile import ModelFileError

if TYPE_CHECKING:
    from hypervlad.baselines.transfer import TransferClassifier

_Classifier = TypeVar("_Classifier", bound="TransferClassifier")

_HEAD, _NETWORK = "head.", "network."
# What belongs to this machine and this run, not to the model.
_NOT_KEPT = ("checkpoint", "device", "n_jobs", "verbose")


def pack(
    model: TransferClassifier, include_backbone: bool
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return header and arrays: the head, and what of the network is not found elsewhere."""
    head, arrays = model.head_.to_state()
    arrays = {_HEAD + name: array for name, array in arrays.items()}
    whole = include_backbone or (model.recipe_.trainable == "all" and bool(model.network_state_))
    tensors = model.network_state_
    if whole:
        state = model._network().original.state_dict()
        tensors = {name: value.cpu().contiguous().numpy() for name, value in state.items()}
    header = {
        "parameters": _packed_parameters(model),
        "recipe": model.recipe_.to_dict(),
        "preprocessing": model.preprocessing_.to_dict(),
        "weights_digest": model.weights_digest_,
        "whole_network": whole,
        "classes": Labels().pack(model.classes_, include_backbone=False)[0],
        "head": head,
        "tensors": _shapes(tensors),
        "C": model.C_,
        "history": None if model.history_ is None else dataclasses.asdict(model.history_),
        "n_images": model.n_images_,
    }
    return header, arrays | {_NETWORK + name: array for name, array in tensors.items()}


def unpack(
    cls: type[_Classifier], header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> _Classifier:
    """Return a fitted classifier.

    Raises
    ------
    ModelFileError
        If the backbone is not known here, or something is missing or does not fit.
    """
    try:
        recipe = dict(header["recipe"])
        check_backbone(recipe["backbone"])
        model = cls(**_unpacked_parameters(header["parameters"], cls))
        model.recipe_ = TransferRecipe(
            **recipe | {"read_options": check_read_options(recipe["read_options"])}
        )
        model.recipe_.check()
        model.preprocessing_ = Preprocessing.from_dict(header["preprocessing"])
        model.weights_digest_ = str(header["weights_digest"])
        model.whole_network_ = bool(header["whole_network"])
        model.classes_ = Labels().unpack(header["classes"], {})
        model.C_, model.n_images_ = float(header["C"]), int(header["n_images"])
        model.history_ = None if header["history"] is None else _history(header["history"])
        model.head_ = SoftmaxHead.from_state(header["head"], arrays_under(_HEAD, arrays))
        model.network_state_ = arrays_under(_NETWORK, arrays)
        if _shapes(model.network_state_) != header["tensors"]:
            raise ValueError("the network's tensors are not those that it was saved with")
        _check_fit(model)
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"the transfer classifier is incomplete ({type(error).__name__}: {error}): it was "
            "written by another version of hypervlad, or not by hypervlad; train it again"
        ) from error
    return model


def _check_fit(model: TransferClassifier) -> None:
    n_classes = len(model.classes_)
    if model.head_.coef.shape[1] != n_classes:
        raise ValueError(f"a head of {model.head_.coef.shape[1]} classes for {n_classes} labels")
    learnt = model.history_ is not None and model.history_.best_epoch >= 0
    if model.network_state_ and not (learnt or model.whole_network_):
        raise ValueError("a part of a network that did not learn")
    if learnt and not model.network_state_ and model.recipe_.trainable != "head":
        raise ValueError("a network that learnt, without what it learnt")


def _history(stored: Mapping[str, Any]) -> CurvesFromStart:
    history = CurvesFromStart(**stored)
    lists = (history.loss, history.accuracy, history.validation_loss, history.validation_accuracy)
    if any(not isinstance(values, list) or len(values) != len(lists[0]) for values in lists):
        raise ValueError("the history's curves are no lists of one length")
    numbers = [*itertools.chain(*lists), history.start_loss, history.start_accuracy]
    if not all(isinstance(value, int | float) for value in numbers):
        raise ValueError("the history holds what are no numbers")
    return history


def _shapes(tensors: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in tensors.items()}


def _packed_parameters(model: TransferClassifier) -> dict[str, Any]:
    parameters = {
        name: _plain(value) for name, value in model.get_params().items() if name not in _NOT_KEPT
    }
    weights = model.class_weight
    if isinstance(weights, Mapping):
        # JSON turns keys into strings: pairs keep the labels' kind.
        parameters["class_weight"] = [[plain(k), plain(v)] for k, v in weights.items()]
    return parameters | {
        "weights": portable_weights(model.weights),
        "read_options": dataclasses.asdict(check_read_options(model.read_options)),
        "random_state": plain_seed(model.random_state),
    }


def _unpacked_parameters(packed: Mapping[str, Any], cls: type[Any]) -> dict[str, Any]:
    parameters = dict(packed)
    unknown = sorted(set(parameters) - set(cls().get_params())) + sorted(
        set(parameters) & set(_NOT_KEPT)
    )
    if unknown:
        raise ValueError(f"unknown parameters {unknown}")
    missing = sorted(set(cls().get_params()) - set(parameters) - set(_NOT_KEPT))
    if missing:
        raise ValueError(f"missing parameters {missing}")
    if isinstance(parameters["class_weight"], list):
        parameters["class_weight"] = dict(parameters["class_weight"])
    if isinstance(parameters["Cs"], list):
        parameters["Cs"] = tuple(parameters["Cs"])
    return parameters


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(each) for each in value]
    return plain(value)
