"""What the encoder finds again instead of computing: facts of files, vectors and samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from hypervlad.backbones import Preprocessing, TappedNetwork, architecture, get_backbone
from hypervlad.cache import Cache, Memory, PathIndex, arrays_digest, cache_key
from hypervlad.encoder.recipe import Recipe
from hypervlad.images import ReadOptions
from hypervlad.images.reading import READING_VERSION

# Part of what finds vectors and samples again: raise it when the same image gets others.
ENCODING_VERSION = 2

if TYPE_CHECKING:
    from hypervlad.encoder.estimator import HypercolumnVLAD
    from hypervlad.encoder.inputs import Inputs


def path_index(memory: Memory, options: ReadOptions, *, verify: bool = False) -> PathIndex | None:
    """Return the index of files read with these options; None without a memory."""
    if memory is None:
        return None
    reading = {"options": asdict(options), "version": READING_VERSION}
    return PathIndex(Cache(memory), reading, verify=verify)


class CachedVectors:
    """The vectors of one fitted encoder in its ``memory``; without one, nothing is kept.

    Parameters
    ----------
    encoder : HypercolumnVLAD
    run : str, optional
        A name for a piece of work that may be interrupted and taken up again: what was kept under
        it is not found under it. The network's last digits depend on what else is in a batch, so
        an image whose batch was cut short must not be found when the batch is computed again.
    """

    def __init__(self, encoder: HypercolumnVLAD, run: str | None = None) -> None:
        self._cache = None if encoder.memory is None else Cache(encoder.memory)
        self._facts = {} if self._cache is None else what_matters(encoder)
        self._run = run

    def find(self, digest: str) -> np.ndarray | None:
        """Return an image's vector, if it is kept."""
        if self._cache is None:
            return None
        kept = self._cache.find(self._key(digest))
        if kept is None:
            return None
        run, vector = kept
        of_this_run = run is not None and run == self._run
        return None if of_this_run else vector

    def keep(self, digests: Sequence[str], vectors: np.ndarray) -> None:
        """Keep the vectors of these images."""
        if self._cache is not None:
            for digest, vector in zip(digests, vectors, strict=True):
                self._cache.keep(self._key(digest), (self._run, vector.copy()))

    def _key(self, digest: str) -> str:
        return cache_key({**self._facts, "image": digest})


class CachedSamples:
    """Hypercolumns that a codebook is learnt from, a sample an image, in a ``memory``.

    Parameters
    ----------
    memory : None, str, path-like or joblib.Memory
    inputs, network
        What the hypercolumns depend on beside the image.
    n_each, seed : int
        How many of an image, and what chooses them.
    """

    def __init__(
        self,
        memory: Memory,
        inputs: Inputs[Recipe],
        network: TappedNetwork,
        n_each: int,
        seed: int,
    ) -> None:
        self._cache = None if memory is None else Cache(memory)
        self._facts: dict[str, Any] = _of_maps(inputs.recipe, inputs.preprocessing) | {
            "weights": network.digest,
            "taps": list(network.taps),
            "sample": [n_each, seed],
        }

    def find(self, digest: str) -> list[np.ndarray] | None:
        """Return an image's sample, a block (n, C_l) a layer, if it is kept."""
        return None if self._cache is None else self._cache.find(self._key(digest))

    def keep(self, digest: str, blocks: list[np.ndarray]) -> None:
        """Keep an image's sample."""
        if self._cache is not None:
            self._cache.keep(self._key(digest), blocks)

    def _key(self, digest: str) -> str:
        return cache_key({**self._facts, "image": digest})


def what_matters(encoder: HypercolumnVLAD) -> dict[str, Any]:
    """Name all that a vector depends on but the image; batches, threads and paths do not matter."""
    recipe = encoder.recipe_
    return _of_maps(recipe, encoder.preprocessing_) | {
        "codebook": arrays_digest(encoder.codebook_.to_arrays()),
        "weights": encoder.weights_digest_,
        "taps": list(encoder.taps_),
        "grid": recipe.grid if isinstance(recipe.grid, str) else [recipe.grid, encoder.seed_],
        "turns": recipe.turns,
        "pooled": recipe.pooled,
        "normalize": list(recipe.normalize),
    }


def _of_maps(recipe: Recipe, preprocessing: Preprocessing) -> dict[str, Any]:
    # Each image's own pixel size is in its digest: see hypervlad.encoder.scale.digest_at.
    scale = {} if recipe.pixel_size is None else {"pixel_size": recipe.pixel_size}
    return scale | {
        "version": ENCODING_VERSION,
        "network": architecture(get_backbone(recipe.backbone)),
        "size": [recipe.image_size, recipe.aspect],
        "preprocessing": preprocessing.to_dict(),
    }
