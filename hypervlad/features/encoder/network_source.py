"""Where a network comes from, so that any process builds the same one."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hypervlad.common.modelfile import ModelFileError
from hypervlad.features.backbones import (
    Backbone,
    Preprocessing,
    TappedNetwork,
    WeightsNotFoundError,
    backbone_names,
    build_network,
    ensure_registered,
    get_backbone,
)
from hypervlad.features.backbones.registry import TIMM
from hypervlad.features.backbones.weights import PUBLISHED
from hypervlad.features.lazy_torch import torch

_last_built: dict[tuple[Any, ...], TappedNetwork] = {}
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class NetworkSource:
    """What another process needs to build the same network: its weights must have the digest."""

    backbone: Backbone
    weights: str | os.PathLike[str] | Mapping[str, np.ndarray]
    taps: tuple[str, ...]
    digest: str
    runtime: Literal["torch", "openvino"] = "torch"

    def build(self, device: torch.device) -> TappedNetwork:
        """Build the network with the weights stored here, or with those found on this machine.

        A WeightsNotFoundError or, for a model's own tensors, a ModelFileError if they do not fit.
        """
        ensure_registered(self.backbone)
        weights: Any = self.weights
        if isinstance(weights, Mapping):
            weights = {name: torch.from_numpy(array) for name, array in weights.items()}
        try:
            network = build_network(self.backbone.name, weights, self.taps, device)
        except (RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, WeightsNotFoundError) and not isinstance(weights, Mapping):
                raise
            raise ModelFileError(
                f"the model does not fit the network {self.backbone.name!r} ({error}): it was "
                "written for another network of this name, or not by hypervlad"
            ) from error
        if network.digest != self.digest and isinstance(weights, Mapping):
            raise ModelFileError(
                f"the weights of {self.backbone.name!r} in the model file are not those that the "
                "model was trained with: it was not written by hypervlad"
            )
        if network.digest != self.digest:
            raise WeightsNotFoundError(
                f"the weights of {self.backbone.name!r} found here ({weights}) are "
                f"not those that the model was trained with (SHA-256 {self.digest[:12]}…, found "
                f"{network.digest[:12]}…): give the right file, weights=FILE"
            )
        return network.run_by(self.runtime)

    def built_once(self, device: torch.device) -> TappedNetwork:
        """Build the network, or return the last one built in this process if it is the same."""
        key = (self.backbone.name, self.taps, self.digest, device, self.runtime)
        with _lock:  # a dask worker may have several threads
            network = _last_built.get(key)
            if network is None:
                network = self.build(device)
                _last_built.clear()
                _last_built[key] = network
        return network


def check_registered(backbone: Any) -> None:
    """Raise a ModelFileError unless there is a backbone of the name in a model file here."""
    if isinstance(backbone, str) and backbone.startswith(TIMM):
        try:
            get_backbone(backbone)
        except ValueError as error:
            raise ModelFileError(f"the model's network is not known here: {error}") from error
    elif backbone not in backbone_names():
        raise ModelFileError(
            f"the model needs the backbone {backbone!r}, which is not registered here: "
            "call hypervlad.register_backbone as in training, then load again"
        )


def check_prepared(preprocessing: Preprocessing, backbone: str) -> None:
    """Raise a ModelFileError unless a model's images have the channels that its backbone takes."""
    own = get_backbone(backbone).preprocessing
    # The smallest size of a network of timm may depend on timm's version.
    same_size = backbone.startswith(TIMM) or preprocessing.minimum_size == own.minimum_size
    if len(preprocessing.mean) != len(own.mean) or not same_size:
        raise ModelFileError(
            f"the model prepares images for a backbone of {len(preprocessing.mean)} channels and "
            f"at least {preprocessing.minimum_size} pixels; {backbone!r} takes {len(own.mean)} and "
            f"{own.minimum_size}"
        )


def portable_weights(weights: str | os.PathLike[str]) -> str:
    """Return a name of weights unchanged, and a path as an absolute one."""
    name = os.fspath(weights)
    return name if name in (*PUBLISHED, "random") else os.path.abspath(name)
