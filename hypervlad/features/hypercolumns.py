"""Hypercolumns: a network's maps of an image, enlarged to one grid and stacked.

The hypercolumn of a position p of a grid is x_p = concat_l (U_l F_l)_p, where F_l is a layer's map
and U_l its bilinear enlargement (Hariharan et al. 2015, "Hypercolumns for object segmentation and
fine-grained localization", CVPR). Functions are pure; maps are channels last, (B, h_l, w_l, d_l).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hypervlad.features.lazy_torch import torch
from hypervlad.features.network import TappedNetwork

#: Rows of windows: bounds the memory without many small steps.
ROWS_AT_ONCE = 16


def turned(images: torch.Tensor, turn: int) -> torch.Tensor:
    """Turn images (..., H, W) by ``turn % 4`` right angles, from 4 on mirrored first."""
    images = images.flip(-1) if turn >= 4 else images
    # rot90 copies even where there is nothing to turn.
    return images.rot90(turn % 4, (-2, -1)) if turn % 4 else images


def turned_back(maps: torch.Tensor, turn: int) -> torch.Tensor:
    """Undo :func:`turned`; the image's two axes come last."""
    maps = maps.rot90(-(turn % 4), (-2, -1))
    return maps.flip(-1) if turn >= 4 else maps


def feature_maps(network: TappedNetwork, batch: torch.Tensor) -> list[torch.Tensor]:
    """Run a network on prepared images (B, C, H, W), on any device; return its taps' maps."""
    return [tap.permute(0, 2, 3, 1) for tap in network(batch)]


class AxisInterpolation(NamedTuple):
    """Bilinear enlargement along one axis: out[i] = (1 - weight) in[low] + weight in[high]."""

    low: torch.Tensor
    high: torch.Tensor
    weight: torch.Tensor


def axis_interpolation(
    n_in: int, n_out: int, device: torch.device | str = "cpu"
) -> AxisInterpolation:
    """Return the weights of ``torch.nn.functional.interpolate(align_corners=False)``."""
    position = (torch.arange(n_out, dtype=torch.float64) + 0.5) * (n_in / n_out) - 0.5
    position = position.clamp(min=0)
    low = position.floor().long().clamp(max=n_in - 1)
    high = (low + 1).clamp(max=n_in - 1)
    weight = (position - low).float()
    return AxisInterpolation(low.to(device), high.to(device), weight.to(device))


def enlarge(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Enlarge maps (B, h, w, C) bilinearly to (B, height, width, C)."""
    if tuple(maps.shape[1:3]) == size:
        return maps
    channels_first = maps.permute(0, 3, 1, 2)
    enlarged = torch.nn.functional.interpolate(
        channels_first, size, mode="bilinear", align_corners=False
    )
    return enlarged.permute(0, 2, 3, 1)


def dense_hypercolumns(maps: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Stack all maps (B, h_l, w_l, C_l) on a grid: (B, height, width, sum of C_l)."""
    return torch.cat([enlarge(layer, size) for layer in maps], dim=-1)


def hypercolumns_at(
    maps: Sequence[torch.Tensor], points: np.ndarray, size: tuple[int, int]
) -> list[torch.Tensor]:
    """Read the hypercolumns of one image at chosen pixels, flat indices into a grid of this size.

    From maps (h_l, w_l, C_l), return tensors (n, C_l).
    """
    blocks = []
    for layer in maps:
        index = torch.from_numpy(np.asarray(points, dtype=np.int64)).to(layer.device)
        rows = axis_interpolation(layer.shape[0], size[0], layer.device)
        cols = axis_interpolation(layer.shape[1], size[1], layer.device)
        y, x = index // size[1], index % size[1]
        left, right, across = cols.low[x], cols.high[x], cols.weight[x, None]
        ends = rows.low[y], rows.high[y]
        top, bottom = (torch.lerp(layer[row, left], layer[row, right], across) for row in ends)
        blocks.append(torch.lerp(top, bottom, rows.weight[y, None]))
    return blocks


def window_means(
    maps: Sequence[torch.Tensor],
    size: tuple[int, int],
    rows: ArrayLike,
    columns: ArrayLike,
    side: int,
) -> Iterator[torch.Tensor]:
    """Average the hypercolumns of all pixels of each window, a few rows of windows at a time.

    From maps (h_l, w_l, C_l) of an image of this size, and upper and left edges of R x S windows,
    yield tensors (n, S, sum of C_l). All sizes are in pixels. A mean is linear in the maps,

        mean_w x = concat_l sum_q m_l(w, q) F_l,q      m_l(w, q) = mean of U_l over the pixels of w

    and m_l is a product of one small matrix for the rows and one for the columns.
    """
    axes = [
        (
            _axis_means(layer.shape[0], size[0], rows, side, layer).split(ROWS_AT_ONCE),
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


def resample_preserving_sum(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resample maps (..., h, w) by the adjoint of bilinear interpolation, which preserves sums."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    pairs = zip(maps.shape[-2:], size, strict=True)
    rows, cols = (_shares(n_in, n_out, maps) for n_in, n_out in pairs)
    return rows @ maps @ cols.T


def _shares(n_in: int, n_out: int, like: torch.Tensor) -> torch.Tensor:
    """Return the share of each input cell in each output cell: (n_out, n_in), columns sum to 1."""
    n_few, n_many = sorted((n_in, n_out))
    axis = axis_interpolation(n_few, n_many, like.device)
    weights = like.new_zeros(n_many, n_few)
    places = torch.arange(n_many, device=like.device)
    for cell, weight in ((axis.low, 1 - axis.weight), (axis.high, axis.weight)):
        weights.index_put_((places, cell), weight.to(like.dtype), accumulate=True)
    weights = weights if n_out == n_many else weights.T
    return weights / weights.sum(0)


def positions_inside(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return which positions of a grid belong to masks (B, H, W): bool, (B, height, width).

    Masks hold the share of each pixel that belongs to the particle. A position belongs to it with
    at least half the share of the position that it covers best, so that it has one, however small.
    """
    shares = torch.nn.functional.adaptive_avg_pool2d(masks, size)
    return shares >= shares.amax(dim=(1, 2), keepdim=True) / 2


def cell_weights(masks: torch.Tensor, layer: torch.Tensor) -> torch.Tensor:
    """Return how much each cell of a layer (B, h, w, C) adds to the averages over masks (B, H, W).

    The average of U F over a mask m is that of F with the weights U^T m, (B, h, w), of sum 1.
    """
    weights = resample_preserving_sum(masks.to(layer), (layer.shape[1], layer.shape[2]))
    return weights / weights.sum(dim=(1, 2), keepdim=True)
