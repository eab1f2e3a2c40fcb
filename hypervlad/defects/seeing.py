"""One pass of the network over an image at its own size, and its windows as vectors."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hypervlad import vlad
from hypervlad.backbones import Reach, reach_of
from hypervlad.defects.lattice import Lattice
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.projection import TorchCodebook
from hypervlad.hypercolumns import dense_hypercolumns, feature_maps
from hypervlad.images import ImageReadError
from hypervlad.windows import window_means, window_residual_sums

_BORDER = 32  # pixels around an image, mirrored: a network sees zeros beyond, as if they were dark


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network saw of an image.

    Attributes
    ----------
    maps : list of Tensor of shape (h_l, w_l, C_l)
        Of the image with a mirrored border.
    size : (int, int)
        Height and width of image and border, pixels.
    border : int
        Pixels above and to the left of the image.
    """

    maps: list[torch.Tensor]
    size: tuple[int, int]
    border: int


class WindowVectors:
    """Windows of images as vectors, all of them from one pass of the network an image.

    Parameters
    ----------
    encoder : HypercolumnVLAD
        Fitted.
    tile_size : int
        Side in pixels of the largest square that the network takes at once.
    """

    def __init__(self, encoder: HypercolumnVLAD, tile_size: int) -> None:
        self._network = encoder._network()
        self._words = TorchCodebook(encoder.codebook_, self._network.device)
        self._recipe = encoder.recipe_
        self.tile_size = tile_size

    def seen(self, image: torch.Tensor, name: str) -> Seen:
        """Pass the network over a prepared image.

        Parameters
        ----------
        image : Tensor of shape (C, H, W)
        name : str
            What errors call it.

        Raises
        ------
        ImageReadError
            If it is larger than a tile, and the network's maps cannot be put together from tiles.
        """
        stride = 32 if self._reach is None else self._reach.stride
        border = -(-_BORDER // stride) * stride
        beyond = [(border, border + -extent % stride) for extent in image.shape[1:]]
        padded = np.pad(image.numpy(), [(0, 0), *beyond], mode="symmetric")
        maps = self._maps(torch.from_numpy(padded)[None], name)
        return Seen(maps, (padded.shape[1], padded.shape[2]), border)

    def means(self, seen: Seen, windows: Lattice) -> Iterator[NDArray[np.float32]]:
        """Yield the mean hypercolumns of a row of windows at a time, (S, channels).

        In units of each channel's standard deviation, from its mean.
        """
        at = (windows.rows + seen.border, windows.columns + seen.border, windows.side)
        means = window_means(seen.maps, seen.size, *at)
        blocks = means.split([layer.shape[-1] for layer in seen.maps], dim=-1)
        pairs = zip(self._words.layers, blocks, strict=True)
        yield from torch.cat([own.standardised(b) for own, b in pairs], dim=-1).cpu().numpy()

    def vectors(self, seen: Seen, windows: Lattice) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors of a row of windows at a time, (S, n_features).

        As the encoder makes them of images; where a window holds no position of the grid, its
        VLAD is zero.
        """
        at = (windows.rows + seen.border, windows.columns + seen.border, windows.side)
        maps = self._words.project([layer[None] for layer in seen.maps])
        grid = self._recipe.grid if isinstance(self._recipe.grid, str) else "finest"
        books = []
        for part, codewords in self._words.parts(maps):
            size = self._words.size_of(part, maps, grid, seen.size)
            columns, words = (
                dense_hypercolumns(part, size),
                vlad.dense_assign(part, codewords, size),
            )
            books.append(window_residual_sums(columns[0], words[0], codewords, seen.size, *at))
        for means, *sums in zip(self.means(seen, windows), *books, strict=True):
            kinds = self._words.by_kind(list(sums))
            parts = [vlad.normalize(kind, self._recipe.normalize).cpu().numpy() for kind in kinds]
            if self._recipe.pooled:
                parts.append(means / np.sqrt(means.shape[1]))
            yield np.hstack(parts)

    # --- the network -------------------------------------------------------------------------

    @functools.cached_property
    def _reach(self) -> Reach | None:
        return reach_of(self._network)

    def _maps(self, image: torch.Tensor, name: str) -> list[torch.Tensor]:
        if max(image.shape[2:]) <= self.tile_size:
            return [layer[0] for layer in feature_maps(self._network, image)]
        if self._reach is None:
            raise ImageReadError(
                f"{name}: larger than tile_size={self.tile_size} pixels, but this network's maps "
                "cannot be put together from tiles, because each cell sees too much of the image; "
                "take another backbone, or a tile_size as large as the image"
            )
        return self._from_tiles(image, self._reach)

    def _from_tiles(self, image: torch.Tensor, reach: Reach) -> list[torch.Tensor]:
        """Put maps together from overlapping tiles that begin at multiples of the stride."""
        inner = (self.tile_size - 2 * reach.margin) // reach.stride * reach.stride
        core = max(reach.stride, inner)
        whole: list[torch.Tensor] = []
        height, width = image.shape[2:]
        for top in range(0, height, core):
            for left in range(0, width, core):
                upper, first = max(0, top - reach.margin), max(0, left - reach.margin)
                rows = slice(upper, min(height, top + core + reach.margin))
                columns = slice(first, min(width, left + core + reach.margin))
                tile = feature_maps(self._network, image[:, :, rows, columns])
                strides = [(rows.stop - rows.start) // layer.shape[1] for layer in tile]
                if not whole:
                    whole = [
                        layer.new_zeros(height // stride, width // stride, layer.shape[-1])
                        for layer, stride in zip(tile, strides, strict=True)
                    ]
                for layer, found, stride in zip(whole, tile, strides, strict=True):
                    y, x, n = top // stride, left // stride, core // stride
                    skipped = (top - upper) // stride, (left - first) // stride
                    inside = found[0, skipped[0] :, skipped[1] :][:n, :n]
                    layer[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        return whole
