"""Folders of small images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_folder(root: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    names = [f"{label}/{i}.png" for label in "ab" for i in range(8)] + [f"{i}.png" for i in "wxyz"]
    for name in names:
        write_image(root / name, rng)
    return root


def write_image(path: Path, rng: np.random.Generator) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (18, 22), dtype=np.uint8)).save(path)
    return path
