"""Cells of images at several sizes: their maps, their descriptions, and maps of their scores."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, uniform_filter

from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.lazy_torch import torch
from hypervlad.features.patches import WindowGrid
from hypervlad.features.windows import PaddedMaps, PreparedImage, TiledNetwork, Tiling

Cells = NDArray[np.float32]
Floating = TypeVar("Floating", bound=np.floating[Any])


class Description(NamedTuple):
    """A way to describe the cells of an image."""

    side: int | None  # of the square that the image is resized to, pixels; None for its own size
    window: int  # side, in cells, of the window around each cell whose mean is taken
    relative: bool  # the image's mean is subtracted, and its standard deviation divided out


WIDE_WINDOW = 7  # cells
DESCRIPTIONS = (
    Description(None, 3, relative=False),
    Description(None, 3, relative=True),
    Description(224, 1, relative=True),  # the size of the images that networks were trained on
    Description(112, 1, relative=False),
    Description(None, WIDE_WINDOW, relative=True),
)
SIDES = tuple(dict.fromkeys(each.side for each in DESCRIPTIONS))
MAX_EDGE_DISTANCE = 4  # cells; from there on an edge has no influence
_CELL = 8  # pixels, at least, if a tap is that fine
_CHANNELS = 8  # of maps that are brought to another grid at a time
_ROWS = 64  # of cells that are summed at a time, to save memory
# Of the mean standard deviation of channels, added to that of each: some hold hardly but noise.
_DEVIATION_RIDGE = 0.3
_ROUNDING = 1e-3  # of the mean value: smaller standard deviations are rounding errors
_WEAK_EDGE = 0.3  # of the mean variance of grey levels: edges of less are not followed
_NO_EDGE = 1e-12  # a variance of grey levels that is a rounding error


class CellMaps:
    """Cells of images, at their own size or reduced."""

    def __init__(self, encoder: HypercolumnVLAD, tiling: Tiling) -> None:
        network = encoder.network()
        self._own_size = TiledNetwork(network, tiling, encoder.preprocessing_)
        # In one piece, and without mirrored surroundings, as networks are trained.
        whole = Tiling(max(filter(None, SIDES)), tiling.folder)
        self._reduced = TiledNetwork(network, whole, encoder.preprocessing_, border=0)
        self._is_kept = tiling.folder is not None

    def cells(self, image: PreparedImage, side: int | None) -> tuple[Cells, int]:
        """Return the cells (R, S, D) of an image, or of a square of ``side`` pixels; the stride."""
        if side is None:
            tensor, key, network = image.tensor, image.key, self._own_size
        else:
            tensor = torch.nn.functional.interpolate(
                image.tensor[None], (side, side), mode="bilinear", antialias=True
            )[0]
            key, network = f"{image.key}-{side}", self._reduced
        maps = network.padded_maps(tensor, image.name, key, keep=self._is_kept)
        return cells_of(maps, (tensor.shape[1], tensor.shape[2]))

    def kept_cells(self, key: str, size: tuple[int, int], side: int | None) -> Cells:
        """Return cells that the folder keeps, by the image's digest and size."""
        if side is None:
            return cells_of(self._own_size.stored_maps(key), size)[0]
        return cells_of(self._reduced.stored_maps(f"{key}-{side}"), (side, side))[0]


def cells_of(maps: PaddedMaps, size: tuple[int, int]) -> tuple[Cells, int]:
    """Bring all layers to one grid, without the border: (R, S, sum of C_l), and its stride.

    It is the grid of the finest layer whose cells are at least 8 pixels wide, or of the coarsest.
    """
    strides = [_stride(maps.size[0], layer.shape[0]) for layer in maps.maps]
    stride = min((s for s in strides if s >= _CELL), default=max(strides))
    grid = (maps.size[0] // stride, maps.size[1] // stride)
    first = maps.border // stride
    rows, columns = (slice(first, first - -extent // stride) for extent in size)
    n_channels = sum(layer.shape[2] for layer in maps.maps)
    found = torch.empty(*(-(-extent // stride) for extent in size), n_channels)
    at = 0  # the first channel of these
    for layer in maps.maps:
        for planes in layer.permute(2, 0, 1).split(_CHANNELS):  # few at a time, to save memory
            own = planes[None]
            if layer.shape[0] > grid[0]:
                own = torch.nn.functional.adaptive_avg_pool2d(own, grid)
            elif tuple(layer.shape[:2]) != grid:
                own = torch.nn.functional.interpolate(own, grid, mode="bilinear")
            found[:, :, at : at + len(planes)] = own[0, :, rows, columns].permute(1, 2, 0)
            at += len(planes)
    return found.numpy(), stride


def _stride(n_pixels: int, n_cells: int) -> int:
    """Return a layer's stride; the nearest power of two if the network does not pad its input."""
    exact, rest = divmod(n_pixels, n_cells)
    return 2 ** round(math.log2(n_pixels / n_cells)) if rest else exact


def describe(cells: Cells, window: int, relative: bool) -> Cells:
    """Return a description (n, D) of the cells (R, S, D) of an image, row by row."""
    n_channels = cells.shape[-1]
    found = window_means(cells, window)
    if relative:
        flat = torch.from_numpy(cells.reshape(-1, n_channels))
        deviation, mean = (each.numpy() for each in torch.std_mean(flat, dim=0, correction=0))
        found = (found - mean) / _with_ridge(deviation, mean)
    return found.reshape(-1, n_channels)


def mean_and_deviation(cells: Cells) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what `describe` subtracts from cells (R, S, D) and divides by, (D,) each.

    It is several times faster, but its last digits differ, on which K-means' codewords depend.
    """
    flat = torch.from_numpy(cells).flatten(0, 1)
    mean = flat.mean(0)
    lost, squares = torch.zeros(2, len(mean))
    for block in flat.split(_ROWS * cells.shape[1]):
        centred = block - mean
        lost += centred.sum(0)  # what the first sum lost by rounding
        squares += centred.square_().sum(0)
    mean += lost / len(flat)
    deviation = (squares / len(flat)).sqrt_()
    return mean.numpy(), _with_ridge(deviation.numpy(), mean.numpy())


def _with_ridge(deviation: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    least = _ROUNDING * float(np.abs(mean).mean())
    typical = max(float(deviation.mean()), least) or 1.0  # 0 if all cells are 0
    return deviation + np.float32(_DEVIATION_RIDGE * typical)


def window_means(cells: Cells, window: int, first: int = 0, n: int | None = None) -> Cells:
    """Return the mean over the window around each cell (R, S, D); edges are repeated.

    With `n`, only of so many rows from the `first` on.
    """
    n_rows, n_columns = cells.shape[:2]
    last = n_rows if n is None else min(first + n, n_rows)
    if window == 1:
        return cells[first:last]
    reach = window // 2
    rows = torch.arange(first - reach, last + reach).clamp(0, n_rows - 1)
    columns = torch.arange(-reach, n_columns + reach).clamp(0, n_columns - 1)
    found = torch.from_numpy(cells)[rows][:, columns]
    for axis, length in enumerate((last - first, n_columns)):
        # avg_pool2d takes several times longer
        total = found.narrow(axis, 0, length).clone()
        for start in range(1, window):
            total += found.narrow(axis, start, length)
        found = total
    return found.div_(window**2).numpy()


def covered_cells(
    covered: NDArray[np.bool_], shape: tuple[int, int], window: int
) -> NDArray[np.bool_] | None:
    """Return which windows around cells (R, S) hold covered pixels (h, w); None if none does."""
    if not covered.any():
        return None
    planes = torch.from_numpy(covered.astype(np.float32))[None, None]
    cells = torch.nn.functional.adaptive_max_pool2d(planes, shape)[0, 0].numpy() > 0
    return np.asarray(maximum_filter(cells, window + 2))  # cells depend on their neighbours, too


def without_covered(
    values: NDArray[Floating], covered: NDArray[np.bool_] | None
) -> NDArray[Floating]:
    """Return a map (R, S) with its median in place of covered cells, unless all are."""
    if covered is None or not covered.any() or covered.all():
        return values
    return np.where(covered, np.median(values[~covered]), values).astype(values.dtype)


def places_of(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the place of each cell (R, S): 5 times its distance from the nearest edge, plus that
    from the nearest edge across, in cells, each at most 4.
    """
    down, across = (
        np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]), MAX_EDGE_DISTANCE) for n in shape
    )
    near = np.minimum(down[:, None], across)
    return (MAX_EDGE_DISTANCE + 1) * near + np.maximum(down[:, None], across)


def resized(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Bring values (R, S) or (R, S, D) to another grid."""
    if values.shape[:2] == shape:
        return values
    planes = torch.from_numpy(values).reshape(*values.shape[:2], -1).permute(2, 0, 1)[None]
    found = torch.nn.functional.interpolate(planes, tuple(shape), mode="bilinear", antialias=True)
    return found[0].permute(1, 2, 0).numpy().reshape(*shape, *values.shape[2:])


def sharpened(
    scores: NDArray[np.floating],
    grid: WindowGrid,
    levels: NDArray[np.float32],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Return the scores of cells (R, S) as a map of this ``shape`` with the edges of the image.

    Around each cell, the scores of 3 x 3 cells are a linear function of their grey levels, and the
    map is that function of each pixel's: a guided filter (He, Sun and Tang, "Guided image
    filtering", IEEE TPAMI 35, 2013) on cells.
    ``levels`` (h, w) are of the image that the cells cover.
    """
    (n_rows, n_columns), side = scores.shape, grid.side
    rows, columns = (
        np.minimum(np.arange(n * side), extent - 1)  # the last cells may reach beyond the image
        for n, extent in zip(scores.shape, levels.shape, strict=True)
    )
    blocks = (n_rows, side, n_columns, side)
    grey = levels[np.ix_(rows, columns)].reshape(blocks).mean((1, 3), dtype=np.float64)
    mean, level = _of_neighbours(grey), _of_neighbours(scores.astype(np.float64))
    variance = np.maximum(_of_neighbours(grey**2) - mean**2, 0)
    weak = _WEAK_EDGE * variance.mean() + _NO_EDGE
    slope = (_of_neighbours(grey * scores) - mean * level) / (variance + weak)
    start = level - slope * mean
    found = grid.to_map(_of_neighbours(slope), shape, levels.shape)
    found *= resized(levels, shape)
    found += grid.to_map(_of_neighbours(start), shape, levels.shape)
    return found


def _of_neighbours(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(uniform_filter(values, 3, mode="nearest"))
