"""Random windows with labels."""

from __future__ import annotations

import numpy as np

from hypervlad.features.windows import ANOMALOUS, NORMAL
from hypervlad.features.windows.dataset import UNKNOWN, ImageWindows


def some_images(n: int, n_windows: int = 30) -> list[ImageWindows]:
    rng = np.random.default_rng(0)
    images = []
    for position in range(n):
        X = rng.random((5, n_windows // 5, 3)).astype(np.float32)
        labels = np.where(rng.random(n_windows) < 0.3, ANOMALOUS, NORMAL)
        labels[rng.random(n_windows) < 0.1] = UNKNOWN
        images.append(ImageWindows(position, f"{position * 7919 % 97:064x}", iter(X), labels))
    return images
