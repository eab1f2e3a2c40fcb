"""What groups of scored images have of defects, with intervals from how much images differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, Self

import numpy as np

from hypervlad.objects.counts import poisson_interval
from hypervlad.objects.results_folder import GroupedImages, Row
from hypervlad.statistics.groups import Ratio, Sample


class Defects(NamedTuple):
    """What images have of defects: numbers, each with the ends of its 95 % interval.

    `called` is the share of images that are called anomalous, and `area` the mean share of the area
    that is defective, both in per cent; `regions` is the mean number of defective regions.
    """

    n_images: int
    called: tuple[float, ...]
    area: tuple[float, ...]
    regions: tuple[float, ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """Return those of lines of ``scores.csv``; without intervals of one image.

        >>> row = {"called": "anomalous", "area_fraction": "0.25", "n_regions": "2"}
        >>> Defects.of([row]).area
        (25.0, nan, nan)
        """
        areas, numbers = (
            np.array([float(row[name]) for row in rows]) for name in ("area_fraction", "n_regions")
        )
        sample, n = Sample.of(numbers), len(rows)
        called = sample.share(np.array([row["called"] == "anomalous" for row in rows]))
        best, low, high = sample.mean()
        if n > 1:  # few images can have the same number by chance: at least a Poisson interval
            total = float(numbers.sum())
            fewest, most = (end / n for end in poisson_interval(total, total, 1.0))
            is_equal = np.ptp(numbers) == 0
            low, high = (fewest, most) if is_equal else (min(low, fewest), max(high, most))
        shares = Sample.of(100 * areas).mean()
        return cls(n, tuple(100 * each for each in called), shares, (best, low, high))


def groups_of(grouped: GroupedImages) -> dict[str, Defects]:
    """Return what each group has; nothing without several groups."""
    return {name: Defects.of(own) for name, own in grouped.rows.items() if name}


def ratios_of(of: Mapping[str, Defects]) -> dict[str, list[Ratio]]:
    """Return by what factors groups, by their names, differ, each two of them, by what differs."""
    numbers = {
        "defective area": {name: own.area for name, own in of.items()},
        "defective regions per image": {name: own.regions for name, own in of.items()},
    }
    return {
        what: [Ratio.between(one, other, own) for other, one in combinations(own, 2)]
        for what, own in numbers.items()
    }
