"""Labelled folders, and the folds and splits that all methods share."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

import hypervlad
from hypervlad.splits import group_folds

DATA_SETS = ("micrographs", "neu_steel", "nanofibre")  # the real sets that most benchmarks use
MAX_FOLDS = 5
TEST_SHARE = 0.25  # of the groups, in random splits


@dataclass
class DataSet:
    """Images with classes and groups, and features computed from each image alone.

    Attributes
    ----------
    name : str
    paths : ndarray of n str
    y, groups : ndarray of n
        Without a table of groups, each image is its own group.
    digest : str
        SHA-256 of files, labels and groups.
    """

    name: str
    paths: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    digest: str
    _features: dict[str, tuple[np.ndarray, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, folder: Path) -> DataSet:
        """Read a folder with one sub-folder per class, and its ``groups.csv`` if there is one."""
        folder = folder.resolve()
        table = folder / "groups.csv"
        data = hypervlad.load_image_folder(folder, table if table.exists() else None)
        n = len(data.images)
        groups = np.arange(n).astype(str) if data.groups is None else np.asarray(data.groups)
        y = np.asarray(data.target)
        digest = content_digest(Path(data.root), data.images, y, groups)
        return cls(folder.name, np.array(data.images), y, groups, digest)

    @property
    def classes(self) -> np.ndarray:
        return np.unique(self.y)

    def features(
        self, name: str, compute: Callable[[list[str]], np.ndarray]
    ) -> tuple[np.ndarray, float]:
        """Return one row per image and the seconds per image, computed at the first call.

        For features that need no training: folds and repeats share them, but each counts their
        time.
        """
        if name not in self._features:
            started = time.perf_counter()
            values = compute(list(self.paths))
            self._features[name] = values, (time.perf_counter() - started) / len(self.paths)
        return self._features[name]

    def forget_features(self) -> None:
        """Free the memory of the computed features."""
        self._features.clear()


def content_digest(
    root: Path, paths: Sequence[str], labels: np.ndarray, groups: np.ndarray | None
) -> str:
    """Return a SHA-256 that changes with the files' names and bytes, labels and groups."""
    digest = hashlib.sha256()
    for row, path in enumerate(paths):
        name = Path(path).relative_to(root).as_posix()
        digest.update(f"{name}|{labels[row]}|{'' if groups is None else groups[row]}|".encode())
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Fold:
    """The training and the test part of a data set."""

    data: DataSet
    train: np.ndarray
    test: np.ndarray
    repeat: int
    number: int
    seed: int

    @property
    def train_paths(self) -> list[str]:
        return list(self.data.paths[self.train])

    @property
    def test_paths(self) -> list[str]:
        return list(self.data.paths[self.test])

    @property
    def y(self) -> np.ndarray:
        """Labels of the training part."""
        return self.data.y[self.train]

    @property
    def groups(self) -> np.ndarray:
        """Groups of the training part."""
        return self.data.groups[self.train]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that distinguishes this fold from others."""
        rows = hashlib.sha256(self.test.astype(np.int64).tobytes())
        return {"data": self.data.digest, "test": rows.hexdigest(), "seed": self.seed}


def number_of_folds(y: np.ndarray, groups: np.ndarray) -> int:
    """Return min(5, groups of the rarest class).

    A class of a single group cannot be tested at all (`group_folds` keeps it in training); it does
    not count here.
    """
    per_class = [len(np.unique(groups[y == label])) for label in np.unique(y)]
    divisible = [n for n in per_class if n > 1]
    if not divisible:
        raise SystemExit("every class lies in one group only: cross-validation is impossible")
    return min(MAX_FOLDS, *divisible)


def folds_of(data: DataSet, repeats: int, seed: int, max_folds: int = MAX_FOLDS) -> list[Fold]:
    """Return all folds of all repeats; repeat r is split and fitted with the seed ``seed + r``."""
    n_splits = min(max_folds, number_of_folds(data.y, data.groups))
    return [
        Fold(data, train, test, repeat, number, seed + repeat)
        for repeat in range(repeats)
        for number, (train, test) in enumerate(
            group_folds(data.y, data.groups, n_splits=n_splits, random_state=seed + repeat)
        )
    ]


def random_splits(data: DataSet, n_splits: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Hold out a quarter of the groups at random, as often as requested.

    A split that leaves a class without training images is drawn again.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    splitter = GroupShuffleSplit(100 * n_splits, test_size=TEST_SHARE, random_state=seed)
    for train, test in splitter.split(data.paths, data.y, data.groups):
        if len(np.unique(data.y[train])) == len(data.classes):
            found.append((train, test))
        if len(found) == n_splits:
            return found
    raise SystemExit(f"{data.name}: a class has too few groups to be split")
