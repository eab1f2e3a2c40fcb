"""Where windows lie over an image, and how a score for each becomes a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hypervlad.patches.grid import corners_of, patch_edges


@dataclass(frozen=True, eq=False)
class Lattice:
    """Windows, every row with every column.

    Attributes
    ----------
    rows, columns : ndarray of int, shape (R,) and (S,)
        Upper and left edges, pixels.
    side : int
        Of a window, pixels.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    side: int

    @classmethod
    def of(cls, shape: tuple[int, int], side: int, stride: int) -> Lattice:
        """Lay windows over an image; all lie inside it, the last ones end at its edges.

        Parameters
        ----------
        shape : (int, int)
            Height and width, pixels.
        side, stride : int
            Pixels.
        """
        return cls(*patch_edges(shape, side, stride, edges="shift"), side)

    @property
    def positions(self) -> NDArray[np.intp]:
        """Upper left corners (R S, 2), row by row."""
        return corners_of(self.rows, self.columns)

    def as_map(
        self, scores: NDArray[np.floating], shape: tuple[int, int], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Make a map of scores (R, S): at its central pixel a window's own, bilinear between.

        Of the four central pixels of an even side it is the upper left one.

        Parameters
        ----------
        scores : array of shape (R, S)
        shape : (int, int)
            Height and width of the map, pixels.
        size : (int, int)
            Height and width of what the windows lie over, if it was resized.
        """
        down, across = (
            _between(starts + (self.side - 1) // 2, extent, original)
            for starts, extent, original in zip((self.rows, self.columns), shape, size, strict=True)
        )
        return np.asarray(down @ scores @ across.T, dtype=np.float32)


def _between(centres: NDArray[np.intp], n_pixels: int, extent: int) -> NDArray[np.float64]:
    """Return the weights of values at centres for each pixel of an axis; constant beyond."""
    pixels = (np.arange(n_pixels) + 0.5) * (extent / n_pixels) - 0.5
    place = np.interp(pixels, centres, np.arange(len(centres)))
    low = np.floor(place).astype(np.intp)
    high = np.minimum(low + 1, len(centres) - 1)
    weights = np.zeros((n_pixels, len(centres)))
    each = np.arange(n_pixels)
    np.add.at(weights, (each, low), 1 - (place - low))
    np.add.at(weights, (each, high), place - low)
    return weights
