"""A folder with the files that the README's commands and examples use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hypervlad import make_nanofibre_images, make_tem_images


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, mobilenet_weights: Path) -> Path:
    """A folder with the images, groups and scans that the README uses."""
    folder = tmp_path_factory.mktemp("readme")
    images, labels = make_tem_images(40, size=96, random_state=0)
    rows = ["path,group"]
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = "images" if i < 24 else "others"
        path = folder / place / label / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(path)
        if place == "images":
            rows.append(f"{label}/{path.name},sample{i // 2}")
    for i, place in enumerate(["new", "scans"]):
        (folder / place).mkdir()
        Image.fromarray(np.round(255 * images[i]).astype(np.uint8)).save(folder / place / "a.png")
    write_mats(folder / "mats")
    (folder / "groups.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def write_mats(folder: Path) -> None:
    """Write defect-free fibre mats, defective ones, and masks of their defects."""
    mats, masks = make_nanofibre_images(9, defective=0.34, size=96, random_state=0)
    for place in ("good", "new", "masks"):
        (folder / place).mkdir(parents=True)
    good = [mat for mat, mask in zip(mats, masks, strict=True) if not mask.any()]
    for i, mat in enumerate(good):
        Image.fromarray(np.round(255 * mat).astype(np.uint8)).save(folder / "good" / f"{i}.png")
    for i, (mat, mask) in enumerate(zip(mats, masks, strict=True)):
        if mask.any():
            Image.fromarray(np.round(255 * mat).astype(np.uint8)).save(folder / "new" / f"{i}.png")
            Image.fromarray(255 * mask.astype(np.uint8)).save(folder / "masks" / f"{i}.png")
