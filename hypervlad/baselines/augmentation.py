"""Augmentation: patches changed a little at random, so that a network sees more than there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """Random shear, zoom and mirroring, as Keras's ``ImageDataGenerator`` does them.

    Attributes
    ----------
    shear : float
        Largest angle of shear, in degrees, either way.
    zoom : float
        What is shown is between 1 - zoom and 1 + zoom times as high as the patch, and as wide.
    horizontal_flip : bool
        Whether every other patch, at random, is mirrored left to right.
    """

    shear: float
    zoom: float
    horizontal_flip: bool

    def __call__(self, patches: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return patches (n, C, p, p) changed, each differently; beyond its edge is the edge."""
        maps = self.affine_maps(len(patches), generator).to(patches.device)
        grid = functional.affine_grid(maps, list(patches.shape), align_corners=True)
        return functional.grid_sample(
            patches, grid, mode="bilinear", padding_mode="border", align_corners=True
        )

    def affine_maps(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return n maps (2, 3) from a new patch's coordinates (x, y) to the old one's."""

        def uniform(low: float, high: float) -> torch.Tensor:
            return low + (high - low) * torch.rand(n, generator=generator)

        angle = uniform(-math.radians(self.shear), math.radians(self.shear))
        down, across = (uniform(1 - self.zoom, 1 + self.zoom) for _ in range(2))
        mirrored = torch.rand(n, generator=generator) < 0.5
        sign = torch.where(mirrored & self.horizontal_flip, -1.0, 1.0)
        maps = torch.zeros(n, 2, 3)
        # Keras shears rows (y) by columns (x), then zooms: y' = y - sin(a) x, x' = cos(a) x.
        maps[:, 0, 0] = sign * torch.cos(angle) * across
        maps[:, 1, 0] = -sign * torch.sin(angle) * across
        maps[:, 1, 1] = down
        return maps
