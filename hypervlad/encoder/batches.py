"""Images in a stream, read, resized and gathered into batches for the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch

from hypervlad.backbones import Preprocessing
from hypervlad.encoder.scale import size_at
from hypervlad.hypercolumns import input_size, prepare
from hypervlad.images import Micrograph

_CPU_PIXELS, _GPU_PIXELS = 8 * 224**2, 64 * 224**2


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image as the network takes it.

    Attributes
    ----------
    digest : str
    image : Tensor of shape (C, H, W), float32
    """

    digest: str
    image: torch.Tensor


# Position and image, by size.
_Waiting: TypeAlias = dict[tuple[int, int], list[tuple[int, Prepared]]]


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
    """How an image becomes the network's input.

    Attributes
    ----------
    image_size, aspect, pixel_size
        As in :class:`hypervlad.HypercolumnVLAD`.
    preprocessing : Preprocessing
    batch_size : int
        Images a batch at most.
    batch_pixels : int, optional
        If given, the number of images a batch follows from their size instead: as many as have
        this many pixels together, from one to 256.
    """

    image_size: int | None
    aspect: Literal["square", "own"]
    preprocessing: Preprocessing
    batch_size: int
    pixel_size: float | None = None
    batch_pixels: int | None = None

    def batches(self, micrographs: Iterable[tuple[int, Micrograph]]) -> Iterator[Batch]:
        """Prepare a stream of images and :meth:`gather` them.

        Raises
        ------
        ImageReadError
            If ``pixel_size`` makes an image too small or too large.
        """

        def prepared() -> Iterator[tuple[int, Prepared]]:
            for position, image in micrographs:
                name = image.source or f"image {position}"
                size = self.size_of(image.pixels.shape, image.pixel_size, name)
                yield position, self.prepared(image.pixels, size, image.digest)

        return self.gather(prepared())

    def prepared(self, pixels: np.ndarray, size: tuple[int, int], digest: str) -> Prepared:
        """Resize an image and normalise it."""
        return Prepared(digest, prepare(pixels, size, self.preprocessing))

    def size_of(
        self, shape: tuple[int, ...], own_pixel_size: float | None, name: str
    ) -> tuple[int, int]:
        """Return the network's input size for an image.

        Raises
        ------
        ImageReadError
            If ``pixel_size`` makes the image too small or too large.
        """
        minimum = self.preprocessing.minimum_size
        size = size_at(shape, own_pixel_size, self.pixel_size, minimum, name)
        return size or input_size(shape, self.image_size, self.aspect, minimum)

    def gather(self, images: Iterable[tuple[int, Prepared]]) -> Iterator[Batch]:
        """Cut a stream by position; within a cut, gather images of equal size.

        The cuts depend on positions and on the image's own size alone, so leaving images out (or
        finding them in a cache) moves no other image into another cut.

        However many sizes there are, few images wait: one that came d places ago is still here
        only if more than d of its size make a batch, so that with ``batch_pixels`` all of them
        have at most 1/2 + 1/3 + ... + 1/256, five times that many pixels.
        """
        waiting: _Waiting = {}
        for position, prepared in images:
            yield from _batches_of(self._complete(waiting, position))
            height, width = prepared.image.shape[1:]
            waiting.setdefault((height, width), []).append((position, prepared))
        yield from _batches_of(waiting)

    def _complete(self, waiting: _Waiting, position: int) -> _Waiting:
        """Take out those whose cut ends before this position."""
        complete: _Waiting = {}
        for size in list(waiting):
            n_images = self.batch_size
            if self.batch_pixels is not None:
                n_images = _n_fitting(self.batch_pixels, size[0] * size[1])
            if waiting[size][0][0] // n_images != position // n_images:
                complete[size] = waiting.pop(size)
        return complete


def _batches_of(cut: _Waiting) -> Iterator[Batch]:
    for members in cut.values():
        positions = [position for position, _ in members]
        digests = [prepared.digest for _, prepared in members]
        yield Batch(positions, digests, torch.stack([prepared.image for _, prepared in members]))


def automatic_batch_size(image_size: int, device: torch.device) -> int:
    """Return how many images of this size keep a device busy within moderate memory."""
    return _n_fitting(automatic_batch_pixels(device), image_size**2)


def automatic_batch_pixels(device: torch.device) -> int:
    """Return how many pixels a batch should have on this device."""
    return _CPU_PIXELS if device.type == "cpu" else _GPU_PIXELS


def _n_fitting(batch_pixels: int, n_pixels: int) -> int:
    return max(1, min(256, batch_pixels // n_pixels))
