"""Images as the scorer takes them in: at their own size, or at the encoder's pixel size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from hypervlad.defects.lattice import Lattice
from hypervlad.encoder import HypercolumnVLAD, ImageLoader, LoadedImage
from hypervlad.images import ImageReadError
from hypervlad.images.errors import image_name

Prepare = Callable[[Any, str], Any]


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
    def of(cls, taken: LoadedImage, position: int, name: str) -> Picture:
        assert taken.tensor is not None  # nothing is ever found in a cache here
        height, width = taken.info.shape[:2]
        return cls(position, name, taken.key, (height, width), taken.tensor)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width at which the network sees it, pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def lattice(self, side: int, stride: int) -> Lattice:
        """Lay windows over it; it is large enough for those that it was read for."""
        return Lattice.of(self.size, side, stride)


def inputs_of(encoder: HypercolumnVLAD) -> ImageLoader:
    """Return how a fitted encoder reads images."""
    return encoder.loader()


def pictures(
    inputs: ImageLoader, images: list[Any], what: str, side: int, prepare: Prepare | None = None
) -> Iterator[Picture]:
    """Read images one after the other; ``what`` names the progress bar.

    ``prepare``, if given, makes an array of an image and its name, which is then read as it is.

    Raises
    ------
    ImageReadError
        At one that cannot be read, or is smaller than a window of ``side`` pixels; such images are
        left out if ``inputs`` say so.
    """
    take = _taking(inputs, side, prepare)
    for position, taken in inputs.stream(images, what, take):
        yield Picture.of(taken, position, image_name(images[position], position))


def picture(inputs: ImageLoader, image: Any, side: int, prepare: Prepare | None = None) -> Picture:
    """Read one image, which must be at least of ``side`` pixels.

    Raises
    ------
    ImageReadError
    """
    name = image_name(image)
    return Picture.of(_taking(inputs, side, prepare)(image, name), 0, name)


def _taking(
    inputs: ImageLoader, side: int, prepare: Prepare | None
) -> Callable[[Any, str], LoadedImage]:
    # No image is too small for the network: it gets a border.
    lenient = replace(inputs, preprocessing=replace(inputs.preprocessing, minimum_size=1))
    if prepare is not None:  # what is cut off already is not cut off again
        options = replace(inputs.read_options, banner="keep", page=0)
        lenient = replace(lenient, read_options=options)

    def take(image: Any, name: str) -> LoadedImage:
        taken = lenient.load(image if prepare is None else prepare(image, name), name)
        assert taken.tensor is not None  # nothing is ever found in a cache here
        height, width = taken.tensor.shape[1:]
        if min(height, width) < side:
            scale = inputs.pixel_size
            at = "" if scale is None else f" at {scale:g} nm per pixel"
            raise ImageReadError(
                f"{name}: {height} x {width} pixels{at}, smaller than a patch of {side} x {side}; "
                "leave it out, or take a smaller patch"
            )
        return taken

    return take
