"""Images to learn alignment from: of all kinds, each the same whatever their number."""

from __future__ import annotations

import numpy as np
import pytest

from hypervlad.datasets import make_alignment_examples


@pytest.mark.slow  # draws large images of wires
def test_they_are_of_all_kinds_and_the_same_whatever_their_number() -> None:
    images, truths = make_alignment_examples(16, size=64, random_state=4)
    few, _ = make_alignment_examples(3, size=64, random_state=4)
    for one, other in zip(images, few, strict=False):
        np.testing.assert_array_equal(one, other)
    snr = np.array([truth.snr for truth in truths])
    assert np.isinf(snr).any()
    assert (snr < 2).any()
    assert np.ptp([truth.aligned for truth in truths]) > 0.5
    assert np.ptp([truth.blur for truth in truths]) > 1


def test_maps_hold_what_the_rule_says_of_the_truth() -> None:
    _, truths = make_alignment_examples(2, size=96, random_state=0)
    for truth in truths:
        where, found = truth.aligned_map(window=24), truth.aligned_fraction(window=24)
        assert where.shape == (96, 96)
        assert np.isnan(where).mean() == pytest.approx(found.background.mean())
        assert np.nanmean(where) == pytest.approx(found.fraction)


def test_a_list_without_images_is_reported() -> None:
    with pytest.raises(ValueError, match="n=0"):
        make_alignment_examples(0)
