from hypervlad.features.backbones.network import tap_names
from hypervlad.features.backbones.preprocessing import Preprocessing
from hypervlad.features.backbones.registry import (
    Backbone,
    backbone_names,
    get_backbone,
    register_backbone,
)
from hypervlad.features.backbones.weights import WeightsNotFoundError, find_weights
from hypervlad.features.encoder.encoding import EncodedImages
from hypervlad.features.encoder.estimator import HypercolumnVLAD
from hypervlad.features.encoder.loading import ImageInfo
from hypervlad.features.windows.grid import map_from_patches, patch_positions, patches_at
from hypervlad.features.windows.patches import PatchSet, cut_patches, split_patches

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
    "split_patches",
    "tap_names",
]
