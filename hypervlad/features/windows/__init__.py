"""Windows and patches of images; ``maps``, ``vectors`` and ``dataset`` need torch."""

from hypervlad.features.windows.grid import (
    WindowGrid,
    map_from_patches,
    patch_means,
    patch_positions,
    patches_at,
)
from hypervlad.features.windows.patches import (
    ANOMALOUS,
    NORMAL,
    PatchSet,
    cut_patches,
    split_patches,
)

__all__ = [
    "ANOMALOUS",
    "NORMAL",
    "PatchSet",
    "WindowGrid",
    "cut_patches",
    "map_from_patches",
    "patch_means",
    "patch_positions",
    "patches_at",
    "split_patches",
]
