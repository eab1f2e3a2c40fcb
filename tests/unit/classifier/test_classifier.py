"""Images in, classes out: conformance, groups, files, skipped images, real micrographs."""

import numpy as np
import PIL.Image
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from support.counting import CountingImage, count_passes

import hypervlad
from hypervlad import BoostedSoftmaxClassifier, ImageReadError
from hypervlad.images import SkippedImagesWarning, TrainingImagesWarning
from hypervlad.models import NeverPredictedWarning


def test_it_learns_and_its_probabilities_are_probabilities(model, texture_images):
    images, labels = texture_images
    assert model.fit(images[:18], labels[:18]).score(images[18:], labels[18:]) == 1
    np.testing.assert_allclose(model.predict_proba(images[18:]).sum(axis=1), 1, rtol=1e-5)
    assert model.classes_.tolist() == ["flat", "rings", "stripes"]
    np.testing.assert_array_equal(
        model.predict(images), model.classes_[model.predict_proba(images).argmax(1)]
    )
    assert model.decision_function(images).shape == (24, 3)


def test_an_image_of_no_weight_is_left_out_of_everything(model, texture_images):
    images, labels = texture_images
    weights, groups = np.where(np.arange(24) % 5 == 1, 0.0, 1.0), np.arange(24) // 2
    model.fit(images, labels, weights, groups=groups)
    kept = np.flatnonzero(weights)
    fewer = clone(model).fit([images[i] for i in kept], labels[kept], groups=groups[kept])
    assert model.n_images_ == len(kept)
    np.testing.assert_array_equal(model.predict_proba(images), fewer.predict_proba(images))


def test_a_fit_that_fails_leaves_the_model_as_it_was_and_a_loaded_one_can_be_fitted(
    model, texture_images, tmp_path
):
    images, labels = texture_images
    before = model.fit(images, labels).predict_proba(images)
    with pytest.raises(ImageReadError):
        model.fit([*images[:-1], tmp_path / "absent.png"], labels)
    np.testing.assert_array_equal(model.predict_proba(images), before)
    model.save(tmp_path / "m.hvlad")
    again = clone(hypervlad.load(tmp_path / "m.hvlad")).fit(images, labels)
    np.testing.assert_array_equal(again.predict_proba(images), before)


def test_skipped_images_are_left_out_and_marked(model, texture_images, tmp_path):
    images, labels = texture_images
    (bad := tmp_path / "bad.tif").touch()
    mixed = [bad, *images]
    model.set_params(encoder__on_error="skip")
    with pytest.warns(SkippedImagesWarning):
        model.fit(mixed, ["flat", *labels], groups=np.arange(25))
    assert model.n_images_ == 24
    with pytest.warns(SkippedImagesWarning):
        predicted = model.predict(mixed)
    assert predicted[0] is None
    assert predicted[1:].tolist() == model.predict(images).tolist()
    for answer in (model.predict_proba, model.decision_function):
        with pytest.warns(SkippedImagesWarning):
            assert np.isnan(answer(mixed)[0]).all()
    with pytest.warns(SkippedImagesWarning), pytest.warns(TrainingImagesWarning):
        assert model.score(mixed, ["rings", *model.predict(images)]) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": ["a"] * 23}, "23 labels .* for 24 images"),
        ({"y": ["a"] * 24}, "one class only"),
        ({"groups": [1, 2]}, "2 groups values for 24 images"),
        ({"y": ["a"] * 12 + ["b"] * 11 + [float("nan")]}, r"y\[23\] is missing"),
        ({"y": None}, "requires y to be passed"),
        ({"sample_weight": [-1.0] + [1.0] * 23}, "image 0 has -1.0"),
        ({"sample_weight": [0.0] * 24}, "all weights are zero"),
        ({"y": np.linspace(0, 1, 24)}, "Unknown label type|continuous"),
        ({"groups": ["a"] * 23 + [np.nan]}, "group"),
        ({"boosting": BoostedSoftmaxClassifier(learning_rate=3)}, "learning_rate"),
        ({"boosting": BoostedSoftmaxClassifier(prior={"a": 1})}, "prior must name every class"),
        ({"boosting": SVC()}, "with predict_proba or None, not SVC"),
        (
            {"boosting": KNeighborsClassifier(), "sample_weight": np.ones(24)},
            "KNeighborsClassifier, takes none",
        ),
    ],
)
def test_bad_input_is_reported_before_images_are_read(change, words, model, texture_images):
    images, labels = [CountingImage(image) for image in texture_images[0]], texture_images[1]
    call = {"y": labels} | {k: v for k, v in change.items() if k not in model.get_params()}
    model.set_params(**{k: v for k, v in change.items() if k in model.get_params()})
    with pytest.raises(ValueError, match=words):
        model.fit(images, **call)
    assert not any(image.n_reads for image in images)


# --- other learners ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "learner",
    [RandomForestClassifier(n_estimators=5), make_pipeline(PCA(4), LogisticRegression(C=100))],
)
def test_any_classifier_with_probabilities_learns_and_is_seeded(learner, model, texture_images):
    images, labels = texture_images
    model.set_params(boosting=learner)
    with pytest.warns(UserWarning, match="takes no groups: its own inner splits"):
        model.fit(images[:18], labels[:18], groups=np.arange(18))
    first = model.predict_proba(images)
    assert model.score(images[18:], labels[18:]) > 0.8
    assert model.classes_.tolist() == ["flat", "rings", "stripes"]
    again = clone(model).fit(images[:18], labels[:18]).predict_proba(images)
    np.testing.assert_array_equal(first, again)
    assert not hasattr(learner, "classes_")
    assert hasattr(model, "decision_function") == (type(learner) is not RandomForestClassifier)


def test_weights_reach_another_learner(model, texture_images):
    images, labels = texture_images
    model.set_params(boosting=GradientBoostingClassifier(n_estimators=3))
    unweighted = clone(model).fit(images, labels).predict_proba(images).mean(axis=0)
    weights = np.where(labels == "rings", 9.0, 1.0)
    with pytest.warns(NeverPredictedWarning):
        model = clone(model).fit(images, labels, sample_weight=weights)
    assert model.predict_proba(images).mean(axis=0)[1] > unweighted[1] + 0.2


def test_a_class_that_is_never_predicted_is_named(model, texture_images):
    """Three images of another class cannot be told from those of their own."""
    images, labels = texture_images
    odd = labels.astype(object)
    odd[np.flatnonzero(labels == "flat")[:3]] = 7
    with pytest.warns(NeverPredictedWarning) as warned:
        model.fit(images, [str(label) for label in odd])
    (message,) = [str(each.message) for each in warned]
    assert model.held_out_evaluation().never_predicted == ["7"]
    assert message.startswith("a class is never predicted for the 24 images held out in training: ")
    assert ": 7. More images of such a class" in message
    assert warned[0].filename == __file__
    model.set_params(calibrate=False).fit(images, [str(label) for label in odd])  # no warning


@pytest.mark.filterwarnings("ignore:pixels of another type:UserWarning")
def test_blank_training_images_are_named(model, texture_images, tmp_path):
    images, labels = texture_images
    given = [*images[1:], *(np.full((20, 24), grey) for grey in (0.1, 0.6))]
    given.append(tmp_path / "missed.png")
    PIL.Image.fromarray(np.full((20, 24, 3), 40, np.uint8)).save(given[-1])
    model.set_params(encoder__memory=tmp_path / "cache")
    for _ in range(2):  # the second time, the file is known to the cache
        with pytest.warns(UserWarning, match=r"3 of 26 training images are blank.*Leave them out"):
            model.fit(given, [*labels[1:], *labels[:3]])
    with pytest.warns(UserWarning, match="blank, all pixels equal: image 7. Leave it out") as found:
        model.fit([*images[:7], np.zeros((20, 24)), *images[8:]], labels)
    assert found[0].filename == __file__
    names = rf"{given[-1]}, image 2 of the list \(counted from 0\)\. What is computed from such"
    with pytest.warns(UserWarning, match=f"^2 of 3 images are blank, all pixels equal: {names}"):
        model.predict_proba([given[-1], images[0], np.ones((20, 24, 3))])


@pytest.mark.parametrize(("seed", "with_forest"), [(0, False), (2, True)])
@pytest.mark.filterwarnings("ignore:the learner, a Random:UserWarning")
@pytest.mark.filterwarnings("ignore::hypervlad.models.NeverPredictedWarning")
def test_neither_order_nor_names_change_the_model_and_what_is_held_out(
    model, texture_images, tmp_path, seed, with_forest
):
    if with_forest:  # it depends on the order of its rows
        model.set_params(boosting=RandomForestClassifier(5))
    rng, labels = np.random.default_rng(seed), texture_images[1]
    paths = []
    for i, image in enumerate(texture_images[0]):
        noisy = np.clip(255 * (image + 0.3 * rng.standard_normal(image.shape)), 0, 255)
        paths.append(tmp_path / f"{i}.png")
        PIL.Image.fromarray(noisy.astype(np.uint8)).save(paths[-1])
    groups = np.arange(24) // 2
    model.set_params(random_state=seed)
    first = clone(model).fit(paths, labels, groups=groups)

    order = rng.permutation(24)
    (tmp_path / "renamed").mkdir()
    renamed = [paths[i].rename(tmp_path / "renamed" / f"{rng.integers(1e9)}.png") for i in order]
    named = [f"group {1000 - groups[i]}" for i in order]
    second = clone(model).fit(renamed, labels[order], groups=named)

    def by_image(fitted, positions):
        rows = fitted.training_.positions[fitted.held_out_.rows]
        return dict(zip(positions[rows].tolist(), fitted.held_out_.proba, strict=True))

    expected, found = by_image(first, np.arange(24)), by_image(second, order)
    assert found.keys() == expected.keys()
    for image, proba in expected.items():
        np.testing.assert_allclose(found[image], proba, atol=1e-6)
    accuracies = [each.held_out_evaluation().balanced_accuracy for each in (first, second)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1e-12)


# --- how often an image is read -------------------------------------------------------------------


def test_all_answers_need_one_pass_also_in_chunks(model, texture_images, tmp_path, monkeypatch):
    model.set_params(encoder__on_error="skip").fit(*texture_images)
    passes = count_passes(monkeypatch)
    counted = [CountingImage(image) for image in texture_images[0]]
    images, options = [*counted, tmp_path / "gone.png"], {"coverage": 0.8, "max_error": 0.3}
    progress = []
    chunks = model.classify(images, chunk_size=8, progress=progress.append, **options)
    assert [image.n_reads for image in counted] == [1] * 24
    assert (sum(passes), progress) == (24, [8, 8, 8, 1])
    whole = model.classify(images, **options)
    np.testing.assert_allclose(chunks.proba, whole.proba, atol=1e-6)
    np.testing.assert_array_equal(chunks.sets, whole.sets)
    np.testing.assert_array_equal(chunks.judgement.kind, whole.judgement.kind)
    assert chunks.images.positions.tolist() == whole.images.positions.tolist() == list(range(24))
    assert [skipped.position for skipped in chunks.images.skipped] == [24]
    assert chunks.images.vectors.shape == (24, 0)
    with pytest.warns(SkippedImagesWarning):
        chunks.images.warn()
    for size in (0, 2.5):
        with pytest.raises(ValueError):
            model.classify(images, chunk_size=size)
