"""The order in which images are labelled, against a loop that a reader can check."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hypervlad.apps.review import informativeness, rank


def slow_rank(worth, points):
    """The definition, in float64 and without a single trick."""
    centred = points - points.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1)
    units = [
        row / length if length > 1e-5 * lengths.max() else np.zeros_like(row)
        for row, length in zip(centred, lengths, strict=True)
    ]
    order: list[int] = []
    while len(order) < len(worth):
        gains = {}
        for i in set(range(len(worth))) - set(order):
            nearest = max([0.0, *(float(units[i] @ units[j]) for j in order)])
            gains[i] = max(worth[i] * (1 - nearest**2), 1e-3 * worth[i])
        order.append(max(sorted(gains), key=lambda i: gains[i]))
    return order


@pytest.mark.parametrize("seed", range(3))
def test_the_order_is_that_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    n, d = 60 + seed, 2 + 3 * seed
    worth, points = rng.random(n), rng.standard_normal((n, d))
    assert rank(worth, points).tolist() == slow_rank(worth, points)
    alike = rank(worth, np.ones((n, 2)))  # all at the mean: no directions
    assert alike.tolist() == np.argsort(-worth, kind="stable").tolist()


@settings(max_examples=30, deadline=None)
@given(
    arrays.arrays(float, (12, 3), elements=st.floats(0.01, 1)),
    arrays.arrays(float, 12, elements=st.floats(0, 20)),
)
def test_informativeness_is_a_share_and_grows_with_doubt_and_novelty(table, novelty):
    proba = table / table.sum(axis=1, keepdims=True)
    worth = informativeness(proba, novelty)
    assert ((worth >= 0) & (worth <= 1)).all()
    assert (informativeness(proba, novelty + 1) >= worth).all()
    flatter = 0.5 * proba + 0.5 / 3
    assert (informativeness(flatter, novelty) >= worth - 1e-12).all()
    assert (informativeness(proba, np.full(12, np.inf)) == 1).all()


def test_tables_that_make_no_sense_are_refused():
    one = [1.0]
    for proba, novelty in (([one], one), ([[0.5, 0.5]], one * 2), ([[np.nan, 1]], one), (one, one)):
        with pytest.raises(ValueError):
            informativeness(proba, novelty)
    for worth, points in (([1.0], [[1.0], [2.0]]), ([-1.0], [[1.0]]), ([1.0], [[np.inf]])):
        with pytest.raises(ValueError):
            rank(worth, points)
