"""Patches of images: where they lie, what is in them, which side of a split they belong to."""

from hypervlad.patches.cutting import ANOMALOUS, NORMAL, PatchSet, cut_patches, split_patches
from hypervlad.patches.grid import map_from_patches, patch_means, patch_positions, patches_at

__all__ = [
    "ANOMALOUS",
    "NORMAL",
    "PatchSet",
    "cut_patches",
    "map_from_patches",
    "patch_means",
    "patch_positions",
    "patches_at",
    "split_patches",
]
