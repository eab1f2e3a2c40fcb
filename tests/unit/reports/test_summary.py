"""Evaluations in a few lines: every figure, and the words for what cannot be said."""

from types import SimpleNamespace

import numpy as np
import pytest

from hypervlad.evaluation import Evaluation
from hypervlad.models import HeldOut
from hypervlad.results.reports.summary import (
    evaluation_lines,
    held_out_lines,
    leakage_text,
    unlike_text,
    warning_lines,
)

CLASSES = np.array(["fibre", "matrix", "cluster"])
LEARNER = SimpleNamespace(
    block_weights_=(1.0,), linear_coef_=np.ones(1), n_estimators_=0, tree_gain_=0.001
)


def proba_of(codes, confidence):
    table = np.full((len(codes), 3), (1 - confidence) / 2)
    table[np.arange(len(codes)), codes] = confidence
    return table


def model_of(
    codes, predicted, *, confidence=0.8, groups=None, n_training=None, n_copies=0, **changes
):
    """A model of which only the held-out predictions matter."""
    n = len(codes)
    rows = np.arange(n)
    facts = {
        "learners": [LEARNER] * 5,
        "proba": proba_of(predicted, confidence),
        "codes": np.asarray(codes),
        "groups": rows if groups is None else np.asarray(groups),
        "models": rows % 5,
        "rows": rows,
        "lone": rows[:0],
    }
    held_out = HeldOut(**(facts | changes))
    return SimpleNamespace(
        held_out_=held_out,
        held_out_evaluation=lambda: held_out.evaluation(CLASSES),
        training_=Training(
            digests=SimpleNamespace(n_copies=n_copies),
            n=n_training or n,
            groups=rows if groups is None else groups,
        ),
        encoder_=SimpleNamespace(is_of_particles_=False, weights="random"),
        boosting_=LEARNER,
        calibration_size=None,
    )


class Training(SimpleNamespace):
    def __len__(self):
        return self.n


def line_of(lines, start):
    (found,) = [line for line in lines if line.startswith(start)]
    return found


def test_held_out_images_are_described_in_eleven_lines():
    codes = np.repeat([0, 1, 2], [60, 30, 10])
    predicted = np.where(codes == 2, 0, codes)
    predicted[:6] = 1
    model = model_of(codes, predicted)
    lines, result = held_out_lines(model), model.held_out_evaluation()
    assert len(lines) <= 11
    assert line_of(lines, "groups:").startswith("groups: each image counts as a sample")
    pairs = held_out_lines(model_of(codes, predicted, groups=np.arange(100) // 2))
    assert not any(line.startswith("groups:") for line in pairs)
    copied = np.append(np.arange(99), 0)
    assert any(
        "a sample of its own" in line
        for line in held_out_lines(model_of(codes, predicted, groups=copied, n_copies=1))
    )
    assert line_of(lines, "held out:") == (
        "held out: 100 of 100 training images, in 5 folds, each classified by a model trained "
        "without the images of its fold"
    )
    intervals = [
        f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"
        for low, high in (result.interval, result.balanced_interval)
    ]
    assert line_of(lines, "accuracy:") == (
        f"accuracy: 84.0 % of 100 images ({intervals[0]}; always predicting fibre: 60.0 %)"
    )
    recall = 100 * (0.9 + 1 + 0) / 3
    assert line_of(lines, "balanced") == (
        f"balanced accuracy: {recall:.1f} %, the mean of 3 classes ({intervals[1]})"
    )
    assert line_of(lines, "correct by class") == (
        "correct by class: cluster 0 of 10, fibre 54 of 60, matrix 30 of 30"
    )
    assert line_of(lines, "warning") == (
        "warning: cluster is never predicted: cluster is not recognised in any of its 10 images"
    )
    assert line_of(lines, "to have") == (
        "to have cluster predicted: more images of this class help most; 'hypervlad train' with "
        "--prior uniform finds more images of rare classes"
    )
    assert line_of(lines, "most frequent") == (
        "most frequent mistakes: cluster as fibre (10), fibre as matrix (6)"
    )
    assert line_of(lines, "classifier") == (
        "classifier: logistic regression; boosted trees did not help"
    )


def test_what_could_not_be_held_out_is_named():
    lines = held_out_lines(model_of([0, 0, 1, 1], [0, 0, 1, 1], n_training=7))
    assert lines[0].startswith("held out: 4 of 7 training images")
    assert lines[0].endswith(
        "; 2 of 3 classes tested, none of cluster, where this takes a second group"
    )
    assert ", the mean of 2 classes (95 %" in line_of(lines, "balanced")
    result = Evaluation(["fibre", "matrix"], proba_of([0, 1], 0.8), CLASSES)
    assert "2 of 3 classes tested, none of cluster" in evaluation_lines(result)


@pytest.mark.parametrize(
    ("counts", "prior", "words"),
    [
        ((60, 30, 10), "sqrt", " (it is for class shares halfway between those of the training"),
        ((60, 30, 10), {"fibre": 0.5, "matrix": 0.3, "cluster": 0.2}, " (it is for the class shar"),
        ((60, 30, 10), "training", ""),
        ((30, 30, 30), "sqrt", ""),
    ],
)
def test_expected_class_shares_are_named_if_classes_are_unequal(counts, prior, words):
    codes = np.repeat([0, 1, 2], counts)
    model = model_of(codes, codes)
    model.boosting_ = SimpleNamespace(**vars(LEARNER), prior=prior)
    line = line_of(held_out_lines(model), "confidence")
    remark = line.partition("the confidence is too low")[2]
    assert remark.startswith(words) if words else remark == ""


def test_copies_explain_why_there_are_fewer_groups():
    codes, groups = np.arange(12) % 3, [0, 1, 2, 0, *range(3, 11)]
    (first, *_) = held_out_lines(model_of(codes, codes, groups=groups, n_copies=1))
    assert "12 training images of 11 groups (1 copy is in the group of the original), in" in first
    assert first.endswith("without the groups of its fold")


def test_a_calibration_split_is_not_called_folds():
    model = model_of([0, 1, 2] * 4, [0, 1, 2] * 4, is_split=True, models=np.zeros(12, int))
    assert "not used for training" in held_out_lines(model)[0]
    assert "folds" not in held_out_lines(model)[0]


@pytest.mark.parametrize(
    ("n", "share", "confidence", "words"),
    [
        (100, 80, 0.8, "no more difference than by chance"),
        (100, 40, 0.9, "the confidence is too high"),
        (100, 100, 0.5, "the confidence is too low"),
        (9, 100, 0.8, "too few images to tell whether the confidence is right"),
    ],
)
def test_the_confidence_is_judged_in_words(n, share, confidence, words):
    codes = np.arange(n) % 3
    predicted = np.where(np.arange(n) < n * share / 100, codes, (codes + 1) % 3)
    line = line_of(held_out_lines(model_of(codes, predicted, confidence=confidence)), "confidence")
    assert line == (
        f"confidence: {100 * confidence:.1f} % on average, and {share}.0 % are correct: {words}"
    )


def test_sure_answers_are_counted_for_three_errors():
    codes = np.arange(60) % 3
    right = held_out_lines(model_of(codes, codes, confidence=0.99))
    assert "100.0 % / 100.0 % / 100.0 % of the images, if at most 5 / 10 / 20 %" in line_of(
        right, "sure"
    )
    few = held_out_lines(model_of(codes[:30], codes[:30], confidence=0.99))
    assert line_of(few, "sure") == (
        "sure answers: 0 / 100.0 % / 100.0 % of the images, if at most 5 / 10 / 20 % of them may "
        "be wrong (for 5 %, the number of groups must be at least 45; it is 30)"
    )
    wrong = held_out_lines(model_of(codes, (codes + 1) % 3))
    assert line_of(wrong, "sure").startswith("sure answers: none of the images")
    lone = held_out_lines(model_of(codes, codes, confidence=0.99, lone=np.array([2])))
    assert line_of(lone, "sure").startswith("sure answers: none, as long as a class has")


@pytest.mark.parametrize(
    ("n_classes", "n_wrong", "words"),
    [
        (6, 0, "correct by class: class 0 4 of 4, class 1 4 of 4, "),
        (7, 1, "correct by class: class 0 3 of 4, class 1 4 of 4, "),
        (8, 0, "correct by class: all images of all 8 classes"),
        (8, 1, "class 5 4 of 4; the other 2: all right"),
        (8, 8, "class 5 3 of 4; the other 2: 75.0 % or more"),
    ],
)
def test_right_classes_are_described_in_words(n_classes, n_wrong, words):
    codes = np.repeat(np.arange(n_classes), 4)
    predicted = codes.copy()
    first = 4 * np.arange(n_wrong)
    predicted[first] = (codes[first] + 1) % n_classes
    names = [f"class {k}" for k in range(n_classes)]
    result = Evaluation([names[c] for c in codes], np.eye(n_classes)[predicted], names)
    line = line_of(evaluation_lines(result), "correct by class")
    assert words in line
    assert "or more" in line if n_wrong == 8 else "or more" not in line


def test_a_class_that_is_only_predicted_wrongly_is_warned_of_too():
    result = Evaluation(["fibre", "matrix"], proba_of([1, 0], 0.8), CLASSES)
    assert warning_lines(result) == [
        "warning: fibre is predicted for 1 image, always wrongly: fibre is not recognised in any "
        "of its 1 image",
        "warning: matrix is predicted for 1 image, always wrongly: matrix is not recognised in any "
        "of its 1 image",
    ]
    assert warning_lines(Evaluation(["ghost"], proba_of([0], 0.8), CLASSES)) == []


@pytest.mark.parametrize(
    ("size", "reason", "changes", "words"),
    [
        (0, "calibration_size is 0", {"tree_gain_": None}, "logistic regression"),
        (
            None,
            "the only group of a class is needed to train it",
            {"n_estimators_": 12},
            "logistic regression, then 12 rounds of boosted trees",
        ),
        (
            0,
            "calibration_size is 0",
            {"n_estimators_": 1, "linear_coef_": None},
            "1 round of boosted trees",
        ),
    ],
)
def test_without_held_out_images_the_classifier_is_named_all_the_same(size, reason, changes, words):
    learner = SimpleNamespace(**(vars(LEARNER) | changes))
    model = SimpleNamespace(held_out_=None, calibration_size=size, boosting_=learner)
    assert held_out_lines(model) == [
        f"accuracy: unknown, because no image was held out ({reason})",
        f"classifier: {words}",
    ]


def test_an_evaluation_says_what_training_images_would_change():
    result = Evaluation(["fibre"] * 4 + ["ghost"], proba_of([0, 0, 1, 0, 0], 0.8), CLASSES)
    assert leakage_text(result, 1) == (
        "1 of 5 images is a training image (the same pixels) and left out; with it, the accuracy "
        "would be 60.0 %"
    )
    assert leakage_text(result, 5) == (
        "5 of 5 images are training images (the same pixels): the result is no forecast for new "
        "images"
    )
    assert not any("interval" in line for line in evaluation_lines(result, forecast=False))
    assert evaluation_lines(result)[-1] == "classes that the model was not trained on: ghost"


def test_an_evaluation_counts_the_images_that_are_unlike_the_training_images():
    result = Evaluation(["fibre"] * 4, proba_of([0, 0, 1, 0], 0.8), CLASSES)
    usual = "about 5 % of usual images are, and more with few training groups"
    counted = f"unlike all training images ({usual})"
    assert unlike_text(result, np.array([False, False, True, False])) == (
        f"1 of 4 images is {counted}; accuracy on the other 3: 100.0 %"
    )
    assert unlike_text(result, np.ones(4, bool)) == f"4 of 4 images are {counted}"
