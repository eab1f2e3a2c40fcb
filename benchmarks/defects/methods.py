"""Methods for defect maps: ours and common alternatives, on features of the same network.

Each is trained on defect-free images (or with masks). It returns a score map of the size of the
image, a score of the image, the seconds of the network and of the rest, and its size in bytes.
"""

from __future__ import annotations

import contextlib
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.feature import local_binary_pattern
from skimage.transform import resize
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors
from sklearn.random_projection import SparseRandomProjection
from torch.nn import functional

from benchmarks.defects.scores import PATCH
from hypervlad import PatchDefectScorer, default_patch_encoder
from hypervlad.backbones import build_network, get_backbone
from hypervlad.defects.thresholds import WindowScores, image_score, threshold_of_best_f1
from hypervlad.hypercolumns import feature_maps, prepare
from hypervlad.presets import carrillo2020
from hypervlad.splits import holdout_split
from hypervlad.windows import (
    ANOMALOUS,
    NORMAL,
    PatchSet,
    WindowGrid,
    cut_patches,
    patch_means,
    patch_positions,
)

SIDE = 224  # pixels: PaDiM and PatchCore resize images to such squares
SIGMA = 4.0  # pixels of these squares: the blur of their maps
_LBP_POINTS, _LBP_RADIUS = 8, 1


class Method(Protocol):
    """A method for defect maps."""

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


@dataclass
class Ours:
    """`PatchDefectScorer`, trained without labels or with masks."""

    backbone: str
    weights: str
    seed: int
    with_masks: bool
    scorer: Any = None

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        encoder = default_patch_encoder(backbone=self.backbone, weights=self.weights)
        rule = {"threshold": "f1"} if self.with_masks else {"threshold": "patch_fpr", "fpr": 0.01}
        self.scorer = PatchDefectScorer(encoder, **rule, random_state=self.seed)
        self.scorer.fit(images, masks=masks if self.with_masks else None)

    def score(self, image: np.ndarray) -> Scored:
        network, model = self.scorer.encoder_.network(), type(self.scorer.model_)
        with timed(network, "_forward") as passes, timed(model, "scores") as searches:
            began = time.perf_counter()
            found = self.scorer.find(image)
            whole = time.perf_counter() - began
        return Scored(found.map, found.score, sum(passes), whole - sum(passes), sum(searches))

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


@contextlib.contextmanager
def timed(owner: Any, name: str) -> Iterator[list[float]]:
    """Record the seconds of each call of a method of an object or class."""
    original, seconds, is_own = getattr(owner, name), list[float](), name in vars(owner)

    def watched(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = original(*arguments)
        seconds.append(time.perf_counter() - began)
        return result

    setattr(owner, name, watched)
    try:
        yield seconds
    finally:
        setattr(owner, name, original) if is_own else delattr(owner, name)


@dataclass
class _OnSquares:
    """Features of squares of SIDE pixels on the grid of the finest tap, for PaDiM and PatchCore.

    Layers are averaged over ``around`` x ``around`` cells and resized to the finest one.
    """

    backbone: str
    weights: str
    seed: int
    network: Any = field(default=None, repr=False)
    around: int = 1

    def features(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """Return (h, w, D) and the network's seconds."""
        chosen = get_backbone(self.backbone)
        if self.network is None:
            taps = default_patch_encoder(backbone=self.backbone).taps
            self.network = build_network(self.backbone, self.weights, taps)
        batch = prepare(np.asarray(image, np.float32), (SIDE, SIDE), chosen.preprocessing)[None]
        began = time.perf_counter()
        maps = feature_maps(self.network, batch)
        seconds = time.perf_counter() - began
        size = (maps[0].shape[1], maps[0].shape[2])
        half = self.around // 2
        layers = [functional.avg_pool2d(m.permute(0, 3, 1, 2), self.around, 1, half) for m in maps]
        same = [functional.interpolate(m, size, mode="bilinear") for m in layers]
        return torch.cat(same, 1)[0].permute(1, 2, 0).numpy(), seconds

    def score(self, image: np.ndarray) -> Scored:
        began = time.perf_counter()
        features, network_seconds = self.features(image)
        searched = time.perf_counter()
        cells = self.distances(features)
        image_score = self.image_score(features, cells)
        search_seconds = time.perf_counter() - searched
        square = resize(cells, (SIDE, SIDE), order=1)
        found = resize(gaussian_filter(square, SIGMA), image.shape[:2], order=1)
        others = time.perf_counter() - began - network_seconds
        return Scored(found, image_score, network_seconds, others, search_seconds)

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
        stack = np.stack([self.features(image)[0] for image in images]).astype(np.float64)
        n, height, width, n_features = stack.shape
        cells = stack.reshape(n, -1, n_features)
        self.mean = cells.mean(0)
        self.inverse = np.empty((height * width, n_features, n_features), np.float32)
        for i in range(height * width):
            covariance = np.cov(cells[:, i].T) + 0.01 * np.eye(n_features)
            self.inverse[i] = np.linalg.inv(covariance)

    def distances(self, features: np.ndarray) -> np.ndarray:
        offsets = features.reshape(len(self.mean), -1) - self.mean
        squares = np.einsum("ni,nij,nj->n", offsets, self.inverse, offsets, optimize=True)
        return np.sqrt(np.maximum(squares, 0)).reshape(features.shape[:2])

    def n_bytes(self) -> int:
        return int(self.inverse.nbytes + self.mean.astype(np.float32).nbytes)


@dataclass
class PatchCore(_OnSquares):
    """The nearest of a tenth of all defect-free cells, chosen greedily (Roth et al. 2022)."""

    around: int = 3
    share: float = 0.1
    memory: Any = field(default=None, repr=False)
    search: Any = field(default=None, repr=False)

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        cells = np.concatenate(
            [(f := self.features(image)[0]).reshape(-1, f.shape[-1]) for image in images]
        )
        self.memory = cells[_greedy(cells, int(self.share * len(cells)), self.seed)]
        self.search = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(self.memory)

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
        return int(self.memory.astype(np.float32).nbytes)


def _greedy(cells: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Choose cells one by one, each the farthest from those chosen before (PatchCore's coreset)."""
    n_components = min(cells.shape[1], 64)
    small = SparseRandomProjection(n_components, random_state=seed).fit_transform(cells)
    small = np.asarray(small, np.float32)
    chosen = np.empty(n, np.intp)
    nearest = np.full(len(small), np.inf, np.float32)
    at = int(np.random.default_rng(seed).integers(len(small)))
    for i in range(n):
        chosen[i] = at
        np.minimum(nearest, np.square(small - small[at]).sum(1), out=nearest)
        at = int(nearest.argmax())
    return chosen


@dataclass
class Texture:
    """Histograms of local binary patterns and of grey values in windows, an isolation forest."""

    seed: int
    forest: Any = field(default=None, repr=False)
    stride: int = PATCH // 4
    max_windows: int = 20_000

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        rows = np.concatenate([self._windows(image) for image in images])
        rng = np.random.default_rng(self.seed)
        rows = rows[rng.permutation(len(rows))[: self.max_windows]]
        self.forest = IsolationForest(n_estimators=200, random_state=self.seed).fit(rows)

    def score(self, image: np.ndarray) -> Scored:
        began = time.perf_counter()
        rows = self._windows(image)
        windows = WindowGrid.cover(image.shape[:2], PATCH, self.stride)
        searched = time.perf_counter()
        scores = -self.forest.score_samples(rows)
        search_seconds = time.perf_counter() - searched
        scores = scores.reshape(len(windows.rows), len(windows.columns))
        found = windows.to_map(scores, image.shape[:2], image.shape[:2])
        whole = time.perf_counter() - began
        return Scored(found, float(found.max()), 0.0, whole, search_seconds)

    def _windows(self, image: np.ndarray) -> np.ndarray:
        grey = image if image.ndim == 2 else image.mean(-1)
        eight = np.round(255 * grey).astype(np.uint8)
        patterns = local_binary_pattern(eight, _LBP_POINTS, _LBP_RADIUS, "uniform")
        positions = patch_positions(grey.shape, PATCH, self.stride, edges="shift")
        layers = [patterns == value for value in range(_LBP_POINTS + 2)]
        layers += [(eight // 32) == value for value in range(8)]
        return np.stack([patch_means(layer, positions, PATCH) for layer in layers], 1)

    def n_bytes(self) -> int:
        return len(pickle.dumps(self.forest))


@dataclass
class SmallCNN:
    """The network of Carrillo Perez (2020) on 29 px patches, slid over whole images.

    A fifth of the images is held out to stop training and to choose the threshold with the best F1
    at the true share of defective windows. Batches are a tenth of the patches, as in the report.
    """

    seed: int
    model: Any = None
    threshold: float = 0.0
    max_patches: int = 5_000  # per class, about as many as in the report
    stride: int = PATCH // 4

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        assert masks is not None
        is_bad = [bool(mask.any()) for mask in masks]
        train_rows, held_out_rows = holdout_split(is_bad, test_size=0.2, random_state=self.seed)
        sides = [
            cut_patches(
                [images[i] for i in rows],
                [masks[i] for i in rows],
                patch=PATCH,
                stride=self.stride,
                edges="shift",
            )
            for rows in (train_rows, held_out_rows)
        ]
        train, stop = (self._balanced(side) for side in sides)
        batch_size = max(32, len(train) // 10)
        self.model = carrillo2020(batch_size=batch_size, random_state=self.seed)
        self.model.fit(train.pixels, train.labels, validation=(stop.pixels, stop.labels))
        margins = -self.model.decision_function(sides[1].pixels)  # of "normal", the second class
        self.threshold = threshold_of_best_f1([WindowScores.of(margins, sides[1].labels)])

    def score(self, image: np.ndarray) -> Scored:
        began = time.perf_counter()
        found = self.model.score_map(image, stride=self.stride, edges="shift")
        return Scored(found, image_score(found), time.perf_counter() - began, 0.0, 0.0)

    def n_bytes(self) -> int:
        return size_of_file(self.model)

    def _balanced(self, patches: PatchSet) -> PatchSet:
        rng = np.random.default_rng(self.seed)
        rows = [
            rng.permutation(np.flatnonzero(patches.labels == kind)) for kind in (ANOMALOUS, NORMAL)
        ]
        n_each = min(self.max_patches, *map(len, rows))
        return patches.take(np.concatenate([each[:n_each] for each in rows]))


def all_methods(backbone: str, weights: str, seed: int) -> dict[str, Callable[[], Method]]:
    """Return a function that makes each method, by title."""
    features = (backbone, weights, seed)
    return {
        "hypervlad, good images": lambda: Ours(*features, with_masks=False),
        "hypervlad, masks": lambda: Ours(*features, with_masks=True),
        "PaDiM": lambda: PaDiM(*features),
        "PatchCore": lambda: PatchCore(*features),
        "LBP + isolation forest": lambda: Texture(seed),
        "Carrillo CNN, masks": lambda: SmallCNN(seed),
    }
