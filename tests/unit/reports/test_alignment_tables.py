"""The numbers of the tables of directions."""

from dataclasses import replace

import numpy as np
import pytest
from support import commands, pages

from hypervlad.fibres import AlignmentRecipe, AxialStatistics, Interval
from hypervlad.results import write_alignment

GIVEN = {(10, 20): [10, 20], (170, 185): [170, 5], (-60, 120): [0, 180], (-5, 5): [175, 5]}


def test_intervals_of_directions_are_between_0_and_180_degrees(tmp_path):
    directions, others = list[Interval](), Interval(0.2, 0.4)

    class Known(AlignmentRecipe):
        def find(self, image):
            found, spread = super().find(image), float(image[1, 0])
            known = AxialStatistics(0.1, 0.3, spread, directions[-1], others, Interval(0.2, 1.6))
            return replace(found, aligned=replace(found.aligned, statistics=known))

    images = [spread * np.sin(np.indices((32, 32))[0]) for spread in (1, 1.25)]
    names = ("mean_direction_{}_deg", "order_parameter_{}", "spread_{}_deg")
    for given, expected in GIVEN.items():
        directions.append(Interval(*np.deg2rad(given)))
        out, known = tmp_path / str(given[0]), Known(window=np.int64(16))
        assert write_alignment(out, known, images, ["a", "b"], figures=given == (-5, 5)) == []
        row, _ = commands.rows_of(out / "alignment.csv")
        found = [float(row[name.format(end)]) for name in names for end in ("low", "high")]
        assert found == pytest.approx([*expected, 0.2, 0.4, *np.rad2deg([0.2, 1.6])], rel=1e-4)
    commands.run("report", out, "-o", tmp_path / "paper")
    page = pages.Page(tmp_path / "paper" / "report.html")
    rows, direction = {row[0]: row[2:] for row in page.rows}, "5.73 ({} to {})".format(*expected)
    assert rows["a"] == [direction, "0.3 (0.2 to 0.4)", "48.2 (from 11.5)"]
    assert (rows["angular spread, mean"][0][:5], len(page.images)) == ("from ", 3)
