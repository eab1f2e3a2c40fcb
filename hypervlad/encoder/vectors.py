"""From a batch of prepared images to their vectors."""

from __future__ import annotations

from collections.abc import Sequence
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
        sums, means = self._statistics(batch, 0)
        for turn in range(1, self.turns):
            more_sums, more_means = self._statistics(batch, turn)
            sums = [total + more for total, more in zip(sums, more_sums, strict=True)]
            means = means + more_means
        parts = [vlad.normalize(part, self.normalize) for part in self.words.by_kind(sums)]
        return torch.cat([*parts, means / self.turns], dim=1).cpu().numpy()

    def _statistics(self, batch: Batch, turn: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the residual sums and the pooled features of images turned so."""
        images = turned(batch.images, turn)
        size = (images.shape[2], images.shape[3])
        raw = feature_maps(self.network, images)
        means = self.words.pooled(raw) if self.pooled else images.new_zeros(len(images), 0)
        maps = self.words.project(raw)
        if isinstance(self.grid, str):
            return self.words.dense_sums(maps, self.grid, size), means
        n_pixels = size[0] * size[1]
        points = [random_pixels(self.seed, d, n_pixels, self.grid) for d in batch.digests]
        return self.words.sampled_sums(maps, points, size), means
