import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t

from hypervlad.evaluation import (
    Evaluation,
    accuracy_interval,
    balanced_accuracy_interval,
    wilson_interval,
)

CLASSES = ["fibre", "matrix", "cluster"]


def proba_of(codes, confidence=0.8, n_classes=3):
    rest = (1 - confidence) / (n_classes - 1)
    table = np.full((len(codes), n_classes), rest)
    table[np.arange(len(codes)), codes] = confidence
    return table


@pytest.mark.parametrize("right", [0, 1, 7, 19, 20])
def test_the_interval_without_groups_is_wilsons(right):
    expected = binomtest(right, 20).proportion_ci(method="wilson")
    found = accuracy_interval([1] * right + [0] * (20 - right))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(images=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=60))
def test_an_interval_contains_the_share_and_is_certain_of_nothing_that_failed(images):
    correct, groups = (list(each) for each in zip(*images, strict=True))
    low, high = accuracy_interval(correct, groups)
    share = np.mean(correct)
    assert 0 <= low <= share <= high <= 1
    assert high < 1 or share == 1
    assert low > 0 or share == 0
    everything = accuracy_interval(correct)
    assert high - low >= everything[1] - everything[0] - 1e-12, "groups teach no more than images"


def slow_interval(correct, groups, weights):
    """Loops over groups; the formula of the docstring and its sources."""
    members = {g: [i for i in range(len(correct)) if groups[i] == g] for g in set(groups)}

    def share(rows):
        return sum(weights[i] * correct[i] for i in rows) / sum(weights[i] for i in rows)

    def of_equal(sizes):
        return sum(sizes) ** 2 / sum(size**2 for size in sizes)

    def of_few(number):
        return (norm.ppf(0.975) / t.ppf(0.975, number - 1)) ** 2 if number > 1 else 0

    every, k = range(len(correct)), len(members)
    p = share(every)
    if k == 1:
        return wilson_interval(p, 1)
    left = [share([i for i in every if i not in rows]) for rows in members.values()]
    variance = sum((each - p) ** 2 for each in left) * (k - 1) / k
    alike = of_equal([sum(weights[i] for i in rows) for rows in members.values()])
    worth = n_equal = of_equal(weights)
    if variance > 1e-20:
        worth = min(n_equal, p * (1 - p) / variance + 1)
    if k < len(correct):
        with_mistake = sum(not all(correct[i] for i in rows) for rows in members.values())
        with_correct = sum(any(correct[i] for i in rows) for rows in members.values())
        by_mixed = worth * of_few(min(with_mistake, with_correct, alike))
        worth = max(by_mixed, min(worth * of_few(alike), alike))
    return wilson_interval(p, max(1, worth))


def test_unknown_labels_are_mistakes():
    y = ["fibre", "ghost", "ghost", "matrix"]
    result = Evaluation(y, proba_of([0, 0, 1, 1]), CLASSES)
    assert result.unknown == ["ghost"]
    assert result.labels == [*CLASSES, "ghost"]
    assert result.accuracy == 0.5
    assert result.balanced_accuracy == pytest.approx(2 / 3)
    assert result.confusions == [("ghost", "fibre", 1), ("ghost", "matrix", 1)]
    fibre, *_, ghost = result.scores
    assert (fibre.precision, fibre.recall, fibre.f1, fibre.support) == (0.5, 1, 2 / 3, 1)
    assert not ghost.known
    assert ghost.recall == 0
    assert math.isnan(ghost.precision)
    # Two of four right at a confidence of 0.8.
    assert result.calibration_error == pytest.approx(0.3)
    result = Evaluation(["fibre", "matrix", "ghost"], proba_of([0, 0, 0]), CLASSES)
    assert (result.never_predicted, result.untested) == (["matrix"], ["cluster"])


@given(
    images=st.lists(
        st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 6)), min_size=2, max_size=40
    )
)
def test_intervals_are_those_of_the_formula_and_balanced_ones_have_weights(images):
    correct, y, groups = (list(each) for each in zip(*images, strict=True))
    plain = slow_interval(correct, groups, [1] * len(correct))
    assert accuracy_interval(correct, groups) == pytest.approx(plain, abs=1e-9)
    weights = [1 / y.count(label) for label in y]
    low, high = balanced_accuracy_interval(correct, y, groups)
    assert (low, high) == pytest.approx(slow_interval(correct, groups, weights), abs=1e-7)
    recalls = [
        np.mean([c for c, own in zip(correct, y, strict=True) if own == label]) for label in set(y)
    ]
    assert low - 1e-12 <= np.mean(recalls) <= high + 1e-12
    single = balanced_accuracy_interval(correct, y)
    assert single == pytest.approx(slow_interval(correct, list(range(len(y))), weights), abs=1e-7)


def test_probabilities_are_called_calibrated_or_too_high_or_too_low():
    rng = np.random.default_rng(5)
    confident = rng.uniform(0.5, 1, size=600)
    right = rng.random(600) < confident
    proba = np.column_stack([confident, 1 - confident])
    truth = np.where(right, "a", "b").tolist()
    assert Evaluation(truth, proba, ["a", "b"]).calibration == "calibrated"
    assert Evaluation(["a"] * 600, proba, ["a", "b"]).calibration == "underconfident"
    wrong = Evaluation(["a", "b"] * 300, proba, ["a", "b"])
    assert wrong.calibration == "overconfident"
    few = Evaluation(["a"], np.array([[0.4, 0.6]]), ["a", "b"])
    assert few.calibration == "unknown", "one mistake shows nothing"
    right = Evaluation(["a"] * 9, np.tile([0.98, 0.02], (9, 1)), ["a", "b"])
    assert right.calibration == "unknown", "the accuracy may be 70 %"
    wrong = Evaluation(["b"] * 9, right.proba, ["a", "b"])
    assert wrong.calibration == "overconfident", "nine images are enough for this difference"
