"""Window vectors that do not change if the image is turned by right angles."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.lazy_torch import torch
from hypervlad.features.windows import WindowGrid
from hypervlad.features.windows.dataset import PreparedImage
from hypervlad.features.windows.vectors import WindowVectors
from hypervlad.fibres.tiles import TileGrid


class TurnInvariantVectors:
    """Vectors of windows from the four right-angle turns of an image, encoded by a fitted encoder.

    Of the residual sums (or mean hypercolumns) v_t of a window in turns t, the classifier gets

        m = (v_0 + v_1 + v_2 + v_3) / 4          c = |(v_0 + v_2) - (v_1 + v_3)| / 4

    A further turn permutes the v_t cyclically: m and c stay the same, to the last bit. The contrast
    c is large where a window has one direction, and small where fibres point in all directions.
    """

    def __init__(
        self,
        encoder: HypercolumnVLAD,
        tile_size: int,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self._windows = WindowVectors(encoder, tile_size, folder)

    def __call__(self, image: PreparedImage, tiles: TileGrid) -> NDArray[np.float32]:
        """Return the vectors (R S, n_features) of windows that cover an image, row by row."""
        even, odd = (self._summed(image, tiles, turns) for turns in ((0, 2), (1, 3)))
        *sums, means = (mean_and_contrast(*both) for both in zip(even, odd, strict=True))
        return self._windows.join(
            [of_codebook.flatten(0, 1) for of_codebook in sums], means.flatten(0, 1).numpy()
        )

    def _summed(
        self, image: PreparedImage, tiles: TileGrid, turns: tuple[int, int]
    ) -> list[torch.Tensor]:
        of_turns = (self.turned(image, tiles, turn) for turn in turns)
        return [one + other for one, other in zip(*of_turns, strict=True)]

    def turned(self, image: PreparedImage, tiles: TileGrid, turn: int) -> list[torch.Tensor]:
        """Return residual sums (R, S, K, D) of each codebook, then means (R, S, C), in one turn."""
        # Channel by channel, because torch transposes single matrices many times faster.
        pixels = torch.stack([channel.rot90(turn).contiguous() for channel in image.tensor])
        grid = turned_grid(tiles, turn)
        key = image.key if turn == 0 else None  # the codebook is learnt from images as they are
        maps = self._windows.network.padded_maps(pixels, image.name, key)
        blocks = zip(
            self._windows.residual_sums(maps, grid), self._windows.means(maps, grid), strict=True
        )
        parts = [
            [*sums, torch.from_numpy(means).view(*sums[0].shape[:2], -1)] for sums, means in blocks
        ]
        whole = (torch.cat(list(each)).cpu() for each in zip(*parts, strict=True))
        return [torch.rot90(each, -turn, (0, 1)) for each in whole]


def mean_and_contrast(even: torch.Tensor, odd: torch.Tensor) -> torch.Tensor:
    """Return m and c, (..., 2 D), from v_0 + v_2 and v_1 + v_3, (..., D)."""
    return torch.cat([even + odd, (even - odd).abs()], dim=-1) / 4


def turned_grid(tiles: TileGrid, turn: int) -> WindowGrid:
    """Return windows of one size, centred in the tiles of an image, in a turn of the image.

    Turns are right angles as for `numpy.rot90`; the side is the mean side of the tiles.
    """
    rows, columns = tiles.rows, tiles.columns
    for _ in range(turn):
        rows, columns = columns[-1] - columns[::-1], rows
    side = round(float(np.mean([*np.diff(rows), *np.diff(columns)])))
    side = min(side, int(rows[-1]), int(columns[-1]))
    upper, left = (
        np.clip((edges[:-1] + edges[1:] - side) // 2, 0, edges[-1] - side)
        for edges in (rows, columns)
    )
    return WindowGrid(upper, left, side)
