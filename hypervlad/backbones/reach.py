"""How far a network sees, which decides whether an image may be cut into tiles for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hypervlad.backbones.network import TappedNetwork

_SIDES = (256, 512, 1024)  # pixels, tried in this order


@dataclass(frozen=True)
class Reach:
    """What a cell of a network's maps depends on.

    Attributes
    ----------
    stride : int
        Pixels a cell of the coarsest tap.
    margin : int
        Pixels around a cell, of any tap, that decide its value: half of the receptive field at
        least, a multiple of `stride`.
    """

    stride: int
    margin: int


def reach_of(network: TappedNetwork, n_channels: int = 3) -> Reach | None:
    """Find out how far a network sees.

    One pixel of an empty image is NaN: it spreads to just the cells that depend on this pixel.

    Parameters
    ----------
    network : TappedNetwork
    n_channels : int, default=3
        Of the images that it takes.

    Returns
    -------
    Reach or None
        None if every cell sees the whole image (squeeze-and-excitation, attention), or more than
        1,024 pixels of it, or cells are no regular grid over the image (convolutions without
        padding): maps put together from tiles would then not be those of the whole.

    Examples
    --------
    >>> from hypervlad.backbones import build_network, reach_of
    >>> reach_of(build_network("mobilenet_v2", "random", ["features.6", "features.13"]))
    Reach(stride=16, margin=160)
    """
    for side in _SIDES:
        found = _seen_by_one_pixel(network, side, n_channels)
        if found is None or found.margin < side // 2:
            return found
    return None


def _seen_by_one_pixel(network: TappedNetwork, side: int, n_channels: int) -> Reach | None:
    """Return how far a pixel in the middle is seen; a margin of half the side says: to the edge."""
    image = torch.zeros(1, n_channels, side, side, device=network.device)
    image[:, :, side // 2, side // 2] = torch.nan
    maps = network(image)
    strides = [side // layer.shape[-1] for layer in maps]
    if any(
        tuple(layer.shape[-2:]) != (side // stride,) * 2 or side % stride
        for layer, stride in zip(maps, strides, strict=True)
    ):
        return None
    farthest = 0
    for layer, stride in zip(maps, strides, strict=True):
        cells = layer.isnan().any(1)[0].nonzero()
        if len(cells) == 0:  # a layer that hides NaN
            return None
        low, high = int(cells.min()) * stride, (int(cells.max()) + 1) * stride
        farthest = max(farthest, side // 2 - low, high - side // 2)
    stride = max(strides)
    # The pixel may lie anywhere in its cell.
    margin = -(-(farthest + stride) // stride) * stride
    return Reach(stride, min(margin, side // 2))
