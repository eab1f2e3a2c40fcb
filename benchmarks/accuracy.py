"""Is the default better than what you would do in ten lines without it?

Grouped, stratified cross-validation on labelled folders; every method sees the same folds. The
baselines use the same network: its last layer, or all its taps, averaged over the image, with
logistic regression whose C is chosen by grouped cross-validation inside each training part.

    python benchmarks/accuracy.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import hypervlad
from hypervlad import HypercolumnVLAD, MicrographClassifier
from hypervlad.backbones import Preprocessing, build_network
from hypervlad.encoder.batches import Preparation
from hypervlad.hypercolumns import feature_maps
from hypervlad.images import read_micrographs
from hypervlad.metrics import expected_calibration_error
from hypervlad.splits import group_folds

RESULTS = Path(__file__).with_name("results")
DATA_SETS = ("micrographs", "neu_steel", "nanofibre")
SEED = 0

Method = Callable[[list[str], np.ndarray, np.ndarray, list[str]], tuple[np.ndarray, np.ndarray]]


class Pooled:
    """Taps averaged over the image, then logistic regression: the ten lines without us."""

    def __init__(self, backbone: str, weights: str, last_only: bool) -> None:
        self.network = build_network(backbone, weights)
        self.last_only = last_only
        self._known: dict[str, np.ndarray] = {}

    def __call__(
        self, train: list[str], y: np.ndarray, groups: np.ndarray, test: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        folds = group_folds(y, groups, n_splits=3, random_state=SEED)
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        grid = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1, 10]}
        model = GridSearchCV(pipeline, grid, cv=folds, scoring="neg_log_loss")
        model.fit(self.vectors(train), y)
        return model.classes_, model.predict_proba(self.vectors(test))

    def vectors(self, paths: list[str]) -> np.ndarray:
        new = [path for path in paths if path not in self._known]
        if new:
            preparation = Preparation(224, "square", Preprocessing(), 8)
            for batch in preparation.batches(read_micrographs(new)):
                means = [m.mean(dim=(1, 2)) for m in feature_maps(self.network, batch.images)]
                pooled = torch.cat(means[-1:] if self.last_only else means, dim=1).numpy()
                for position, vector in zip(batch.positions, pooled, strict=True):
                    self._known[new[position]] = vector
        return np.array([self._known[path] for path in paths])


def ours(backbone: str, weights: str, n_components: int | None = 256, **parameters: Any) -> Method:
    """Return our classifier with these parameters of the encoder."""

    def method(
        train: list[str], y: np.ndarray, groups: np.ndarray, test: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        encoder = HypercolumnVLAD(backbone, weights=weights, random_state=SEED, **parameters)
        model = MicrographClassifier(encoder, n_components=n_components, random_state=SEED)
        model.fit(train, y, groups)
        return model.classes_, model.predict_proba(test)

    return method


def methods(backbone: str, weights: str) -> dict[str, Method]:
    return {
        "hypervlad, default": ours(backbone, weights),
        "hypervlad, one codebook a layer": ours(backbone, weights, codebook="per_layer"),
        "hypervlad, one codebook a layer, vectors not reduced": ours(
            backbone, weights, n_components=None, codebook="per_layer"
        ),
        "last layer pooled + logistic regression": Pooled(backbone, weights, last_only=True),
        "all taps pooled + logistic regression": Pooled(backbone, weights, last_only=False),
    }


def cross_validate(method: Method, data: Any, groups: np.ndarray) -> dict[str, Any]:
    """Return pooled out-of-fold scores of one method on one data set."""
    paths, y = np.array(data.images), np.asarray(data.target)
    classes = np.unique(y)
    proba = np.full((len(y), len(classes)), np.nan)
    started = time.perf_counter()
    for train, test in group_folds(y, groups, n_splits=5, random_state=SEED):
        seen, values = method(list(paths[train]), y[train], groups[train], list(paths[test]))
        proba[test] = 0
        proba[np.ix_(test, np.searchsorted(classes, seen))] = values
    took = time.perf_counter() - started
    tested = ~np.isnan(proba[:, 0])
    codes, proba = np.searchsorted(classes, y[tested]), proba[tested]
    proba /= proba.sum(axis=1, keepdims=True)  # float32 networks sum to one only nearly
    right = proba.argmax(1) == codes
    return {
        "n": int(tested.sum()),
        "accuracy": float(right.mean()),
        "interval": _group_interval(right, groups[tested]),
        "balanced_accuracy": float(balanced_accuracy_score(codes, proba.argmax(1))),
        "log_loss": float(log_loss(codes, proba, labels=range(len(classes)))),
        "calibration_error": float(expected_calibration_error(codes, proba)),
        "seconds": took,
    }


def _group_interval(right: np.ndarray, groups: np.ndarray) -> list[float]:
    """Return the 95 % interval of the accuracy, groups drawn with replacement."""
    rng = np.random.default_rng(SEED)
    _, codes = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(codes, right), np.bincount(codes)
    drawn = rng.integers(len(counts), size=(2000, len(counts)))
    shares = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [float(value) for value in np.percentile(shares, [2.5, 97.5])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled folders")
    parser.add_argument("--sets", nargs="+", default=DATA_SETS)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in arguments.sets:
        folder = arguments.data / name
        table = folder / "groups.csv"
        data = hypervlad.load_image_folder(folder, table if table.exists() else None)
        groups = np.arange(len(data.images)) if data.groups is None else np.asarray(data.groups)
        for title, method in methods(arguments.backbone, arguments.weights).items():
            row = {"data": name, "method": title} | cross_validate(method, data, groups)
            rows.append(row)
            low, high = row["interval"]
            print(
                f"{name:12s} {title:42s} accuracy {row['accuracy']:.3f} [{low:.3f}, {high:.3f}] "
                f"log-loss {row['log_loss']:.3f} ECE {row['calibration_error']:.3f} "
                f"{row['seconds']:.0f} s",
                flush=True,
            )
    facts = {
        "rows": rows,
        "backbone": arguments.backbone,
        "seed": SEED,
        "versions": {
            "hypervlad": hypervlad.__version__,
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
            "python": platform.python_version(),
        },
    }
    out = arguments.out or RESULTS / f"accuracy_{arguments.backbone}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
