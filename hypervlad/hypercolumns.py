"""From an image to feature maps, and from feature maps to hypercolumns.

The hypercolumn of a pixel stacks the features of every tapped layer at that pixel: each layer's map
is enlarged bilinearly to a common grid (Hariharan et al. 2015,
"Hypercolumns for object segmentation and fine-grained localization", CVPR).

Maps are channels last here, (B, h_l, w_l, C_l): a position's features are contiguous in memory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from hypervlad.backbones import Preprocessing, TappedNetwork
from hypervlad.lazy_torch import torch


class AxisInterpolation(NamedTuple):
    """Bilinear enlargement along one axis: out[i] = (1 - weight) in[low] + weight in[high]."""

    low: torch.Tensor
    high: torch.Tensor
    weight: torch.Tensor


def input_size(
    shape: tuple[int, ...],
    image_size: int | None,
    aspect: Literal["square", "own"] = "square",
    minimum: int = 32,
) -> tuple[int, int]:
    """Return the size at which an image enters the network.

    Parameters
    ----------
    shape : tuple of int
        Of the image, (H, W) or (H, W, 3), pixels.
    image_size : int or None
        Side in pixels of the square; with ``aspect="own"`` the square root of the area. None: the
        image's own size.
    aspect : {"square", "own"}, default="square"
        Stretch to a square, or keep the image's own proportions.
    minimum : int, default=32
        The shortest side that the network accepts, pixels.

    Returns
    -------
    tuple of int
        Height and width, pixels.

    Examples
    --------
    >>> input_size((600, 1200), 224)
    (224, 224)
    >>> input_size((600, 1200), 224, aspect="own")
    (158, 317)
    >>> input_size((600, 1200), None)
    (600, 1200)
    """
    if image_size is None:
        return max(minimum, shape[0]), max(minimum, shape[1])
    if aspect == "square":
        return image_size, image_size
    scale = image_size / math.sqrt(shape[0] * shape[1])
    return max(minimum, round(shape[0] * scale)), max(minimum, round(shape[1] * scale))


def prepare(
    pixels: np.ndarray, size: tuple[int, int], preprocessing: Preprocessing
) -> torch.Tensor:
    """Resize an image and normalise it for a network.

    Parameters
    ----------
    pixels : ndarray of shape (H, W) or (H, W, 3), float32 in [0, 1]
    size : tuple of int
        Height and width to resize to (antialiased), pixels.
    preprocessing : Preprocessing
        The network's mean and standard deviation per channel, and how images are interpolated.

    Returns
    -------
    Tensor of shape (C, height, width), float32
    """
    # Without torch, whose threads wait actively after each small step and hold up other work.
    image = pixels if pixels.ndim == 3 else pixels[:, :, None]
    if image.shape[:2] != size:
        image = _resized(image, size, preprocessing.interpolation)
    n_channels = len(preprocessing.mean)
    if image.shape[2] != n_channels:
        image = image.mean(axis=2, keepdims=True)
    mean, std = (
        np.array(each, np.float32)[:, None, None]
        for each in (preprocessing.mean, preprocessing.std)
    )
    tensor = np.subtract(np.moveaxis(image, 2, 0), mean, order="C")
    return torch.from_numpy(np.divide(tensor, std, out=tensor))


def _resized(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Resize an image (H, W, C) to (height, width, C), antialiased, as Pillow and torch do."""
    for n_out in size:
        if len(image) != n_out:
            rows = axis_weights(len(image), n_out, mode) @ image.reshape(len(image), -1)
            image = rows.reshape(n_out, *image.shape[1:])
        image = np.ascontiguousarray(image.swapaxes(0, 1))
    # Bicubic interpolation overshoots at edges.
    return image.clip(0, 1) if mode == "bicubic" else image


@functools.lru_cache(32)
def axis_weights(n_in: int, n_out: int, mode: str) -> csr_array:
    """Return the weights that resize an axis: a sparse array (n_out, n_in), rows sum to 1.

    Parameters
    ----------
    n_in, n_out : int
    mode : {"bilinear", "bicubic"}
        A triangle, or Keys' cubic with -0.5, widened by ``n_in / n_out`` where that is above 1.
    """
    scale = n_in / n_out
    width = max(scale, 1.0)
    reach = width if mode == "bilinear" else 2 * width
    centre = ((np.arange(n_out) + 0.5) * scale)[:, None]
    columns = np.floor(centre - reach).astype(int) + np.arange(math.ceil(2 * reach) + 2)
    distance = np.abs(columns + 0.5 - centre) / width
    weights = _triangle(distance) if mode == "bilinear" else _cubic(distance)
    weights[(columns < 0) | (columns >= n_in)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    row, column = np.nonzero(weights)
    entries = weights[row, column].astype(np.float32), (row, columns[row, column])
    return csr_array(entries, shape=(n_out, n_in))


def _triangle(x: np.ndarray) -> np.ndarray:
    weights: np.ndarray = np.maximum(1 - x, 0)
    return weights


def _cubic(x: np.ndarray) -> np.ndarray:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def normalised(images: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Subtract a network's mean and divide by its standard deviation, channel by channel.

    Parameters
    ----------
    images : Tensor of shape (..., C, H, W), float32 in [0, 1]
    preprocessing : Preprocessing

    Returns
    -------
    Tensor of the same shape
    """
    mean = torch.tensor(preprocessing.mean, device=images.device)[:, None, None]
    std = torch.tensor(preprocessing.std, device=images.device)[:, None, None]
    return (images - mean) / std


def turned(images: torch.Tensor, turn: int) -> torch.Tensor:
    """Turn images by right angles, optionally mirrored first.

    Parameters
    ----------
    images : Tensor of shape (..., H, W)
    turn : int
        0 to 3 quarter turns; 4 to 7, the same of the mirror image.

    Returns
    -------
    Tensor of shape (..., H, W), or (..., W, H) after an odd number of quarter turns
    """
    images = images.flip(-1) if turn >= 4 else images
    # rot90 copies even where there is nothing to turn.
    return images.rot90(turn % 4, (-2, -1)) if turn % 4 else images


def turned_back(maps: torch.Tensor, turn: int) -> torch.Tensor:
    """Undo :func:`turned`; the image's two axes come last."""
    maps = maps.rot90(-(turn % 4), (-2, -1))
    return maps.flip(-1) if turn >= 4 else maps


def feature_maps(network: TappedNetwork, batch: torch.Tensor) -> list[torch.Tensor]:
    """Run a network once and return its taps' maps, channels last.

    Parameters
    ----------
    network : TappedNetwork
    batch : Tensor of shape (B, C, H, W), float32
        Prepared images, on any device.

    Returns
    -------
    list of Tensor of shape (B, h_l, w_l, C_l)
        On the network's device.
    """
    return [tap.permute(0, 2, 3, 1) for tap in network(batch.to(network.device))]


def axis_interpolation(
    n_in: int, n_out: int, device: torch.device | str = "cpu"
) -> AxisInterpolation:
    """Return the bilinear weights that enlarge an axis of ``n_in`` cells to ``n_out``.

    The same convention as ``torch.nn.functional.interpolate(align_corners=False)``: the axes'
    ends coincide, values stand at cell centres.
    """
    position = (torch.arange(n_out, dtype=torch.float64) + 0.5) * (n_in / n_out) - 0.5
    position = position.clamp(min=0)
    low = position.floor().long().clamp(max=n_in - 1)
    high = (low + 1).clamp(max=n_in - 1)
    weight = (position - low).float()
    return AxisInterpolation(low.to(device), high.to(device), weight.to(device))


def resample_preserving_sum(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resample maps bilinearly, so that each cell's value is distributed and sums are preserved.

    The adjoint of bilinear interpolation, normalised per cell.

    Parameters
    ----------
    maps : Tensor of shape (..., h, w)
    size : tuple of int
        Height and width of the grid.

    Returns
    -------
    Tensor of shape (..., height, width)
        With the same sums as ``maps``.
    """
    if tuple(maps.shape[-2:]) == size:
        return maps
    rows, cols = (
        _shares(n_in, n_out, maps) for n_in, n_out in zip(maps.shape[-2:], size, strict=True)
    )
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
    """Stack all maps on a grid: the memory-hungry form, for inspection and comparisons.

    Parameters
    ----------
    maps : sequence of Tensor of shape (B, h_l, w_l, C_l)
    size : tuple of int
        Height and width of the grid.

    Returns
    -------
    Tensor of shape (B, height, width, sum of C_l)
    """
    return torch.cat([enlarge(layer, size) for layer in maps], dim=-1)


def hypercolumns_at(
    maps: Sequence[torch.Tensor], points: np.ndarray, size: tuple[int, int]
) -> list[torch.Tensor]:
    """Read the hypercolumns of one image at chosen pixels of a grid.

    Parameters
    ----------
    maps : sequence of Tensor of shape (h_l, w_l, C_l)
        One image's maps.
    points : ndarray of int, shape (n,)
        Flat indices into the grid, row by row.
    size : tuple of int
        Height and width of the grid.

    Returns
    -------
    list of Tensor of shape (n, C_l)
        A block per layer; concatenated they are the hypercolumns.
    """
    blocks = []
    for layer in maps:
        index = torch.from_numpy(np.asarray(points, dtype=np.int64)).to(layer.device)
        rows = axis_interpolation(layer.shape[0], size[0], layer.device)
        cols = axis_interpolation(layer.shape[1], size[1], layer.device)
        y, x = index // size[1], index % size[1]
        across = cols.weight[x, None]
        top = torch.lerp(layer[rows.low[y], cols.low[x]], layer[rows.low[y], cols.high[x]], across)
        bottom = torch.lerp(
            layer[rows.high[y], cols.low[x]], layer[rows.high[y], cols.high[x]], across
        )
        blocks.append(torch.lerp(top, bottom, rows.weight[y, None]))
    return blocks
