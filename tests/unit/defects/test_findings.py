"""What is found in a score map: the call of the image, its defective pixels and regions."""

from __future__ import annotations

import numpy as np
import pytest

from hypervlad.models.defects import Finding

SCORES = np.zeros((20, 30), np.float32)
SCORES[2:5, 3:7] = 4
SCORES[10, 10] = 6
SCORES[11, 11] = 5


@pytest.mark.parametrize(
    ("threshold", "score", "regions"),
    [
        (4.0, 4.5, [(2, 6.0), (12, 4.0)]),
        (4.0, None, [(2, 6.0), (12, 4.0)]),
        (6.0, None, [(1, 6.0)]),  # a score that equals the threshold reaches it
        (4.0, 3.9, []),  # a normal image has no defect, however high a pixel is
        (6.2, 6.3, [(1, 6.0)]),  # the map misses the highest window
    ],
)
def test_an_anomalous_image_has_the_pixels_that_reach_the_threshold(
    threshold: float, score: float | None, regions: list[tuple[int, float]]
) -> None:
    found = Finding.of(SCORES, threshold, score)
    assert [(each.area, each.score) for each in found.regions] == regions
    assert found.is_defective == found.mask.any() == bool(regions)
    assert found.area == sum(area for area, _ in regions)
    assert found.area_fraction == found.area / 600
    for region in found.regions:
        assert np.pi * region.diameter**2 / 4 == pytest.approx(region.area)
