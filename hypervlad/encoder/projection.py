"""A codebook on a device: projected maps in, residual sums and words out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hypervlad import vlad
from hypervlad.codebook import Codebook, LayerProjection
from hypervlad.hypercolumns import hypercolumns_at


class TorchCodebook:
    """The arrays of a :class:`Codebook` as tensors on a device."""

    def __init__(self, codebook: Codebook, device: torch.device) -> None:
        self.is_joint = codebook.is_joint
        self.codewords = [torch.from_numpy(words).to(device) for words in codebook.codewords]
        self._layers = [_Projection(projection, device) for projection in codebook.projections]

    def project(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Take each layer's affine step at the layer's own resolution: (B, h_l, w_l, d_l)."""
        return [project(layer) for project, layer in zip(self._layers, maps, strict=True)]

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
        for part, words in self._parts(maps):
            own = (part[0].shape[1], part[0].shape[2])
            size = own if grid == "own" else self.grid_size(maps, grid, image_size)
            sums.append(vlad.dense_residual_sums(part, words, size))
        return sums

    def sampled_sums(
        self, maps: list[torch.Tensor], points: Sequence[np.ndarray], size: tuple[int, int]
    ) -> list[torch.Tensor]:
        """Return the residual sums (B, K, D) of every codebook over chosen pixels."""
        sums = []
        for part, words in self._parts(maps):
            rows = []
            for i, chosen in enumerate(points):
                blocks = hypercolumns_at([layer[i] for layer in part], chosen, size)
                columns = torch.cat(blocks, dim=1)
                rows.append(vlad.residual_sums(columns, vlad.assign(columns, words), words))
            sums.append(torch.stack(rows))
        return sums

    def assign(self, maps: list[torch.Tensor], size: tuple[int, int]) -> np.ndarray:
        """Return the words at every position of a grid: (n_codebooks, B, H, W)."""
        parts = [vlad.dense_assign(part, words, size) for part, words in self._parts(maps)]
        return torch.stack(parts).cpu().numpy()

    def _parts(self, maps: list[torch.Tensor]) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
        """Pair each codebook with the layers that it covers."""
        if self.is_joint:
            return [(maps, self.codewords[0])]
        return [([layer], words) for layer, words in zip(maps, self.codewords, strict=True)]


class _Projection:
    """One layer's affine step on tensors."""

    def __init__(self, projection: LayerProjection, device: torch.device) -> None:
        mean, self.scale, components = projection
        self.mean = torch.from_numpy(mean).to(device)
        self.matrix = None if components is None else torch.from_numpy(components).to(device).T
        self.offset = None if self.matrix is None else -(self.mean @ self.matrix)

    def __call__(self, layer: torch.Tensor) -> torch.Tensor:
        if self.matrix is None:
            return (layer - self.mean) * self.scale
        assert self.offset is not None
        flat = torch.addmm(self.offset, layer.reshape(-1, layer.shape[-1]), self.matrix)
        return flat.view(*layer.shape[:-1], -1)
