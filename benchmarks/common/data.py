"""Labelled folders, real and synthetic, and the folds and splits that all methods share."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.model_selection import GroupShuffleSplit

from hypervlad import load_image_folder, make_tem_images
from hypervlad.evaluation import group_folds

DATA_SETS = ("micrographs", "neu_steel", "nanofibre")  # the real sets that most benchmarks use
MAX_FOLDS = 5
TEST_SHARE = 0.25  # of the groups, in random splits
BLOCK = 1000  # synthetic images that are in memory at a time


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
    def load(cls, folder: Path, groups: Path | None = None, name: str | None = None) -> DataSet:
        """Read a folder with one sub-folder per class, by default with its ``groups.csv``."""
        folder = folder.resolve()
        table = groups or folder / "groups.csv"
        data = load_image_folder(folder, table if table.exists() else None)
        each = np.arange(len(data.images)).astype(str)
        of_image = each if data.groups is None else np.asarray(data.groups)
        digest = hashlib.sha256()
        for path, label, group in zip(data.images, data.target, of_image, strict=True):
            own = Path(path).relative_to(data.root).as_posix()
            digest.update(f"{own}|{label}|{group}|".encode())
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        paths, y = np.array(data.images), np.asarray(data.target)
        return cls(name or folder.name, paths, y, of_image, digest.hexdigest())

    @property
    def classes(self) -> np.ndarray:
        return np.unique(self.y)

    @property
    def codes(self) -> np.ndarray:
        """The classes as numbers."""
        return np.searchsorted(self.classes, self.y)

    def features(
        self, name: str, compute: Callable[[list[str]], np.ndarray]
    ) -> tuple[np.ndarray, float]:
        """Return one row per image and the seconds per image, computed at the first call."""
        if name not in self._features:
            started = time.perf_counter()
            values = compute(list(self.paths))
            self._features[name] = values, (time.perf_counter() - started) / len(self.paths)
        return self._features[name]


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

    def checkpoint(self, folder: Path, title: str) -> Path:
        """Return the place of a method's result."""
        name = "".join(c if c.isalnum() else "_" for c in title)
        return folder / self.data.name / name / f"repeat{self.repeat}_fold{self.number}.json"


def number_of_folds(y: np.ndarray, groups: np.ndarray) -> int:
    """Return min(5, groups of the rarest class), classes of one group left out."""
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
    """Hold out a quarter of the groups at random, each class keeping some training images."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    splitter = GroupShuffleSplit(100 * n_splits, test_size=TEST_SHARE, random_state=seed)
    for train, test in splitter.split(data.paths, data.y, data.groups):
        if len(np.unique(data.y[train])) == len(data.classes):
            found.append((train, test))
        if len(found) == n_splits:
            return found
    raise SystemExit(f"{data.name}: a class has too few groups to be split")


def save_grey(path: Path, image: np.ndarray) -> None:
    """Write an image of [0, 1] with 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)).save(path)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return an image of 8 bits as JPEG stores it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def write_tem_folder(folder: Path, n: int, *, size: int = 224, seed: int = 0) -> Path:
    """Write synthetic TEM images into a sub-folder per class, unless they are there.

    Of `BLOCK` images at a time; the seed of a block is ``seed`` and the number of its first.
    """
    complete = folder.with_name(f"{folder.name}.complete")
    if complete.exists():
        return folder
    for first in range(0, n, BLOCK):
        images, labels = make_tem_images(
            min(BLOCK, n - first), size=size, random_state=seed + first
        )
        for number, (image, label) in enumerate(zip(images, labels, strict=True), first):
            save_grey(folder / str(label) / f"{number:05d}.png", image)
    complete.touch()
    return folder


def tem_set(folder: Path, n: int, seed: int = 7) -> DataSet:
    """Return synthetic TEM images of four classes, written below a folder."""
    written = write_tem_folder(folder / f"synthetic_TEM_4_{n}_{seed}", n, seed=seed)
    return DataSet.load(written, name="synthetic TEM of 4 classes")
