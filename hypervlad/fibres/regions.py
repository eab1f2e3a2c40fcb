"""Windows side by side that cover an image, and regions of aligned ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hypervlad.fibres.axial import axial_difference, direction_of, order_of

IntArray = NDArray[np.intp]
_ROUNDING = 1e-9
_MIN_PART = 96  # pixels, unless fewer than three parts would fit along a side


@dataclass(frozen=True, eq=False)
class TileGrid:
    """Windows that cover each pixel of an image once; their sides differ by at most one pixel.

    Window (i, j) is ``image[rows[i]:rows[i + 1], columns[j]:columns[j + 1]]``.
    """

    rows: IntArray
    columns: IntArray

    @classmethod
    def over(cls, shape: tuple[int, ...], window: int) -> TileGrid:
        return cls(_edges(shape[0], window), _edges(shape[1], window))

    @classmethod
    def of_parts(cls, shape: tuple[int, ...]) -> TileGrid:
        """Return the parts of an image whose differences intervals are from."""
        shorter = min(shape)
        return cls.over(shape, max(shorter // 4, min(_MIN_PART, shorter // 3), 2))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows) - 1, len(self.columns) - 1

    @property
    def size(self) -> int:
        return (len(self.rows) - 1) * (len(self.columns) - 1)

    @property
    def areas(self) -> NDArray[np.float64]:
        return np.outer(np.diff(self.rows), np.diff(self.columns)).astype(np.float64)

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the sum of a map over each window, in double precision."""
        return self.sums_of(values.__getitem__)

    def sums_of(self, function: Callable[[slice], NDArray[Any]]) -> NDArray[Any]:
        """Return the same of one map or several, of which a function returns some rows."""
        down = []
        for rows in map(slice, self.rows, self.rows[1:]):
            values = function(rows)
            kind = np.complex128 if values.dtype.kind == "c" else np.float64
            # A sum for each row of windows is ten times faster than one call of reduceat.
            down.append(values.sum(axis=-2, dtype=kind))
        return np.asarray(np.add.reduceat(np.stack(down, axis=-2), self.columns[:-1], axis=-1))

    def numbers_in(self, other: TileGrid) -> IntArray:
        """Return for each window the number of that of another grid in which its middle lies."""
        pairs = (self.rows, other.rows), (self.columns, other.columns)
        row, column = (
            np.searchsorted(edges, (own[1:] + own[:-1]) / 2, "right") - 1 for own, edges in pairs
        )
        return np.add.outer(row * other.shape[1], column)

    def expand(self, values: ArrayLike) -> NDArray[Any]:
        table = np.asarray(values)
        down = np.repeat(table, np.diff(self.rows), axis=0)
        return np.repeat(down, np.diff(self.columns), axis=1)


def _edges(extent: int, window: int) -> IntArray:
    n = max(1, int(extent / window + 0.5))
    return np.rint(np.linspace(0, extent, n + 1)).astype(np.intp)


@dataclass(frozen=True)
class AlignedRegion:
    """A connected region of aligned windows.

    Attributes
    ----------
    label : int
        Its number in the label map; the largest region is 1.
    area : int
        Number of its pixels.
    n_windows : int
        Number of its windows.
    fibre_area : int
        Number of its fibre pixels; see `AlignedFraction.fibre_fraction`.
    mean_angle : float
        Mean direction, radians in [0, pi), counter-clockwise from the horizontal.
    order : float
        Order parameter S over the whole region, 0 to 1; low if the region bends.
    box : (int, int, int, int)
        First row, first column, last row + 1, last column + 1.
    """

    label: int
    area: int
    n_windows: int
    fibre_area: int
    mean_angle: float
    order: float
    box: tuple[int, int, int, int]


def label_windows(
    aligned: NDArray[np.bool_], angle: NDArray[np.float64], tolerance: float
) -> NDArray[np.intp]:
    """Number the regions of aligned windows from 1, in order of their first windows.

    Only neighbours are compared, so that a region may turn slowly through any angle.
    """
    number = np.arange(aligned.size).reshape(aligned.shape)
    pairs = []
    for one, other in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        apart = axial_difference(angle[one], angle[other])
        joined = aligned[one] & aligned[other] & (apart <= tolerance + _ROUNDING)
        pairs.append((number[one][joined], number[other][joined]))
    first, second = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=[aligned.size] * 2)
    _, part = connected_components(graph, directed=False)
    labels = np.zeros(aligned.size, dtype=np.intp)
    chosen = aligned.ravel()
    labels[chosen] = 1 + np.unique(part[chosen], return_inverse=True)[1]
    return labels.reshape(aligned.shape)


def regions_of(
    labels: NDArray[np.intp],
    sums: NDArray[np.complex128],
    totals: NDArray[np.float64],
    fibre: NDArray[np.float64],
    grid: TileGrid,
) -> tuple[NDArray[np.intp], tuple[AlignedRegion, ...]]:
    n = int(labels.max(initial=0))
    own = labels.ravel()

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(own, values.ravel(), n + 1), dtype=np.float64)

    areas = summed(grid.areas)
    order = np.argsort(-areas[1:], kind="stable") + 1
    rank = np.zeros(n + 1, dtype=np.intp)
    rank[order] = np.arange(1, n + 1)
    resultants = summed(sums.real) + 1j * summed(sums.imag)
    weights, pixels, counts = summed(totals), summed(fibre), np.bincount(own, minlength=n + 1)
    boxes = ndimage.find_objects(labels)
    regions = tuple(
        AlignedRegion(
            label=int(rank[k]),
            area=int(areas[k]),
            n_windows=int(counts[k]),
            fibre_area=int(pixels[k]),
            mean_angle=float(direction_of(resultants[k])),
            order=float(order_of(resultants[k] / weights[k])),
            box=_box(boxes[k - 1], grid),
        )
        for k in order
    )
    return rank[labels], regions


def _box(windows: tuple[slice, ...], grid: TileGrid) -> tuple[int, int, int, int]:
    rows, columns = windows
    top, bottom = grid.rows[[rows.start, rows.stop]].tolist()
    left, right = grid.columns[[columns.start, columns.stop]].tolist()
    return top, left, bottom, right
