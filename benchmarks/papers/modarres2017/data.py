"""Images of up to ten categories, from a folder or synthetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import hypervlad
from benchmarks.common.folds import DataSet, content_digest
from hypervlad import make_nanofibre_images, make_tem_images

SYNTHETIC_SEED = 0
MATS = {"mat-beaded": 1.0, "mat-plain": 0.0}  # share of mats with beads


def read_folder(folder: Path, groups: Path | None) -> DataSet:
    """Read a folder with one sub-folder per category, with a table of groups if there is one."""
    data = hypervlad.load_image_folder(folder, groups)
    names = np.arange(len(data.images)).astype(str) if data.groups is None else data.groups
    labels = np.asarray(data.target)
    digest = content_digest(Path(data.root), data.images, labels, names)
    return DataSet(folder.resolve().name, np.array(data.images), labels, np.array(names), digest)


def synthetic_folder(place: Path, n_of_each: int, size: int) -> Path:
    """Write the synthetic categories as 8-bit PNG files, unless they exist; return the folder.

    Eight kinds of TEM images, and SEM images of nanofibre mats with beads and without.
    """
    folder = place / f"synthetic_{n_of_each}_{size}px"
    if (folder / "complete").exists():
        return folder
    images, labels = make_tem_images(
        8 * n_of_each, n_classes=8, size=size, random_state=SYNTHETIC_SEED
    )
    by_class = {name: [] for name in sorted(set(labels.tolist()))}
    for image, label in zip(images, labels.tolist(), strict=True):
        by_class[label].append(image)
    for seed, (name, share) in enumerate(MATS.items(), start=1):
        mats, _ = make_nanofibre_images(
            n_of_each, defective=share, defects="bead", size=size, random_state=seed
        )
        by_class[name] = mats
    for name, members in by_class.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(members):
            pixels = np.round(255 * image).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:04d}.png")
    (folder / "complete").touch()
    return folder
