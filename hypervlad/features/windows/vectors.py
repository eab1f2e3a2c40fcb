"""Vectors of windows from an image's feature maps: mean hypercolumns and residual sums.

Let U_l enlarge layer l bilinearly to the image's pixels. The mean hypercolumn of a window w is
linear in the map,

    mean_w x = concat_l sum_q m_l(w, q) F_l,q      m_l(w, q) = mean of U_l over the pixels of w

and m_l is a product of one small matrix for the rows and one for the columns. Residual sums are
over the positions of a grid whose centres lie in the window. Both are yielded for a few rows of
windows at a time, to save memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.features import vlad
from hypervlad.features.backbones import class_tokens, get_backbone
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.encoder.encoding import TorchCodebook, finish_pooled
from hypervlad.features.hypercolumns import axis_interpolation, dense_hypercolumns
from hypervlad.features.lazy_torch import torch
from hypervlad.features.windows.grid import WindowGrid
from hypervlad.features.windows.maps import PaddedMaps, TiledNetwork

_ROWS_AT_ONCE = 16  # of windows: bounds the memory without many small steps


class WindowVectors:
    """Vectors of windows, all from one pass of an image through a fitted encoder's network."""

    def __init__(
        self,
        encoder: HypercolumnVLAD,
        tile_size: int,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        network = encoder.network()
        self.network = TiledNetwork(network, tile_size, folder)
        self._codebook = TorchCodebook(encoder.codebook_, network.device)
        self._params = encoder.fitted_params_

    def means(self, maps: PaddedMaps, grid: WindowGrid) -> Iterator[NDArray[np.float32]]:
        """Yield the mean standardised hypercolumns (n, channels) of a few rows of windows."""
        windows = (grid.rows + maps.border, grid.columns + maps.border, grid.side)
        widths = [layer.shape[-1] for layer in maps.maps]
        for means in window_means(maps.maps, maps.size, *windows):
            layers = means.flatten(0, 1).split(widths, dim=-1)
            pairs = zip(self._codebook.layers, layers, strict=True)
            yield torch.cat([own.standardised(part) for own, part in pairs], dim=-1).cpu().numpy()

    def residual_sums(self, maps: PaddedMaps, grid: WindowGrid) -> Iterator[list[torch.Tensor]]:
        """Yield un-normalised VLAD (n, S, K, D) of n rows of windows at a time, for each codebook.

        It is zero for a window without a position of the hypercolumns' grid.
        """
        windows = (grid.rows + maps.border, grid.columns + maps.border, grid.side)
        projected = self._codebook.project([layer[None] for layer in maps.maps])
        spacing = self._params.grid if isinstance(self._params.grid, str) else "finest"
        of_codebooks = []
        for layers, codewords in self._codebook.blocks(projected):
            size = self._codebook.size_of(layers, projected, spacing, maps.size)
            columns = dense_hypercolumns(layers, size)[0]
            assignments = vlad.dense_assign(layers, codewords, size)[0]
            sums = window_residual_sums(columns, assignments, codewords, maps.size, *windows)
            of_codebooks.append(sums)
        return map(list, zip(*of_codebooks, strict=True))

    def vectors(self, maps: PaddedMaps, grid: WindowGrid) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors (n, n_features) of a few rows of windows at a time."""
        steps = zip(self.residual_sums(maps, grid), self.means(maps, grid), strict=True)
        for sums, means in steps:
            yield self.join([of_codebook.flatten(0, 1) for of_codebook in sums], means)

    def products(
        self, maps: PaddedMaps, grid: WindowGrid, weights: NDArray[np.float32]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors times weights (n_features, M), (n, M), of a few rows of windows."""
        if self._params.has_unit_averages:  # divided by lengths, so not linear
            yield from (vectors @ weights for vectors in self.vectors(maps, grid))
            return
        matrix = torch.from_numpy(weights).to(maps.maps[0].device)
        of_layers = []
        if self._params.is_pooled:
            channels = [layer.shape[-1] for layer in maps.maps]
            of_means = (matrix[-sum(channels) :] / np.sqrt(sum(channels))).split(channels)
            of_layers = [
                own.standardised(layer) @ part
                for own, layer, part in zip(self._codebook.layers, maps.maps, of_means, strict=True)
            ]
        windows = (grid.rows + maps.border, grid.columns + maps.border, grid.side)
        means = window_means(of_layers, maps.size, *windows)
        for sums in self.residual_sums(maps, grid):
            found = sums[0].new_zeros(len(sums[0]) * grid.shape[1], matrix.shape[1])
            if of_layers:
                found += next(means).view(len(found), len(of_layers), -1).sum(1)
            first = 0
            for kind in self._codebook.by_kind([each.flatten(0, 1) for each in sums]):
                block = vlad.normalize(kind)
                found.addmm_(block, matrix[first : first + block.shape[1]])
                first += block.shape[1]
            yield found.cpu().numpy()

    def join(self, sums: list[torch.Tensor], means: NDArray[np.float32]) -> NDArray[np.float32]:
        """Join the residual sums (n, K, D) of each codebook and the means (n, C) to vectors."""
        kinds = self._codebook.by_kind(sums)
        blocks = [vlad.normalize(kind).cpu().numpy() for kind in kinds]
        if self._params.is_pooled:
            scaled = torch.from_numpy(means / np.sqrt(means.shape[1]))
            blocks.append(finish_pooled(scaled, self._params).numpy())
        return np.hstack(blocks)


def window_encoder(**parameters: Any) -> HypercolumnVLAD:
    """Return an encoder for windows of images at their own size, with the given parameters changed.

    It has the two taps before the network's last.
    """
    taps = get_backbone(parameters.get("backbone", "mobilenet_v2")).taps
    usual = {
        "taps": taps[-3:-1] or taps,
        "image_size": None,
        "n_codewords": 16,
        "blocks": ("joint", "pooled"),
        "sampling": "windows",
    }
    return HypercolumnVLAD(**usual | parameters)


def check_window_encoder(encoder: HypercolumnVLAD, purpose: str) -> None:
    """Raise a ValueError unless an encoder can encode windows."""
    if encoder.image_size is not None:
        raise ValueError(
            f"the encoder resizes images to {encoder.image_size} pixels, but {purpose} at "
            "an image's own size: give HypercolumnVLAD(image_size=None, ...)"
        )
    if (most := get_backbone(encoder.backbone).maximum_size) is not None:
        raise ValueError(
            f"{encoder.backbone!r} takes images of at most {most} x {most} pixels, but {purpose} "
            "in images of any size: choose another network"
        )
    if encoder.sampling == "luo2021":
        raise ValueError("the encoder's sampling must not be 'luo2021' for windows")
    if encoder.taps is not None and (tokens := class_tokens(encoder.taps, encoder.backbone)):
        raise ValueError(f"{tokens[0]!r} is of a whole image, not of its windows: leave it out")
    if encoder.turns != 1:
        raise ValueError(f"the encoder's turns must be 1 for windows, not {encoder.turns}")


def window_means(
    maps: Sequence[torch.Tensor],
    size: tuple[int, int],
    rows: ArrayLike,
    columns: ArrayLike,
    side: int,
) -> Iterator[torch.Tensor]:
    """Average the hypercolumns of all pixels of each window, a few rows of windows at a time.

    From maps (h_l, w_l, C_l) of an image of this size, and upper and left edges of R x S windows,
    yield tensors (n, S, sum of C_l). All sizes are in pixels.
    """
    axes = [
        (
            _axis_means(layer.shape[0], size[0], rows, side, layer).split(_ROWS_AT_ONCE),
            _axis_means(layer.shape[1], size[1], columns, side, layer),
        )
        for layer in maps
    ]
    for blocks in zip(*(down for down, _ in axes), strict=True):
        means = []
        for block, layer, (_, across) in zip(blocks, maps, axes, strict=True):
            height, width, n_channels = layer.shape
            narrow = (block @ layer.reshape(height, -1)).view(-1, width, n_channels)
            means.append(across @ narrow)
        yield torch.cat(means, dim=-1)


def window_residual_sums(
    hypercolumns: torch.Tensor,
    assignments: torch.Tensor,
    codewords: torch.Tensor,
    size: tuple[int, int],
    rows: ArrayLike,
    columns: ArrayLike,
    side: int,
) -> Iterator[torch.Tensor]:
    """Sum residuals over the positions of each window, a few rows of windows at a time.

    From hypercolumns (height, width, D) on a grid over the image, their assignments and codewords
    (K, D), yield tensors (n, S, K, D). Other parameters are those of :func:`window_means`.
    """
    height, width = assignments.shape
    residuals = hypercolumns - codewords[assignments]
    low, high = _positions(width, size[1], columns, side)
    steps = np.arange(max(1, int((high - low).max(initial=0))))
    inside = torch.from_numpy(low[:, None] + steps < high[:, None])[:, :, None].to(residuals)
    at = torch.from_numpy(np.minimum(low[:, None] + steps, width - 1)).to(residuals.device)

    n_codewords, n_windows = len(codewords), len(low)
    first, last = _positions(height, size[0], rows, side)
    for start in range(0, len(first), _ROWS_AT_ONCE):
        own = slice(start, start + _ROWS_AT_ONCE)
        y = torch.arange(int(first[own].min()), int(last[own].max()), device=residuals.device)
        # Of each row of positions and each window's columns, then of each window's rows.
        places = torch.arange(len(y) * n_windows, device=y.device).view(-1, n_windows, 1)
        of_codeword = (places * n_codewords + assignments[y][:, at]).flatten()
        added = (residuals[y][:, at] * inside).flatten(0, 2)
        of_row = added.new_zeros(len(y) * n_windows * n_codewords, added.shape[1])
        of_row.index_add_(0, of_codeword, added)
        low_y, high_y = (torch.from_numpy(edge[own, None]).to(y.device) for edge in (first, last))
        is_in = ((y >= low_y) & (y < high_y)).to(residuals.dtype)
        yield torch.tensordot(is_in, of_row.view(len(y), n_windows, *codewords.shape), dims=1)


def _positions(
    n_positions: int, n_pixels: int, starts: ArrayLike, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first position of each window along an axis, and the one after its last."""
    centres = (np.arange(n_positions) + 0.5) * (n_pixels / n_positions)
    edges = np.asarray(starts, dtype=np.int64)
    return np.searchsorted(centres, edges), np.searchsorted(centres, edges + side)


def _axis_means(
    n_cells: int, n_pixels: int, starts: ArrayLike, side: int, like: torch.Tensor
) -> torch.Tensor:
    """Return the weight of each cell in the mean of each window along an axis: (windows, cells)."""
    edges = torch.as_tensor(np.asarray(starts, dtype=np.int64), device=like.device)
    axis = axis_interpolation(n_cells, n_pixels, like.device)
    pixels = edges[:, None] + torch.arange(side, device=like.device)
    window = torch.arange(len(edges), device=like.device)[:, None].expand_as(pixels)
    shares = torch.zeros(len(edges), n_cells, dtype=torch.float64, device=like.device)
    for cells, weight in ((axis.low, 1 - axis.weight), (axis.high, axis.weight)):
        shares.index_put_((window, cells[pixels]), weight[pixels].double(), accumulate=True)
    return (shares / side).to(like.dtype)
