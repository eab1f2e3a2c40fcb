"""The network of a fitted encoder, built again from the weights that it was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hypervlad.backbones import TappedNetwork, WeightsNotFoundError, build_network

if TYPE_CHECKING:
    from hypervlad.encoder.estimator import HypercolumnVLAD


def rebuilt_network(encoder: HypercolumnVLAD, device: torch.device) -> TappedNetwork:
    """Build the network with the weights of the model file, or else with those found here.

    Raises
    ------
    WeightsNotFoundError
        If there are none, or they are not those that the model was trained with.
    """
    backbone, digest = encoder.recipe_.backbone, encoder.weights_digest_
    embedded = getattr(encoder, "backbone_state_", None)
    tensors = embedded and {name: torch.from_numpy(array) for name, array in embedded.items()}
    network = build_network(backbone, tensors or encoder.weights, encoder.taps_, device)
    if network.digest != digest:
        raise WeightsNotFoundError(
            f"the weights of {backbone!r} found here (weights={encoder.weights!r}) are not those "
            f"that the model was trained with (SHA-256 {digest[:12]}…, found "
            f"{network.digest[:12]}…): set weights= to the right file"
        )
    return network
