"""What is found in a score map: the call of the image, its defective pixels and regions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label

from hypervlad.models import Finding

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
        (6.2, 6.3, [(2, 6.0)]),  # nothing stands out: it is where the map is highest
    ],
)
def test_an_anomalous_image_has_the_pixels_that_reach_the_threshold(threshold, score, regions):
    found = Finding.of(SCORES, threshold, score)
    assert [(each.area, each.score) for each in found.regions] == regions
    assert found.mask.any() == found.is_defective == bool(regions)
    assert found.highest == (10, 10)
    assert found.area == sum(area for area, _ in regions)
    assert found.area_fraction == found.area / 600
    for region in found.regions:
        assert np.pi * region.diameter**2 / 4 == pytest.approx(region.area)


@pytest.fixture(scope="module")
def rule(trained_once):
    """The rule of regions of a scorer; its least and usual scores are replaced."""
    return trained_once.region_rule_


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(-1, 1))
def test_a_region_is_what_reaches_a_share_of_its_peak(rule, seed, usual):
    """Slowly: from each pixel that is the highest of those that reach half of it."""
    rng = np.random.default_rng(seed)
    scores = np.asarray(gaussian_filter(rng.normal(size=(18, 24)), 1.5) * 9 + usual, dtype="f4")
    least = usual + 1.0
    expected, free = set(), np.ones(scores.shape, bool)

    def around(row, column, level, where=True):
        reached, _ = label((scores >= level) & where, structure=np.ones((3, 3)))
        return reached == reached[row, column]

    for row, column in sorted(np.ndindex(scores.shape), key=lambda at: -scores[at]):
        peak = scores[row, column]
        if not free[row, column] or (peak < least and expected):
            continue
        level = usual + 0.55 * (peak - usual)
        if scores[around(row, column, level)].max() == peak:
            own = around(row, column, level, free)
            if own.sum() >= 8:  # wide
                mean = float(scores[own].mean()) - usual
                wide = around(row, column, min(level, usual + 0.65 * mean), free)
                own = wide if scores[wide].max() == peak else own  # not around a higher peak
            free &= ~own
            expected.add((float(peak), int(own.sum())))
    found = Finding.of(scores, -np.inf, rule=replace(rule, least=least, usual=usual))
    assert {(each.score, each.area) for each in found.regions} == expected
    assert len(found.regions) == len(expected)
    assert found.area == sum(area for _, area in expected)  # no pixel is in two
    for region in found.regions:
        assert region.mask.shape == (region.height, region.width)
        assert scores[region.window][region.mask].max() == region.score
    # Four times as large, too, where a region reaches far from its peak.
    cells = np.kron(scores, np.ones((4, 4), np.float32))
    larger = Finding.of(cells, -np.inf, rule=replace(rule, least=least, usual=usual), cells=scores)
    assert {(each.score, each.area / 16) for each in larger.regions} == expected


def test_the_contrast_of_a_region_is_to_what_is_around_it():
    pixels = np.full((60, 60), 0.5, np.float32)
    pixels[20:30, 20:30] = 0.2
    pixels[20:30, 34:44] = 0.9  # another defect, which is not the surroundings of the first
    pixels[18:20, 20:28] = 1  # nor is its own edge
    scores = np.zeros((60, 60), np.float32)
    scores[20:30, 20:30], scores[20:30, 34:44] = 8, 9
    bright, dark = Finding.of(scores, 5.0, pixels=pixels).regions
    assert (bright.contrast, dark.contrast) == (pytest.approx(0.4), pytest.approx(-0.3))
    assert (dark.length, dark.breadth) == (pytest.approx(np.hypot(10, 10), abs=1), 10)
    everywhere = Finding.of(np.full((9, 9), 6, np.float32), 5.0, pixels=np.ones((9, 9)))
    assert np.isnan(everywhere.regions[0].contrast)
