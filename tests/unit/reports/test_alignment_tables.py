"""The numbers of the tables of directions."""

from __future__ import annotations

import numpy as np
import pytest

from hypervlad.fibres import AxialStatistics, Interval
from hypervlad.results.reports.alignment import _intervals


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(10, 20, [10, 20]), (-5, 5, [175, 5]), (170, 185, [170, 5]), (-60, 120, [0, 180])],
)
def test_intervals_of_directions_are_between_0_and_180_degrees(
    low: float, high: float, expected: list[float]
) -> None:
    interval = Interval(*np.deg2rad([low, high]))
    others = Interval(0.2, 0.4)
    found = _intervals(AxialStatistics(0.1, 0.3, 0.3, interval, others, others))
    values = list(found.values())
    assert values[:2] == pytest.approx(expected)
    assert values[2:4] == [0.2, 0.4]
