from .backbones import (
    Backbone,
    Preprocessing,
    WeightsNotFoundError,
    backbone_names,
    find_weights,
    get_backbone,
    register_backbone,
    tap_names,
)
from .encoder import EncodedImages, HypercolumnVLAD, ImageInfo
from .windows import (
    PatchSet,
    cut_patches,
    map_from_patches,
    patch_positions,
    patches_at,
    split_patches,
)

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
