"""Methods for defect maps: ours, and common alternatives on features of the same network."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.transform import resize
from sklearn.neighbors import NearestNeighbors
from sklearn.random_projection import SparseRandomProjection
from torch.nn import functional

from hypervlad import PatchDefectScorer, default_patch_encoder
from hypervlad.features import get_backbone
from hypervlad.features.hypercolumns import feature_maps
from hypervlad.features.network import build_network

SIDE = 224  # pixels: rivals resize images to such squares
SIGMA = 4.0  # pixels of these squares: the blur of their maps
OURS = "hypervlad"


class Method(Protocol):
    """A method for defect maps. One that calls images defective also has a ``threshold``."""

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None: ...

    def score(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """Return a map of the size of the image, and the score of the image."""

    def n_bytes(self) -> int:
        """Return the size of what was learnt."""


class Ours:
    """`PatchDefectScorer`, trained without labels or with masks."""

    def __init__(self, backbone: str, weights: str, **parameters: Any) -> None:
        encoder = default_patch_encoder(backbone=backbone, weights=weights)
        self.scorer = PatchDefectScorer(encoder, **parameters)

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        self.scorer.fit(images, masks=masks)

    def score(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        found = self.scorer.find(image)
        return found.map, found.score

    @property
    def threshold(self) -> float:
        return float(self.scorer.threshold_)

    def n_bytes(self) -> int:
        return size_of_file(self.scorer)


def size_of_file(model: Any) -> int:
    """Return the bytes of a saved model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.hvlad"
        model.save(path)
        return path.stat().st_size


class SquareNetwork:
    """Feature maps (1, C, h, w) of three taps for images resized to squares.

    With ``keep``, maps are kept (half a megabyte per image), for methods and splits that share it.
    """

    def __init__(self, backbone: str, weights: str, keep: bool = False) -> None:
        chosen = get_backbone(backbone)
        self._network = build_network(backbone, weights, chosen.taps[1:4])
        self._preprocessing = chosen.preprocessing
        self._kept: dict[bytes, list[torch.Tensor]] | None = {} if keep else None

    def maps(self, image: np.ndarray) -> list[torch.Tensor]:
        if self._kept is None:
            return self._compute(image)
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        if key not in self._kept:
            self._kept[key] = self._compute(image)
        return self._kept[key]

    def _compute(self, image: np.ndarray) -> list[torch.Tensor]:
        batch = self._preprocessing.prepare(np.asarray(image, np.float32), (SIDE, SIDE))[None]
        return [each.permute(0, 3, 1, 2) for each in feature_maps(self._network, batch)]


@dataclass
class _OnSquares:
    """A method that scores the cells of the second tap's grid, from the second and third taps.

    Maps are averaged over ``around`` x ``around`` cells, then resized to that grid.
    """

    network: SquareNetwork = field(repr=False)
    seed: int
    around: int = 1

    def features(self, image: np.ndarray) -> np.ndarray:
        """Return the features (h, w, D) of an image's cells."""
        maps = self.network.maps(image)
        size = (maps[1].shape[2], maps[1].shape[3])
        layers = [
            functional.avg_pool2d(each, self.around, 1, self.around // 2) for each in maps[1:]
        ]
        same = [functional.interpolate(each, size, mode="bilinear") for each in layers]
        return torch.cat(same, 1)[0].permute(1, 2, 0).numpy()

    def score(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        features = self.features(image)
        cells = self.distances(features)
        square = gaussian_filter(resize(cells, (SIDE, SIDE), order=1), SIGMA)
        return resize(square, image.shape[:2], order=1), self.image_score(features, cells)

    def distances(self, features: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def image_score(self, features: np.ndarray, cells: np.ndarray) -> float:
        return float(cells.max())


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
class PatchCore(_OnSquares):
    """The nearest of a tenth of the defect-free cells, chosen greedily (Roth et al. 2022)."""

    around: int = 3
    share: float = 0.1
    memory: Any = field(default=None, repr=False)
    search: Any = field(default=None, repr=False)

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        grids = [self.features(image) for image in images]
        cells = np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in grids])
        chosen = _greedy(cells, int(self.share * len(cells)), self.seed)
        self.memory = cells[chosen].astype(np.float32)
        self.search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(self.memory)

    def distances(self, features: np.ndarray) -> np.ndarray:
        flat = features.reshape(-1, features.shape[-1])
        return self.search.kneighbors(flat, 1)[0].reshape(features.shape[:2])

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

    def n_bytes(self) -> int:
        return int(self.memory.nbytes)


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


def all_methods(backbone: str, weights: str, seed: int) -> dict[str, Callable[[], Method]]:
    """Return a function that makes each method, by title; "masks" if it is trained on masks."""
    network = (backbone, weights)
    return {
        f"{OURS}, good images": lambda: Ours(*network, random_state=seed, n_planted=0),
        f"{OURS}, masks": lambda: Ours(*network, random_state=seed, threshold="f1"),
        "PaDiM": lambda: PaDiM(SquareNetwork(*network), seed),
        "PatchCore": lambda: PatchCore(SquareNetwork(*network), seed),
    }
