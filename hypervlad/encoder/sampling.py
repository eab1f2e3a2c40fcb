"""Which images and pixels the codebook sees: chosen by seed and digest, never by order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from hypervlad.backbones import TappedNetwork
from hypervlad.encoder.batches import Batch
from hypervlad.hypercolumns import feature_maps, hypercolumns_at
from hypervlad.images import Micrograph


class TakesSamples(Protocol):
    """A pool, or what learns as it goes."""

    def add(self, digest: str, blocks: list[np.ndarray]) -> None:
        """Take one image's sample: a block (n, C_l) a layer."""


class Counted:
    """Pass images on, count them and note where each different one stands."""

    def __init__(self, micrographs: Iterator[tuple[int, Micrograph]]) -> None:
        self._micrographs, self.n = micrographs, 0
        self.position_of: dict[str, int] = {}

    def __iter__(self) -> Iterator[tuple[int, Micrograph]]:
        for position, micrograph in self._micrographs:
            self.n += 1
            self.position_of.setdefault(micrograph.digest, position)
            yield position, micrograph

    def by_digest(self) -> list[int]:
        """Return one position of each different image, in an order that theirs has no part in."""
        return [self.position_of[digest] for digest in sorted(self.position_of)]


def is_chosen(digest: str, share: float) -> bool:
    """Say whether an image is among this share of all, by its digest alone."""
    return int(digest[:8], 16) < share * 2**32


def sample_batch(
    batch: Batch, network: TappedNetwork, n_each: int, seed: int, taker: TakesSamples
) -> None:
    """Give ``n_each`` random hypercolumns of each image of a batch to a pool or a learner."""
    maps = feature_maps(network, batch.images)
    height, width = batch.images.shape[2:]
    for i, digest in enumerate(batch.digests):
        points = random_pixels(seed, digest, height * width, n_each)
        blocks = hypercolumns_at([layer[i] for layer in maps], points, (height, width))
        taker.add(digest, [block.cpu().numpy() for block in blocks])


def random_pixels(seed: int, digest: str, n_pixels: int, n_wanted: int) -> np.ndarray:
    """Choose pixels by seed and image alone."""
    generator = np.random.default_rng([seed, int(digest[:16], 16)])
    return generator.choice(n_pixels, min(n_wanted, n_pixels), replace=False, shuffle=False)
