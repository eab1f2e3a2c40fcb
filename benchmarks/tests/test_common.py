"""What all benchmarks share: folds, scores against loops, checkpoints, processes, regression."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.preprocessing import StandardScaler

from benchmarks.common import results
from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.data import DataSet, folds_of, number_of_folds, random_splits, tem_set
from benchmarks.common.logistic import TunedLogisticRegression
from benchmarks.common.program import in_fresh_process, in_turns, timed
from benchmarks.common.scores import (
    GroupDraws,
    OutOfFold,
    gain,
    mean_of_sets,
    mean_rows,
    set_rows,
)

RNG = np.random.default_rng(0)
GROUPS = np.array(["p", "p", "p", "q", "q", "r", "s", "s", "s", "s"])
CODES = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def out_of_fold(seed: int, n_repeats: int = 2) -> OutOfFold:
    proba = np.random.default_rng(seed).dirichlet(np.ones(3), size=(n_repeats, len(CODES)))
    return OutOfFold(CODES, GROUPS, proba)


def test_scores_are_scikit_learns() -> None:
    oof = out_of_fold(1, n_repeats=1)
    row = set_rows({"a": oof}, "a", GroupDraws(GROUPS))["a"]
    predicted = oof.proba[0].argmax(axis=1)
    assert row["accuracy"] == pytest.approx((predicted == CODES).mean())
    assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(CODES, predicted))
    assert row["log_loss"] == pytest.approx(log_loss(CODES, oof.proba[0]))
    impossible = OutOfFold(np.array([0, 1]), np.arange(2), np.array([[[0.0, 1.0], [0.5, 0.5]]]))
    assert np.isfinite(impossible.losses).all()


def test_the_resampled_error_is_the_textbooks_and_sets_are_independent() -> None:
    values = RNG.standard_normal(400)
    draws = [GroupDraws(np.arange(400), name) for name in ("steel", "tiles")]
    one, two = gain([values], draws[:1]), gain([values, values], draws)
    assert one["error"] == pytest.approx(values.std() / np.sqrt(400), rel=0.1)
    assert two["error"] == pytest.approx(one["error"] / np.sqrt(2), rel=0.1)
    # A hundred groups of four equal rows are a hundred rows: twice the error.
    copies = gain([np.repeat(values[:100], 4)], [GroupDraws(np.repeat(np.arange(100), 4))])
    assert copies["error"] == pytest.approx(values[:100].std() / np.sqrt(100), rel=0.1)


def test_methods_are_compared_with_the_best_and_the_default() -> None:
    codes = np.arange(60) % 2
    good = np.where(np.eye(2)[codes] == 1, 0.9, 0.1)[None]
    results = {name: OutOfFold(codes, codes, p) for name, p in (("bad", 1 - good), ("good", good))}
    rows = set_rows(results, "bad", GroupDraws(np.arange(60)))
    against = rows["bad"]["accuracy_against"]["best"]
    assert against == {"method": "good", "gain": -1.0, "error": 0.0, "within_two_errors": False}
    loss = rows["good"]["log_loss_against"]["default"]["gain"]
    assert loss == pytest.approx(np.log(0.9 / 0.1))  # above zero: a lower loss
    a, b = out_of_fold(1), out_of_fold(2)
    draws = [GroupDraws(GROUPS, name) for name in "xy"]
    assert list(mean_rows([{"a": a, "b": b}, {"a": b}], "a", draws)) == ["a"]


def test_the_interval_of_a_mean_of_sets_is_students() -> None:
    one, other = RNG.normal(0.2, 0.1, 7), RNG.normal(0.1, 0.4, 4)
    mean, interval = mean_of_sets([one])
    expected = stats.ttest_1samp(one, 0).confidence_interval()
    assert (mean, *interval) == pytest.approx((one.mean(), expected.low, expected.high))
    # The mean of two sets is half the difference of Welch's test from the negative of the second.
    _, interval = mean_of_sets([one, other])
    welch = stats.ttest_ind(one, -other, equal_var=False).confidence_interval()
    assert interval == pytest.approx((welch.low / 2, welch.high / 2))


def test_no_group_straddles_and_images_that_are_never_tested_do_not_count() -> None:
    y, groups = np.repeat(["a", "b"], 16), np.arange(32) // 2
    data = DataSet("some", np.arange(32).astype(str), y, groups, "digest")
    for fold in folds_of(data, repeats=2, seed=0):
        assert not set(groups[fold.train]) & set(groups[fold.test])
    for train, test in random_splits(data, 3, seed=0):
        assert not set(groups[train]) & set(groups[test])
    assert number_of_folds(np.array(list("aabbbb")), np.array([0, 0, 1, 2, 3, 3])) == 3
    with pytest.raises(SystemExit, match="one group only"):
        number_of_folds(np.array(["a", "a", "b"]), np.array([0, 0, 1]))
    proba = np.full((1, 32, 2), 0.5)
    proba[0, 3] = np.nan
    assert len(OutOfFold.of(data, proba).codes) == 31


def test_synthetic_images_are_written_once(tmp_path: Path) -> None:
    first = tem_set(tmp_path, 8)
    stamps = [Path(path).stat().st_mtime_ns for path in first.paths]
    second = tem_set(tmp_path, 8)
    assert [Path(path).stat().st_mtime_ns for path in second.paths] == stamps
    assert (len(first.paths), len(first.classes), first.digest) == (8, 4, second.digest)


@pytest.mark.parametrize("harm", ["", "settings", "code", "cut", "no arrays", "edited"])
def test_a_checkpoint_is_used_again_if_nothing_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    runs = []

    def job() -> dict[str, Any]:
        runs.append(1)
        return {"accuracy": 0.9, "proba": np.eye(2, dtype=np.float32)}

    settings = {"seed": 0}
    load_or_run(tmp_path / "split.json", settings, job)
    (path,), (arrays,) = tmp_path.glob("*.json"), tmp_path.glob("*.npz")
    if harm == "settings":
        settings = {"seed": 1}
    elif harm == "code":
        monkeypatch.setattr(results, "code_digest", lambda: "other")
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:40])
    elif harm == "no arrays":
        arrays.unlink()
    elif harm == "edited":
        content = json.loads(path.read_text(encoding="utf-8"))
        content["settings"]["seed"] = 7
        path.write_text(json.dumps(content), encoding="utf-8")
    again = load_or_run(tmp_path / "split.json", settings, job)
    assert (again["accuracy"], again["proba"].tolist()) == (0.9, [[1, 0], [0, 1]])
    assert len(runs) == (2 if harm else 1)


def test_functions_take_turns_and_run_in_other_processes() -> None:
    calls: list[str] = []
    seconds = in_turns({name: timed(lambda n=name: calls.append(n)) for name in "ab"}, 2)
    assert calls == list("abbaab")
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}
    assert in_fresh_process(math.gcd, 12, 18) == 6
    with pytest.raises(SystemExit, match="gcd: exit code 1"):
        in_fresh_process(math.gcd, "a")


@pytest.mark.parametrize("n_features", [4, 90])  # more columns than rows are rotated away
def test_tuned_regression_is_plain_logistic_regression_at_its_choice(n_features: int) -> None:
    rng = np.random.default_rng(1)
    y = np.arange(60) % 3
    X = rng.standard_normal((60, n_features)) + y[:, None]
    groups = np.concatenate([np.arange(56), [90, 90, 91, 91]])
    model = TunedLogisticRegression(temperature=n_features == 4).fit(X, y, groups)
    scaled = StandardScaler().fit_transform(X)
    plain = LogisticRegression(C=model.C_, max_iter=1000, tol=1e-8).fit(scaled, y)
    assert model.temperature_ >= 1
    proba = model.predict_proba(X) ** model.temperature_
    proba /= proba.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(proba, plain.predict_proba(scaled), atol=5e-3)
