"""Scores of methods for defect maps: by patches, and by kinds of defects."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from benchmarks.defects.rivals import Method
from benchmarks.defects.surfaces import FREE, Surface
from hypervlad.metrics import PixelTally, patch_confusion
from hypervlad.metrics.patches import PatchConfusion

PATCH = 29  # pixels
_N_THRESHOLDS = 60  # among which the best F1 of a method's own scores is searched
_SURROUNDINGS = 24  # pixels around a defect that the control leaves out
_HIGHEST = 0.01  # share of the remaining pixels whose mean is the control's score
_MIN_REMAINING = 0.1  # share of an image without which the control says nothing


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


def control_score(score_map: np.ndarray, mask: np.ndarray) -> float:
    """Score an image without its defects: what is left tells how much else gives it away.

    The mean of the highest 1 % of the pixels farther than 24 px from a defect, the same for every
    method; NaN where less than a tenth of the pixels remain.
    """
    values = score_map[distance_transform_edt(~mask) > _SURROUNDINGS] if mask.any() else score_map
    if values.size < _MIN_REMAINING * score_map.size:
        return float("nan")
    n_highest = max(1, round(_HIGHEST * values.size))
    return float(np.partition(values, -n_highest, axis=None)[-n_highest:].mean())


def scores_by_kind(
    method: Method, surface: Surface, train: np.ndarray, test: np.ndarray
) -> dict[str, Any]:
    """Fit a method and score test images, one map in memory at a time.

    Returns
    -------
    dict
        For each test image, in the order of ``test``: ``scores`` and ``control``. By kind of
        defect, over its images and the defect-free ones: ``pixel_auroc`` and ``pro``. Of the
        method: ``threshold`` (None if it has none), the medians of its times in milliseconds, and
        its ``bytes``.
    """
    method.fit([surface.images[i] for i in train], None)
    per_image = {name: np.full(len(test), np.nan) for name in ("scores", "control")}
    seconds = []

    def score_kind(kind: str, tally: PixelTally) -> PixelTally:
        for at in np.flatnonzero(surface.kinds[test] == kind):
            image, mask = surface.images[test[at]], surface.masks[test[at]]
            scored = method.score(image)
            tally.add(scored.map, mask)
            per_image["scores"][at] = scored.score
            per_image["control"][at] = control_score(scored.map, mask)
            seconds.append((scored.network_seconds, scored.other_seconds, scored.search_seconds))
        return tally

    defect_free = score_kind(FREE, PixelTally())
    tested = [kind for kind in surface.kinds_of_defects() if kind in surface.kinds[test]]
    tallies = ((kind, score_kind(kind, copy.deepcopy(defect_free))) for kind in tested)
    pixels = {kind: (tally.auroc(), tally.per_region_overlap()) for kind, tally in tallies}
    network, other, search = 1000 * np.median(seconds, axis=0)
    threshold = getattr(method, "threshold", None)
    return per_image | {
        "pixel_auroc": {kind: auroc for kind, (auroc, _) in pixels.items()},
        "pro": {kind: pro for kind, (_, pro) in pixels.items()},
        "threshold": None if threshold is None else float(threshold),
        "network_ms": float(network),
        "other_ms": float(other),
        "search_ms": float(search),
        "bytes": method.n_bytes(),
    }
