"""The default before and now: differences and their corrected intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy.changes import SCORES, changes, changes_table, score_draws, scores
from benchmarks.accuracy.predictions import Predictions
from benchmarks.accuracy.tables import DEFAULT
from benchmarks.common.folds import DataSet
from benchmarks.common.scores import GroupDraws, OutOfFold


def out_of_fold(n_wrong: int, n: int = 60) -> OutOfFold:
    codes = np.arange(n) % 3
    proba = np.full((1, n, 3), 0.1)
    predicted = codes.copy()
    predicted[:n_wrong] = (codes[:n_wrong] + 1) % 3
    proba[0, np.arange(n), predicted] = 0.8
    return OutOfFold(codes, np.arange(n) // 2, proba)


def test_the_scores_of_a_sample_are_those_of_its_images() -> None:
    found = out_of_fold(9)
    draws = GroupDraws(found.groups, "a", 5)
    for i, times in enumerate(draws.times):
        rows = np.repeat(np.arange(60), times[found.groups])
        sample = OutOfFold(found.codes[rows], found.groups[rows], found.proba[:, rows])
        np.testing.assert_allclose(score_draws(found, draws)[:, i], scores(sample))


@pytest.mark.parametrize(("before", "now", "word"), [(0, 30, "beyond"), (30, 0, "Nothing")])
def test_a_fall_is_named(before: int, now: int, word: str) -> None:
    data = DataSet(
        name="a",
        paths=np.array([str(i) for i in range(60)]),
        y=np.array(list("abc"))[np.arange(60) % 3],
        groups=np.arange(60) // 2,
        digest="1",
    )

    def stored(n_wrong: int) -> dict[str, Any]:
        predictions = Predictions()
        predictions.add(DEFAULT, out_of_fold(n_wrong).proba, {})
        return {"sets": {"a": {"digest": "1"}}, "predictions": {"a": predictions}}

    rows = changes(stored(before), stored(now), lambda _: data)
    assert [row["score"] for row in rows] == list(SCORES)
    assert all(row["low"] <= row["now"] - row["before"] <= row["high"] for row in rows)
    text = changes_table({"changes": rows, "before": "abc", "backbone": "a network"})
    assert word in text.splitlines()[-1]
