"""A codebook on a device: projected maps in, residual sums and words out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from hypervlad import vlad
from hypervlad.codebook import Codebook, LayerProjection
from hypervlad.hypercolumns import hypercolumns_at


class TorchCodebook:
    """The arrays of a :class:`Codebook` as tensors on a device."""

    def __init__(self, codebook: Codebook, device: torch.device) -> None:
        self._codebook = codebook
        self.codewords = [torch.tensor(words, device=device) for words in codebook.codewords]
        self.layers = [_Projection(projection, device) for projection in codebook.projections]

    def project(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Take each layer's affine step at the layer's own resolution: (B, h_l, w_l, d_l)."""
        return [project(layer) for project, layer in zip(self.layers, maps, strict=True)]

    def pooled(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Average each channel of maps (B, h_l, w_l, C_l) over the image: (B, sum of C_l).

        In units of the channel's standard deviation over pixels, from its mean, and divided by the
        root of the number of channels, so that the vector is about as long as one of VLAD.
        """
        parts = [layer.average(m) for layer, m in zip(self.layers, maps, strict=True)]
        means = torch.cat(parts, dim=1)
        return means / math.sqrt(means.shape[1])

    def grid_size(
        self, maps: Sequence[torch.Tensor], grid: str, image_size: Sequence[int]
    ) -> tuple[int, int]:
        """Return height and width of the grid "finest" or "image"."""
        if grid == "image":
            return int(image_size[0]), int(image_size[1])
        return max(layer.shape[1] for layer in maps), max(layer.shape[2] for layer in maps)

    def dense_sums(
        self, maps: list[torch.Tensor], grid: str, image_size: Sequence[int]
    ) -> list[torch.Tensor]:
        """Return the residual sums (B, K, D) of every codebook over a whole grid."""
        sums = []
        for part, words in self.parts(maps):
            size = self.size_of(part, maps, grid, image_size)
            sums.append(vlad.dense_residual_sums(part, words, size))
        return sums

    def by_kind(self, sums: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        """Part the sums of a joint codebook from those of one a layer."""
        n_joint = 0 if self._codebook.joint is None else 1
        return [part for part in (sums[:n_joint], sums[n_joint:]) if part]

    def sampled_sums(
        self, maps: list[torch.Tensor], points: Sequence[np.ndarray], size: tuple[int, int]
    ) -> list[torch.Tensor]:
        """Return the residual sums (B, K, D) of every codebook over chosen pixels."""
        sums = []
        for part, words in self.parts(maps):
            rows = []
            for i, chosen in enumerate(points):
                blocks = hypercolumns_at([layer[i] for layer in part], chosen, size)
                columns = torch.cat(blocks, dim=1)
                rows.append(vlad.residual_sums(columns, vlad.assign(columns, words), words))
            sums.append(torch.stack(rows))
        return sums

    def assign(self, maps: list[torch.Tensor], size: tuple[int, int]) -> np.ndarray:
        """Return the words at every position of a grid: (n_codebooks, B, H, W)."""
        parts = [vlad.dense_assign(part, words, size) for part, words in self.parts(maps)]
        return torch.stack(parts).cpu().numpy()

    def parts(self, maps: list[torch.Tensor]) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
        """Pair each codebook with the layers that it covers."""
        spans = self._codebook.spans
        return [(maps[span], words) for span, words in zip(spans, self.codewords, strict=True)]

    def size_of(
        self,
        part: list[torch.Tensor],
        maps: list[torch.Tensor],
        grid: str,
        image_size: Sequence[int],
    ) -> tuple[int, int]:
        """Return the grid of one codebook; beside a joint one, a layer's is the layer's own."""
        beside_joint = self._codebook.joint is not None and len(part) < len(maps)
        if grid == "own" or beside_joint:
            return part[0].shape[1], part[0].shape[2]
        return self.grid_size(maps, grid, image_size)


class _Projection:
    """One layer's affine step on tensors."""

    def __init__(self, projection: LayerProjection, device: torch.device) -> None:
        mean, std, self.scale, components = projection
        self.mean, self.std = (torch.tensor(values, device=device) for values in (mean, std))
        self.matrix = None if components is None else torch.tensor(components, device=device).T
        self.offset = None if self.matrix is None else -(self.mean @ self.matrix)

    def average(self, layer: torch.Tensor) -> torch.Tensor:
        return self.standardised(layer.mean(dim=(1, 2)))

    def standardised(self, layer: torch.Tensor) -> torch.Tensor:
        """Give each channel its units in `average`, at every cell."""
        return (layer - self.mean) / self.std

    def __call__(self, layer: torch.Tensor) -> torch.Tensor:
        if self.matrix is None:
            return (layer - self.mean) * self.scale
        assert self.offset is not None
        flat = torch.addmm(self.offset, layer.reshape(-1, layer.shape[-1]), self.matrix)
        return flat.view(*layer.shape[:-1], -1)
