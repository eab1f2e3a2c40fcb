"""Fields whose particles were outlined by hand, and the outlines that methods find in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import KFold

from benchmarks.common.checkpoints import load_or_run
from benchmarks.particles.methods import METHODS
from hypervlad import read_micrograph
from hypervlad.particles import read_outlines

N_FOLDS = 4


@dataclass(frozen=True)
class OutlinedFields:
    """Images with label images in ``outlines/`` and, if their classes are known, ``classes/``."""

    name: str
    paths: list[Path]
    digest: str

    @classmethod
    def load(cls, folder: Path) -> OutlinedFields:
        paths, digest = sorted((folder / "images").iterdir()), hashlib.sha256()
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
        return cls(folder.name, paths, digest.hexdigest())

    def image(self, i: int) -> np.ndarray:
        """Return the grey values of an image, (H, W) in [0, 1]."""
        pixels = read_micrograph(self.paths[i]).pixels
        return pixels if pixels.ndim == 2 else pixels.mean(axis=2)

    def labels(self, i: int, kind: str = "outlines") -> np.ndarray:
        """Return the label image of an image, (H, W), or that of its classes."""
        path = self.paths[i]
        return read_outlines(path.parents[1] / kind / path.name).label_image()

    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the images to learn from, in random order, and to test, for each fold."""
        folds = KFold(N_FOLDS, shuffle=True, random_state=0).split(self.paths)
        return [(np.random.default_rng(k).permutation(a), b) for k, (a, b) in enumerate(folds)]

    def found(self, title: str, fold: int, n_train: int, options: Any) -> dict[int, np.ndarray]:
        """Return the label images that a method finds in the test images of a fold.

        It has learnt the first `n_train` of the others.
        """
        train, test = self.folds()[fold]

        def run() -> dict[str, Any]:
            method = METHODS[title](options.backbone, options.weights, fold)
            learnt = train[:n_train]
            method.fit([self.image(i) for i in learnt], [self.labels(i) for i in learnt])
            return {str(i): method.predict([self.image(i)])[0].astype(np.uint16) for i in test}

        settings = {"digest": self.digest, "method": title, "fold": fold, "n_train": n_train}
        settings |= {"backbone": options.backbone, "weights": options.weights}
        path = options.checkpoints / self.name / f"{title.replace(' ', '_')}-{n_train}-{fold}.json"
        found = load_or_run(path, settings, run)
        return {int(i): labels.astype(np.int32) for i, labels in found.items()}
