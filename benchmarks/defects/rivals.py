"""PaDiM, PatchCore and two bare baselines: common methods for defect maps.

All use features of the same network on images resized to squares. None uses code of this library
besides its network, so that their results stay valid when the library's own methods change.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.transform import resize
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.random_projection import SparseRandomProjection
from torch.nn import functional

from hypervlad.backbones import build_network, get_backbone
from hypervlad.encoder.loading import prepare
from hypervlad.vlad import feature_maps

SIDE = 224  # pixels: images are resized to such squares
SIGMA = 4.0  # pixels of these squares: the blur of the maps


class Method(Protocol):
    """A method for defect maps. One that calls images defective also has a ``threshold``."""

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None: ...

    def score(self, image: np.ndarray) -> Scored: ...

    def n_bytes(self) -> int: ...


@dataclass(frozen=True)
class Scored:
    """The answer of a method for an image.

    Attributes
    ----------
    map : ndarray of shape (H, W)
    score : float
        Of the image.
    network_seconds, other_seconds : float
        Of network passes, and of everything else.
    search_seconds : float
        The part of ``other_seconds`` that turns features into scores.
    """

    map: np.ndarray
    score: float
    network_seconds: float
    other_seconds: float
    search_seconds: float


class SquareMaps(NamedTuple):
    """Feature maps (1, C, h, w) of an image, the shallowest first, and the time they took."""

    maps: list[torch.Tensor]
    network_seconds: float
    other_seconds: float


class SquareNetwork:
    """Feature maps of three taps for images resized to squares.

    Parameters
    ----------
    backbone, weights : str
    keep : bool, default=False
        Keep the maps of every image (half a megabyte each for ``mobilenet_v2``), so that the
        methods and splits that share a network pass each image through it once.
    """

    def __init__(self, backbone: str, weights: str, keep: bool = False) -> None:
        chosen = get_backbone(backbone)
        self._network = build_network(backbone, weights, chosen.taps[1:4])
        self._preprocessing = chosen.preprocessing
        self._kept: dict[bytes, SquareMaps] | None = {} if keep else None

    def maps(self, image: np.ndarray) -> SquareMaps:
        """Return the maps of an image, with the times of when they were computed."""
        if self._kept is None:
            return self._compute(image)
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        if key not in self._kept:
            self._kept[key] = self._compute(image)
        return self._kept[key]

    def _compute(self, image: np.ndarray) -> SquareMaps:
        began = time.perf_counter()
        batch = prepare(np.asarray(image, np.float32), (SIDE, SIDE), self._preprocessing)[None]
        prepared = time.perf_counter()
        maps = [each.permute(0, 3, 1, 2) for each in feature_maps(self._network, batch)]
        return SquareMaps(maps, time.perf_counter() - prepared, prepared - began)


@dataclass
class _OnSquares:
    """A method that scores the cells of the second tap's grid, from the features of some taps.

    Maps are averaged over ``around`` x ``around`` cells, then resized to that grid.
    """

    network: SquareNetwork = field(repr=False)
    seed: int
    around: int = 1
    first_tap: int = 1

    def features(self, image: np.ndarray) -> np.ndarray:
        """Return the features (h, w, D) of an image's cells."""
        return self._combined(self.network.maps(image).maps)

    def cells(self, images: list[np.ndarray]) -> np.ndarray:
        """Return the features (n, D) of the cells of all images."""
        grids = [self.features(image) for image in images]
        return np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in grids])

    def score(self, image: np.ndarray) -> Scored:
        maps, network_seconds, other_seconds = self.network.maps(image)
        began = time.perf_counter()
        features = self._combined(maps)
        searched = time.perf_counter()
        cells = self.distances(features)
        image_score = self.image_score(features, cells)
        search_seconds = time.perf_counter() - searched
        square = resize(cells, (SIDE, SIDE), order=1)
        found = resize(gaussian_filter(square, SIGMA), image.shape[:2], order=1)
        other_seconds += time.perf_counter() - began
        return Scored(found, image_score, network_seconds, other_seconds, search_seconds)

    def distances(self, features: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def image_score(self, features: np.ndarray, cells: np.ndarray) -> float:
        return float(cells.max())

    def _combined(self, maps: list[torch.Tensor]) -> np.ndarray:
        size = (maps[1].shape[2], maps[1].shape[3])
        half = self.around // 2
        layers = [
            functional.avg_pool2d(each, self.around, 1, half) for each in maps[self.first_tap :]
        ]
        same = [functional.interpolate(each, size, mode="bilinear") for each in layers]
        return torch.cat(same, 1)[0].permute(1, 2, 0).numpy()


@dataclass
class PaDiM(_OnSquares):
    """A Gaussian for each cell of the square (Defard et al. 2021), on all channels."""

    mean: Any = field(default=None, repr=False)
    inverse: Any = field(default=None, repr=False)

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        stack = np.stack([self.features(image) for image in images]).astype(np.float64)
        n, height, width, n_features = stack.shape
        cells = stack.reshape(n, -1, n_features)
        self.mean = cells.mean(0).astype(np.float32)
        self.inverse = np.empty((height * width, n_features, n_features), np.float32)
        for i in range(height * width):
            covariance = np.cov(cells[:, i].T) + 0.01 * np.eye(n_features)
            self.inverse[i] = np.linalg.inv(covariance)

    def distances(self, features: np.ndarray) -> np.ndarray:
        offsets = features.reshape(len(self.mean), -1) - self.mean
        squares = np.einsum("ni,nij,nj->n", offsets, self.inverse, offsets, optimize=True)
        return np.sqrt(np.maximum(squares, 0)).reshape(features.shape[:2])

    def n_bytes(self) -> int:
        return int(self.inverse.nbytes + self.mean.nbytes)


@dataclass
class _Nearest(_OnSquares):
    """The distance from the nearest of some vectors."""

    memory: Any = field(default=None, repr=False)
    search: Any = field(default=None, repr=False)

    def keep(self, memory: np.ndarray) -> None:
        self.memory = memory.astype(np.float32)
        self.search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(self.memory)

    def distances(self, features: np.ndarray) -> np.ndarray:
        flat = features.reshape(-1, features.shape[-1])
        return self.search.kneighbors(flat, 1)[0].reshape(features.shape[:2])

    def n_bytes(self) -> int:
        return int(self.memory.nbytes)


@dataclass
class PatchCore(_Nearest):
    """The nearest of defect-free cells (Roth et al. 2022).

    Of these a tenth is kept, chosen greedily; without ``coreset`` all of them, and of more than
    ``max_cells`` as many at random.
    """

    around: int = 3
    coreset: bool = True
    share: float = 0.1
    max_cells: int = 10_000

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        cells = self.cells(images)
        if self.coreset:
            self.keep(cells[_greedy(cells, int(self.share * len(cells)), self.seed)])
        else:
            self.keep(_at_random(cells, self.max_cells, self.seed))

    def image_score(self, features: np.ndarray, cells: np.ndarray) -> float:
        """Weight the farthest cell by the isolation of its nearest neighbour."""
        row, column = np.unravel_index(cells.argmax(), cells.shape)
        cell = features[row, column]
        nearest = self.search.kneighbors(cell[None], 1)[1][0, 0]
        around = self.search.kneighbors(self.memory[nearest][None], 9)[1][0]
        distances = np.linalg.norm(self.memory[around] - cell, axis=1)
        shares = np.exp(distances - distances.max())
        own = np.exp(cells.max() - distances.max())
        return float((1 - own / shares.sum()) * cells.max())


def _greedy(cells: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Choose cells one by one, each the farthest from those chosen before (PatchCore's coreset)."""
    n_components = min(cells.shape[1], 64)
    small = SparseRandomProjection(n_components, random_state=seed).fit_transform(cells)
    small = np.asarray(small, np.float32)
    lengths = np.square(small).sum(1)
    chosen = np.empty(n, np.intp)
    nearest = np.full(len(small), np.inf, np.float32)
    at = int(np.random.default_rng(seed).integers(len(small)))
    for i in range(n):
        chosen[i] = at
        np.minimum(nearest, lengths + lengths[at] - 2 * (small @ small[at]), out=nearest)
        at = int(nearest.argmax())
    return chosen


def _at_random(cells: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return ``n`` of the cells, or all if there are no more."""
    return cells[np.random.default_rng(seed).permutation(len(cells))[:n]]


@dataclass
class Memory(_Nearest):
    """The nearest of random defect-free cells, on three taps: a bare baseline.

    The score of an image is the mean of its highest 0.2 % of cells.
    """

    around: int = 3
    first_tap: int = 0
    n_cells: int = 6000

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        self.keep(_at_random(self.cells(images), self.n_cells, self.seed))

    def image_score(self, features: np.ndarray, cells: np.ndarray) -> float:
        n_highest = max(1, round(0.002 * cells.size))
        return float(np.sort(cells, axis=None)[-n_highest:].mean())


@dataclass
class Codewords(Memory):
    """As `Memory`, but the nearest K-means codeword in a space of whitened components."""

    n_components: int = 64
    n_codewords: int = 500
    space: Any = field(default=None, repr=False)

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        cells = self.cells(images)
        n_components = min(self.n_components, *cells.shape)
        self.space = PCA(n_components, whiten=True, random_state=self.seed).fit(cells)
        n_codewords = min(self.n_codewords, len(cells))
        kmeans = KMeans(n_codewords, n_init=1, max_iter=30, random_state=self.seed)
        self.keep(kmeans.fit(self.space.transform(cells)).cluster_centers_)

    def distances(self, features: np.ndarray) -> np.ndarray:
        flat = self.space.transform(features.reshape(-1, features.shape[-1]))
        return super().distances(flat.reshape(*features.shape[:2], -1))

    def n_bytes(self) -> int:
        return int(super().n_bytes() + self.space.components_.nbytes + self.space.mean_.nbytes)


def all_rivals(network: SquareNetwork, seed: int) -> dict[str, Callable[[], Method]]:
    """Return a function that makes each rival, by title."""
    return {
        "PatchCore": lambda: PatchCore(network, seed),
        "PatchCore without coreset": lambda: PatchCore(network, seed, coreset=False),
        "PaDiM": lambda: PaDiM(network, seed),
        "memory": lambda: Memory(network, seed),
        "codewords": lambda: Codewords(network, seed),
    }
