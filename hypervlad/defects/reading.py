"""Images as the scorer takes them in: at their own size, or at the encoder's pixel size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from hypervlad.defects.lattice import Lattice
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.inputs import Inputs
from hypervlad.encoder.intake import Taken
from hypervlad.images import ImageReadError
from hypervlad.images.outcomes import name_of


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, read and prepared for the network.

    Attributes
    ----------
    position : int
        In the list of images.
    name : str
        What errors call it.
    digest : str
    shape : (int, int)
        Height and width of the image, pixels.
    pixels : Tensor of shape (C, h, w)
        As the network takes it; of another size only where the encoder has a ``pixel_size``.
    """

    position: int
    name: str
    digest: str
    shape: tuple[int, int]
    pixels: torch.Tensor

    @classmethod
    def of(cls, taken: Taken, position: int, name: str) -> Picture:
        assert taken.prepared is not None  # nothing is ever found in a cache here
        height, width = taken.facts.shape[:2]
        return cls(position, name, taken.digest, (height, width), taken.prepared.image)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width at which the network sees it, pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def lattice(self, side: int, stride: int) -> Lattice:
        """Lay windows over it.

        Raises
        ------
        ImageReadError
            If it is smaller than a window.
        """
        if min(*self.size, *self.shape) < side:
            raise ImageReadError(
                f"{self.name}: {self.shape[0]} x {self.shape[1]} pixels, smaller than a patch of "
                f"{side} x {side}; leave it out, or take a smaller patch"
            )
        return Lattice.of(self.size, side, stride)


def pictures(encoder: HypercolumnVLAD, images: list[Any], what: str) -> Iterator[Picture]:
    """Read images one after the other; ``what`` names the progress bar."""
    for position, taken in _inputs(encoder).read(images, what, lambda digest: None):
        yield Picture.of(taken, position, name_of(images[position], position))


def picture(encoder: HypercolumnVLAD, image: Any) -> Picture:
    """Read one image."""
    name = name_of(image)
    return Picture.of(_inputs(encoder).intake(lambda digest: None)(image, name), 0, name)


def _inputs(encoder: HypercolumnVLAD) -> Inputs:
    # No image is too small for the network: it gets a border.
    preprocessing = replace(encoder.preprocessing_, minimum_size=1)
    return Inputs.of(encoder, encoder.recipe_, preprocessing)
