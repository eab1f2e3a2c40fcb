"""Feature maps of whole images, computed with a mirrored border and, for large images, in tiles."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hypervlad.common.files import naming
from hypervlad.features.backbones import TappedNetwork
from hypervlad.features.hypercolumns import feature_maps
from hypervlad.features.lazy_torch import torch
from hypervlad.images import ImageReadError

# Pixels around an image, mirrored. Networks pad with zeros, which look like a dark frame.
_BORDER = 32
_OVERLAP = 0.25  # of the side of a tile whose cells depend on all of it


@dataclass(frozen=True, eq=False)
class PaddedMaps:
    """Feature maps (h_l, w_l, C_l) of an image and its mirrored border; sizes in pixels.

    ``size`` is that of both together, ``border`` what is above and left.
    """

    maps: list[torch.Tensor]
    size: tuple[int, int]
    border: int


class TiledNetwork:
    """A network that computes feature maps of images of any size.

    Images larger than ``tile_size`` are cut into tiles that overlap by the network's receptive
    field, so that the maps are those of the whole image. Where cells depend on the whole image, as
    in transformers, tiles overlap by a quarter at least, and are blended linearly. The ``folder``
    keeps maps that are needed again; at least ``border`` pixels are mirrored at each edge.
    """

    def __init__(
        self,
        network: TappedNetwork,
        tile_size: int,
        folder: str | os.PathLike[str] | None = None,
        border: int = _BORDER,
    ) -> None:
        self.tile_size = tile_size
        self._border = border
        self._network = network
        self._folder = None if folder is None else Path(folder)

    def padded_maps(
        self, image: torch.Tensor, name: str, key: str | None = None, *, keep: bool = False
    ) -> PaddedMaps:
        """Return the maps of a prepared image (C, H, W), from the folder if it has the key.

        ``keep`` says whether the folder keeps them after this call.
        """
        if self._folder is None or key is None:
            return self._computed(image, name)
        path = self._path(key)
        is_kept = path.exists()
        maps = self.stored_maps(key) if is_kept else self._computed(image, name)
        if keep and not is_kept:
            layers = (layer.cpu().numpy() for layer in maps.maps)
            with naming(path):
                np.savez(path, *layers, size=maps.size, border=maps.border)
        elif is_kept and not keep:
            path.unlink()
        return maps

    def stored_maps(self, key: str) -> PaddedMaps:
        with np.load(self._path(key)) as stored:
            names = [name for name in stored.files if name.startswith("arr_")]
            layers = [torch.from_numpy(stored[name]).to(self._network.device) for name in names]
            height, width = stored["size"].tolist()
            return PaddedMaps(layers, (height, width), int(stored["border"]))

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.npz"

    def _computed(self, image: torch.Tensor, name: str) -> PaddedMaps:
        stride = self._network.stride(len(image)) or 32
        border = -(-self._border // stride) * stride
        widths = [(border, border + -extent % stride) for extent in image.shape[1:]]
        padded = np.pad(image.numpy(), [(0, 0), *widths], mode="symmetric")
        batch = torch.from_numpy(padded)[None]
        if max(image.shape[1:]) <= self.tile_size:
            maps = [layer[0] for layer in feature_maps(self._network, batch)]
        else:
            maps = self._in_tiles(batch, name)
        return PaddedMaps(maps, (padded.shape[1], padded.shape[2]), border)

    def _in_tiles(self, image: torch.Tensor, name: str) -> list[torch.Tensor]:
        reach = self._network.reach(image.shape[1])
        if reach is None:
            raise ImageReadError(
                f"{name}: larger than tile_size={self.tile_size} pixels, but this network's maps "
                "cannot be put together from tiles, because its cells do not form a regular grid; "
                "choose another backbone, or a tile_size as large as the image"
            )
        if reach.margin is None:
            return self._blended(image, reach.stride)
        return self._stitched(image, reach.stride, reach.margin, name)

    def _blended(self, image: torch.Tensor, stride: int) -> list[torch.Tensor]:
        """Average the maps of overlapping tiles, weighted by the distance from a tile's edge."""
        sums: list[torch.Tensor] = []
        totals: list[torch.Tensor] = []
        n_overlap = max(1, int(self.tile_size * _OVERLAP) // stride)
        rows, columns = (self._spans(extent, stride, n_overlap) for extent in image.shape[2:])
        for row in rows:
            for column in columns:
                tile = feature_maps(self._network, image[:, :, row, column])
                strides = [(row.stop - row.start) // layer.shape[1] for layer in tile]
                if not sums:
                    extents = [[n // each for n in image.shape[2:]] for each in strides]
                    sums = [
                        layer.new_zeros(*extent, layer.shape[-1])
                        for layer, extent in zip(tile, extents, strict=True)
                    ]
                    totals = [each.new_zeros(*each.shape[:2], 1) for each in sums]
                for layer, own, total, each in zip(tile, sums, totals, strides, strict=True):
                    n_fine = n_overlap * stride // each
                    weights = [_ramp(n, n_fine).to(layer) for n in layer.shape[1:3]]
                    weight = (weights[0][:, None] * weights[1])[:, :, None]
                    place = tuple(slice(s.start // each, s.stop // each) for s in (row, column))
                    own[place] += weight * layer[0]
                    total[place] += weight
        return [own / total for own, total in zip(sums, totals, strict=True)]

    def _spans(self, extent: int, stride: int, n_overlap: int) -> list[slice]:
        """Spread tiles evenly over an extent in pixels; they begin at multiples of the stride."""
        side, n_cells = max(self.tile_size // stride, n_overlap + 1), extent // stride
        if n_cells <= side:
            return [slice(0, extent)]
        n_tiles = 1 + math.ceil((n_cells - side) / (side - n_overlap))
        firsts = [number * (n_cells - side) // (n_tiles - 1) for number in range(n_tiles)]
        return [slice(first * stride, (first + side) * stride) for first in firsts]

    def _stitched(
        self, image: torch.Tensor, stride: int, margin: int, name: str
    ) -> list[torch.Tensor]:
        """Put maps together from the inner parts of tiles that begin at multiples of the stride."""
        if self.tile_size < 4 * margin:
            raise ValueError(
                f"tile_size={self.tile_size} is too small for images larger than that, such as "
                f"{name}: tiles of this network overlap by {margin} pixels to each side, so "
                f"tile_size must be at least {4 * margin}"
            )
        core = (self.tile_size - 2 * margin) // stride * stride
        whole: list[torch.Tensor] = []
        height, width = image.shape[2:]
        for top in range(0, height, core):
            for left in range(0, width, core):
                upper, first = max(0, top - margin), max(0, left - margin)
                rows = slice(upper, min(height, top + core + margin))
                columns = slice(first, min(width, left + core + margin))
                tile = feature_maps(self._network, image[:, :, rows, columns])
                strides = [(rows.stop - rows.start) // layer.shape[1] for layer in tile]
                if not whole:
                    whole = [
                        layer.new_zeros(height // own, width // own, layer.shape[-1])
                        for layer, own in zip(tile, strides, strict=True)
                    ]
                for layer, found, own in zip(whole, tile, strides, strict=True):
                    y, x, n = top // own, left // own, core // own
                    overlap = (top - upper) // own, (left - first) // own
                    inside = found[0, overlap[0] :, overlap[1] :][:n, :n]
                    layer[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        return whole


def _ramp(n: int, n_overlap: int) -> torch.Tensor:
    """Return the weights of n cells of a tile: 1, but less where a neighbour overlaps."""
    rising = torch.arange(1, n + 1, dtype=torch.float32) / (n_overlap + 1)
    return torch.minimum(rising, rising.flip(0)).clamp(max=1)
