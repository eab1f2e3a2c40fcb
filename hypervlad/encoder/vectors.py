"""From a batch of prepared images to their vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hypervlad import vlad
from hypervlad.backbones import TappedNetwork
from hypervlad.encoder.batches import Batch
from hypervlad.encoder.projection import TorchCodebook
from hypervlad.encoder.sampling import random_pixels
from hypervlad.hypercolumns import feature_maps, turned


@dataclass(frozen=True)
class BatchEncoder:
    """How batches become vectors.

    Attributes
    ----------
    network : TappedNetwork
    words : TorchCodebook
    grid, turns, pooled
        As in :class:`hypervlad.HypercolumnVLAD`.
    normalize : sequence of str
        Steps of normalisation.
    seed : int
        Chooses pixels where ``grid`` is a number.
    """

    network: TappedNetwork
    words: TorchCodebook
    grid: str | int
    turns: int
    pooled: bool
    normalize: Sequence[vlad.Normalization]
    seed: int

    def __call__(self, batch: Batch) -> np.ndarray:
        """Return the vectors of a batch, (B, n_features)."""
        copies = (turned(batch.images, turn) for turn in range(self.turns))
        return self.of_maps(
            ((feature_maps(self.network, images), images.shape[2:]) for images in copies),
            batch.digests,
        )

    def of_maps(
        self,
        copies: Iterable[tuple[list[torch.Tensor], Sequence[int]]],
        digests: Sequence[str],
    ) -> np.ndarray:
        """Return the vectors of images whose turned copies the network has seen.

        Parameters
        ----------
        copies : iterable of (list of Tensor, sequence of int)
            Of each copy in turn, its feature maps (B, h_l, w_l, C_l) and its height and width.
        digests : sequence of B str
        """
        statistics = (self._statistics(raw, size, digests) for raw, size in copies)
        sums, means = next(statistics)
        for more_sums, more_means in statistics:
            sums = [total + more for total, more in zip(sums, more_sums, strict=True)]
            means = means + more_means
        parts = [vlad.normalize(part, self.normalize) for part in self.words.by_kind(sums)]
        return torch.cat([*parts, means / self.turns], dim=1).cpu().numpy()

    def _statistics(
        self, raw: list[torch.Tensor], image_size: Sequence[int], digests: Sequence[str]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the residual sums and the pooled features of one copy."""
        size = (image_size[0], image_size[1])
        means = self.words.pooled(raw) if self.pooled else raw[0].new_zeros(len(digests), 0)
        maps = self.words.project(raw)
        if isinstance(self.grid, str):
            return self.words.dense_sums(maps, self.grid, size), means
        n_pixels = size[0] * size[1]
        points = [random_pixels(self.seed, d, n_pixels, self.grid) for d in digests]
        return self.words.sampled_sums(maps, points, size), means
