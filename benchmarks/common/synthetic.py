"""Synthetic labelled images as files, for benchmarks that read folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common.folds import DataSet
from hypervlad import make_tem_images


def tem_set(folder: Path, n_images: int, n_classes: int = 4, seed: int = 7) -> DataSet:
    """Write synthetic TEM images into a folder per class, unless they are there; read them.

    The folder's name contains all that the images depend on.
    """
    folder = folder / f"synthetic_TEM_{n_classes}_{n_images}_{seed}"
    complete = folder.with_name(f"{folder.name}.complete")
    if not complete.exists():
        images, labels = make_tem_images(n_images, n_classes=n_classes, random_state=seed)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            (folder / label).mkdir(parents=True, exist_ok=True)
            grey = np.round(255 * image).astype(np.uint8)
            Image.fromarray(grey).save(folder / label / f"{number:05d}.png")
        complete.touch()
    data = DataSet.load(folder)
    data.name = f"synthetic TEM of {n_classes} classes"
    return data
