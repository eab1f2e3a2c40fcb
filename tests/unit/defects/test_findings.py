"""What is found in a score map: the call of the image, its defective pixels and regions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hypervlad.models.defects import Finding

SCORES = np.zeros((20, 30), np.float32)
SCORES[2:5, 3:7] = 4
SCORES[10, 10] = 6
SCORES[11, 11] = 5


def test_an_anomalous_image_has_the_pixels_that_reach_the_threshold() -> None:
    found = Finding.of(SCORES, 4.0, score=4.5)
    assert found.is_defective
    np.testing.assert_array_equal(found.mask, SCORES >= 4)
    assert found.area == 14
    assert found.area_fraction == 14 / 600
    assert [(each.area, each.score) for each in found.regions] == [(2, 6.0), (12, 4.0)]
    assert found.regions[1].diameter == pytest.approx(2 * math.sqrt(12 / math.pi))


def test_a_normal_image_has_none_however_high_a_pixel() -> None:
    found = Finding.of(SCORES, 4.0, score=3.9)
    assert not found.is_defective
    assert not found.mask.any()
    assert found.regions == []
    assert found.area_fraction == 0


def test_a_score_that_equals_the_threshold_reaches_it() -> None:
    threshold = float(np.float32(0.1))
    found = Finding.of(np.full((3, 3), threshold, np.float32), threshold)
    assert found.is_defective
    assert found.mask.all()


def test_an_anomalous_image_has_a_defect_even_if_its_map_misses_the_highest_window() -> None:
    found = Finding.of(SCORES, 6.2, score=6.3)
    assert found.is_defective
    assert found.area == 1
    assert [each.score for each in found.regions] == [6.0]
