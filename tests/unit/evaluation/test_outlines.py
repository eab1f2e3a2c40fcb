"""Matching and scores of outlines against plain loops over pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hypervlad.evaluation import OutlineTally, matched_labels, wilson_interval

LABEL_PAIRS = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(*(hnp.arrays(np.int32, shape, elements=st.integers(0, 3)),) * 2)
)


def pixels_of(labels):
    """The pixels of each label, as sets."""
    return {
        int(label): set(zip(*np.nonzero(labels == label), strict=True))
        for label in np.unique(labels)
        if label
    }


def naive_matches(true, found):
    """Pairs above an IoU of 0.5, where they are unique."""
    return [
        (i, j, len(a & b) / len(a | b))
        for i, a in pixels_of(true).items()
        for j, b in pixels_of(found).items()
        if len(a & b) / len(a | b) > 0.5
    ]


@given(LABEL_PAIRS)
def test_matches_equal_a_loop_over_all_pairs(labels):
    pairs, iou = matched_labels(*labels)
    expected = naive_matches(*labels)
    assert list(map(tuple, pairs.tolist())) == [pair[:2] for pair in expected]
    assert iou.tolist() == pytest.approx([pair[2] for pair in expected])


def test_scores_of_fields_added_up():
    true, found = np.zeros((2, 12, 12), int)
    true[0:6, 0:6], found[0:6, 0:5] = 1, 4  # found
    true[8:12, 8:12] = 5  # missed
    found[8:12, 0:3] = 9  # invented
    tally = OutlineTally(min_area=10)
    tally.add(true, found)
    tally.add(np.zeros((3, 3), int), np.zeros((3, 3), int))
    scores = tally.scores()
    assert [scores[f"n_{name}"] for name in ("true", "found", "matched")] == [2, 2, 1]
    assert (scores["precision"], scores["recall"], scores["f1"]) == (0.5, 0.5, 0.5)
    assert scores["image_iou"] == pytest.approx((30 / 64 + 1) / 2)
    assert scores["true_diameter"] == pytest.approx(
        np.mean([2 * (a / np.pi) ** 0.5 for a in (36, 16)])
    )
    assert scores["diameter_ratio"] == pytest.approx((30**0.5 + 12**0.5) / (6 + 4))
    assert tally.intervals()["image_iou"] == (0, 1), "two fields differ by half: it may be anything"


def test_fields_without_a_mistake_do_not_promise_that_others_have_none():
    tally = OutlineTally(min_area=1)
    for _ in range(3):
        tally.add(labels := np.arange(1, 101).reshape(10, 10).repeat(2, 0), labels)
    assert tally.intervals()["recall"] == pytest.approx(wilson_interval(1, 3))


def test_small_particles_are_neither_expected_nor_mistakes():
    true, found = np.zeros((2, 8, 8), int)
    true[0:3, 0:3], found[0:3, 0:4] = 1, 1  # 9 and 12 pixels: a match, on both sides of the limit
    true[6, 6], found[5, 0] = 2, 2
    tally = OutlineTally(min_area=10)
    tally.add(true, found)
    assert [tally.scores()[f"n_{name}"] for name in ("true", "found", "matched")] == [0, 0, 0]
    assert np.isnan(tally.scores()["f1"])
    assert np.isnan(tally.intervals()["diameter_ratio"]).all()
