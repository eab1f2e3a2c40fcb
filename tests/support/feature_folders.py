"""Folders of small images."""

import numpy as np
from PIL import Image


def write_folder(root, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"{label}/{i}.png" for label in "ab" for i in range(8)] + [f"{i}.png" for i in "wxyz"]
    for name in names:
        write_image(root / name, rng)
    return root


def write_image(path, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (18, 22), dtype=np.uint8)).save(path)
    return path


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
