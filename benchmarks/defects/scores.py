"""Scores of defect maps by patches."""

from __future__ import annotations

import numpy as np

from hypervlad.metrics import PatchConfusion, patch_confusion

PATCH = 29  # pixels
_N_THRESHOLDS = 60  # among which the best F1 is searched


def patch_f1(maps: list[np.ndarray], masks: list[np.ndarray], threshold: float) -> float:
    """Return the F1 of patches over all images, at a threshold."""
    pairs = zip(maps, masks, strict=True)
    total = PatchConfusion.total(patch_confusion(m >= threshold, t, PATCH) for m, t in pairs)
    return 0.0 if np.isnan(total.f1) else total.f1


def best_patch_f1(maps: list[np.ndarray], masks: list[np.ndarray]) -> float:
    """Return the best F1 over all thresholds, chosen on the test images themselves."""
    values = np.concatenate([np.ravel(m)[::17] for m in maps])
    shares = 1 - np.geomspace(1e-4, 0.5, _N_THRESHOLDS)
    return max(patch_f1(maps, masks, t) for t in np.unique(np.quantile(values, shares)))
