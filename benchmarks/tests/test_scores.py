"""The benchmark's statistics against loops that a reader can check by eye."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, log_loss

from benchmarks.common.folds import DataSet
from benchmarks.common.scores import Gain, GroupDraws, OutOfFold, mean_of_sets, mean_rows, set_rows
from benchmarks.uncertainty import scores as doubt_scores
from benchmarks.uncertainty import sure
from hypervlad.conformal import Calibration

RNG = np.random.default_rng(0)
GROUPS = np.array(["p", "p", "p", "q", "q", "r", "s", "s", "s", "s"])
CODES = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def out_of_fold(seed: int, n_repeats: int = 2) -> OutOfFold:
    proba = np.random.default_rng(seed).dirichlet(np.ones(3), size=(n_repeats, len(CODES)))
    return OutOfFold(CODES, GROUPS, proba)


def test_scores_of_one_repeat_are_scikit_learns() -> None:
    oof = out_of_fold(1, n_repeats=1)
    row = set_rows({"a": oof}, "a", GroupDraws(GROUPS))["a"]
    predicted = oof.proba[0].argmax(axis=1)
    assert row["accuracy"] == pytest.approx((predicted == CODES).mean())
    assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(CODES, predicted))
    assert row["log_loss"] == pytest.approx(log_loss(CODES, oof.proba[0]))


def test_scores_of_repeats_are_means() -> None:
    oof = out_of_fold(1, n_repeats=3)
    apart = [OutOfFold(CODES, GROUPS, p[None]) for p in oof.proba]
    np.testing.assert_allclose(oof.right, np.mean([one.right for one in apart], axis=0))
    np.testing.assert_allclose(oof.losses, np.mean([one.losses for one in apart], axis=0))
    assert oof.balanced_accuracy == pytest.approx(np.mean([x.balanced_accuracy for x in apart]))
    errors = [one.calibration()["error"] for one in apart]
    assert oof.calibration()["error"] == pytest.approx(np.mean(errors))


def test_impossible_truth_has_a_finite_loss() -> None:
    oof = OutOfFold(np.array([0, 1]), np.array([0, 1]), np.array([[[0.0, 1.0], [0.5, 0.5]]]))
    assert np.isfinite(oof.losses).all()


def test_draws_are_means_over_the_rows_of_drawn_groups() -> None:
    values = RNG.standard_normal(len(GROUPS))
    draws = GroupDraws(GROUPS, "steel", n_draws=50)
    names = np.unique(GROUPS)
    drawn = np.random.default_rng(GroupDraws.seed("steel")).integers(
        len(names), size=(50, len(names))
    )
    slow = [np.concatenate([values[names[g] == GROUPS] for g in row]).mean() for row in drawn]
    np.testing.assert_allclose(draws.means(values), slow)


def test_the_error_of_a_paired_difference_is_that_of_the_difference() -> None:
    a, b = RNG.standard_normal((2, len(GROUPS)))
    draws = GroupDraws(GROUPS)
    gain = Gain.of([a - b], [draws])
    assert gain.value == pytest.approx(a.mean() - b.mean())
    assert gain.error == pytest.approx((draws.means(a) - draws.means(b)).std(ddof=1))
    # Noise that both share is gone: that is what pairing is for.
    noise = 100 * RNG.standard_normal(len(GROUPS))
    assert Gain.of([(a + noise) - (b + noise)], [draws]).error == pytest.approx(gain.error)


def test_the_bootstrap_agrees_with_the_textbook_for_single_rows_and_for_groups() -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_normal(400)
    single = Gain.of([values], [GroupDraws(np.arange(400))])
    assert single.error == pytest.approx(values.std() / np.sqrt(400), rel=0.1)
    # A hundred groups of four equal rows are a hundred rows: twice the error.
    copies = Gain.of([np.repeat(values[:100], 4)], [GroupDraws(np.repeat(np.arange(100), 4))])
    assert copies.error == pytest.approx(values[:100].std() / np.sqrt(100), rel=0.1)


def test_the_mean_over_sets_weighs_sets_alike_and_adds_their_variances() -> None:
    rng = np.random.default_rng(5)
    small, large = rng.standard_normal(50) + 1, rng.standard_normal(400)
    draws = [GroupDraws(np.arange(50), "small"), GroupDraws(np.arange(400), "large")]
    gain = Gain.of([small, large], draws)
    assert gain.value == pytest.approx((small.mean() + large.mean()) / 2)
    expected = np.hypot(small.std() / np.sqrt(50), large.std() / np.sqrt(400)) / 2
    assert gain.error == pytest.approx(expected, rel=0.1)


def test_sets_with_equally_many_groups_are_resampled_independently() -> None:
    values = RNG.standard_normal(200)
    draws = [GroupDraws(np.arange(200), name) for name in ("steel", "tiles")]
    assert (draws[0].times != draws[1].times).any()
    np.testing.assert_array_equal(draws[0].times, GroupDraws(np.arange(200), "steel").times)
    # The same values twice: with common draws the error would not fall at all.
    one, two = Gain.of([values], draws[:1]), Gain.of([values, values], draws)
    assert two.error == pytest.approx(one.error / np.sqrt(2), rel=0.1)


def test_images_that_are_never_tested_do_not_count() -> None:
    y, groups = np.array(["a", "b", "a"]), np.array(["p", "q", "r"])
    data = DataSet("some", np.array(["1", "2", "3"]), y, groups, "digest")
    proba = np.array([[[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8]]])
    oof = OutOfFold.of(data, proba)
    assert oof.right.tolist() == [1, 0]
    assert oof.groups.tolist() == ["p", "r"]


def test_the_interval_of_a_mean_of_sets_is_students() -> None:
    one, other = RNG.normal(0.2, 0.1, 7), RNG.normal(0.1, 0.4, 4)
    mean, interval = mean_of_sets([one])
    expected = stats.ttest_1samp(one, 0).confidence_interval()
    assert (mean, *interval) == pytest.approx((one.mean(), expected.low, expected.high))
    # The mean of two sets is half the difference of Welch's test from the negative of the second.
    mean, interval = mean_of_sets([one, other])
    welch = stats.ttest_ind(one, -other, equal_var=False).confidence_interval()
    assert (mean, *interval) == pytest.approx(
        ((one.mean() + other.mean()) / 2, welch.low / 2, welch.high / 2)
    )
    assert mean_of_sets([np.ones(3), np.zeros(2)]) == (0.5, (0.5, 0.5))


def test_comparison_with_the_best_and_the_default() -> None:
    n = 60
    codes = np.arange(n) % 2
    good = np.where(np.eye(2)[codes] == 1, 0.9, 0.1)[None]
    bad = 1 - good
    groups = np.arange(n)
    results = {"bad": OutOfFold(codes, groups, bad), "good": OutOfFold(codes, groups, good)}
    rows = set_rows(results, "bad", GroupDraws(groups))
    against = rows["bad"]["accuracy_against"]["best"]
    assert against == {"method": "good", "gain": -1.0, "error": 0.0, "within_two_errors": False}
    assert rows["good"]["accuracy_against"]["best"]["within_two_errors"]
    gain = rows["good"]["log_loss_against"]["default"]["gain"]
    assert gain == pytest.approx(np.log(0.9 / 0.1))  # above zero: a lower loss


def test_sure_answers_of_synthetic_groups() -> None:
    easy = sure.measure(sure.Scene(60, 1, 3, apart=3), n_draws=4)
    assert easy["accuracy"] > 0.95
    for error in (0.05, 0.2):
        assert easy[f"tested {error:g}"]["broken"] == 0
        assert easy[f"tested {error:g}"]["sure"] > 0.5
    hard = sure.measure(sure.Scene(30, 1, apart=0), n_draws=4)
    assert hard["accuracy"] < 0.4
    assert hard["tested 0.1"] == {"sure": 0, "wrong": 0, "broken": 0}
    result = {"n_draws": 4, "rows": [easy, hard]}
    assert "| 30 x 1, 4 | " in sure.sure_table(result)
    interval = stats.binomtest(0, 4).proportion_ci(method="wilson")
    assert f"wrong; 0.0% [0.0%, {interval.high:.1%}] |" in sure.sure_table(result)


def test_the_estimated_threshold_is_the_lowest_with_few_errors() -> None:
    right = np.array([0.9, 0.8, 0.3, 0.6])
    table = np.column_stack([right, 1 - right])
    calibration = Calibration.of(table, np.zeros(4, int), np.arange(4), np.zeros(4, int))
    assert sure.estimated_confidence(calibration, 0.1) == pytest.approx(0.8)
    assert sure.estimated_confidence(calibration, 0.3) == pytest.approx(0.6)


def test_within_two_errors() -> None:
    assert Gain(-0.02, 0.01).to_dict()["within_two_errors"]
    assert not Gain(-0.021, 0.01).to_dict()["within_two_errors"]
    assert Gain(0.5, 0.01).to_dict()["within_two_errors"]


def test_means_leave_out_methods_that_did_not_run_everywhere() -> None:
    a, b = out_of_fold(1), out_of_fold(2)
    draws = [GroupDraws(GROUPS, name) for name in "xy"]
    rows = mean_rows([{"a": a, "b": b}, {"a": b}], "a", draws)
    assert list(rows) == ["a"]
    assert rows["a"]["accuracy"] == pytest.approx((a.right.mean() + b.right.mean()) / 2)
    assert rows["a"]["log_loss"] == pytest.approx((a.losses.mean() + b.losses.mean()) / 2)


def test_calibrated_predictions_lie_inside_and_overconfident_ones_above() -> None:
    rng = np.random.default_rng(6)
    proba = rng.dirichlet(np.ones(3), size=600)
    codes = np.array([rng.choice(3, p=p) for p in proba])
    honest = OutOfFold(codes, np.arange(600), proba[None]).calibration()
    assert honest["inside"]
    sharp = proba**4 / (proba**4).sum(axis=1, keepdims=True)
    boastful = OutOfFold(codes, np.arange(600), sharp[None]).calibration()
    assert not boastful["inside"]
    assert boastful["error"] > boastful["range"][1]


def doubt_of(truth: list[int], confidence: list[float]) -> dict[str, np.ndarray]:
    """Two classes; the first is always named, with that confidence."""
    table = np.column_stack([confidence, 1 - np.array(confidence)])
    n = len(truth)
    sets = np.ones((n, 2), dtype=bool)
    sets[: n // 2, 1] = False
    return {
        "truth": np.array(truth),
        "proba": table,
        "novelty": np.zeros(n),
        "points": np.random.default_rng(0).normal(size=(n, 4)),
        "groups": np.arange(n) // 2,
        "sets": sets,
    }


def test_errors_are_caught_in_the_order_of_looking() -> None:
    split = doubt_of([1, 0, 0, 0, 1, 0, 0, 0, 0, 0], [0.55, 0.6, 0.7, *np.linspace(0.8, 0.95, 7)])
    assert doubt_scores.errors_caught([split], doubt_scores.by_margin) == 0.5
    assert doubt_scores.errors_caught([split], doubt_scores.wrong_first) == 1
    caught = doubt_scores.errors_caught([split], doubt_scores.by_queue)
    assert caught >= 0.5, "the least certain image is the first of the queue"
    assert doubt_scores.errors_caught([split, split], doubt_scores.by_margin) == 0.5


def test_coverage_is_that_of_groups_and_of_images() -> None:
    split = doubt_of([1, 0, 0, 0, 1, 1], [0.6] * 6)
    split["groups"] = np.array([0, 1, 1, 1, 2, 2])
    found = doubt_scores.sets(split, "sets")
    assert found == {"coverage": pytest.approx(2 / 3), "coverage_of_images": 5 / 6, "size": 1.5}


def test_the_interval_of_splits_that_share_images_is_wider() -> None:
    values = [0.1, 0.2, 0.4, 0.5]
    mean, low, high = doubt_scores.mean_and_interval(values)
    plain = stats.t.interval(0.95, 3, loc=0.3, scale=stats.sem(values))
    assert mean == pytest.approx(0.3)
    assert low < plain[0] < plain[1] < high
    assert high - mean == pytest.approx((plain[1] - 0.3) * np.sqrt(1 + 4 / 3))
