"""Augmentation of whole micrographs: turned, cut and lit differently, as they might have come."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from hypervlad.hypercolumns import turned


@dataclass(frozen=True)
class MicrographAugmentation:
    """Random mirroring, turns, crops, brightness and contrast.

    A micrograph has no upper side: mirror images and right angles are exact and cost next to
    nothing. Free rotations and crops are one bilinear interpolation; what lies beyond the edge is
    the image mirrored.

    Attributes
    ----------
    flips : bool
        Whether images are mirrored, left to right and top to bottom, each one time out of two.
    right_angles : bool
        Whether they are turned by a random number of quarter turns.
    rotation : float
        Largest angle of a free rotation, degrees, either way.
    crop : float
        Smallest share of the area that is shown, of the same proportions, anywhere in the image;
        1 for all of it.
    brightness : float
        Largest shift of all greys, either way, where white is 1.
    contrast : float
        Greys move away from their mean, or towards it, by up to this share.
    """

    flips: bool
    right_angles: bool
    rotation: float
    crop: float
    brightness: float
    contrast: float

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Change each image differently.

        Parameters
        ----------
        images : Tensor of shape (n, C, s, s), float32 in [0, 1]
        generator : torch.Generator
            On the CPU, whatever the images are on, so that every device sees the same changes.

        Returns
        -------
        Tensor of the same shape, in [0, 1]
        """
        images = self._turned(images, generator)
        if self.rotation or self.crop < 1:
            maps = self.affine_maps(len(images), generator).to(images.device)
            grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
            images = functional.grid_sample(
                images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
            ).clamp(0, 1)  # rounding
        return self._lit(images, generator) if self.brightness or self.contrast else images

    def turns(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return n turns as :func:`hypervlad.hypercolumns.turned` counts them, 0 to 7."""
        mirrored, upside_down, quarters = torch.rand(3, n, generator=generator)
        turns = torch.zeros(n, dtype=torch.long)
        if self.flips:  # mirrored top to bottom: left to right, then half a turn
            turns += 4 * (mirrored < 0.5) + 2 * (upside_down < 0.5)
        if self.right_angles:
            turns = turns // 4 * 4 + (turns + (4 * quarters).long()) % 4
        return turns

    def affine_maps(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return n maps (2, 3) from a new image's coordinates (x, y), -1 to 1, to the old's."""
        angle, share, across, down = torch.rand(4, n, generator=generator)
        angle = math.radians(self.rotation) * (2 * angle - 1)
        side = torch.sqrt(self.crop + (1 - self.crop) * share)
        cos, sin = side * torch.cos(angle), side * torch.sin(angle)
        shift = (1 - side) * (2 * torch.stack([across, down]) - 1)
        return torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], dim=1).reshape(n, 2, 3)

    def _turned(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if not (self.flips or self.right_angles):
            return images
        turns = self.turns(len(images), generator)
        changed = torch.empty_like(images)
        for turn in turns.unique().tolist():
            rows = (turns == turn).nonzero()[:, 0].to(images.device)
            changed[rows] = turned(images[rows], turn)
        return changed

    def _lit(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        shift, factor = 2 * torch.rand(2, len(images), 1, 1, 1, generator=generator) - 1
        shift, factor = self.brightness * shift, 1 + self.contrast * factor
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        changed = (images - mean) * factor.to(images.device) + mean + shift.to(images.device)
        return changed.clamp(0, 1)
