"""Windows of an image as vectors that do not know which way the image was up.

The network sees the image in its four right-angle turns, and each window in all of them. Let v_t be
the residual sums (or the mean hypercolumn) of a window in turn t. What the classifier gets is

    m = (v_0 + v_1 + v_2 + v_3) / 4          c = |(v_0 + v_2) - (v_1 + v_3)| / 4

The mean m is what the window holds, whichever way it lies. The contrast c is how differently words
are used along one axis and across it: large where the window has one direction, and small where
fibres of two crossing directions, or of all, swap places in a turn; the mean alone cannot tell
these apart. A further turn of the image permutes the v_t cyclically: m stays, and so does c, to the
last bit.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hypervlad.defects.lattice import Lattice as Windows
from hypervlad.defects.reading import Picture
from hypervlad.defects.seeing import WindowVectors
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.fibres.tiles import TileGrid


class TurnedVectors:
    """Windows of images as vectors, from four passes of the network an image.

    Parameters
    ----------
    encoder : HypercolumnVLAD
        Fitted.
    tile_size : int
        As in `View`.
    """

    def __init__(self, encoder: HypercolumnVLAD, tile_size: int) -> None:
        self._windows = WindowVectors(encoder, tile_size)

    def __call__(self, image: Picture, places: TileGrid) -> NDArray[np.float32]:
        """Return the vectors (R S, n_features) of windows that cover an image, row by row."""
        even, odd = (
            [one + other for one, other in zip(*self._pair(image, places, turn), strict=True)]
            for turn in (0, 1)
        )
        *sums, means = (mean_and_contrast(*both) for both in zip(even, odd, strict=True))
        return self._windows.joined(
            [of_book.flatten(0, 1) for of_book in sums], means.flatten(0, 1).numpy()
        )

    def _pair(self, image: Picture, places: TileGrid, turn: int) -> list[list[torch.Tensor]]:
        return [self._seen(image, places, each) for each in (turn, turn + 2)]

    def _seen(self, image: Picture, places: TileGrid, turn: int) -> list[torch.Tensor]:
        """Return residual sums (R, S, K, D) of each codebook, and means (R, S, C), in a turn."""
        pixels = torch.rot90(image.pixels, turn, (1, 2)).contiguous()
        own = windows_in_turn(places, turn)
        seen = self._windows.view.seen(pixels, image.name)
        blocks = zip(
            self._windows.residual_sums(seen, own), self._windows.means(seen, own), strict=True
        )
        parts = [
            [*sums, torch.from_numpy(means).view(*sums[0].shape[:2], -1)] for sums, means in blocks
        ]
        whole = (torch.cat(list(each)).cpu() for each in zip(*parts, strict=True))
        return [torch.rot90(each, -turn, (0, 1)) for each in whole]


def mean_and_contrast(even: torch.Tensor, odd: torch.Tensor) -> torch.Tensor:
    """Join what two pairs of turns have in common and how they differ, along the last axis.

    Parameters
    ----------
    even, odd : Tensor of shape (..., D)
        v_0 + v_2 and v_1 + v_3.

    Returns
    -------
    Tensor of shape (..., 2 D)
        The same if the two are swapped.
    """
    return torch.cat([even + odd, (even - odd).abs()], dim=-1) / 4


def windows_in_turn(places: TileGrid, turn: int) -> Windows:
    """Return windows of one side in the middle of places that cover an image, in a turn of it.

    Parameters
    ----------
    places : TileGrid
        On the image as it is.
    turn : int
        Right angles counter-clockwise, as `numpy.rot90` counts them.

    Returns
    -------
    Windows
        Their side is the mean one of the places; where these differ in size, a window lies up to a
        pixel beside the middle of its own.
    """
    rows, columns = places.rows, places.columns
    for _ in range(turn):
        rows, columns = columns[-1] - columns[::-1], rows
    side = round(float(np.mean([*np.diff(rows), *np.diff(columns)])))
    side = min(side, int(rows[-1]), int(columns[-1]))
    upper, left = (
        np.clip((edges[:-1] + edges[1:] - side) // 2, 0, edges[-1] - side)
        for edges in (rows, columns)
    )
    return Windows(upper, left, side)
