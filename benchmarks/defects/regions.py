"""Regions against defects: their number, their areas, and whether detection limits are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import label

from hypervlad.models import DetectionLimits, Finding, Region

MIN_AREA = 32**2  # of 4 x 4 cells, pixels: smaller defects are smaller than the map shows
PROMISED = 0.9
_THIN = 4.0  # length / breadth, from which on a defect is compared with scratches
_TOUCHING = np.ones((3, 3), dtype=int)


class RegionTally:
    """Counts regions of images of one scorer."""

    def __init__(self, limits: DetectionLimits) -> None:
        self._limits = limits
        self.n_free = self.n_false = self.n_at_frame = 0
        self.expected_at_frame = 0.0
        self.areas: list[tuple[float, float]] = []  # true, of the one region on it
        self.covered: list[tuple[float, bool]] = []  # true, is it in the interval?
        # Of images with real defects above the limit: are they found?
        self.promised: list[bool] = []

    def add(
        self, found: Finding, image: np.ndarray, mask: np.ndarray, is_real: bool = True
    ) -> None:
        if not mask.any():
            self._add_false(found)
            return
        grey = image if image.ndim == 2 else image.mean(axis=2)
        whole = mask.astype(np.float32)
        defects = Finding.of(whole, 0.5, pixels=grey).regions
        chances = [self._chance(each) for each in defects]
        if is_real and max(chances) >= PROMISED:
            hit = any(mask[each.window][each.mask].any() for each in found.regions)
            self.promised.append(bool(found.is_defective and hit))
        numbers, n_defects = label(mask, structure=_TOUCHING)
        on = [set(np.unique(numbers[r.window][r.mask]).tolist()) - {0} for r in found.regions]
        sizes = np.bincount(numbers.ravel(), minlength=n_defects + 1)
        for number in range(1, n_defects + 1):
            own = [r for r, hit in zip(found.regions, on, strict=True) if hit == {number}]
            if len(own) == 1 and sum(number in hit for hit in on) == 1:
                self._add_area(float(sizes[number]), own[0])

    def _add_false(self, found: Finding) -> None:
        self.n_free += 1
        height, width = found.map.shape
        for region in found.regions:
            self.n_false += 1
            # By chance, its centre lies anywhere in the image.
            inner = (height - region.height) * (width - region.width)
            self.expected_at_frame += 1 - inner / (height * width)
            ends = region.row + region.height, region.column + region.width
            touches = min(region.row, region.column, height - ends[0], width - ends[1]) == 0
            self.n_at_frame += touches

    def _add_area(self, area: float, region: Region) -> None:
        self.areas.append((area, float(region.area)))
        if region.area_interval is not None:
            low, high = region.area_interval
            self.covered.append((area, low <= area <= high))

    def _chance(self, defect: Region) -> float:
        """Return the share of synthetic defects like this one that are found."""
        contrast = abs(defect.contrast)
        if not len(self._limits) or not contrast > 0 or defect.area > self._limits.areas.max():
            return 0.0
        spots = "dark spots" if defect.contrast < 0 else "bright spots"
        kind = "scratches" if defect.length > _THIN * max(defect.breadth, 1.0) else spots
        if kind not in self._limits.kinds:
            return 0.0
        return self._limits.share(kind, defect.area, contrast)

    def summary(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def joined(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rates and medians over the splits, None where there is nothing to count."""
    total = {
        name: sum((each[name] for each in summaries[1:]), summaries[0][name])
        for name in summaries[0]
    }
    pairs = np.array(total["areas"]).reshape(-1, 2)
    is_large, ratios = pairs[:, 0] >= MIN_AREA, pairs[:, 1] / pairs[:, 0]
    return {
        "areas_of_large": _quantiles(ratios[is_large]),
        "areas_of_small": _quantiles(ratios[~is_large]),
        "false_per_image": total["n_false"] / total["n_free"],
        "n_false": total["n_false"],
        "at_frame": total["n_at_frame"],
        "expected_at_frame": total["expected_at_frame"],
        "covered_of_large": _share([hit for area, hit in total["covered"] if area >= MIN_AREA]),
        "covered_of_small": _share([hit for area, hit in total["covered"] if area < MIN_AREA]),
        "kept": _share(total["promised"]),
    }


def _quantiles(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return {"n": len(values), "low": float(low), "median": float(middle), "high": float(high)}


def _share(values: list[bool]) -> dict[str, float] | None:
    return {"n": len(values), "share": float(np.mean(values))} if values else None
