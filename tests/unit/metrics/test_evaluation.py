import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from hypervlad.metrics import Evaluation, accuracy_interval, reliability_bins, wilson_interval

CLASSES = ["fibre", "matrix", "cluster"]


def proba_of(codes, confidence=0.8, n_classes=3):
    rest = (1 - confidence) / (n_classes - 1)
    table = np.full((len(codes), n_classes), rest)
    table[np.arange(len(codes)), codes] = confidence
    return table


def random_result(seed, n=200, **options):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    proba = rng.dirichlet([0.7] * 3, size=n)
    return Evaluation([CLASSES[k] for k in y], proba, CLASSES, **options), y


@pytest.mark.parametrize("right", [0, 1, 7, 19, 20])
def test_the_interval_without_groups_is_wilsons(right):
    expected = binomtest(right, 20).proportion_ci(method="wilson")
    found = accuracy_interval([1] * right + [0] * (20 - right))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_identical_images_in_a_group_count_once():
    correct = np.repeat(np.arange(40) % 4 != 0, 25)
    single = accuracy_interval(correct[::25])
    grouped = accuracy_interval(correct, np.repeat(np.arange(40), 25))
    naive = accuracy_interval(correct)
    assert grouped == pytest.approx(single, abs=0.03)
    assert naive[1] - naive[0] < (grouped[1] - grouped[0]) / 3


def test_groups_of_one_image_are_no_groups():
    correct = np.arange(30) % 3 > 0
    assert accuracy_interval(correct, list("abcdefghijklmnopqrstuvwxyzABCD")) == accuracy_interval(
        correct
    )


def test_few_or_perfect_groups_fall_back_to_the_number_of_groups():
    perfect = accuracy_interval(np.ones(100), np.repeat(np.arange(20), 5))
    assert perfect == wilson_interval(1.0, 20)
    few = accuracy_interval(np.arange(40) % 2, np.repeat(np.arange(4), 10))
    assert few == wilson_interval(0.5, 4)


def test_the_interval_of_groups_is_the_same_at_every_call():
    correct, groups = np.arange(90) % 7 > 1, np.arange(90) // 3
    assert accuracy_interval(correct, groups) == accuracy_interval(correct, groups)


def test_scores_are_scikit_learns():
    result, y = random_result(1)
    said = result.proba.argmax(axis=1)
    expected = np.transpose(precision_recall_fscore_support(y, said, labels=range(3)))
    found = [(s.precision, s.recall, s.f1, s.support) for s in result.scores]
    np.testing.assert_allclose(found, expected)
    assert result.accuracy == np.mean(y == said)


def test_the_calibration_error_is_above_its_range_by_chance():
    result, _ = random_result(2)
    low, high = result.calibration_range
    assert 0 <= low < high < result.calibration_error
    assert result.reliability_bins().calibration_error == result.calibration_error


def test_reliability_bins_by_hand():
    confidence = np.array([0.5, 0.55, 0.6, 1.0])
    mean, share, counts = reliability_bins(confidence, np.array([1, 0, 1, 1]), n_bins=5)
    np.testing.assert_array_equal(counts, [0, 0, 3, 0, 1])
    np.testing.assert_allclose(mean[[2, 4]], [0.55, 1.0])
    np.testing.assert_allclose(share[[2, 4]], [2 / 3, 1.0])
    assert np.isnan(mean[0])


def test_unknown_labels_are_mistakes():
    y = ["fibre", "ghost", "ghost", "matrix"]
    result = Evaluation(y, proba_of([0, 0, 1, 1]), CLASSES)
    assert result.unknown == ["ghost"]
    assert result.labels == [*CLASSES, "ghost"]
    assert result.accuracy == 0.5
    assert result.confusions == [("ghost", "fibre", 1), ("ghost", "matrix", 1)]
    ghost = result.scores[-1]
    assert not ghost.known
    assert ghost.recall == 0
    assert math.isnan(ghost.precision)
    # Two of four right at a confidence of 0.8.
    assert result.calibration_error == pytest.approx(0.3)


def test_a_class_without_images_has_no_recall():
    result = Evaluation(["fibre", "fibre"], proba_of([0, 0]), CLASSES)
    assert math.isnan(result.scores[1].recall)
    assert result.scores[1].support == 0


def test_the_baseline_is_the_most_common_class():
    result = Evaluation(["matrix", "fibre", "matrix"], proba_of([0, 0, 0]), CLASSES)
    assert result.baseline == ("matrix", pytest.approx(2 / 3))


def test_labels_of_other_types_are_compared_as_text():
    result = Evaluation(np.array([3, 5]), proba_of([0, 0], n_classes=2), np.array([3, 5]))
    assert result.correct.tolist() == [True, False]


@pytest.mark.parametrize(
    ("y", "shape", "groups", "message"),
    [
        (["fibre"], (2, 3), None, r"shape \(1, 3\); got \(2, 3\)"),
        (["fibre"], (1, 2), None, r"shape \(1, 3\); got \(1, 2\)"),
        ([], (0, 3), None, "no images"),
        (["fibre"], (1, 3), ["a", "b"], "1 true labels but 2 groups"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(y, shape, groups, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(y, np.full(shape, 1 / 3), CLASSES, groups)
