"""Images in a stream, read, resized and gathered into batches for the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from hypervlad.backbones import Preprocessing
from hypervlad.hypercolumns import input_size, prepare
from hypervlad.images import Micrograph

_CPU_PIXELS, _GPU_PIXELS = 8 * 224**2, 64 * 224**2


@dataclass(frozen=True)
class Batch:
    """Images of one size, ready for the network.

    Attributes
    ----------
    positions : list of int
        Where they stand in the list that the user gave.
    digests : list of str
    images : Tensor of shape (B, C, H, W), float32
    """

    positions: list[int]
    digests: list[str]
    images: torch.Tensor


@dataclass(frozen=True)
class Preparation:
    """How an image becomes the network's input."""

    image_size: int
    aspect: Literal["square", "own"]
    preprocessing: Preprocessing
    batch_size: int

    def batches(self, micrographs: Iterable[tuple[int, Micrograph]]) -> Iterator[Batch]:
        """Cut a stream by position; within a cut, gather images of equal size.

        The cuts depend on positions alone, so leaving images out (or finding them in a cache)
        moves no other image into another cut.
        """
        cut: dict[tuple[int, int], list[tuple[int, str, torch.Tensor]]] = {}
        current = 0
        for position, micrograph in micrographs:
            if position // self.batch_size != current:
                yield from _batches_of(cut)
                cut, current = {}, position // self.batch_size
            size = self.size_of(micrograph.pixels.shape)
            image = prepare(micrograph.pixels, size, self.preprocessing)
            cut.setdefault(size, []).append((position, micrograph.digest, image))
        yield from _batches_of(cut)

    def size_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the network's input size for an image of this shape."""
        return input_size(shape, self.image_size, self.aspect, self.preprocessing.minimum_size)


def _batches_of(
    cut: dict[tuple[int, int], list[tuple[int, str, torch.Tensor]]],
) -> Iterator[Batch]:
    for members in cut.values():
        positions, digests, images = zip(*members, strict=True)
        yield Batch(list(positions), list(digests), torch.stack(images))


def automatic_batch_size(image_size: int, device: torch.device) -> int:
    """Return how many images of this size keep a device busy within moderate memory."""
    pixels = _CPU_PIXELS if device.type == "cpu" else _GPU_PIXELS
    return max(1, min(256, pixels // image_size**2))
