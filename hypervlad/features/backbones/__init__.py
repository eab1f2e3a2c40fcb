"""Named networks with their taps, preprocessing and weights."""

from hypervlad.features.backbones.network import architecture, build_network, tap_names
from hypervlad.features.backbones.preprocessing import Preprocessing
from hypervlad.features.backbones.registry import (
    Backbone,
    backbone_names,
    class_tokens,
    ensure_registered,
    get_backbone,
    register_backbone,
)
from hypervlad.features.backbones.tapped_network import Reach, TappedNetwork, reach_of
from hypervlad.features.backbones.weights import WeightsNotFoundError, find_weights

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
