"""A fitted encoder as a JSON-able header and named arrays, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hypervlad._version import __version__
from hypervlad.backbones import Preprocessing, TappedNetwork, backbone_names
from hypervlad.codebook import Codebook
from hypervlad.encoder.parameters import EncoderParams
from hypervlad.modelfile import ModelFileError

if TYPE_CHECKING:
    from hypervlad.encoder.estimator import HypercolumnVLAD

_Encoder = TypeVar("_Encoder", bound="HypercolumnVLAD")

# What belongs to this machine and this run, not to the model.
_NOT_KEPT = ("memory", "batch_size", "device", "n_jobs", "verbose")
_BACKBONE = "backbone."


def pack(
    encoder: HypercolumnVLAD, network: TappedNetwork | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays; with a network, its weights too."""
    parameters = encoder.fitted_params_.to_dict() | {
        "weights": portable_weights(encoder.weights),
        "taps": list(encoder.taps_),
        "on_error": str(encoder.on_error),
        "random_state": plain_seed(encoder.random_state),
    }
    header = {
        "parameters": parameters,
        "weights_digest": encoder.weights_digest_,
        "preprocessing": encoder.preprocessing_.to_dict(),
        "seed": encoder.seed_,
        "n_images": encoder.n_images_,
    }
    arrays = encoder.codebook_.to_arrays()
    if network is not None:
        tensors = network.original.state_dict()
        arrays |= {_BACKBONE + k: v.cpu().contiguous().numpy() for k, v in tensors.items()}
    return header, arrays


def unpack(
    cls: type[_Encoder], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> _Encoder:
    """Return a fitted encoder.

    Raises
    ------
    ModelFileError
        If the backbone is not known here, or something is missing.
    """
    try:
        parameters = dict(header["parameters"])
        _check_names(parameters, cls)
        check_backbone(parameters["backbone"])
        encoder = cls(**parameters | {"normalize": tuple(parameters["normalize"])})
        encoder.fitted_params_ = EncoderParams.of(encoder)
        encoder.weights_digest_ = str(header["weights_digest"])
        encoder.preprocessing_ = Preprocessing.from_dict(header["preprocessing"])
        encoder.taps_ = tuple(parameters["taps"])
        encoder.seed_, encoder.n_images_ = int(header["seed"]), int(header["n_images"])
        learnt = {k: v for k, v in arrays.items() if not k.startswith(_BACKBONE)}
        encoder.codebook_ = Codebook.from_arrays(learnt)
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"the model's encoder is incomplete ({type(error).__name__}: {error}): it was written "
            "by another version of hypervlad, or not by hypervlad; train the model again"
        ) from error
    weights = arrays_under(_BACKBONE, arrays)
    if weights:
        encoder.backbone_state_ = weights
    return encoder


def arrays_under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def plain_seed(random_state: Any) -> int | None:
    """Return a seed as JSON knows it; a generator has moved on and cannot be repeated: None."""
    return int(random_state) if isinstance(random_state, int | np.integer) else None


def _check_names(parameters: Mapping[str, Any], cls: type[HypercolumnVLAD]) -> None:
    """Refuse what `pack` never writes: a ``memory`` from a file would be a folder of pickles."""
    expected = set(cls().get_params()) - set(_NOT_KEPT)
    unknown, missing = sorted(set(parameters) - expected), sorted(expected - set(parameters))
    if unknown:
        raise ModelFileError(
            f"the model's encoder has parameters that version {__version__} of hypervlad does not "
            f"keep in a file, {unknown}: use the version that wrote it, or train the model again"
        )
    if missing:
        raise ModelFileError(
            f"the model's encoder was written by another version of hypervlad, before {missing} "
            "existed, which decide its vectors: train the model again, or use the version that "
            "wrote it"
        )


def check_backbone(name: Any) -> None:
    """Raise unless the backbone that a model needs is registered here."""
    if name not in backbone_names():
        raise ModelFileError(
            f"the model needs the backbone {name!r}, which is not registered here: "
            "call hypervlad.register_backbone as in training, then load again"
        )


def portable_weights(weights: str | os.PathLike[str]) -> str:
    """Make a path hold from any folder; names stay names."""
    name = os.fspath(weights)
    return name if name in ("imagenet", "random") else os.path.abspath(name)
