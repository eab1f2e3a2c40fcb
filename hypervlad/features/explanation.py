"""What each position of an image adds to a linear function of the image's vector.

A vector's blocks are sums over positions, up to factors that are the same for the whole image. VLAD
is v = g V elementwise, with residual sums V and the factor g by which normalisation scaled each
element, so

    <w, v> = sum_p e(p),     e(p) = <u_a(p), x_p - c_a(p)>,     u_k = w_k g_k

and a pooled channel is a mean over its layer's cells. That of a particle's shape, which belongs to
no position, is spread evenly over the particle. The evidence adds up to the function exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hypervlad.features import vlad
from hypervlad.features.encoding import BatchEncoder, finish_pooled
from hypervlad.features.hypercolumns import cell_weights, resample_preserving_sum, turned_back
from hypervlad.features.lazy_torch import torch
from hypervlad.features.loading import Batch


@dataclass(frozen=True, eq=False)
class ImageEvidence:
    """An image's vector, and where in the image M linear functions of it come from."""

    vector: np.ndarray  # as `transform` gives it, but summed in double precision
    row: np.ndarray  # exactly as `transform` gives it
    blocks: dict[str, np.ndarray]  # "joint", "per_layer.TAP", "pooled", "shape": (M, H, W)
    words: dict[str, np.ndarray]  # the same by codeword, (M, K), where there are codewords
    codeword_maps: np.ndarray  # (n_codebooks, H, W), of the upright image


def image_evidence(
    batch: Batch, encode: BatchEncoder, names: Sequence[str], weights: np.ndarray
) -> ImageEvidence:
    """Decompose M linear functions of an image's vector, of weights (n_features, M), by position.

    ``names`` are those of the codebooks. Maps are on the encoder's grid, which is no number of
    random pixels.
    """
    copies = [_Copy(encode, *each, turn) for turn, each in enumerate(encode.turned_maps(batch))]
    size = copies[0].size
    sums = _added([copy.sums() for copy in copies])
    vector, factor = _normalised(encode, sums)
    directions = torch.from_numpy(np.ascontiguousarray(weights.T, np.float64)).to(vector.device)
    blocks, by_word = {}, {}
    for number, block in enumerate(_blocks(directions[:, : len(factor)] * factor, sums)):
        name = names[number]
        blocks[name], by_word[name] = _added(
            [copy.evidence(number, block, size) for copy in copies]
        )
    if encode.params.is_pooled:
        means = _added([[copy.pooled()] for copy in copies])[0] / len(copies)
        pooled = finish_pooled(means, encode.params)[0]
        weighted = directions[:, len(factor) : len(factor) + len(pooled)]
        of_channels = weighted * _factors(pooled, means[0]) / len(copies)
        blocks["pooled"] = _added([[c.pooled_evidence(of_channels, size)] for c in copies])[0]
        vector = torch.cat([vector, pooled])
    if encode.params.has_shape and batch.outlines is not None and batch.masks is not None:
        shape = encode.codebook.standardised_outlines(batch.outlines)[0].to(vector)
        of_shape = directions[:, len(vector) :] @ shape
        by_place_of_shape = resample_preserving_sum(batch.masks[0].to(vector), size)
        blocks["shape"] = of_shape[:, None, None] * (by_place_of_shape / by_place_of_shape.sum())
        vector = torch.cat([vector, shape])
    maps = ((copy.raw, copy.batch) for copy in copies)
    return ImageEvidence(
        vector.cpu().numpy(),
        encode.of_maps(maps, batch.outlines)[0],
        {name: values.cpu().numpy() for name, values in blocks.items()},
        {name: values.cpu().numpy() for name, values in by_word.items()},
        encode.codebook.assign(copies[0].maps, size)[:, 0],
    )


class _Copy:
    """One turned copy of the image: its maps, and the assignments of each codebook."""

    def __init__(
        self, encode: BatchEncoder, raw: list[torch.Tensor], copy: Batch, turn: int
    ) -> None:
        self.raw, self.batch = raw, copy
        image_size = (copy.tensors.shape[2], copy.tensors.shape[3])
        self._turn, self._codebook = turn, encode.codebook
        self._masks = None if copy.masks is None else copy.masks.to(self.raw[0].device)
        self.maps = encode.codebook.project(self.raw)
        named = encode.params.grid
        assert isinstance(named, str)
        self.size = encode.codebook.grid_size(self.maps, named, image_size)
        grids = encode.codebook.grids(self.maps, named, image_size, self._masks)
        self._assigned = [_Assigned(*of_codebook) for of_codebook in grids]

    def sums(self) -> list[torch.Tensor]:
        """Return the residual sums (1, K, D) of each codebook."""
        return [assigned.sums() for assigned in self._assigned]

    def evidence(
        self, number: int, directions: torch.Tensor, size: tuple[int, int]
    ) -> list[torch.Tensor]:
        """Return one codebook's evidence by upright position, (M, *size), and codeword, (M, K)."""
        assigned = self._assigned[number]
        values = assigned.evidence(directions)
        by_word = values.new_zeros(directions.shape[:2])
        by_word.index_add_(1, assigned.words.flatten(), values)
        maps = values.view(len(values), *assigned.words.shape[1:])
        return [self._upright(maps, size), by_word]

    def pooled(self) -> torch.Tensor:
        return self._codebook.pooled([layer.double() for layer in self.raw], self._masks)

    def pooled_evidence(self, directions: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return the evidence of the averaged channels from directions (M, channels)."""
        total = directions.new_zeros(len(directions), *size)
        raw = [layer.double() for layer in self.raw]
        n_channels = [layer.shape[-1] for layer in raw]
        blocks = (directions / math.sqrt(sum(n_channels))).split(n_channels, 1)
        for project, layer, block in zip(self._codebook.layers, raw, blocks, strict=True):
            by_cell = project.standardised(layer[0]) @ block.T
            if self._masks is None:
                by_cell /= layer.shape[1] * layer.shape[2]
            else:
                by_cell *= cell_weights(self._masks, layer)[0, :, :, None]
            total += self._upright(by_cell.permute(2, 0, 1), size)
        return total

    def _upright(self, maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return resample_preserving_sum(turned_back(maps, self._turn), size)


class _Assigned:
    """Codewords at the n positions of a grid, assigned in single precision, as in `transform`."""

    def __init__(
        self,
        maps: list[torch.Tensor],
        codewords: torch.Tensor,
        size: tuple[int, int],
        inside: torch.Tensor | None,
    ) -> None:
        self.words = vlad.dense_assign(maps, codewords, size)
        self._maps, self._codewords, self._inside = maps, codewords.double(), inside

    def sums(self) -> torch.Tensor:
        maps = [layer.double() for layer in self._maps]
        return vlad.sums_of_assigned(maps, self.words, self._codewords, self._inside)

    def evidence(self, directions: torch.Tensor) -> torch.Tensor:
        """Return the evidence (M, n) from directions (M, K, D)."""
        maps = [layer[0].double() for layer in self._maps]
        found = vlad.projected_residuals(maps, self.words[0], self._codewords, directions)
        return (found if self._inside is None else found * self._inside).flatten(1)


def _normalised(
    encode: BatchEncoder, sums: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the VLAD of all codebooks, flat, and the factor of each element."""
    raw = torch.cat([block.flatten() for block in sums])
    kinds = encode.codebook.by_kind(list(sums))
    normal = torch.cat([vlad.normalize(kind)[0] for kind in kinds])
    return normal, _factors(normal, raw)


def _factors(normal: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
    """Return what normalisation multiplied each element by; 0 for those that are 0."""
    return torch.where(raw != 0, normal / torch.where(raw != 0, raw, 1.0), 0.0)


def _blocks(flat: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Cut rows (M, n) into a block (M, K, D) for each codebook's sums (1, K, D)."""
    parts = flat.split([block.numel() for block in like], 1)
    return [part.unflatten(1, block.shape[1:]) for part, block in zip(parts, like, strict=True)]


def _added(rows: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.stack(list(items)).sum(0) for items in zip(*rows, strict=True)]
