"""``NormalImages``: what defect-free images look like, at two sizes, cell by cell.

A cell is a position of the network's own grid, about 8 pixels wide. Defect-free cells are whitened
and described by a codebook; the distance of a cell from its nearest codeword says how unusual it
is. Three such distances are compared: of cells and of windows of 3 x 3 cells in the image at its
own size, and of cells in the image reduced to a square. Thin and small defects stand out in the
first, faint and large ones in the others.

Distances are larger near an image's edges, where the network sees mirrored pixels or zeros, and
differ between the three. Each is therefore expressed relative to what held-out defect-free images
have at the same distance from the edge: 0 is usual, and one cell in ten reaches 1. A score is their
mean.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch.nn import functional

from hypervlad.base import Array
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.encoding import random_pixels
from hypervlad.windows import WindowGrid
from hypervlad.windows.dataset import PreparedImage
from hypervlad.windows.maps import PaddedMaps, TiledNetwork

_REDUCED_SIDE = 224  # pixels; the size of the images that the networks were trained on
_CELL = 8  # pixels, at least, if a tap is that fine
_RIDGE = 0.01  # of the mean variance, added to all directions
_TRIM_FRACTION, _TRIM_ROUNDS = 0.01, 2  # the least likely cells: some images may have defects
_MIN_PER_CODEWORD, _MAX_PER_CODEWORD = 4, 100
_MAX_CELLS, _MIN_PER_IMAGE = 50_000, 20  # sampled from all images together, and from each
_MAX_EDGE_DISTANCE = 4  # cells; from there on an edge has no influence
_N_PLACES = _MAX_EDGE_DISTANCE + 1
_HIGH = 0.9  # the quantile of distances that is 1 after standardisation
_MAX_PROFILE_IMAGES = 200  # held out, from which usual distances are learnt
_BLOCK = 2**16  # cells whose distances are computed at once
_ALIGNED_SHAPE = (28, 28)  # of the maps of usual distances of aligned images

_MAX_VALUE = 1e7  # in a file; squares of sums of products stay finite in single precision

FloatArray = NDArray[np.float64]
Cells = NDArray[np.float32]


class CellMaps:
    """Cells of images, at their own size or reduced, from one pass through the network each.

    Parameters
    ----------
    encoder : HypercolumnVLAD
        Fitted.
    tile_size, folder
        As in `TiledNetwork`.
    """

    def __init__(
        self,
        encoder: HypercolumnVLAD,
        tile_size: int,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        network = encoder.network()
        self._own_size = TiledNetwork(network, tile_size, folder)
        # The size that networks are trained on, and without a border, as they are trained.
        self._reduced = TiledNetwork(network, max(tile_size, _REDUCED_SIDE), folder, border=0)
        self._is_kept = folder is not None

    def cells(self, image: PreparedImage, side: int | None) -> tuple[Cells, int]:
        """Return the cells of an image, or of a square of ``side`` pixels made of it.

        Returns
        -------
        cells : ndarray of shape (R, S, D)
        stride : int
            Side of a cell, pixels.
        """
        if side is None:
            tensor, key, network = image.tensor, image.key, self._own_size
        else:
            tensor = functional.interpolate(
                image.tensor[None], (side, side), mode="bilinear", antialias=True
            )[0]
            key, network = f"{image.key}-{side}", self._reduced
        maps = network.padded_maps(tensor, image.name, key, keep=self._is_kept)
        return cells_of(maps, (tensor.shape[1], tensor.shape[2]))

    def kept_cells(self, key: str, size: tuple[int, int], side: int | None) -> Cells:
        """Return the cells of an image that the folder keeps, by its digest and size in pixels."""
        if side is None:
            return cells_of(self._own_size.stored_maps(key), size)[0]
        return cells_of(self._reduced.stored_maps(f"{key}-{side}"), (side, side))[0]


def cells_of(maps: PaddedMaps, size: tuple[int, int]) -> tuple[Cells, int]:
    """Bring all layers to one grid, without the border: (R, S, sum of C_l), and its stride.

    The grid is that of the finest layer whose cells are at least 8 pixels wide, or else of the
    coarsest. Finer layers are averaged over its cells, coarser ones interpolated.
    """
    strides = [_stride(maps.size[0], layer.shape[0]) for layer in maps.maps]
    stride = min((s for s in strides if s >= _CELL), default=max(strides))
    grid = (maps.size[0] // stride, maps.size[1] // stride)
    layers = []
    for layer in maps.maps:
        planes = layer.permute(2, 0, 1)[None]
        if layer.shape[0] > grid[0]:
            planes = functional.adaptive_avg_pool2d(planes, grid)
        elif tuple(layer.shape[:2]) != grid:
            planes = functional.interpolate(planes, grid, mode="bilinear")
        layers.append(planes[0])
    first = maps.border // stride
    rows, columns = (slice(first, first - -extent // stride) for extent in size)
    cells = torch.cat(layers)[:, rows, columns].permute(1, 2, 0)
    return np.ascontiguousarray(cells.cpu().numpy()), stride


def _stride(n_pixels: int, n_cells: int) -> int:
    """Return a layer's stride; the nearest power of two if the network does not pad its input."""
    exact, rest = divmod(n_pixels, n_cells)
    return 2 ** round(math.log2(n_pixels / n_cells)) if rest else exact


@dataclass(frozen=True, eq=False)
class NormalCells:
    """A codebook of defect-free cells, or of windows of them, at one size of the images.

    Attributes
    ----------
    side : int or None
        Of the squares that images are reduced to, pixels; None for images at their own size.
    window : int
        Cells along the side of a window whose mean is described.
    mean : ndarray of float32, shape (D,)
    whitening : ndarray of float32, shape (D, D)
        To a space in which defect-free cells vary equally in all directions.
    codewords : ndarray of float32, shape (K, D)
        In the whitened space.
    usual, spread : ndarray of float32, shape (B,), or (R, S) for aligned images
        By the distance from the edge in cells, or by place: the median of held-out defect-free
        cells, and how far their 90 % quantile lies above it.
    """

    side: int | None
    window: int
    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]
    codewords: NDArray[np.float32]
    usual: NDArray[np.float32] = field(default_factory=lambda: np.zeros(_N_PLACES, np.float32))
    spread: NDArray[np.float32] = field(default_factory=lambda: np.ones(_N_PLACES, np.float32))

    @classmethod
    def fit(
        cls, side: int | None, window: int, rows: Cells, n_codewords: int, seed: int
    ) -> NormalCells:
        """Learn from means of windows (n, D); usual distances are still missing."""
        kept, mean, whitening = whitened(rows)
        codewords = codewords_of((kept, mean, whitening), n_codewords, seed)
        found = (array.astype(np.float32) for array in (mean, whitening, codewords))
        return cls(side, window, *found)

    def distances(self, cells: Cells) -> NDArray[np.float32]:
        """Return the distance (R, S) of the window around each cell (R, S, D) from its codeword."""
        windows = window_means(cells, self.window).reshape(-1, cells.shape[-1])
        blocks = [
            self._distances(windows[start : start + _BLOCK])
            for start in range(0, len(windows), _BLOCK)
        ]
        return np.concatenate(blocks).reshape(cells.shape[:2])

    def _distances(self, windows: Cells) -> NDArray[np.float32]:
        white = (windows - self.mean) @ self.whitening
        halves = 0.5 * np.square(self.codewords).sum(1) - white @ self.codewords.T
        squares = np.square(white).sum(1) + 2 * halves.min(axis=1)
        return np.asarray(np.sqrt(np.maximum(squares, 0)))

    def standardised(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return distances (R, S) relative to the usual ones at the same place."""
        if self.usual.ndim == 2:
            usual, spread = (resized(a, distances.shape) for a in (self.usual, self.spread))
        else:
            place = edge_distances(distances.shape)
            usual, spread = self.usual[place], self.spread[place]
        return np.asarray((distances - usual) / spread)

    def standardised_by(
        self, held_out: Sequence[NDArray[np.float32]], aligned: bool
    ) -> NormalCells:
        """Learn the usual distances from those (R, S) of held-out images."""
        if aligned:
            stack = np.stack([resized(each, _ALIGNED_SHAPE) for each in held_out])
            around = np.pad(stack, [(0, 0), (1, 1), (1, 1)], mode="edge")
            views = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(1, 2))
            groups = views.transpose(1, 2, 0, 3, 4).reshape(*_ALIGNED_SHAPE, -1)
            usual, high = np.quantile(groups, [0.5, _HIGH], axis=-1)
        else:
            values = np.concatenate([each.ravel() for each in held_out])
            places = np.concatenate([edge_distances(each.shape).ravel() for each in held_out])
            found = np.full((2, _N_PLACES), np.nan)
            for place in np.unique(places):
                found[:, place] = np.quantile(values[places == place], [0.5, _HIGH])
            # Images that are too small have no place far from an edge: the next nearer one counts.
            last = np.flatnonzero(np.isfinite(found[0]))[-1]
            usual, high = np.where(np.isfinite(found), found, found[:, [last]])
        spread = high - usual
        typical = float(np.median(spread)) or 1.0  # 0 for images without any variation
        spread = np.maximum(spread, 0.1 * typical)
        return replace(self, usual=usual.astype(np.float32), spread=spread.astype(np.float32))


@dataclass(frozen=True, eq=False)
class NormalImages:
    """What defect-free images look like: one `NormalCells` for each size and window.

    Attributes
    ----------
    parts : tuple of NormalCells
    """

    parts: tuple[NormalCells, ...]

    @property
    def n_features(self) -> int:
        """Length of a cell's vector."""
        return len(self.parts[0].mean)

    def scores(
        self, maps: CellMaps, image: PreparedImage
    ) -> tuple[NDArray[np.float32], WindowGrid]:
        """Return the scores (R, S) of an image's cells at its own size, and where they lie."""
        found = {side: maps.cells(image, side) for side in _SIDES}
        stride = found[None][1]
        distances = distances_of(self.parts, {side: cells for side, (cells, _) in found.items()})
        rows, columns = (np.arange(n) * stride for n in distances[0].shape)
        return self.combined(distances), WindowGrid(rows, columns, stride)

    def combined(self, distances: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the mean of standardised distances, on the grid of the first part.

        Each size of the images counts the same.
        """
        shape = distances[0].shape
        of_side: dict[int | None, list[NDArray[np.float32]]] = {}
        for part, own in zip(self.parts, distances, strict=True):
            of_side.setdefault(part.side, []).append(resized(part.standardised(own), shape))
        means = [np.mean(own, axis=0) for own in of_side.values()]
        return np.asarray(np.mean(means, axis=0), dtype=np.float32)

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return header and arrays."""
        arrays = {
            f"{i}.{name}": getattr(part, name)
            for i, part in enumerate(self.parts)
            for name in (*_ARRAYS, *_PROFILES)
        }
        return {"parts": [[part.side, part.window] for part in self.parts]}, arrays

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> NormalImages:
        """Undo `to_state`.

        Raises
        ------
        ValueError
            If the arrays do not fit together.
        """
        expected = [list(part) for part in _PARTS]
        if header["parts"] != expected:
            raise ValueError(
                f"sizes and windows are {reprlib.repr(header['parts'])}; expected {expected}"
            )
        parts = []
        for i, (side, window) in enumerate(_PARTS):
            own = {
                name: each.checked(arrays[f"{i}.{name}"], name) for name, each in _ARRAYS.items()
            }
            n_channels = len(own["mean"])
            profile = Array("float32", 2 if arrays[f"{i}.usual"].ndim == 2 else 1, 0, _MAX_VALUE)
            own |= {name: profile.checked(arrays[f"{i}.{name}"], name) for name in _PROFILES}
            places = {_ALIGNED_SHAPE, (_N_PLACES,)}
            fits = n_channels > 0 and own["whitening"].shape == (n_channels, n_channels)
            fits = fits and len(own["codewords"]) > 0 and own["codewords"].shape[1] == n_channels
            fits = fits and len(arrays["0.mean"]) == n_channels
            fits = fits and own["usual"].shape == own["spread"].shape
            fits = fits and own["usual"].shape in places and float(own["spread"].min()) > 0
            if not fits:
                shapes = {name: array.shape for name, array in own.items()}
                raise ValueError(f"the arrays of the model of normal images do not fit: {shapes}")
            parts.append(NormalCells(side, window, **own))
        return cls(tuple(parts))


class NormalImagesFit:
    """Learns from the cells of defect-free images, and scores each image by the others.

    Parameters
    ----------
    maps : CellMaps
        With a folder.
    n_images : int
        That will be added, at most.
    n_codewords : int
    aligned : bool
        Whether all images show the same part at the same place.
    seed : int
    """

    def __init__(
        self, maps: CellMaps, n_images: int, n_codewords: int, aligned: bool, seed: int
    ) -> None:
        self.sizes: dict[int, tuple[int, int]] = {}
        self.keys: dict[int, str] = {}
        self._maps = maps
        self._n_each = max(_MIN_PER_IMAGE, _MAX_CELLS // n_images)
        self._n_codewords, self._aligned, self._seed = n_codewords, aligned, seed
        self._rows: dict[int, list[Cells]] = {}

    def add(self, position: int, image: PreparedImage) -> None:
        """Sample the cells of an image; which ones depends on the seed and the image alone."""
        self.keys[position], self.sizes[position] = image.key, image.size
        samples = []
        of_side = {side: self._maps.cells(image, side)[0] for side in _SIDES}
        for side, window in _PARTS:
            cells = window_means(of_side[side], window)
            flat = cells.reshape(-1, cells.shape[-1])
            samples.append(flat[random_pixels(self._seed, image.key, len(flat), self._n_each)])
        self._rows[position] = samples

    def parts(self, positions: Iterable[int]) -> list[NormalCells]:
        """Learn from some images; usual distances are still missing."""
        ordered = sorted(positions, key=lambda at: (self.keys[at], at))
        return [
            NormalCells.fit(
                side,
                window,
                np.concatenate([self._rows[at][i] for at in ordered]),
                self._n_codewords,
                self._seed,
            )
            for i, (side, window) in enumerate(_PARTS)
        ]

    def finish(
        self, parts: list[NormalCells], of_image: Mapping[int, list[NormalCells]]
    ) -> tuple[NormalImages, dict[int, NDArray[np.float32]]]:
        """Return the model, and the scores (R, S) of each image by models that lack it.

        What is usual is also learnt without the image. Otherwise the images would score lower than
        new ones.

        Parameters
        ----------
        parts : list of NormalCells
            Learnt from all images.
        of_image : dict from int to list of NormalCells
            Learnt without the image at this position.
        """
        distances = {at: distances_of(own, self._kept_cells(at)) for at, own in of_image.items()}

        def model(without: Any = None) -> NormalImages:
            """Standardise by the images that other models score: an image hides its own defects."""
            known = [at for at, own in of_image.items() if own is not without] or list(of_image)
            known = known[:_MAX_PROFILE_IMAGES]
            return NormalImages(
                tuple(
                    part.standardised_by([distances[at][i] for at in known], self._aligned)
                    for i, part in enumerate(parts)
                )
            )

        of_fold = {id(own): model(own) for own in of_image.values()}
        return model(), {
            at: of_fold[id(of_image[at])].combined(own) for at, own in distances.items()
        }

    def _kept_cells(self, position: int) -> dict[int | None, Cells]:
        key, size = self.keys[position], self.sizes[position]
        return {side: self._maps.kept_cells(key, size, side) for side in _SIDES}


#: Side of the squares that images are reduced to, or None for their own size; side of a window.
_PARTS: tuple[tuple[int | None, int], ...] = ((None, 1), (None, 3), (_REDUCED_SIDE, 1))
_SIDES = tuple(dict.fromkeys(side for side, _ in _PARTS))
_ARRAYS = {
    "mean": Array("float32", 1, -_MAX_VALUE, _MAX_VALUE),
    "whitening": Array("float32", 2, -_MAX_VALUE, _MAX_VALUE),
    "codewords": Array("float32", 2, -_MAX_VALUE, _MAX_VALUE),
}
_PROFILES = ("usual", "spread")


def distances_of(
    parts: Sequence[NormalCells], of_side: Mapping[int | None, Cells]
) -> list[NDArray[np.float32]]:
    """Return the distances (R, S) of an image's cells by each part, from the cells at each size."""
    return [part.distances(of_side[part.side]) for part in parts]


def window_means(cells: Cells, window: int) -> Cells:
    """Return the mean over the window around each cell (R, S, D); edges are repeated."""
    if window == 1:
        return cells
    planes = torch.from_numpy(cells).permute(2, 0, 1)[None]
    padded = functional.pad(planes, [window // 2] * 4, mode="replicate")
    means = functional.avg_pool2d(padded, window, stride=1)[0].permute(1, 2, 0)
    return np.ascontiguousarray(means.numpy())


def edge_distances(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the distance of each cell (R, S) from the nearest edge, in cells; at most 4."""
    down, across = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in shape)
    return np.minimum(np.minimum(down[:, None], across), _MAX_EDGE_DISTANCE)


def resized(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Resize a map, bilinear and antialiased."""
    if values.shape == shape:
        return values
    planes = torch.from_numpy(values)[None, None]
    found = functional.interpolate(planes, tuple(shape), mode="bilinear", antialias=True)
    return np.asarray(found[0, 0].numpy())


def whitened(
    rows: Cells, n_rounds: int = _TRIM_ROUNDS
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the cells (n, D) that are kept, their mean, and the matrix that whitens them.

    The covariance is estimated robustly: in each round, the 1 % with the largest Mahalanobis
    distance are left out.
    """
    cells: FloatArray = np.asarray(rows, dtype=np.float64)
    kept = cells
    for _ in range(n_rounds):
        mean, whitening = _whitening(kept)
        distances = np.square((cells - mean) @ whitening).sum(axis=1)
        kept = cells[distances <= np.quantile(distances, 1 - _TRIM_FRACTION)]
    return kept, *_whitening(kept)


def codewords_of(
    space: tuple[FloatArray, FloatArray, FloatArray], n_codewords: int, seed: int
) -> FloatArray:
    """Return at most so many K-means codewords (K, d) of cells with their mean and whitening."""
    cells, mean, whitening = space
    n_codewords = max(1, min(n_codewords, len(cells) // _MIN_PER_CODEWORD))
    every = -(-len(cells) // (_MAX_PER_CODEWORD * n_codewords))  # more would only take longer
    white = (cells[::every] - mean) @ whitening
    distinct = np.unique(white, axis=0)
    n_codewords = min(n_codewords, len(distinct))
    start = np.random.default_rng(seed).choice(distinct, n_codewords, replace=False)
    kmeans = KMeans(n_codewords, init=start, n_init=1, max_iter=20).fit(white)
    return np.asarray(kmeans.cluster_centers_)


def _whitening(cells: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean, and the matrix that makes cells vary equally in all directions."""
    mean = cells.mean(axis=0)
    centred = cells - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / max(1, len(cells) - 1))
    usual = variances.mean() or 1.0
    return mean, directions / np.sqrt(np.maximum(variances, 0) + _RIDGE * usual)
