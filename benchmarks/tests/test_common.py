"""What all benchmarks share: folds, scores, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.data import DataSet, folds_of, number_of_folds, random_splits
from benchmarks.common.scores import GroupDraws, OutOfFold, set_rows

GROUPS = np.array(["p", "p", "p", "q", "q", "r", "s", "s", "s", "s"])
CODES = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def test_scores_are_scikit_learns() -> None:
    proba = np.random.default_rng(1).dirichlet(np.ones(3), size=(1, len(CODES)))
    oof = OutOfFold(CODES, GROUPS, proba)
    row = set_rows({"a": oof}, "a", GroupDraws(GROUPS))["a"]
    predicted = oof.proba[0].argmax(axis=1)
    assert row["accuracy"] == pytest.approx((predicted == CODES).mean())
    assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(CODES, predicted))
    assert row["log_loss"] == pytest.approx(log_loss(CODES, oof.proba[0]))


def test_no_group_straddles_a_split() -> None:
    y, groups = np.repeat(["a", "b"], 16), np.arange(32) // 2
    data = DataSet("some", np.arange(32).astype(str), y, groups, "digest")
    for fold in folds_of(data, repeats=2, seed=0):
        assert not set(groups[fold.train]) & set(groups[fold.test])
    for train, test in random_splits(data, 3, seed=0):
        assert not set(groups[train]) & set(groups[test])
    assert number_of_folds(np.array(list("aabbbb")), np.array([0, 0, 1, 2, 3, 3])) == 3


@pytest.mark.full  # parses all code
def test_a_checkpoint_is_used_again_if_nothing_changed(tmp_path: Path) -> None:
    runs = []

    def job() -> dict[str, Any]:
        runs.append(1)
        return {"accuracy": 0.9, "proba": np.eye(2, dtype=np.float32)}

    def found(seed: int) -> int:
        again = load_or_run(tmp_path / "split.json", {"seed": seed}, job)
        assert (again["accuracy"], again["proba"].tolist()) == (0.9, [[1, 0], [0, 1]])
        return len(runs)

    assert [found(0), found(0), found(1)] == [1, 1, 2]
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:40])
    assert found(1) == 3
