"""The uppermost surface of fibres and defects, as an electron beam scans it from above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]
#: Height of the substrate, far below every fibre, in units of the mat's thickness.
SUBSTRATE = -1.0


@dataclass(frozen=True)
class Strands:
    """Fibres: their centre lines, and their properties at each point.

    Attributes
    ----------
    chains : array of shape (n, n_points, 2)
        Centre lines, (row, column) in pixels.
    radius : array of shape (n, n_points)
        In pixels; 0 or less where the fibre is missing.
    height : array of shape (n, n_points)
        Height of the centre line: 0 at the bottom of the mat, 1 at its top.
    brightness : array of shape (n,)
        Brightness factor of each fibre.
    defect : array of shape (n, n_points), bool
        Where the fibre is a defect (a bead).
    """

    chains: NDArray[np.float32]
    radius: FloatMap
    height: FloatMap
    brightness: FloatMap
    defect: NDArray[np.bool_]


class Surface:
    """The uppermost surface of objects that are painted in any order.

    Attributes
    ----------
    height : array of shape (H, W)
        Height from `SUBSTRATE` up; the mat lies between 0 and 1.
    yield_ : array of shape (H, W)
        Yield of secondary electrons, without shadows.
    defect : array of shape (H, W), bool
        Whether the visible surface is a defect.
    along : array of shape (H, W)
        Direction of the visible fibre, radians in [0, pi], counter-clockwise from the +x axis of
        the displayed image; NaN where no fibre is visible.
    pixel : float
        The height of one pixel, which makes the middle of a fibre higher than its sides.
    """

    def __init__(self, shape: tuple[int, int], substrate: FloatMap, pixel: float) -> None:
        self.height = np.full(shape, SUBSTRATE, np.float32)
        self.yield_ = substrate.astype(np.float32)
        self.defect = np.zeros(shape, dtype=bool)
        self.along = np.full(shape, np.nan, np.float32)
        self.pixel = pixel

    def paint_strands(self, strands: Strands) -> None:
        """Paint fibres as round rods, brighter at their edges, where more electrons escape."""
        tangents = np.gradient(strands.chains, axis=1)
        tangents /= np.maximum(np.linalg.norm(tangents, axis=2), 1e-6)[..., None]
        reach = strands.radius[..., None] + 1
        beyond = (strands.chains < -reach) | (
            strands.chains > np.asarray(self.height.shape) + reach
        )
        visible = (strands.radius > 0) & ~beyond.any(axis=2)
        for fibre in np.flatnonzero(visible.any(axis=1)):
            at = visible[fibre]
            self._paint_rod(
                strands.chains[fibre, at],
                tangents[fibre, at],
                strands.radius[fibre, at],
                strands.height[fibre, at],
                float(strands.brightness[fibre]),
                strands.defect[fibre, at],
            )

    def _paint_rod(
        self,
        line: FloatMap,
        tangents: FloatMap,
        radius: FloatMap,
        height: FloatMap,
        brightness: float,
        defect: NDArray[np.bool_],
    ) -> None:
        # Closer than a pixel, so that no pixel under the rod is missed.
        n_across = 2 * max(2, int(np.ceil(1.4 * float(radius.max())))) + 1
        across = np.linspace(-1, 1, n_across, dtype=np.float32)
        offset = across * radius[:, None]
        row = np.rint(line[:, :1] + tangents[:, 1:] * offset).astype(np.int32)
        column = np.rint(line[:, 1:] - tangents[:, :1] * offset).astype(np.int32)
        up = np.sqrt(1 - across**2)
        top = height[:, None] + radius[:, None] * up * np.float32(self.pixel)
        n_rows, n_columns = self.height.shape
        inside = (row >= 0) & (row < n_rows) & (column >= 0) & (column < n_columns)
        # Points outside the image look up index 0, and are dropped.
        flat = np.where(inside, row * n_columns + column, 0)
        above = inside & (top > self.height.ravel()[flat])
        flat = flat[above]
        light = np.broadcast_to(np.float32(brightness) * edge_yield(up), top.shape)
        # Points of a rod that share a pixel hardly differ: any of them serves.
        self.height.ravel()[flat] = top[above]
        self.yield_.ravel()[flat] = light[above]
        self.defect.ravel()[flat] = np.broadcast_to(defect[:, None], top.shape)[above]
        # Rows count downwards, directions upwards.
        along = np.arctan2(-tangents[:, :1], tangents[:, 1:]) % np.float32(np.pi)
        self.along.ravel()[flat] = np.broadcast_to(along, top.shape)[above]

    def paint_region(
        self, inside: NDArray[np.bool_], height: FloatMap, yield_: FloatMap, *, defect: bool = True
    ) -> None:
        """Paint a region of given height where it is the highest."""
        visible = inside & (height > self.height)
        self.height[visible] = height[visible]
        self.yield_[visible] = yield_[visible]
        self.defect[visible] = defect
        self.along[visible] = np.nan


def edge_yield(up: FloatMap) -> FloatMap:
    """Return the electron yield of a surface, the inverse cosine of its slope, bounded.

    Goldstein et al., Scanning Electron Microscopy and X-Ray Microanalysis, 4th ed., chapter 5.
    """
    return np.asarray(0.55 + 0.45 / np.maximum(up, 0.35), dtype=np.float32)
