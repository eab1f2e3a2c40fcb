"""Histograms of scores, and the warning about a threshold outside a gap."""

from __future__ import annotations

import numpy as np
import pytest

from hypervlad.results.reports.threshold_page import (
    Outcome,
    ScoreChart,
    ScoreGroup,
    threshold_warning,
)

ABOVE, BELOW = Outcome("called", "called"), Outcome("others", "plain")


def chart(*groups: list[float], threshold: float = 2.0) -> ScoreChart:
    return ScoreChart(
        [ScoreGroup.of(str(i), scores, ABOVE, BELOW) for i, scores in enumerate(groups)], threshold
    )


@pytest.mark.parametrize(
    "scores", [[-7.0, 3.0, 12.5], [1e-9, 2e-9], [0.0], [-3.0, -3.0], [1e12, 3e12]]
)
def test_the_slider_covers_all_scores(scores: list[float]) -> None:
    found = chart(scores)
    assert found.low <= min(scores)
    assert max(scores) < found.high, "a threshold that no image reaches can be chosen"
    assert found.step < found.high - found.low
    assert 0 <= found.position(min(scores)) <= found.position(max(scores)) <= 100
    assert sum(bar.number for bar in found.bars(found.groups[0])) == len(scores)


def test_bars_count_the_images_of_a_group() -> None:
    found = chart([0.0, 0.0, 0.0, 10.0], [5.1], [])
    assert len(found.groups) == 2, "without the empty one"
    first, last = found.bars(found.groups[0])
    assert (first.number, last.number) == (3, 1)
    assert first.left <= found.position(0) <= first.left + first.width
    assert first.height == 3 * last.height
    assert last.left <= found.position(10) <= last.left + last.width <= 100
    (middle,) = found.bars(found.groups[1])
    assert middle.height == first.height, "each group has its own scale"
    assert middle.left <= 51 < middle.left + middle.width


def test_no_bar_has_images_on_both_sides_of_the_threshold() -> None:
    threshold = float(np.float32(4.631771))
    below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    found = chart([3.2, below, threshold], threshold=threshold)
    (_, _, last) = found.bars(found.groups[0])
    assert last.number == 1
    assert last.left == found.position(threshold)


def test_the_threshold_s_text_calls_the_same_images_anomalous() -> None:
    threshold = float(np.float32(4.6317709))
    assert chart([1.0, 4.6], threshold=threshold).threshold_text == "4.632"
    below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    text = chart([below, threshold], threshold=threshold).threshold_text
    assert below < float(text) <= threshold
    assert chart([1.0], threshold=4.5).threshold_text == "4.5"
    exact = 0.1 + 0.2
    assert chart([0.3, exact], threshold=exact).threshold_text == "0.30000000000000004"


def test_ticks_are_round_numbers() -> None:
    assert [text for _, text in chart([0.1, 0.52]).ticks()] == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    assert [text for _, text in chart([-30.0, 71.0]).ticks()] == [
        *("-20", "0", "20", "40", "60"),
    ]


def test_a_threshold_is_on_the_axis_unless_it_is_far_from_the_scores() -> None:
    assert chart([1.0, 3.0], threshold=4.5).high > 4.5
    assert chart([1.0, 3.0], threshold=-0.5).low < -0.5
    far = chart([1.0, 3.0], threshold=1e9)
    assert far.high < 4
    assert (far.position(-1e9), far.position(1e9)) == (0, 100)
    nothing = chart([], threshold=3.0)
    assert nothing.groups == []
    assert nothing.low <= 3 < nothing.high


def test_a_warning_names_the_gap_and_a_value_within() -> None:
    scores = [*np.linspace(1, 2, 12), *np.linspace(8, 9, 8)]
    for threshold in (1.5, 2.0, 8.5, 100.0):
        warning = threshold_warning(scores, threshold)
        assert warning is not None
        assert "up to 2 and from 8" in warning
        assert f"the threshold, {threshold:.4g}," in warning
        assert "--threshold 5 does" in warning
    for threshold in (2.1, 5.0, 8.0):
        assert threshold_warning(scores, threshold) is None
    assert threshold_warning(np.linspace(1, 2, 20), 5.0) is None


def test_a_value_in_a_narrow_gap_has_the_digits_that_it_needs() -> None:
    scores = 1000 + np.array([0.0, 1e-6, 2e-6, 1e-4, 1.01e-4, 1.02e-4] * 3)
    warning = threshold_warning(scores, 5.0)
    assert warning is not None
    value = float(warning.split("--threshold ")[1].split()[0])
    assert 1000.000002 < value <= 1000.0001
