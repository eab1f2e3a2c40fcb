"""Tiles of large images, and maps of the whole image that are put together from theirs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hypervlad.features.lazy_torch import torch

_MAX_TILE = 1536  # pixels; larger ones take much memory, and are hardly faster
_OVERLAP = 0.25  # of the side of a tile whose cells depend on all of it


class MirroredImage(NamedTuple):
    """An image (C, h, w), and its lines in the order in which edges repeat them, mirrored."""

    pixels: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def of(cls, image: torch.Tensor, border: int, stride: int) -> MirroredImage:
        lines = (
            np.pad(np.arange(n), (border, border + -n % stride), mode="symmetric")
            for n in image.shape[1:]
        )
        return cls(image, *map(torch.from_numpy, lines))

    @property
    def size(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)


@dataclass(frozen=True, eq=False)
class Tiles:
    """Tiles of an image, of at most ``side`` pixels, and what computes the maps (1, h, w, C)."""

    image: MirroredImage
    side: int
    maps_of: Callable[[torch.Tensor], list[torch.Tensor]]

    def maps(self, rows: slice, columns: slice) -> tuple[list[torch.Tensor], list[int]]:
        """Return the maps (h_l, w_l, C_l) of a tile, and the stride of each in pixels."""
        lines = self.image.columns[columns]
        first = int(lines.min())
        # Copies of whole rows are large.
        strip = self.image.pixels[:, :, first : int(lines.max()) + 1]
        part = strip[:, self.image.rows[rows]][:, :, lines - first]
        maps = [layer[0] for layer in self.maps_of(part[None])]
        return maps, [(rows.stop - rows.start) // len(layer) for layer in maps]

    def blended(self, stride: int) -> list[torch.Tensor]:
        """Average the maps of overlapping tiles, weighted by the distance from a tile's edge."""
        sums: list[torch.Tensor] = []
        totals: list[torch.Tensor] = []
        n_overlap = max(1, int(self.side * _OVERLAP) // stride)
        spans = (self._spans(extent, stride, n_overlap) for extent in self.image.size)
        for row, column in itertools.product(*spans):
            tile, strides = self.maps(row, column)
            if not sums:
                sums = self._empty(tile, strides)
                totals = [each.new_zeros(*each.shape[:2], 1) for each in sums]
            for layer, own, total, each in zip(tile, sums, totals, strides, strict=True):
                n_fine = n_overlap * stride // each
                weights = [_ramp(n, n_fine).to(layer) for n in layer.shape[:2]]
                weight = (weights[0][:, None] * weights[1])[:, :, None]
                place = tuple(slice(s.start // each, s.stop // each) for s in (row, column))
                own[place] += weight * layer
                total[place] += weight
        return [own / total for own, total in zip(sums, totals, strict=True)]

    def _spans(self, extent: int, stride: int, n_overlap: int) -> list[slice]:
        """Spread tiles evenly over an extent in pixels; they begin at multiples of the stride."""
        side, n_cells = max(self.side // stride, n_overlap + 1), extent // stride
        if n_cells <= side:
            return [slice(0, extent)]
        n_tiles = 1 + math.ceil((n_cells - side) / (side - n_overlap))
        firsts = [number * (n_cells - side) // (n_tiles - 1) for number in range(n_tiles)]
        return [slice(first * stride, (first + side) * stride) for first in firsts]

    def stitched(self, stride: int, margin: int, name: str) -> list[torch.Tensor]:
        """Put maps together from the inner parts of tiles that begin at multiples of the stride."""
        if self.side < 4 * margin:
            raise ValueError(
                f"tile_size={self.side} is too small for images larger than that, such as "
                f"{name}: tiles of this network overlap by {margin} pixels to each side, so "
                f"tile_size must be at least {4 * margin}"
            )
        side = max(min(self.side, _MAX_TILE), 4 * margin)
        core = (side - 2 * margin) // stride * stride
        whole: list[torch.Tensor] = []
        height, width = self.image.size
        for top, left in itertools.product(range(0, height, core), range(0, width, core)):
            upper, first = max(0, top - margin), max(0, left - margin)
            rows = slice(upper, min(height, top + core + margin))
            columns = slice(first, min(width, left + core + margin))
            tile, strides = self.maps(rows, columns)
            whole = whole or self._empty(tile, strides)
            for layer, found, own in zip(whole, tile, strides, strict=True):
                y, x, n = top // own, left // own, core // own
                overlap = (top - upper) // own, (left - first) // own
                inside = found[overlap[0] :, overlap[1] :][:n, :n]
                layer[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        return whole

    def _empty(self, like: list[torch.Tensor], strides: list[int]) -> list[torch.Tensor]:
        """Return zeros in the shape of the whole image's maps, with the channels of a tile's."""
        height, width = self.image.size
        return [
            layer.new_zeros(height // stride, width // stride, layer.shape[-1])
            for layer, stride in zip(like, strides, strict=True)
        ]


def _ramp(n: int, n_overlap: int) -> torch.Tensor:
    """Return the weights of n cells of a tile: 1, but less where a neighbour overlaps."""
    rising = torch.arange(1, n + 1, dtype=torch.float32) / (n_overlap + 1)
    return torch.minimum(rising, rising.flip(0)).clamp(max=1)
