"""The gap between two groups of scores: found if it is clear, and rarely by chance."""

import numpy as np
import pytest

from hypervlad.evaluation import gap_between_modes

UNIMODAL = {"normal": np.random.Generator.normal, "lognormal": np.random.Generator.lognormal}


@pytest.mark.parametrize("n", [10, 500])
@pytest.mark.parametrize("name", UNIMODAL)
def test_one_group_has_rarely_a_gap(name, n):
    rng = np.random.default_rng(n)
    found = [gap_between_modes(UNIMODAL[name](rng, size=n)) for _ in range(300)]
    assert np.mean([gap is not None for gap in found]) < 0.015


@pytest.mark.parametrize("n", [20, 200])
def test_two_clear_groups_have_one(n):
    """Defect-free images score 3 plus or minus 0.3; those with defects are spread out."""
    rng, n_found = np.random.default_rng(n), 0
    for _ in range(200):
        normal, defective = rng.normal(3, 0.3, n - n // 3), rng.normal(9, 1, n // 3)
        gap = gap_between_modes(rng.permutation([*normal, *defective]))
        if gap is not None:
            assert gap == (normal.max(), defective.min())
            n_found += 1
    assert n_found > 120


@pytest.mark.parametrize(
    "scores",
    [
        [],
        [1.0],
        [2.0] * 12,
        [1.0, 1.1, 9.0, 9.1, 9.2],  # too few below
        [*np.linspace(1, 2, 12), 50.0, 51.0],  # too few above
        [*np.linspace(1, 2, 12), 5.0, 11.0, 17.0],  # the scores above are no group
    ],
)
def test_other_scores_have_none(scores):
    assert gap_between_modes(scores) is None
