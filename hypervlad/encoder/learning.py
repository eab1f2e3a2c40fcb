"""From images to a codebook: which images and pixels it is learnt from."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hypervlad.backbones import TappedNetwork
from hypervlad.codebook import Codebook, HypercolumnPool, StreamedCodewords, learn_codebook
from hypervlad.encoder.batches import Batch
from hypervlad.encoder.caching import CachedSamples
from hypervlad.encoder.inputs import Inputs
from hypervlad.encoder.intake import Facts, Taken
from hypervlad.encoder.recipe import Recipe
from hypervlad.encoder.sampling import is_chosen, samples_of
from hypervlad.encoder.spreading import from_anywhere, in_order, is_spread, spread
from hypervlad.encoder.weights import NetworkSource
from hypervlad.images import SkippedImage
from hypervlad.images.reading import read_in_order

MOST_SAMPLES_AN_IMAGE = 5000
MOST_CODEBOOK_IMAGES = 1000  # 50 hypercolumns each fill the default pool; more only cost time
_MOST_SAMPLES_A_TASK = 3200  # about 20 MB of a thousand channels
_WAVE = 4  # tasks a worker

#: From images, how they are read, a network, whence it is and a seed to a codebook and the number
#: of images read, as `learn_from_images` does it.
Learn: TypeAlias = Callable[
    [list[Any], Inputs[Recipe], TappedNetwork, NetworkSource, int], tuple[Codebook, int]
]


def learn_from_images(
    images: list[Any],
    inputs: Inputs[Recipe],
    network: TappedNetwork,
    source: NetworkSource,
    seed: int,
) -> tuple[Codebook, int]:
    """Return the codebook of these images, and how many could be read."""
    streamed = inputs.recipe.kmeans == "minibatch"
    sampled = _Samples(inputs, network, source, seed)
    pool, position_of, n_images = _filled_pool(images, sampled)
    codebook = learn_from_pool(pool, inputs, seed, start_only=streamed)
    if streamed:
        # One of each different image, in an order that theirs has no part in.
        distinct = [images[position_of[digest]] for digest in sorted(position_of)]
        codebook = _refined(codebook, distinct, sampled)
    return codebook, n_images


def learn_from_pool(
    pool: HypercolumnPool, inputs: Inputs[Recipe], seed: int, *, start_only: bool = False
) -> Codebook:
    """Return the codebook of a pool of hypercolumns, as the encoder's parameters want it."""
    recipe = inputs.recipe
    return learn_codebook(
        pool.layers(),
        recipe.n_codewords,
        kind=recipe.codebook,
        layer_components=recipe.layer_components,
        scale_layers=recipe.scale_layers,
        start_only=start_only,
        random_state=seed,
        verbose=inputs.verbose,
    )


def shares_to_try(recipe: Recipe, n_images: int) -> tuple[int, list[float]]:
    """Return hypercolumns an image, and what share of the images to take, by digest.

    Chosen by digest, the order of images does not matter. If copies leave too few: all.
    """
    n_used = min(n_images, MOST_CODEBOOK_IMAGES)
    n_each = min(MOST_SAMPLES_AN_IMAGE, -(-recipe.n_samples // n_used))
    return n_each, sorted({n_used / n_images, 1.0})


def _filled_pool(
    images: list[Any], sampled: _Samples
) -> tuple[HypercolumnPool, dict[str, int], int]:
    """Sample hypercolumns of at most about MOST_CODEBOOK_IMAGES; return what was read too."""
    recipe = sampled.inputs.recipe
    n_each, shares = shares_to_try(recipe, len(images))
    for share in shares:
        pool, position_of, n_images = HypercolumnPool(recipe.n_samples), dict[str, int](), 0
        wanted = _Wanted(n_each, share, keep=True)
        for position, sample in sampled.read(images, "codebook", wanted, share == shares[0]):
            n_images += 1
            position_of.setdefault(sample.digest, position)
            if sample.blocks:
                pool.add(sample.digest, sample.blocks)
        if len(pool) >= recipe.n_codewords:
            break
    return pool, position_of, n_images


def _refined(start: Codebook, images: list[Any], sampled: _Samples) -> Codebook:
    """Refine codewords on a sample of every image, in the order given."""
    grid = sampled.inputs.recipe.grid
    n_each = MOST_SAMPLES_AN_IMAGE if isinstance(grid, str) else grid
    words = StreamedCodewords(start, sampled.seed)
    # Not kept: all samples of all images may be a thousand times what a pool holds.
    wanted = _Wanted(n_each, share=1.0, keep=False)
    for _, sample in sampled.read(images, "codewords", wanted, warn=False):
        words.add(sample.digest, sample.blocks)
    return words.codebook()


@dataclass(frozen=True)
class _Wanted:
    """Hypercolumns an image, share of the images, and whether the ``memory`` keeps them."""

    n_each: int
    share: float
    keep: bool


@dataclass(frozen=True, eq=False)
class Sampled:
    """An image's sample: a block (n, C_l) a layer; none if the image was not chosen."""

    facts: Facts
    digest: str
    blocks: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class _Samples:
    """Images in, samples out: here, or in joblib's workers."""

    inputs: Inputs[Recipe]
    network: TappedNetwork
    source: NetworkSource
    seed: int

    def read(
        self, images: list[Any], what: str, wanted: _Wanted, warn: bool
    ) -> Iterator[tuple[int, Sampled]]:
        task = SamplingTask(self.inputs, self.source, self.seed, wanted)
        if is_spread():
            outcomes = _in_workers(task, images)
        else:
            outcomes = task.outcomes(images, self.network, self.inputs.n_threads)
        return self.inputs.told(outcomes, images, what, warn)


@dataclass(frozen=True, eq=False)
class SamplingTask:
    """How images are sampled, whatever process does it."""

    inputs: Inputs[Recipe]
    source: NetworkSource
    seed: int
    wanted: _Wanted

    def outcomes(
        self, images: list[Any], network: TappedNetwork, n_threads: int = 0, start: int = 0
    ) -> Generator[Sampled | SkippedImage, None, None]:
        """Sample images one by one.

        The network's last digits depend on what else is in a batch, and K-means magnifies them: so
        each image is a batch.
        """
        n_each, numbered = self.wanted.n_each, enumerate(images, start)
        memory = self.inputs.memory if self.wanted.keep else None
        cache = CachedSamples(memory, self.inputs, network, n_each, self.seed)

        def find(digest: str) -> list[np.ndarray] | None:
            return cache.find(digest) if is_chosen(digest, self.wanted.share) else []

        def sampled(taken: Taken) -> Sampled:
            blocks = taken.found
            if taken.prepared is not None:
                batch = Batch([0], [taken.digest], taken.prepared.image[None])
                ((_, blocks),) = samples_of(batch, network, n_each, self.seed)
                cache.keep(taken.digest, blocks)
            return Sampled(taken.facts, taken.digest, blocks)

        for outcome in read_in_order(numbered, self.inputs.intake(find), n_threads):
            yield outcome if isinstance(outcome, SkippedImage) else sampled(outcome)


def _in_workers(
    task: SamplingTask, images: list[Any]
) -> Generator[Sampled | SkippedImage, None, None]:
    n = max(1, min(64, _MOST_SAMPLES_A_TASK // task.wanted.n_each))
    parts = (
        ([from_anywhere(image) for image in images[start : start + n]], start)
        for start in range(0, len(images), n)
    )
    for outcomes in in_order(spread(_sample, task, parts, wave=_WAVE)):
        yield from outcomes


def _sample(task: SamplingTask, part: tuple[list[Any], int]) -> list[Sampled | SkippedImage]:
    """Sample some images; what a worker does."""
    images, start = part
    network = task.source.built_once(task.inputs.device)
    return list(task.outcomes(images, network, start=start))
