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
from typing import Any

import numpy as np
from skimage.feature import local_binary_pattern
from sklearn.ensemble import IsolationForest

from benchmarks.defects.rivals import Method, PaDiM, PatchCore, Scored, SquareNetwork
from benchmarks.defects.scores import PATCH
from hypervlad import PatchDefectScorer, default_patch_encoder
from hypervlad.defects.labelled_windows import LabelledWindows
from hypervlad.defects.normal_images import NormalCells, NormalImages
from hypervlad.defects.reference_cells import ReferenceCells
from hypervlad.defects.thresholds import WindowScores, image_score, threshold_of_best_f1
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

_LBP_POINTS, _LBP_RADIUS = 8, 1


@dataclass
class Ours:
    """`PatchDefectScorer` with some parameters, trained without labels or with masks."""

    parameters: dict[str, Any]
    scorer: Any = None

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        self.scorer = PatchDefectScorer(**self.parameters).fit(images, masks=masks)

    def score(self, image: np.ndarray) -> Scored:
        network, model = self.scorer.encoder_.network(), self.scorer.model_
        search: tuple[type, str] = (LabelledWindows, "scores")
        if not isinstance(model, LabelledWindows):
            own = NormalCells if isinstance(model, NormalImages) else ReferenceCells
            search = (own, "distances")
        with timed(network, "_forward") as passes, timed(*search) as searches:
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
    """The network of Carrillo Pérez (2020) on 29 px patches, slid over whole images.

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

    def ours(**rule: Any) -> Ours:
        encoder = default_patch_encoder(backbone=backbone, weights=weights)
        return Ours({"encoder": encoder, "random_state": seed} | rule)

    return {
        "hypervlad, good images": lambda: ours(threshold="patch_fpr", fpr=0.01),
        "hypervlad, masks": lambda: ours(threshold="f1"),
        "PaDiM": lambda: PaDiM(SquareNetwork(backbone, weights), seed),
        "PatchCore": lambda: PatchCore(SquareNetwork(backbone, weights), seed),
        "LBP + isolation forest": lambda: Texture(seed),
        "Carrillo CNN, masks": lambda: SmallCNN(seed),
    }
