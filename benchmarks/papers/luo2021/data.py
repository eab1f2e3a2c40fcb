"""Images of the 2021 experiment, from a folder or synthetic, and their splits."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from benchmarks.common.folds import content_digest
from hypervlad.datasets import load_image_folder, make_tem_images
from hypervlad.splits import holdout_split

TEST_SIZE = 0.2
_BLOCK = 100  # synthetic images in memory at a time


@dataclass(frozen=True)
class LabelledImages:
    """Image files with their labels.

    Attributes
    ----------
    name : str
        Name of the folder, or "synthetic".
    paths : list of n str
    labels : ndarray of n str
    groups : ndarray of n str, or None
    digest : str
        SHA-256 of files, labels and groups.
    """

    name: str
    paths: list[str]
    labels: np.ndarray
    groups: np.ndarray | None
    digest: str

    @property
    def classes(self) -> np.ndarray:
        """The labels that occur, sorted."""
        return np.unique(self.labels)

    @property
    def title(self) -> str:
        """Name for figures and tables."""
        return "synthetic TEM images" if self.name == "synthetic" else self.name

    def split(self, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the training and of the test part; kind is "random" or "grouped"."""
        if kind == "random":
            return random_split(len(self.paths), seed)
        return holdout_split(self.labels, self.groups, test_size=TEST_SIZE, random_state=seed)


def random_split(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the split of the paper: a random fifth of the images, whatever their class or group.

    Examples
    --------
    >>> [len(part) for part in random_split(5323, seed=0)]
    [4259, 1064]
    """
    order = np.random.default_rng(seed).permutation(n)
    n_test = int(TEST_SIZE * n)
    return np.sort(order[n_test:]), np.sort(order[:n_test])


def read_folder(
    folder: Path, n_classes: int, groups: Path | None = None, n_images: int | None = None
) -> LabelledImages:
    """Return the images of a folder of class folders, or a stratified sample of ``n_images``."""
    data = load_image_folder(folder, groups)
    if len(data.target_names) != n_classes:
        raise SystemExit(
            f"{folder} has {len(data.target_names)} class folders ({', '.join(data.target_names)})"
            f", expected {n_classes}: say --classes {len(data.target_names)} if 4 or 8 is right, "
            "or move the folders that are not classes"
        )
    rows = np.arange(len(data.images))
    if n_images is not None and n_images < len(rows):
        rows, _ = train_test_split(
            rows, train_size=n_images, stratify=data.target, random_state=0, shuffle=True
        )
        rows = np.sort(rows)
    paths = [data.images[row] for row in rows]
    labels = np.asarray(data.target)[rows]
    chosen = None if data.groups is None else np.asarray(data.groups)[rows]
    digest = content_digest(Path(data.root), paths, labels, chosen)
    return LabelledImages(folder.resolve().name, paths, labels, chosen, digest)


def synthetic_images(root: Path, n: int, n_classes: int) -> LabelledImages:
    """Write synthetic images as 8-bit PNG files, so that they are read like real ones.

    Existing files are kept: an interrupted run resumes at its last hundred images.
    """
    # Another version of the generator writes into another folder.
    folder = root / f"synthetic_{n_classes}_{n}_{_generator_digest()[:8]}"
    for start in range(0, n, _BLOCK):
        done = folder / f".{start:05d}-done"
        if done.exists():
            continue
        for index, label, pixels in _synthetic_block(start, min(_BLOCK, n - start), n_classes):
            _write_png(folder / label / f"{index:05d}.png", pixels)
        done.touch()
        print(f"synthetic images: {min(start + _BLOCK, n)} of {n} written", flush=True)
    found = read_folder(folder, n_classes)
    return LabelledImages("synthetic", found.paths, found.labels, None, found.digest)


def _synthetic_block(start: int, n: int, n_classes: int) -> Iterator[tuple[int, str, np.ndarray]]:
    images, labels = make_tem_images(n, n_classes=n_classes, random_state=start)
    for offset, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield start + offset, str(label), np.round(255 * image).astype(np.uint8)


def _generator_digest() -> str:
    images, _ = make_tem_images(16, n_classes=8, size=64, random_state=0)
    return hashlib.sha256(np.round(255 * np.stack(images)).astype(np.uint8).tobytes()).hexdigest()


def _write_png(path: Path, pixels: np.ndarray) -> None:
    from skimage.io import imsave

    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about low contrast, which such images have
        imsave(path, pixels, check_contrast=False)
