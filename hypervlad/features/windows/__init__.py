"""Windows and patches of images: where they lie, what they hold, how they become vectors.

What needs no network is imported here; ``maps``, ``vectors`` and ``dataset`` need torch and are
imported by their own names.
"""

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
