"""From a list of images to batches for the network, as one encoder reads and prepares them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from tqdm.auto import tqdm

from hypervlad.backbones import Preprocessing
from hypervlad.encoder.batches import (
    Batch,
    Preparation,
    automatic_batch_pixels,
    automatic_batch_size,
)
from hypervlad.encoder.parameters import check_device
from hypervlad.encoder.recipe import Recipe
from hypervlad.encoder.scale import at_scale, size_at
from hypervlad.images import Micrograph, read_micrographs

if TYPE_CHECKING:
    from hypervlad.encoder.estimator import HypercolumnVLAD


@dataclass(frozen=True)
class Inputs:
    """How images are read and prepared.

    Attributes
    ----------
    recipe : Recipe
    preprocessing : Preprocessing
    device : torch.device
    batch_size, n_jobs, on_error, verbose
        As in :class:`hypervlad.HypercolumnVLAD`.
    """

    recipe: Recipe
    preprocessing: Preprocessing
    device: torch.device
    batch_size: int | Literal["auto"]
    n_jobs: int | None
    on_error: Literal["raise", "skip"]
    verbose: bool

    @classmethod
    def of(cls, encoder: HypercolumnVLAD, recipe: Recipe, preprocessing: Preprocessing) -> Inputs:
        """Take from an encoder what it may change at any time."""
        device = check_device(encoder.device)
        run = (encoder.batch_size, encoder.n_jobs, encoder.on_error, encoder.verbose)
        return cls(recipe, preprocessing, device, *run)

    def read(
        self, images: list[Any], what: str, warn: bool = True
    ) -> Iterator[tuple[int, Micrograph]]:
        """Read images, with their positions.

        Parameters
        ----------
        images : list of paths and arrays
        what : str
            For the progress bar.
        warn : bool, default=True
            Name the images whose pixel size is wanted and not known.
        """
        pixel_size, minimum = self.recipe.pixel_size, self.preprocessing.minimum_size
        stream = read_micrographs(
            images,
            options=self.recipe.read_options,
            on_error=self.on_error,
            n_jobs=self.n_jobs,
            check=lambda image, name: size_at(image, pixel_size, minimum, name),
        )
        stream = at_scale(stream, pixel_size, len(images) if warn else None)
        hidden = None if self.verbose else True
        return iter(tqdm(stream, desc=what, total=len(images), unit="image", disable=hidden))

    def batches(
        self, micrographs: Iterable[tuple[int, Micrograph]], batch_size: int | None = None
    ) -> Iterator[Batch]:
        """Prepare images and gather them; ``batch_size`` may overrule the encoder's."""
        recipe, batch_pixels = self.recipe, None
        n_images: int | Literal["auto"] = batch_size or self.batch_size
        if n_images == "auto":
            n_images = automatic_batch_size(recipe.image_size, self.device)
            batch_pixels = (
                None if recipe.pixel_size is None else automatic_batch_pixels(self.device)
            )
        preparation = Preparation(
            recipe.image_size,
            recipe.aspect,
            self.preprocessing,
            n_images,
            recipe.pixel_size,
            batch_pixels,
        )
        return preparation.batches(micrographs)
