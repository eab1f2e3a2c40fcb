"""What is found in a score map: the call of the image, its defective pixels and regions."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from hypervlad.models import Finding
from hypervlad.models.defects import findings
from hypervlad.models.defects.findings import OUTLINE_SHARE, RegionRule

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
        (6.2, 6.3, None),  # nothing stands out
    ],
)
def test_an_anomalous_image_has_the_pixels_that_reach_the_threshold(
    threshold: float, score: float | None, regions: list[tuple[int, float]] | None
) -> None:
    found = Finding.of(SCORES, threshold, score)
    assert [(each.area, each.score) for each in found.regions] == (regions or [])
    assert found.mask.any() == bool(regions)
    assert found.is_defective == (regions != [])
    assert found.highest == (10, 10)
    assert found.area == sum(area for area, _ in regions or [])
    assert found.area_fraction == found.area / 600
    for region in found.regions:
        assert np.pi * region.diameter**2 / 4 == pytest.approx(region.area)


@given(st.integers(0, 2**31), st.floats(-1, 1), st.sampled_from([3, 40]))
def test_a_region_is_what_reaches_a_share_of_its_peak(seed: int, usual: float, reach: int) -> None:
    """Slowly: from each pixel that is the highest of those that reach half of it."""
    rng = np.random.default_rng(seed)
    scores = np.asarray(
        gaussian_filter(rng.normal(size=(18, 24)), 1.5) * 9 + usual, dtype=np.float32
    )
    least = usual + 1.0
    expected = set()
    for row, column in np.ndindex(scores.shape):
        peak = scores[row, column]
        if peak >= least:
            reached, _ = label(
                scores >= usual + OUTLINE_SHARE * (peak - usual), structure=np.ones((3, 3))
            )
            own = reached == reached[row, column]
            if scores[own].max() == peak:
                expected.add((float(peak), int(own.sum())))
    with mock.patch.object(findings, "_REACH", reach):  # regions are larger, or smaller
        found = Finding.of(scores, -np.inf, rule=RegionRule(least, usual))
    assert {(each.score, each.area) for each in found.regions} == expected
    assert len(found.regions) == len(expected)
    assert found.area == sum(area for _, area in expected)  # no pixel is in two
    for region in found.regions:
        assert region.mask.shape == (region.height, region.width)
        assert scores[region.window][region.mask].max() == region.score


def test_a_region_with_two_highest_pixels_is_one() -> None:
    scores = np.zeros((9, 9), np.float32)
    scores[4, 2:7] = 6, 5, 4, 5, 6
    (region,) = Finding.of(scores, 0.0, rule=RegionRule(3.0, 0.0)).regions
    assert (region.area, region.row, region.column) == (5, 4, 2)


def test_of_many_peaks_only_the_surroundings_are_searched() -> None:
    scores = np.ones((300, 300), np.float32)
    scores[5::10, 5::10] = np.random.default_rng(0).uniform(4, 6, (30, 30))
    with mock.patch.object(findings, "label", wraps=findings.label) as labelled:
        found = Finding.of(scores, 0.0, rule=RegionRule(1.5, 0.0))
    assert [region.area for region in found.regions] == [1] * 900
    n_pixels = sum(call.args[0].size for call in labelled.call_args_list)
    assert n_pixels < 50 * scores.size  # by the map for each peak: 900 times


def test_regions_are_around_peaks_of_cells_and_end_by_pixels() -> None:
    cells = np.zeros((6, 8), np.float32)
    cells[2, 5], cells[4, 1] = 6, 3
    scores = np.zeros((44, 60), np.float32)  # the last cells reach beyond the image
    scores[20:22, 40:52] = 20  # higher than its cell
    scores[21, 45] = 21
    scores[20:28, :2] = 15  # in no cell with a peak, and in none near one
    scores[33:37, 9:14] = 2
    cells[0, 0] = 9  # the map does not show it
    found = Finding.of(scores, 1.0, cells=cells, rule=RegionRule(2.5, 0.0))
    assert [(r.window, r.area, r.score) for r in found.regions] == [
        (np.s_[20:22, 40:52], 24, 6.0),
        (np.s_[33:37, 9:14], 20, 3.0),
    ]


def test_the_contrast_of_a_region_is_to_what_is_around_it() -> None:
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


def scored(score: float, peaks: dict[tuple[int, int], float]) -> tuple[NDArray[np.float32], float]:
    places = np.zeros((20, 20), np.float32)
    for place, peak in peaks.items():
        places[place] = peak
    return places, score


def test_one_unusual_image_in_four_has_a_region() -> None:
    rng = np.random.default_rng(0)
    images = [
        scored(score, {(5, 5): score + 4, (5, 6): score / 2, (14, 3): score / 4})
        for score in rng.permutation(60).astype(float).tolist()
    ]
    # Of the twelve highest scores, 48 to 59, the third and the fourth highest peak.
    rule = RegionRule.of(images, usual=0.0)
    assert rule == RegionRule((61 + 60) / 2, 0.0)
    few = RegionRule.of([scored(9.0, {(0, 5): 7.0}), scored(1.0, {(5, 5): 3.0})], usual=0.0)
    assert few == RegionRule(5.0, 0.0)
    # If these have no peaks, that of others, or what is usual.
    flat = (np.full((9, 9), 0.5, np.float32), 1.0)
    assert RegionRule.of([flat] * 9, usual=0.5).least == 0.5
    assert RegionRule.of([flat] * 9 + [scored(0.1, {(5, 5): 3.0})], usual=0.5).least == 3.0
    for damaged in ({"least": math.nan}, {"least": "1"}, {"usual": math.inf}):
        with pytest.raises(ValueError, match="the rule of regions"):
            RegionRule.from_state(rule.to_state()[0] | damaged, {})
    assert RegionRule.from_state(*rule.to_state()) == rule
