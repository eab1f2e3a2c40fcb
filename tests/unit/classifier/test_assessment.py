"""Sure answers, images between classes, images unlike all others, and suspect labels."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from typer.testing import CliRunner

from hypervlad import HypercolumnVLAD, MicrographClassifier
from hypervlad.apps.cli import app
from hypervlad.evaluation import confidence_for_error
from hypervlad.models.classifier.answers import judgement_of
from hypervlad.models.classifier.novelty import project_vectors
from hypervlad.results.reports.predictions import possible_classes, prediction_columns

# --- of the classifier --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted_to_more(fitted_once: MicrographClassifier, texture_images: Any) -> MicrographClassifier:
    images, labels = texture_images
    rng = np.random.default_rng(0)
    more = [np.clip(image + rng.normal(0, 0.02, image.shape), 0, 1) for image in images]
    return clone(fitted_once).fit([*images, *more], np.tile(labels, 2))


@pytest.fixture
def model(fitted_to_more: MicrographClassifier) -> MicrographClassifier:
    return copy.deepcopy(fitted_to_more)


@pytest.mark.filterwarnings("ignore:1 of 25 images is blank")
def test_all_classes_are_possible_for_an_image_unlike_the_training_images(
    model: MicrographClassifier, texture_images: Any
) -> None:
    new = [*texture_images[0], np.zeros((20, 20))]
    sets = model.predict_set(new, coverage=0.8)
    assert sets[-1].all()
    assert sets[:-1].mean() < 0.5
    np.testing.assert_array_equal(model.classify(new, coverage=0.8).sets, sets)


@pytest.mark.filterwarnings("ignore:1 of 25 images is blank")
def test_images_are_judged_in_numbers_and_words(
    model: MicrographClassifier, texture_images: Any
) -> None:
    images, _ = texture_images
    new = [*images, np.zeros_like(images[0])]
    noise = np.random.default_rng(0).random(images[0].shape)
    judged = model.judge(new, max_error=0.2)
    n = len(new)
    assert len(judged) == n
    assert judged.kind[-1] == "out_of_distribution", "an empty image is like no texture"
    assert judged.novelty[-1] > 1
    assert judged.reasons[-1] == "blank, all pixels equal"
    assert model.classify(new, max_error=0.2).judgement.reasons == judged.reasons
    assert "unlike all training images" in model.judge([noise], max_error=0.2).reasons[0]
    assert set(judged.kind[:-1]) <= {"sure", "ambiguous"}
    assert (judged.kind == "sure").sum() > n / 2
    np.testing.assert_array_equal(judged.proba, model.predict_proba(new))
    np.testing.assert_array_equal(judged.labels, model.predict(new))
    np.testing.assert_array_equal(judged.nearest[:-1, 0] % len(images), np.arange(n - 1))
    vectors = model.encoder_.transform(new)
    by_fold = [learner.predict_proba(vectors) for learner in model.held_out_.learners]
    confidence = [
        np.mean([proba[i, judged.proba[i].argmax()] for proba in by_fold]) for i in range(n)
    ]
    np.testing.assert_allclose(judged.confidence, confidence)
    sure = (judged.confidence >= judged.threshold) & (judged.novelty <= 1)
    np.testing.assert_array_equal(judged.kind == "sure", sure)


def test_skipped_images_have_answers_without_content(
    model: MicrographClassifier, texture_images: Any, tmp_path: Path
) -> None:
    model.encoder_.set_params(on_error="skip")
    images = [tmp_path / "gone.png", texture_images[0][0]]
    with pytest.warns(UserWarning, match="gone"):
        judged = model.judge(images, 0.2)
    assert judged.kind.tolist() == ["unreadable", "sure"]
    assert judged.labels[0] is None
    assert np.isnan(judged.novelty[0])
    assert (judged.nearest[0] == -1).all()
    with pytest.warns(UserWarning, match="gone"):
        assert model.predict_set(images).any(axis=1).tolist() == [False, True]
    found = model.classify(images, coverage=0.8, max_error=0.2)  # no warning
    assert found.images.positions.tolist() == [1]
    with pytest.raises(ValueError, match="coverage is a share"):
        model.classify(images[:1], coverage=80)


def test_classify_gives_the_answers_of_the_other_methods(
    model: MicrographClassifier, texture_images: Any
) -> None:
    images, _ = texture_images
    plain = model.classify(images)
    assert list(prediction_columns(plain, model.classes_)) == ["unlike_training", "novelty"]
    np.testing.assert_array_equal(plain.novelty, model.judge(images, 0.2).novelty)
    np.testing.assert_array_equal(plain.proba, model.predict_proba(images))
    found = model.classify(images, coverage=0.8, max_error=0.2)
    columns = prediction_columns(found, model.classes_)
    assert list(columns) == ["unlike_training", "novelty", "possible", "kind", "reason"]
    assert columns["possible"][0] == "|".join(model.classes_[model.predict_set(images, 0.8)[0]])


def test_images_between_classes_name_them(model: MicrographClassifier, texture_images: Any) -> None:
    vectors = model.encoder_.transform(texture_images[0])
    proba, points = model.predict_proba(texture_images[0]), project_vectors(vectors)
    confidence = np.full(len(proba), 0.4)
    judged = judgement_of(model.classes_, proba, confidence, points, model.training_, 1.1)
    assert set(judged.kind) == {"ambiguous"}
    top = judged.proba[0].argsort()[::-1]
    first, second = (str(model.classes_[k]) for k in top[:2])
    assert judged.reasons[0].startswith(f"between {first} (")
    assert second in judged.reasons[0]
    assert (
        "models trained without some images have a confidence of 40.0 %, and sure"
        in judged.reasons[0]
    )


def test_a_model_that_cannot_give_sure_answers_says_so(
    model: MicrographClassifier, texture_images: Any
) -> None:
    vectors = model.encoder_.transform(texture_images[0])
    with pytest.warns(UserWarning, match="no answer is sure"):
        judged = model.judge_vectors(vectors, 1e-6)
    assert set(judged.kind) == {"ambiguous"}
    assert "with this model no answer is sure" in judged.reasons[0]


def test_what_is_more_probably_wrong_than_right_is_not_sure(
    model: MicrographClassifier, texture_images: Any
) -> None:
    """However many of the other answers are right."""
    vectors = model.encoder_.transform(texture_images[0])
    mean = vectors.mean(axis=0, keepdims=True)
    judged = model.judge_vectors(np.concatenate([vectors, mean]), 0.9)
    assert judged.threshold >= 0.5
    assert (judged.proba[judged.kind == "sure"].max(axis=1) >= 0.5).all()


@pytest.mark.slow  # cross-fitted models
def test_swapped_labels_are_suspect(tiny_encoder: HypercolumnVLAD, texture_images: Any) -> None:
    images, labels = texture_images
    rng = np.random.default_rng(0)
    many = [np.clip(im + rng.normal(0, 0.05, im.shape), 0, 1) for im in images for _ in range(3)]
    truth = np.repeat(labels, 3)
    wrong = truth.copy()
    swapped = np.arange(0, len(truth), 12)
    wrong[swapped] = np.where(truth[swapped] == truth[0], truth[-1], truth[0])
    model = MicrographClassifier(tiny_encoder, random_state=0).fit(many, wrong)
    issues = model.label_issues()
    assert len({issue.position for issue in issues} & set(swapped.tolist())) >= len(swapped) - 1
    assert len(issues) <= 2 * len(swapped)
    for issue in issues:
        assert issue.label == wrong[issue.position]
        assert issue.likely != issue.label
        assert issue.p_label < issue.p_likely
    scores = [issue.p_label for issue in issues]
    assert scores == sorted(scores)


def test_what_was_never_held_out_is_not_called_judged(
    model: MicrographClassifier, texture_images: Any, tmp_path: Path
) -> None:
    images, labels = texture_images
    model.set_params(calibration_size=0.25).fit(images, labels)
    model.save(tmp_path / "m.hvlad", include_backbone=True)
    done = CliRunner().invoke(app, ["suspects", str(tmp_path / "m.hvlad")])
    n_judged = len(model.held_out_)
    assert 0 < n_judged < len(images)
    assert f"of {n_judged} labels are suspect" in done.stderr
    assert f"{len(images) - n_judged} others not examined, because never held out" in done.stderr
    assert done.stdout.startswith("path,label")


def test_held_out_images_are_compared_with_their_own_labels(
    model: MicrographClassifier, texture_images: Any
) -> None:
    images, labels = texture_images
    held_out, result = model.held_out_, model.held_out_evaluation()
    positions = model.training_.positions[held_out.rows]
    assert result.true == [str(labels[i % len(labels)]) for i in positions]
    np.testing.assert_array_equal(result.proba, held_out.proba)
    assert result.accuracy == (held_out.proba.argmax(axis=1) == held_out.codes).mean()
    assert result.groups is None, "each image is its own group"
    model.fit(images, labels, groups=[i // 2 for i in range(len(images))])
    assert len(set(model.held_out_evaluation().groups)) == len(images) // 2
    for fold, learner in enumerate(model.held_out_.learners):
        own = model.held_out_.models == fold
        vectors = model.encoder_.transform(
            [images[i] for i in model.training_.positions[model.held_out_.rows[own]]]
        )
        np.testing.assert_allclose(
            model.held_out_evaluation().proba[own], learner.predict_proba(vectors), atol=1e-5
        )


@pytest.mark.parametrize("max_error", [0.05, 0.2, 0.5])
def test_sure_answers_are_counted_one_by_one(model: MicrographClassifier, max_error: float) -> None:
    held_out = model.held_out_
    found = held_out.sure_answers(max_error)
    confidence = confidence_for_error(held_out.calibration, max_error)
    sure = [
        (row.argmax() == code)
        for row, code in zip(held_out.proba, held_out.codes, strict=True)
        if row.max() >= max(confidence, 0.5)
    ]
    assert found == (max_error, max(confidence, 0.5), len(sure), len(sure) - sum(sure))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        vectors = np.zeros((1, model.encoder_.n_features_out_))
        assert model.judge_vectors(vectors, max_error).threshold == found.threshold


def test_the_seconds_of_each_stage_are_known_after_fit(
    model: MicrographClassifier, texture_images: Any
) -> None:
    assert all(seconds > 0 for seconds in model.fit_seconds_.values())
    assert list(model.fit_seconds_)[-1] == "cross-fitted learners"
    model.set_params(calibration_size=0).fit(*texture_images)
    assert list(model.fit_seconds_) == ["codebook", "encoding", "learner"]
    with pytest.raises(
        ValueError, match=r"cannot tell its accuracy: .* with a calibration size of 0"
    ):
        model.held_out_evaluation()


@pytest.mark.filterwarnings("ignore:with a coverage of 0.99:UserWarning")
def test_names_with_the_sign_between_them_can_be_told_apart(
    model: MicrographClassifier, texture_images: Any
) -> None:
    images, _ = texture_images
    model.boosting_.classes_ = np.array([f"{name}|x" for name in model.classes_])
    model.classes_ = model.boosting_.classes_
    found = model.classify(images, coverage=0.99)
    assert found.sets is not None
    possible = possible_classes(found.sets, model.classes_)
    columns = prediction_columns(found, model.classes_)
    for names, written in zip(possible, columns["possible"], strict=True):
        assert re.split(r"(?<!\\)\|", written) == [name.replace("|", r"\|") for name in names]
    assert max(map(len, possible)) > 1
