"""Which images and pixels are looked at: chosen by seed and digest, never by order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hypervlad.backbones import TappedNetwork
from hypervlad.encoder.batches import Batch
from hypervlad.hypercolumns import feature_maps, hypercolumns_at


def is_chosen(digest: str, share: float) -> bool:
    """Say whether an image is among this share of all, by its digest alone."""
    return int(digest[:8], 16) < share * 2**32


def samples_of(
    batch: Batch, network: TappedNetwork, n_each: int, seed: int
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield each image's digest and ``n_each`` of its hypercolumns: a block (n, C_l) a layer."""
    maps = feature_maps(network, batch.images)
    height, width = batch.images.shape[2:]
    for i, digest in enumerate(batch.digests):
        points = random_pixels(seed, digest, height * width, n_each)
        blocks = hypercolumns_at([layer[i] for layer in maps], points, (height, width))
        yield digest, [block.cpu().numpy() for block in blocks]


def random_pixels(seed: int, digest: str, n_pixels: int, n_wanted: int) -> np.ndarray:
    """Choose pixels by seed and image alone."""
    generator = np.random.default_rng([seed, int(digest[:16], 16)])
    return generator.choice(n_pixels, min(n_wanted, n_pixels), replace=False, shuffle=False)
