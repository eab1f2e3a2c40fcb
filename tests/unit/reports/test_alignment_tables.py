"""The numbers of the tables of directions."""

from dataclasses import replace

import numpy as np
import pytest
from support.commands import rows_of

from hypervlad.fibres import AlignmentRecipe, AxialStatistics, Interval
from hypervlad.results import write_alignment


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(10, 20, [10, 20]), (-5, 5, [175, 5]), (170, 185, [170, 5]), (-60, 120, [0, 180])],
)
def test_intervals_of_directions_are_between_0_and_180_degrees(tmp_path, low, high, expected):
    others = Interval(0.2, 0.4)
    directions = Interval(*np.deg2rad([low, high]))
    statistics = AxialStatistics(0.1, 0.3, 0.3, directions, others, others)

    class Known(AlignmentRecipe):
        def find(self, image):
            found = super().find(image)
            return replace(found, aligned=replace(found.aligned, statistics=statistics))

    image = np.sin(np.indices((32, 32))[0]).astype(np.float32)
    recipe = Known(window=np.int64(16))
    assert write_alignment(tmp_path, recipe, [image], ["a"], figures=False) == []
    (row,) = rows_of(tmp_path / "alignment.csv")
    names = ("mean_direction_{}_deg", "order_parameter_{}", "spread_{}_deg")
    found = [float(row[name.format(end)]) for name in names for end in ("low", "high")]
    spread = np.rad2deg([0.2, 0.4])
    assert found == pytest.approx([*expected, 0.2, 0.4, *spread], rel=1e-4)
