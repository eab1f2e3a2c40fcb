"""From a list of images to batches for the network, as one encoder reads and prepares them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import torch
from tqdm.auto import tqdm

from hypervlad.backbones import Preprocessing
from hypervlad.cache import Memory, absolute
from hypervlad.encoder.batches import (
    Batch,
    Preparation,
    automatic_batch_pixels,
    automatic_batch_size,
)
from hypervlad.encoder.caching import path_index
from hypervlad.encoder.intake import Facts, Intake, Taken
from hypervlad.encoder.parameters import check_device
from hypervlad.images import ReadOptions, SkippedImage, UnknownPixelSizeWarning
from hypervlad.images.errors import image_name
from hypervlad.images.reading import n_reader_threads, raise_or_skip, read_in_order

if TYPE_CHECKING:
    from hypervlad.encoder.estimator import HypercolumnVLAD


_USUAL_SIZE = 224  # pixels; cuts work into tasks where images keep their own size


class _HasFacts(Protocol):
    @property
    def facts(self) -> Facts: ...


class Reading(Protocol):
    """What of a recipe decides how images are read and prepared."""

    @property
    def image_size(self) -> int | None: ...
    @property
    def aspect(self) -> Literal["square", "own"]: ...
    @property
    def pixel_size(self) -> float | None: ...
    @property
    def read_options(self) -> ReadOptions: ...


AnyRecipe = TypeVar("AnyRecipe", bound=Reading)
Known = TypeVar("Known", bound=_HasFacts)


@dataclass(frozen=True)
class Inputs(Generic[AnyRecipe]):
    """How images are read and prepared.

    Attributes
    ----------
    recipe : Recipe, or another with a `Reading`
    preprocessing : Preprocessing
    device : torch.device
    verify : bool
        Read files although the index of ``memory`` knows them.
    memory, batch_size, n_jobs, on_error, verbose
        As in :class:`hypervlad.HypercolumnVLAD`.
    """

    recipe: AnyRecipe
    preprocessing: Preprocessing
    device: torch.device
    memory: Memory
    verify: bool
    batch_size: int | Literal["auto"]
    n_jobs: int | None
    on_error: Literal["raise", "skip"]
    verbose: bool

    @classmethod
    def of(
        cls,
        encoder: HypercolumnVLAD,
        recipe: AnyRecipe,
        preprocessing: Preprocessing,
        *,
        verify: bool = False,
    ) -> Inputs[AnyRecipe]:
        """Take from an encoder what it may change at any time."""
        device = check_device(encoder.device)
        run = (encoder.batch_size, encoder.n_jobs, encoder.on_error, encoder.verbose)
        memory = absolute(encoder.memory)
        return cls(recipe, preprocessing, device, memory, verify, *run)

    def read(
        self, images: list[Any], what: str, find: Callable[[str], Any]
    ) -> Iterator[tuple[int, Taken]]:
        """Take in images, with their positions.

        Parameters
        ----------
        images : list of paths and arrays
        what : str
            For the progress bar.
        find : callable
            See `Intake`.
        """
        outcomes = read_in_order(enumerate(images), self.intake(find), self.n_threads)
        return self.told(outcomes, images, what)

    def told(
        self,
        outcomes: Generator[Known | SkippedImage, None, None],
        images: list[Any],
        what: str,
        warn: bool = True,
    ) -> Iterator[tuple[int, Known]]:
        """Pass on what became of images, with their positions, and tell the user what must be told.

        Parameters
        ----------
        outcomes : generator
            For each image, something with ``facts``, or a SkippedImage.
        images : list of paths and arrays
        what : str
            For the progress bar.
        warn : bool, default=True
            Name the images whose pixel size is wanted and not known.
        """
        stream = raise_or_skip(outcomes, len(images), skip=self.on_error == "skip")
        if warn and self.recipe.pixel_size is not None:
            stream = _telling_unknown(stream, images)
        hidden = None if self.verbose else True
        return iter(tqdm(stream, desc=what, total=len(images), unit="image", disable=hidden))

    def alone(self, image: Any) -> Batch:
        """Read one image and make it a batch.

        Raises
        ------
        ImageReadError
            If it cannot be read, or not be brought to the common scale.
        """
        taken = self.intake(lambda digest: None)(image, image_name(image))
        (batch,) = self.batches([(0, taken)])
        return batch

    @property
    def n_threads(self) -> int:
        """How many threads read ahead."""
        return n_reader_threads(self.n_jobs)

    def intake(self, find: Callable[[str], Any]) -> Intake:
        """Return what takes in one image."""
        options = self.recipe.read_options
        index = path_index(self.memory, options, verify=self.verify)
        return Intake(options, self.preparation(), index, find)

    def batches(
        self, images: Iterable[tuple[int, Taken]], batch_size: int | None = None
    ) -> Iterator[Batch]:
        """Gather the images that were prepared; ``batch_size`` may overrule the encoder's."""
        prepared = ((at, taken.prepared) for at, taken in images if taken.prepared is not None)
        return self.preparation(batch_size).gather(prepared)

    def preparation(self, batch_size: int | None = None) -> Preparation:
        """Return how images become batches."""
        recipe, batch_pixels = self.recipe, None
        n_images: int | Literal["auto"] = batch_size or self.batch_size
        if n_images == "auto":
            of_one_size = recipe.image_size is not None and recipe.pixel_size is None
            n_images = automatic_batch_size(recipe.image_size or _USUAL_SIZE, self.device)
            batch_pixels = None if of_one_size else automatic_batch_pixels(self.device)
        return Preparation(
            recipe.image_size,
            recipe.aspect,
            self.preprocessing,
            n_images,
            recipe.pixel_size,
            batch_pixels,
        )


def _telling_unknown(
    stream: Iterator[tuple[int, Known]], images: list[Any]
) -> Iterator[tuple[int, Known]]:
    """Pass images on; warn, after the last, of those whose pixel size is not known."""
    unknown: list[str] = []
    for position, image in stream:
        if image.facts.pixel_size is None:
            unknown.append(image_name(images[position], position))
        yield position, image
    if unknown:
        warnings.warn(UnknownPixelSizeWarning.about(unknown, len(images)), stacklevel=2)
