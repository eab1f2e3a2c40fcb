"""Random changes of training images: of patches, and of whole micrographs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from hypervlad.vlad import turned


@dataclass(frozen=True)
class PatchAugmentation:
    """Random shear, zoom and mirroring, as in Keras's ``ImageDataGenerator``.

    Attributes
    ----------
    shear : float
        Largest angle of shear in either direction, degrees.
    zoom : float
        The visible part is between 1 - zoom and 1 + zoom times as high, and as wide, as the patch.
    horizontal_flip : bool
        Whether to mirror half of the patches, chosen at random, left to right.
    """

    shear: float
    zoom: float
    horizontal_flip: bool

    def __call__(self, patches: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Change each patch (n, C, p, p) differently; pixels beyond the edge repeat the edge."""
        maps = self.affine_maps(len(patches), generator).to(patches.device)
        grid = functional.affine_grid(maps, list(patches.shape), align_corners=True)
        return functional.grid_sample(
            patches, grid, mode="bilinear", padding_mode="border", align_corners=True
        )

    def affine_maps(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return n maps (2, 3) from coordinates (x, y) in the new patch to those in the old."""

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


@dataclass(frozen=True)
class MicrographAugmentation:
    """Random mirroring, rotations, crops, brightness and contrast.

    A micrograph has no upper side, so mirror images and quarter turns are as valid as the image
    itself; they are exact and cheap. Free rotations and crops are one bilinear interpolation, with
    the image mirrored beyond its edges.

    Attributes
    ----------
    flips : bool
        Whether to mirror images left to right and top to bottom, each with probability 1/2.
    right_angles : bool
        Whether to rotate them by a random number of quarter turns.
    rotation : float
        Largest angle of a free rotation in either direction, degrees.
    crop : float
        Smallest fraction of the area that is shown, with the image's proportions and at a random
        position; 1 shows all of it.
    brightness : float
        Largest shift of all grey values in either direction, where white is 1.
    contrast : float
        Largest fraction by which grey values move away from their mean, or towards it.
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
            On the CPU, whatever the device of the images, so that all devices give the same
            changes.

        Returns
        -------
        Tensor of the same shape, in [0, 1]
        """
        images = self._turn(images, generator)
        if self.rotation or self.crop < 1:
            maps = self.affine_maps(len(images), generator).to(images.device)
            grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
            images = functional.grid_sample(
                images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
            ).clamp(0, 1)  # rounding
        if self.brightness or self.contrast:
            images = self._change_greys(images, generator)
        return images

    def turns(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return n turns as :func:`hypervlad.vlad.turned` numbers them, 0 to 7."""
        mirrored, upside_down, quarters = torch.rand(3, n, generator=generator)
        turns = torch.zeros(n, dtype=torch.long)
        if self.flips:  # mirrored top to bottom: left to right, then half a turn
            turns += 4 * (mirrored < 0.5) + 2 * (upside_down < 0.5)
        if self.right_angles:
            turns = turns // 4 * 4 + (turns + (4 * quarters).long()) % 4
        return turns

    def affine_maps(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return n maps (2, 3) from coordinates (x, y), -1 to 1, in the new image to the old's."""
        angle, fraction, across, down = torch.rand(4, n, generator=generator)
        angle = math.radians(self.rotation) * (2 * angle - 1)
        side = torch.sqrt(self.crop + (1 - self.crop) * fraction)
        cos, sin = side * torch.cos(angle), side * torch.sin(angle)
        shift = (1 - side) * (2 * torch.stack([across, down]) - 1)
        return torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], dim=1).reshape(n, 2, 3)

    def _turn(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if not (self.flips or self.right_angles):
            return images
        turns = self.turns(len(images), generator)
        changed = torch.empty_like(images)
        for turn in turns.unique().tolist():
            rows = (turns == turn).nonzero()[:, 0].to(images.device)
            changed[rows] = turned(images[rows], turn)
        return changed

    def _change_greys(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        shift, factor = 2 * torch.rand(2, len(images), 1, 1, 1, generator=generator) - 1
        shift, factor = self.brightness * shift, 1 + self.contrast * factor
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        changed: torch.Tensor = (
            (images - mean) * factor.to(images.device) + mean + shift.to(images.device)
        )
        return changed.clamp(0, 1)
