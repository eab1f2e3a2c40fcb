"""One pass of the network over an image at its own size, and its windows as vectors."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hypervlad import vlad
from hypervlad.backbones import Reach, TappedNetwork, reach_of
from hypervlad.defects.lattice import Lattice
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.encoding import TorchCodebook
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


class View:
    """How a network sees images: with a mirrored border, whole or in tiles.

    Parameters
    ----------
    network : TappedNetwork
    tile_size : int
        Side in pixels of the largest square that the network takes at once.
    """

    def __init__(self, network: TappedNetwork, tile_size: int) -> None:
        self._network = network
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
            If it is larger than a tile, and the network's maps cannot be put together from tiles of
            that size.
        """
        stride = 32 if self._reach is None else self._reach.stride
        border = -(-_BORDER // stride) * stride
        beyond = [(border, border + -extent % stride) for extent in image.shape[1:]]
        padded = np.pad(image.numpy(), [(0, 0), *beyond], mode="symmetric")
        batch = torch.from_numpy(padded)[None]
        if max(image.shape[1:]) <= self.tile_size:
            maps = [layer[0] for layer in feature_maps(self._network, batch)]
        else:
            maps = self._from_tiles(batch, *self._tiling(name))
        return Seen(maps, (padded.shape[1], padded.shape[2]), border)

    @functools.cached_property
    def _reach(self) -> Reach | None:
        return reach_of(self._network)

    def _tiling(self, name: str) -> tuple[Reach, int]:
        """Return how far the network sees, and the side of what each tile adds to the whole."""
        if self._reach is None:
            raise ImageReadError(
                f"{name}: larger than tile_size={self.tile_size} pixels, but this network's maps "
                "cannot be put together from tiles, because each cell sees too much of the image; "
                "take another backbone, or a tile_size as large as the image"
            )
        smallest = 4 * self._reach.margin
        if self.tile_size < smallest:
            raise ValueError(
                f"tile_size={self.tile_size} is too small for images larger than that, such as "
                f"{name}: tiles overlap by the {self._reach.margin} pixels that this network sees "
                f"to each side, and are worth it from {smallest} pixels on"
            )
        inner = self.tile_size - 2 * self._reach.margin
        return self._reach, inner // self._reach.stride * self._reach.stride

    def _from_tiles(self, image: torch.Tensor, reach: Reach, core: int) -> list[torch.Tensor]:
        """Put maps together from overlapping tiles that begin at multiples of the stride."""
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


class WindowVectors:
    """Windows of images as vectors, all of them from one pass of the network an image.

    Parameters
    ----------
    encoder : HypercolumnVLAD
        Fitted.
    tile_size : int
        As in `View`.
    """

    def __init__(self, encoder: HypercolumnVLAD, tile_size: int) -> None:
        network = encoder.network()
        self.view = View(network, tile_size)
        self._words = TorchCodebook(encoder.codebook_, network.device)
        self._recipe = encoder.fitted_params_

    def means(self, seen: Seen, windows: Lattice) -> Iterator[NDArray[np.float32]]:
        """Yield the mean hypercolumns of some windows at a time, (n, channels), row by row.

        In units of each channel's standard deviation, from its mean.
        """
        at = (windows.rows + seen.border, windows.columns + seen.border, windows.side)
        widths = [layer.shape[-1] for layer in seen.maps]
        for means in window_means(seen.maps, seen.size, *at):
            pairs = zip(self._words.layers, means.flatten(0, 1).split(widths, dim=-1), strict=True)
            yield torch.cat([own.standardised(part) for own, part in pairs], dim=-1).cpu().numpy()

    def residual_sums(self, seen: Seen, windows: Lattice) -> Iterator[list[torch.Tensor]]:
        """Yield the un-normalised VLAD of some rows of windows at a time, (n, S, K, D) a codebook.

        Where a window holds no position of the grid, it is zero.
        """
        at = (windows.rows + seen.border, windows.columns + seen.border, windows.side)
        maps = self._words.project([layer[None] for layer in seen.maps])
        grid = self._recipe.grid if isinstance(self._recipe.grid, str) else "finest"
        books = []
        for part, codewords in self._words.parts(maps):
            size = self._words.size_of(part, maps, grid, seen.size)
            columns = dense_hypercolumns(part, size)[0]
            words = vlad.dense_assign(part, codewords, size)[0]
            books.append(window_residual_sums(columns, words, codewords, seen.size, *at))
        return map(list, zip(*books, strict=True))

    def vectors(self, seen: Seen, windows: Lattice) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors of some windows at a time, (n, n_features), row by row.

        As the encoder makes them of images.
        """
        steps = zip(self.residual_sums(seen, windows), self.means(seen, windows), strict=True)
        for sums, means in steps:
            yield self.joined([of_book.flatten(0, 1) for of_book in sums], means)

    def joined(self, sums: list[torch.Tensor], means: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors (n, n_features) of residual sums (n, K, D) a codebook and means (n, C).

        Sums are normalised as the encoder does; means stay out where it pools none.
        """
        kinds = self._words.by_kind(sums)
        parts = [vlad.normalize(kind, self._recipe.normalize).cpu().numpy() for kind in kinds]
        if self._recipe.pooled:
            parts.append(means / np.sqrt(means.shape[1]))
        return np.hstack(parts)
