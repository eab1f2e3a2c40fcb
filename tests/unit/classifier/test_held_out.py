"""Predictions of held-out images: sets, sure answers, judgements, suspect labels, copies."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone

from hypervlad import load
from hypervlad.evaluation import confidence_for_error, prediction_sets
from hypervlad.images import SkippedImagesWarning

LONE = "ignore:Classes with only one or two:UserWarning"


def noisy(textures, n, seed):
    """Textures buried in noise, so that models are wrong at times."""
    images, labels = textures
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(images), n)
    noise = [rng.normal(0, 0.62, images[i].shape) for i in chosen]
    found = [np.clip(images[i] + own, 0, 1) for i, own in zip(chosen, noise, strict=True)]
    return found, labels[chosen]


@pytest.fixture(scope="module")
def of_noisy(fitted_once, texture_images):
    """A model of 200 noisy images; tests leave it as it is."""
    return clone(fitted_once).fit(*noisy(texture_images, 200, 0))


@pytest.fixture(scope="module")
def of_more(fitted_once, texture_images):
    """A model of the textures and of copies with a little noise; tests leave it as it is."""
    images, labels = texture_images
    rng = np.random.default_rng(0)
    more = [np.clip(image + rng.normal(0, 0.02, image.shape), 0, 1) for image in images]
    return clone(fitted_once).fit([*images, *more], np.tile(labels, 2))


def test_folds_are_predicted_by_models_fitted_without_their_groups(model, texture_images):
    """Each learner is one that is fitted to the vectors of the other folds, by hand."""
    images, labels = texture_images
    model.set_params(encoder__blocks=("joint", "pooled"), boosting__random_state=0)
    model.fit(images, labels, groups=np.arange(24) // 2)
    held_out, training = model.held_out_, model.training_
    assert sorted(held_out.rows) == list(range(24))
    vectors = model.encoder_.transform(images)
    widths = list(model.encoder_.feature_blocks.values())
    order = training.positions[held_out.rows]
    assert [labels[i] for i in order] == model.classes_[held_out.codes].tolist()
    for number, learner in enumerate(held_out.learners):
        own = held_out.models == number
        assert own.any()
        assert not set(held_out.groups[own]) & set(held_out.groups[~own])
        rows, again = np.sort(order[~own]), clone(model.boosting_)
        again.fit(vectors[rows], labels[rows], groups=training.groups[rows], blocks=widths)
        proba = learner.predict_proba(vectors)
        np.testing.assert_allclose(proba, again.predict_proba(vectors), atol=5e-3)
        np.testing.assert_allclose(held_out.proba[own], proba[order[own]], atol=1e-5)
    result = model.held_out_evaluation()
    assert result.true == [str(labels[i]) for i in order]
    assert result.accuracy == (held_out.proba.argmax(axis=1) == held_out.codes).mean()
    assert len(set(result.groups)) == 12


def test_nothing_held_out_is_reported_before_images_are_read(model, texture_images, tmp_path):
    images, labels = texture_images
    absent = [tmp_path / "there_is_no_such_file.png"]
    for calibrate, groups, words in (
        (np.False_, None, "cannot tell .* trained with calibrate=False"),
        (True, labels, "takes a class with images of two groups"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model.set_params(calibrate=calibrate).fit(images, labels, groups=groups)
        model.save(tmp_path / "m.hvlad")
        assert model.held_out_ is None
        for each in (model, load(tmp_path / "m.hvlad")):
            for ask in (each.predict_set, each.judge, lambda _, m=each: m.held_out_evaluation()):
                with pytest.raises(ValueError, match=words):
                    ask(absent)


def test_sets_of_a_classifier_cover(model, texture_images):
    images, labels = noisy(texture_images, 90, 0)
    new, truth = noisy(texture_images, 150, 1)
    model.fit(images, labels)
    codes, vectors = np.searchsorted(model.classes_, truth), model.encoder_.transform(new)
    by_learner = np.stack([each.predict_proba(vectors) for each in model.held_out_.learners])
    for coverage in (0.6, 0.9):
        sets = model.predict_set(new, coverage)
        expected = prediction_sets(by_learner, model.held_out_.calibration, coverage)
        expected[np.arange(150), model.predict_proba(new).argmax(axis=1)] = True
        expected[model.classify(new).unlike_training] = True
        np.testing.assert_array_equal(sets, expected)
        held = sets[np.arange(150), codes].mean()
        assert held >= coverage - 0.12, "90 images promise no more than that of one fit"
    with pytest.warns(UserWarning, match="every prediction set has all classes"):
        assert model.predict_set(new, 0.99).all()


@pytest.mark.filterwarnings(LONE)
def test_a_class_that_cannot_be_held_out_is_in_every_set_and_no_answer_is_sure(
    model, texture_images, tmp_path
):
    images, labels = texture_images[0], texture_images[1].astype("U8")
    new, truth = images[1:6], labels[1:6]
    model.fit(images, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judged = model.judge(new, 0.75)
        assert (judged.labels == truth)[judged.kind == "sure"].any()
        assert not model.predict_set(new, 0.5).all(axis=0).any()
    labels[0] = "lone"
    model.fit(images, labels).save(tmp_path / "m.hvlad")
    for each in (model, load(tmp_path / "m.hvlad")):
        assert each.classes_[each.held_out_.lone].tolist() == ["lone"]
        with pytest.warns(UserWarning, match="every prediction set has lone, of which no image"):
            sets = each.predict_set(new, 0.5)
        assert sets[:, each.classes_ == "lone"].all()
        assert not sets.all()
        with pytest.warns(UserWarning, match="no answer is sure.*no image of lone can be held"):
            judged = each.judge(new, 0.75)
        assert set(judged.kind) == {"ambiguous"}
        assert "with this model no answer is sure" in judged.reasons[0]
        assert each.held_out_.sure_answers(0.75).n_sure == 0


@pytest.mark.filterwarnings("ignore:1 of 25 images is blank:UserWarning")
def test_images_are_judged_in_numbers_and_words(of_more, texture_images):
    images, _ = texture_images
    new = [*images, np.zeros_like(images[0])]
    noise = np.random.default_rng(0).random(images[0].shape)
    judged = of_more.judge(new, max_error=0.2)
    assert len(judged) == 25
    assert judged.kind[-1] == "out_of_distribution", "an empty image is like no texture"
    assert judged.novelty[-1] > 1
    assert judged.reasons[-1] == "blank, all pixels equal"
    assert "unlike all training images" in of_more.judge([noise], max_error=0.2).reasons[0]
    assert set(judged.kind[:-1]) <= {"sure", "ambiguous"}
    assert (judged.kind == "sure").sum() > 12
    np.testing.assert_array_equal(judged.nearest[:-1, 0] % 24, np.arange(24))
    vectors, proba = of_more.encoder_.transform(images), of_more.predict_proba(images)
    by_fold = [learner.predict_proba(vectors) for learner in of_more.held_out_.learners]
    confidence = np.mean(by_fold, axis=0)[np.arange(24), proba.argmax(axis=1)]
    np.testing.assert_allclose(judged.confidence[:-1], confidence, atol=1e-6)
    sure = (judged.confidence >= judged.threshold) & (judged.novelty <= 1)
    np.testing.assert_array_equal(judged.kind == "sure", sure)
    found = of_more.classify(new, coverage=0.8, max_error=0.2)
    assert found.judgement.reasons == judged.reasons
    np.testing.assert_array_equal(found.novelty, judged.novelty)
    np.testing.assert_array_equal(found.proba[:-1], proba)
    assert found.sets[-1].all(), "of an image unlike the training images"
    assert found.sets[:-1].mean() < 0.5


def test_skipped_images_have_answers_without_content(of_more, texture_images, tmp_path):
    of_more.encoder_.set_params(on_error="skip")
    images = [tmp_path / "gone.png", texture_images[0][0]]
    with pytest.warns(SkippedImagesWarning):
        judged = of_more.judge(images, 0.2)
    assert judged.kind.tolist() == ["unreadable", "sure"]
    assert judged.labels[0] is None
    assert np.isnan(judged.novelty[0])
    assert (judged.nearest[0] == -1).all()
    with pytest.warns(SkippedImagesWarning):
        assert of_more.predict_set(images).any(axis=1).tolist() == [False, True]
    found = of_more.classify(images, coverage=0.8, max_error=0.2)  # no warning
    assert found.images.positions.tolist() == [1]


def test_what_is_more_probably_wrong_than_right_is_not_sure(of_more):
    """However many of the other answers are right."""
    vectors = of_more.training_.points
    judged = of_more.judge_vectors(np.vstack([vectors, vectors.mean(axis=0)]), 0.9)
    assert judged.threshold >= 0.5
    assert (judged.confidence[judged.kind == "sure"] >= 0.5).all()
    with pytest.warns(UserWarning, match="no answer is sure"):
        judged = of_more.judge_vectors(vectors, 1e-6)
    assert "sure" not in judged.kind
    unsure = judged.reasons[list(judged.kind).index("ambiguous")]
    assert "with this model no answer is sure" in unsure


@pytest.mark.parametrize("max_error", [0.05, 0.2, 0.5])
@pytest.mark.filterwarnings("ignore:no answer is sure:UserWarning")
def test_sure_answers_are_counted_one_by_one(of_noisy, max_error):
    held_out = of_noisy.held_out_
    found = held_out.sure_answers(max_error)
    confidence = max(confidence_for_error(held_out.calibration, max_error), 0.5)
    sure = [
        row.argmax() == code
        for row, code in zip(held_out.proba, held_out.codes, strict=True)
        if row.max() >= confidence
    ]
    assert found == (max_error, confidence, len(sure), len(sure) - sum(sure))
    vectors = of_noisy.training_.points[:1]
    assert of_noisy.judge_vectors(vectors, max_error).threshold == found.threshold


def test_swapped_labels_are_suspect(model, texture_images):
    images, labels = texture_images
    rng = np.random.default_rng(0)
    many = [np.clip(im + rng.normal(0, 0.05, im.shape), 0, 1) for im in images for _ in range(3)]
    truth = np.repeat(labels, 3)
    wrong, swapped = truth.copy(), np.arange(0, len(truth), 12)
    wrong[swapped] = np.where(truth[swapped] == truth[0], truth[-1], truth[0])
    issues = model.fit(many, wrong).label_issues()
    assert len({issue.position for issue in issues} & set(swapped.tolist())) >= len(swapped) - 1
    assert len(issues) <= 2 * len(swapped)
    for issue in issues:
        assert issue.label == wrong[issue.position]
        assert issue.likely != issue.label
        assert issue.p_label < issue.p_likely
    scores = [issue.p_label for issue in issues]
    assert scores == sorted(scores)
