from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.encoding import EncodedImages
from hypervlad.features.loading import ImageInfo
from hypervlad.features.network import tap_names
from hypervlad.features.patches import (
    PatchSet,
    cut_patches,
    map_from_patches,
    patch_positions,
    patches_at,
)
from hypervlad.features.registry import (
    Backbone,
    Preprocessing,
    backbone_names,
    get_backbone,
    register_backbone,
)
from hypervlad.features.weights import WeightsNotFoundError, find_weights

__all__ = [
    "Backbone",
    "EncodedImages",
    "HypercolumnVLAD",
    "ImageInfo",
    "PatchSet",
    "Preprocessing",
    "WeightsNotFoundError",
    "backbone_names",
    "cut_patches",
    "find_weights",
    "get_backbone",
    "map_from_patches",
    "patch_positions",
    "patches_at",
    "register_backbone",
    "tap_names",
]
