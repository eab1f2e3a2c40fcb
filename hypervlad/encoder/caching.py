"""Image vectors that the encoder finds again instead of computing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hypervlad.cache import VectorCache, arrays_digest, cache_key
from hypervlad.images import Micrograph

if TYPE_CHECKING:
    from hypervlad.encoder.estimator import HypercolumnVLAD


class CachedVectors:
    """The vectors of one fitted encoder in its ``memory``; without one, nothing is kept."""

    def __init__(self, encoder: HypercolumnVLAD) -> None:
        self._cache = None if encoder.memory is None else VectorCache(encoder.memory)
        self._facts = {} if self._cache is None else _what_matters(encoder)

    def fill(
        self, vectors: np.ndarray, micrographs: Iterable[tuple[int, Micrograph]]
    ) -> Iterator[tuple[int, Micrograph]]:
        """Write the vectors that are kept into their rows; pass on the other images."""
        if self._cache is None:
            yield from micrographs
            return
        for position, micrograph in micrographs:
            key = self._key(micrograph.digest)
            try:
                vectors[position] = self._cache[key]
            except KeyError:  # not there, or its file is damaged
                yield position, micrograph

    def keep(self, digests: list[str], vectors: np.ndarray) -> None:
        """Keep the vectors of these images."""
        if self._cache is not None:
            for digest, vector in zip(digests, vectors, strict=True):
                self._cache.keep(self._key(digest), vector)

    def _key(self, digest: str) -> str:
        return cache_key({**self._facts, "image": digest})


def _what_matters(encoder: HypercolumnVLAD) -> dict[str, object]:
    """Name all that a vector depends on but the image; batches, threads and paths do not matter."""
    recipe = encoder.recipe_
    # Each image's own pixel size is in its digest: see hypervlad.encoder.scale.at_scale.
    scale = {} if recipe.pixel_size is None else {"pixel_size": recipe.pixel_size}
    return scale | {
        "codebook": arrays_digest(encoder.codebook_.to_arrays()),
        "weights": encoder.weights_digest_,
        "taps": list(encoder.taps_),
        "size": [recipe.image_size, recipe.aspect],
        "grid": recipe.grid if isinstance(recipe.grid, str) else [recipe.grid, encoder.seed_],
        "turns": recipe.turns,
        "pooled": recipe.pooled,
        "normalize": list(recipe.normalize),
        "preprocessing": encoder.preprocessing_.to_dict(),
    }
