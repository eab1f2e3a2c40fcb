"""Named networks with their taps, preprocessing and weights."""

from hypervlad.backbones.network import (
    Reach,
    TappedNetwork,
    architecture,
    build_network,
    reach_of,
    tap_names,
)
from hypervlad.backbones.registry import (
    Backbone,
    Preprocessing,
    backbone_names,
    class_tokens,
    ensure_registered,
    get_backbone,
    register_backbone,
)
from hypervlad.backbones.weights import WeightsNotFoundError, find_weights

__all__ = [
    "Backbone",
    "Preprocessing",
    "Reach",
    "TappedNetwork",
    "WeightsNotFoundError",
    "architecture",
    "backbone_names",
    "build_network",
    "class_tokens",
    "ensure_registered",
    "find_weights",
    "get_backbone",
    "reach_of",
    "register_backbone",
    "tap_names",
]
