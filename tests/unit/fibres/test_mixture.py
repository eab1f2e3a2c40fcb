"""Kinds of fibres: found if they are apart, from fibres and not from their places."""

from __future__ import annotations

import numpy as np
import pytest

from hypervlad.fibres.mixture import fit_kinds


def drawn(*kinds, seed=0):
    """Return logs and weights of fibres of kinds (median, spread, number of fibres)."""
    rng = np.random.default_rng(seed)
    logs = np.concatenate([np.log(d) + s * rng.standard_normal(n) for d, s, n in kinds])
    return logs, np.ones(len(logs))


def test_two_kinds_have_medians_spreads_and_shares():
    kinds = fit_kinds(*drawn((8, 0.1, 60), (20, 0.15, 30)))
    assert kinds[:, 0] == pytest.approx([8, 20], rel=0.05)
    assert kinds[:, 1] == pytest.approx([0.1, 0.15], abs=0.04)
    assert kinds[:, 2] == pytest.approx([2 / 3, 1 / 3], abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_one_kind_is_not_split(seed):
    assert len(fit_kinds(*drawn((10, 0.3, 80), seed=seed))) == 1
    assert len(fit_kinds(*drawn((10, 0.3, 40), (12, 0.1, 40), seed=seed))) == 1  # not apart


def test_few_fibres_are_one_kind_or_none():
    assert len(fit_kinds(*drawn((8, 0.02, 4), (20, 0.02, 4)))) == 1
    assert fit_kinds(*drawn((8, 0.02, 5))).shape == (0, 3)


def test_kinds_do_not_depend_on_the_order_of_fibres():
    logs, weights = drawn((8, 0.1, 30), (20, 0.1, 30))
    order = np.random.default_rng(1).permutation(len(logs))
    other = fit_kinds(logs[order], weights[order])
    assert other == pytest.approx(fit_kinds(logs, weights), rel=1e-6)


def test_without_fibres_there_are_no_kinds():
    assert fit_kinds(np.zeros(0), np.zeros(0)).shape == (0, 3)
