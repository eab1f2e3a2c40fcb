"""The named CNNs: their taps, their preprocessing and where their weights come from."""

from hypervlad.backbones.network import TappedNetwork, architecture, build_network, tap_names
from hypervlad.backbones.reach import Reach, reach_of
from hypervlad.backbones.registry import (
    Backbone,
    Preprocessing,
    backbone_names,
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
    "ensure_registered",
    "find_weights",
    "get_backbone",
    "reach_of",
    "register_backbone",
    "tap_names",
]
