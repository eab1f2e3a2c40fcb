"""What the functions and classes of the evaluation refuse, with a sentence on what to change."""

import functools

import numpy as np
import pytest

from hypervlad.evaluation import (
    Calibration,
    Evaluation,
    OutlineTally,
    PixelTally,
    accuracy_interval,
    balanced_accuracy_interval,
    calibration_error_range,
    confidence_for_error,
    expected_calibration_error,
    group_folds,
    groups_for_error,
    holdout_split,
    matched_labels,
    patch_confusion,
    prediction_sets,
    reliability_bins,
    selective_accuracy_curve,
)

NAN = float("nan")
GOOD = [[0.4, 0.6], [0.7, 0.3]]
ONES, LABELS = np.ones((2, 2)), np.zeros((2, 3), int)
CLASSES = ["fibre", "matrix", "cluster"]
CALIBRATION = Calibration.of(GOOD, [0, 0], [0, 1], [0, 0])


def evaluation(y, shape, groups=None):
    return Evaluation(y, np.full(shape, 1 / 3), CLASSES, groups)


def add(scores, mask):
    PixelTally().add(scores, mask)


OF_CLASSES = [
    (evaluation, (["fibre"], (2, 3)), r"shape \(1, 3\); got \(2, 3\)"),
    (evaluation, (["fibre"], (1, 2)), r"shape \(1, 3\); got \(1, 2\)"),
    (evaluation, ([], (0, 3)), "no images"),
    (evaluation, (["fibre"], (1, 3), ["a", "b"]), "1 true label but 2 groups"),
    (accuracy_interval, ([],), "at least one image"),
    (accuracy_interval, ([1, 0], [1]), "got 2 images and 1 group$"),
    (balanced_accuracy_interval, ([], []), "at least one image"),
    (balanced_accuracy_interval, ([1, 0], "ab", [1]), "got 2 images and 1 group$"),
    (balanced_accuracy_interval, ([1, 0], ["a"]), "got 1 label for 2 images"),
    *((reliability_bins, ([0.5], [1], n), "n_bins must be a whole") for n in (0, 2.5, True)),
]
OF_PROBABILITIES = [
    (score, (y, proba), words)
    for score in (expected_calibration_error, selective_accuracy_curve)
    for y, proba, words in (
        ([0], GOOD, r"expected shape \(2,\), got \(1,\)"),
        ([0, 2], GOOD, "codes from 0 to 2, but proba has columns 0 to 1"),
        (["a", "b"], GOOD, "searchsorted"),
        ([0.0, 1.0], GOOD, "not labels; got type float64"),
        ([0, 1], [0.4, 0.6], r"got shape \(2,\)"),
        ([], np.zeros((0, 2)), "not empty"),
        ([0, 1], [[0.4, 0.4], [0.5, 0.5]], "with sum 1"),
        ([0, 1], [[-0.1, 1.1], [0.5, 0.5]], "not negative"),
        ([0, 1], [[NAN, 0.5], [0.5, 0.5]], "must hold probabilities"),
    )
] + [(calibration_error_range, ([[0.4, 0.4]],), "with sum 1")]
OF_MAPS = [
    (add, (np.ones((3, 4)), np.zeros((3, 5), bool)), r"score map and mask .* got \(3, 4\) and"),
    (add, (np.full((2, 2), np.nan), np.eye(2)), "score map holds NaN or infinity"),
    (add, (ONES, np.zeros((2, 2, 3))), r"mask must have shape \(H, W\)"),
    (add, (ONES, np.array([[0, 128], [255, 0]])), r"0, 128, 255 \(3 in all\).*mask > 127"),
    (add, (ONES, np.array([[0, -1], [0, 0]])), "one positive value"),
    (add, (ONES, np.array([["a", "b"], ["a", "b"]])), "got type <U1"),
    (patch_confusion, (LABELS > 0, LABELS > 0, 0), "patch must be a whole number"),
    (patch_confusion, (LABELS > 0, LABELS > 0, 2.5), "patch must be a whole number"),
    (patch_confusion, (LABELS.T > 0, LABELS > 0), r"predicted and mask .* got"),
    (matched_labels, (LABELS, np.zeros((2, 3))), "found must be a label image"),
    (OutlineTally().add, (LABELS, LABELS.T), r"differ in shape: \(2, 3\) and \(3, 2\)"),
    (OutlineTally().scores, (), "no fields"),
]
OF_SPLITS = [
    (split, arguments, words)
    for split in (holdout_split, group_folds)
    for arguments, words in (
        (([],), "y is empty"),
        (("abc",), "y must be a list, .* one value per row, not a str"),
        ((None,), "y must be a list, .* not a NoneType"),
        (([[0], [1]],), "nested list"),
        ((np.zeros((2, 2)),), r"shape \(2, 2\)"),
        (([0, 1], [0]), "y has 2 rows but groups has 1"),
        (([0, 1], "ab"), "groups must be a list, .* not a str"),
        (([0, None],), r"y\[1\] is missing"),
        (([0, 1], [NAN, 1]), r"groups\[0\] is missing"),
        (([0, 1], np.array(["NaT", "2020-01-01"], "datetime64[D]")), r"groups\[0\] is missing"),
    )
] + [
    (functools.partial(split, **{name: size}), ([0, 1],), words)
    for split, name, words in (
        (holdout_split, "test_size", "test_size must be a share of the rows"),
        (group_folds, "n_splits", "n_splits must be a whole number"),
    )
    for size in (0, 1, True, NAN)
]
OF_SHARES = [
    (call, (*arguments, value), rf"^{name} is a share above 0 and below 1; got {value!r} .*{words}")
    for call, arguments, name, per_cent in (
        (prediction_sets, ([GOOD], CALIBRATION), "coverage", "90 % is written 0.9"),
        (confidence_for_error, (CALIBRATION,), "max_error", "5 % is written 0.05"),
        (groups_for_error, (), "max_error", "5 % is written 0.05"),
    )
    for value, words in (
        *((value, rf"\({per_cent}\)$") for value in (0, -0.1, NAN, True, "0.9")),
        (97.5, r"\(97.5 % is written 0.975\)$"),
    )
] + [
    (groups_for_error, (5,), r"got 5 \(5 % is written 0.05\)$"),
    (groups_for_error, (1,), r"got 1 \(1 % is written 0.01\)$"),
    (prediction_sets, ([GOOD], CALIBRATION, 1), r"got 1 \(90 % is written 0.9\)$"),
]


@pytest.mark.parametrize(
    ("call", "arguments", "words"),
    [*OF_CLASSES, *OF_PROBABILITIES, *OF_MAPS, *OF_SPLITS, *OF_SHARES],
)
def test_what_cannot_be_evaluated_is_refused(call, arguments, words):
    with pytest.raises(ValueError, match=words):
        call(*arguments)
