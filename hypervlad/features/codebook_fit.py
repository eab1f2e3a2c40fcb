"""From images to a codebook: which images and pixels it is learnt from."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from hypervlad.features.cache import Cache
from hypervlad.features.codebook import (
    Codebook,
    HypercolumnPool,
    Sampling,
    StreamedCodewords,
    learn_codebook,
    learn_scales,
)
from hypervlad.features.encoding import EncoderParams, maps_fingerprint, random_pixels
from hypervlad.features.hypercolumns import feature_maps, hypercolumns_at
from hypervlad.features.loading import ImageInfo, ImageLoader, LoadedImage, ReadReport
from hypervlad.features.network import TappedNetwork
from hypervlad.features.registry import class_tokens
from hypervlad.images import SkippedImage
from hypervlad.images.reading import N_READERS, read_in_order

MAX_SAMPLES_PER_IMAGE = 5000  # random pixels
MAX_SAMPLED_IMAGES = 1000  # 20 hypercolumns of each fill the default pool; more only cost time


@dataclass(frozen=True, eq=False)
class CodebookFit:
    """What a codebook depends on, except the images."""

    params: EncoderParams
    loader: ImageLoader
    network: TappedNetwork
    seed: int

    @property
    def sampling(self) -> Sampling:
        return self.params.codebook_sampling

    def sampling_plan(self, n_images: int) -> tuple[int, list[float]]:
        """Return how many hypercolumns to sample per image, and from what shares of the images.

        The second share, all images, is for lists with so many copies that the first is too small.
        """
        n_used = min(n_images, MAX_SAMPLED_IMAGES)
        n_each = min(MAX_SAMPLES_PER_IMAGE, -(-self.sampling.n_samples // n_used))
        return n_each, sorted({n_used / n_images, 1.0})

    def from_pool(self, pool: HypercolumnPool, *, start_only: bool = False) -> Codebook:
        return learn_codebook(
            pool.layers(),
            self.params.n_codewords,
            blocks=self.params.blocks,
            n_components=self.sampling.n_components,
            is_scaled=self.sampling.is_scaled,
            start_only=start_only,
            n_only_pooled=len(class_tokens(self.network.taps, self.params.backbone)),
            random_state=self.seed,
            verbose=self.loader.verbose,
        )


#: From images to a codebook and the number of images read, as `fit_sampled_codebook` does it.
FitCodebook: TypeAlias = Callable[[list[Any], CodebookFit], tuple[Codebook, int]]


def fit_sampled_codebook(images: list[Any], fit: CodebookFit) -> tuple[Codebook, int]:
    """Return the codebook of these images, and how many could be read."""
    pool, first_of, n_images = _filled_pool(images, fit)
    codebook = fit.from_pool(pool, start_only=fit.sampling.is_minibatch)
    # One of each different image, in an order that does not depend on that of the list.
    distinct = [first_of[key] for key in sorted(first_of)]
    if fit.sampling.is_minibatch:
        codebook = _refined(codebook, [images[position] for position, _ in distinct], fit)
    if fit.params.has_shape:
        measures = np.array([outline for _, outline in distinct])
        codebook = replace(codebook, shape=learn_scales(measures))
    return codebook, n_images


def is_chosen(key: str, share: float) -> bool:
    """Return whether an image is in a random share of all, by its key alone."""
    return int(key[:8], 16) < share * 2**32


def _filled_pool(
    images: list[Any], fit: CodebookFit
) -> tuple[HypercolumnPool, dict[str, tuple[int, Any]], int]:
    """Return sampled hypercolumns, and how many images were read.

    Also, by key, the position of each distinct image and the measures of its outline.
    """
    n_each, shares = fit.sampling_plan(len(images))
    pool = HypercolumnPool(fit.sampling.n_samples)
    first_of, n_images = dict[str, tuple[int, Any]](), 0
    report = ReadReport(len(images))
    for position, sample in _sampled(images, "codebook", fit, report, n_each, shares[0]):
        n_images += 1
        first_of.setdefault(sample.key, (position, sample.info.outline))
        if sample.blocks:
            pool.add(sample.key, sample.blocks)
    report.warn()
    if len(pool) < fit.params.n_codewords and len(shares) > 1:
        rest = [images[at] for key, (at, _) in first_of.items() if not is_chosen(key, shares[0])]
        for _, sample in _sampled(rest, "codebook", fit, ReadReport(len(rest)), n_each):
            pool.add(sample.key, sample.blocks)
    return pool, first_of, n_images


def _refined(start: Codebook, images: list[Any], fit: CodebookFit) -> Codebook:
    grid = fit.params.grid
    n_each = MAX_SAMPLES_PER_IMAGE if isinstance(grid, str) else grid
    codewords = StreamedCodewords(start, fit.seed)
    # Not cached: all samples of all images may be a thousand times what a pool holds.
    report = ReadReport(len(images))
    for _, sample in _sampled(images, "codewords", fit, report, n_each, is_cached=False):
        codewords.add(sample.blocks)
    return codewords.codebook()


# --- samples of images ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Sample:
    """An image's blocks (n, C_l), one per layer; none if the image was not chosen."""

    info: ImageInfo
    key: str
    blocks: list[np.ndarray]


def _sampled(
    images: list[Any],
    desc: str,
    fit: CodebookFit,
    report: ReadReport,
    n_each: int,
    share: float = 1.0,
    is_cached: bool = True,
) -> Iterator[tuple[int, _Sample]]:
    """Yield ``n_each`` hypercolumns of a share of the images, and none of the others."""
    outcomes = _samples(images, fit, n_each, share, is_cached)
    return fit.loader.reported(outcomes, images, desc, report)


def _samples(
    images: list[Any], fit: CodebookFit, n_each: int, share: float, is_cached: bool
) -> Generator[_Sample | SkippedImage, None, None]:
    """Sample images, each as its own batch.

    K-means magnifies the last digits of a network's output, which depend on the batch.
    """
    network, loader = fit.network, fit.loader
    cache = Cache(
        loader.memory if is_cached else None,
        maps_fingerprint(fit.params, loader.preprocessing)
        | {"weights": network.digest, "taps": list(network.taps), "sample": [n_each, fit.seed]},
    )

    def find(key: str) -> list[np.ndarray] | None:
        return cache.find(key) if is_chosen(key, share) else []

    def load(image: Any, name: str) -> LoadedImage:
        return loader.load(image, name, find)

    for image in read_in_order(enumerate(images), load, N_READERS):
        if isinstance(image, SkippedImage):
            yield image
            continue
        blocks = image.cached
        if image.tensor is not None:
            blocks = _blocks_at_random_pixels(image, fit, n_each)
            cache.keep(image.key, blocks)
        yield _Sample(image.info, image.key, blocks)


def _blocks_at_random_pixels(image: LoadedImage, fit: CodebookFit, n_each: int) -> list[np.ndarray]:
    assert image.tensor is not None
    height, width = image.tensor.shape[1:]
    points = random_pixels(fit.seed, image.key, height * width, n_each, image.mask)
    maps = [layer[0] for layer in feature_maps(fit.network, image.tensor[None])]
    return [block.cpu().numpy() for block in hypercolumns_at(maps, points, (height, width))]
