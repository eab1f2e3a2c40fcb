"""Images in, classes out: conformance, groups, files, skipped images, real micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, precision_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted

import hypervlad
from hypervlad import (
    BoostedSoftmaxClassifier,
    HypercolumnVLAD,
    ImageReadError,
    MicrographClassifier,
    ModelFileError,
)
from hypervlad.images import SkippedImagesWarning
from hypervlad.models import NeverPredictedWarning, default_encoder
from hypervlad.models.classifier import TrainingImagesWarning

Images = tuple[list[np.ndarray], np.ndarray]


def test_it_learns_and_its_probabilities_are_probabilities(
    model: MicrographClassifier, texture_images: Images
) -> None:
    images, labels = texture_images
    model.fit(images[:18], labels[:18])
    assert model.score(images[18:], labels[18:]) == 1
    proba = model.predict_proba(images[18:])
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert model.classes_.tolist() == ["flat", "rings", "stripes"]
    np.testing.assert_array_equal(
        model.predict(images), model.classes_[model.predict_proba(images).argmax(1)]
    )
    assert model.decision_function(images).shape == (24, 3)


def test_paths_and_arrays_are_the_same(
    model: MicrographClassifier, texture_images: Images, tmp_path: Path
) -> None:
    arrays = [np.round(255 * image).astype(np.uint8) for image in texture_images[0]]
    paths = [str(tmp_path / f"{i}.png") for i in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        PIL.Image.fromarray(array).save(path)
    model.fit(paths, texture_images[1])
    np.testing.assert_array_equal(model.predict_proba(paths), model.predict_proba(arrays))


def test_an_image_of_no_weight_is_left_out_of_everything(
    model: MicrographClassifier, texture_images: Images
) -> None:
    images, labels = texture_images
    weights = np.where(np.arange(24) % 5 == 1, 0.0, 1.0)
    groups = np.arange(24) // 2
    model.fit(images, labels, weights, groups=groups)
    kept = np.flatnonzero(weights)
    fewer = clone(model).fit([images[i] for i in kept], labels[kept], groups=groups[kept])
    assert model.n_images_ == len(kept)
    np.testing.assert_array_equal(model.predict_proba(images), fewer.predict_proba(images))


def test_a_fit_that_fails_leaves_the_model_as_it_was(
    model: MicrographClassifier, texture_images: Images, tmp_path: Path
) -> None:
    images, labels = texture_images
    before = model.fit(images, labels).predict_proba(images)
    with pytest.raises(ImageReadError, match=r"absent\.png"):
        model.fit([*images[:-1], tmp_path / "absent.png"], labels)
    np.testing.assert_array_equal(model.predict_proba(images), before)


def test_verbose_reaches_the_parts_that_were_given(
    model: MicrographClassifier, texture_images: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = texture_images
    assert not model.fit(images, labels).encoder_.verbose
    assert not capsys.readouterr().err
    assert model.set_params(verbose=2).fit(images, labels).encoder_.verbose
    printed = capsys.readouterr().err
    assert "boosted softmax" in printed
    assert "fit: codebook" in printed
    assert not model.encoder.verbose


def test_each_part_of_the_vectors_gets_a_linear_model(
    model: MicrographClassifier, texture_images: Images
) -> None:
    images, labels = texture_images
    blocks = ("joint", "per_layer", "pooled")
    model.set_params(encoder__blocks=blocks).fit(images, labels)
    assert tuple(model.encoder_.feature_blocks) == blocks
    assert model.boosting_.C_ is not None
    assert len(model.boosting_.C_) == len(model.boosting_.block_weights_) == 3
    margins = model.encoder_.transform(images) @ model.boosting_.linear_coef_
    assert model.boosting_.n_estimators_ == 0
    np.testing.assert_allclose(
        margins + model.boosting_.linear_intercept_, model.decision_function(images), atol=1e-5
    )


def test_default_encoder() -> None:
    encoder = default_encoder(n_codewords=8)
    changed = encoder.get_params().items() - HypercolumnVLAD().get_params().items()
    blocks = ("joint", "per_layer", "pooled_unit")
    assert dict(changed) == {"blocks": blocks, "turns": 2, "n_codewords": 8}


def test_the_default_learner_and_labels_that_are_booleans(
    tiny_encoder: HypercolumnVLAD, texture_images: Images, tmp_path: Path
) -> None:
    images, labels = texture_images
    model = MicrographClassifier(tiny_encoder, calibration_size=0).fit(images, labels == "flat")
    assert model.boosting_.prior == "sqrt"
    model.save(tmp_path / "m.hvlad")
    assert hypervlad.load(tmp_path / "m.hvlad").predict(images[:2]).dtype == bool


@pytest.mark.slow  # several models are fitted
@pytest.mark.parametrize(
    ("blocks", "include_backbone"),
    [(["joint"], True), (["joint", "per_layer", "pooled"], False)],
)
def test_saved_and_loaded_predicts_bit_identically(
    blocks: list[str],
    include_backbone: bool,
    model: MicrographClassifier,
    texture_images: Images,
    tmp_path: Path,
) -> None:
    images, labels = texture_images
    model.set_params(encoder__blocks=blocks, encoder__turns=2).fit(images, labels)
    path = tmp_path / "m.hvlad"
    model.save(path, include_backbone=include_backbone)
    loaded = hypervlad.load(path)
    for method in ("predict", "predict_proba", "decision_function"):
        np.testing.assert_array_equal(
            getattr(loaded, method)(images), getattr(model, method)(images)
        )
    loaded.save(tmp_path / "again.hvlad", include_backbone=include_backbone)
    assert (tmp_path / "again.hvlad").read_bytes() == path.read_bytes()
    assert loaded.random_state == model.random_state
    again = clone(loaded).fit(images, labels)
    assert again.encoder_.get_params()["n_codewords"] == 4
    np.testing.assert_array_equal(again.predict_proba(images), model.predict_proba(images))


@pytest.mark.slow  # a search of several models
def test_scikit_learns_searches_take_lists_of_images(
    model: MicrographClassifier, texture_images: Images
) -> None:
    images, labels = texture_images
    assert cross_val_score(model, images, labels, cv=2).mean() > 0.9
    model.set_params(boosting=BoostedSoftmaxClassifier(), calibration_size=0)
    search = GridSearchCV(model, {"encoder__n_codewords": [2], "boosting__Cs": [1.0, 10.0]}, cv=2)
    assert search.fit(images, labels).best_score_ > 0.9


def test_skipped_images_are_left_out_and_marked(
    model: MicrographClassifier, texture_images: Images, tmp_path: Path
) -> None:
    images, labels = texture_images
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"")
    mixed = [bad, *images]
    model.set_params(encoder__on_error="skip")
    with pytest.warns(SkippedImagesWarning, match=r"bad\.tif"):
        model.fit(mixed, ["flat", *labels], groups=np.arange(25))
    assert model.n_images_ == 24
    with pytest.warns(SkippedImagesWarning):
        predicted = model.predict(mixed)
    assert predicted[0] is None
    assert predicted[1:].tolist() == model.predict(images).tolist()
    with pytest.warns(SkippedImagesWarning):
        assert np.isnan(model.predict_proba(mixed)[0]).all()
    with pytest.warns(SkippedImagesWarning):
        assert np.isnan(model.decision_function(mixed)[0]).all()
    with pytest.warns(SkippedImagesWarning), pytest.warns(TrainingImagesWarning):
        assert model.score(mixed, ["rings", *model.predict(images)]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": ["a"] * 23}, "23 labels .* for 24 images"),
        ({"y": ["a"] * 24}, "class"),
        ({"groups": [1, 2]}, "2 groups values for 24 images"),
        ({"encoder": "vgg16"}, "encoder must be a HypercolumnVLAD or None, not 'vgg16'"),
        ({"y": ["a"] * 12 + ["b"] * 11 + [float("nan")]}, r"y\[23\] is missing"),
        ({"y": None}, "requires y to be passed"),
        ({"sample_weight": [-1.0] + [1.0] * 23}, "image 0 has -1.0"),
        ({"sample_weight": [0.0] * 24}, "all weights are zero"),
        ({"y": np.linspace(0, 1, 24)}, "Unknown label type|continuous"),
        ({"groups": ["a"] * 23 + [np.nan]}, "group"),
        ({"boosting": BoostedSoftmaxClassifier(learning_rate=3)}, "learning_rate"),
        ({"boosting": SVC()}, "with predict_proba or None, not SVC"),
        (
            {"boosting": KNeighborsClassifier(), "sample_weight": np.ones(24)},
            "KNeighborsClassifier, takes none",
        ),
    ],
)
def test_bad_input_is_reported_before_images_are_encoded(
    change: dict[str, Any],
    message: str,
    model: MicrographClassifier,
    texture_images: Images,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = texture_images
    call = {"y": labels} | {k: v for k, v in change.items() if k not in model.get_params()}
    model.set_params(**{k: v for k, v in change.items() if k in model.get_params()})
    monkeypatch.setattr(HypercolumnVLAD, "fit", _encoded_too_early)
    with pytest.raises(ValueError, match=message):
        model.fit(images, **call)


def _encoded_too_early(*_: object) -> None:
    raise AssertionError("images were encoded before the input was checked")


def test_frames_requested_elsewhere_do_not_matter(
    model: MicrographClassifier, texture_images: Images, tmp_path: Path
) -> None:
    import sklearn

    images, labels = texture_images
    expected = clone(model).fit(images, labels).predict_proba(images)
    model.encoder.set_output(transform="pandas")
    with sklearn.config_context(transform_output="pandas"):
        model.fit(images, labels).save(tmp_path / "m.hvlad")
        np.testing.assert_array_equal(model.predict_proba(images), expected)
        loaded = hypervlad.load(tmp_path / "m.hvlad")
        np.testing.assert_array_equal(loaded.predict_proba(images), expected)


def test_bare_strings_and_unfitted_models_are_reported(model: MicrographClassifier) -> None:
    with pytest.raises(ImageReadError, match="wrap it in a list"):
        model.fit("a.png", ["a"])
    with pytest.raises(ValueError, match="not fitted"):
        model.predict(["a.png"])
    with pytest.raises(ValueError, match="not fitted"):
        check_is_fitted(model)


def test_a_learner_that_does_not_fit_the_encoder_is_reported(
    fitted_model: MicrographClassifier,
) -> None:
    header, arrays = fitted_model.to_state()
    learner = header["fitted"]["boosting_"]["state"]["fitted"]
    learner["n_features_in_"], learner["linear_coef_"]["shape"] = 48, [48, 3]
    learner["block_widths_"] = [48]
    arrays["boosting_.linear_coef_"] = np.zeros((48, 3))
    with pytest.raises(ModelFileError, match="the learner takes 48 features where the encoder"):
        MicrographClassifier.from_state(header, arrays)


# --- other learners ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "learner",
    [
        RandomForestClassifier(n_estimators=5),
        make_pipeline(PCA(4), LogisticRegression(C=100)),
    ],
)
def test_any_classifier_with_probabilities_learns_and_is_seeded(
    learner: Any, model: MicrographClassifier, texture_images: Images
) -> None:
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


def test_margins_are_there_if_the_learner_has_them(
    model: MicrographClassifier, texture_images: Images
) -> None:
    images, labels = texture_images
    assert hasattr(model, "decision_function")
    model.set_params(boosting=RandomForestClassifier(n_estimators=3)).fit(images, labels)
    assert not hasattr(model, "decision_function")
    model.set_params(boosting=GradientBoostingClassifier(n_estimators=3)).fit(images, labels)
    assert model.decision_function(images).shape == (24, 3)


def test_weights_reach_another_learner(model: MicrographClassifier, texture_images: Images) -> None:
    images, labels = texture_images
    model.set_params(boosting=GradientBoostingClassifier(n_estimators=3))
    unweighted = clone(model).fit(images, labels).predict_proba(images).mean(axis=0)
    weights = np.where(labels == "rings", 9.0, 1.0)
    with pytest.warns(NeverPredictedWarning, match="24 images held out in training: flat, stripe"):
        model = clone(model).fit(images, labels, sample_weight=weights)
    assert model.predict_proba(images).mean(axis=0)[1] > unweighted[1] + 0.2


def test_a_class_that_is_never_predicted_is_named(
    model: MicrographClassifier, texture_images: Images
) -> None:
    """Three images of another class cannot be told from those of their own."""
    images, labels = texture_images
    odd = labels.astype(object)
    odd[np.flatnonzero(labels == "flat")[:3]] = 7
    with pytest.warns(NeverPredictedWarning) as warned:
        model.fit(images, [str(label) for label in odd])
    (message,) = [str(each.message) for each in warned]
    names = model.held_out_evaluation().never_predicted
    assert names == ["7"]
    assert message.startswith("a class is never predicted for the 24 images held out in training: ")
    assert ": 7. More images of such a class" in message
    assert warned[0].filename == __file__
    model.set_params(calibration_size=0).fit(images, [str(label) for label in odd])  # no warning


@pytest.mark.parametrize("size", [None, 0.25])
def test_blank_training_images_are_named(
    model: MicrographClassifier, texture_images: Images, size: float | None, tmp_path: Path
) -> None:
    images, labels = texture_images
    given: list[Any] = [*images[1:], *(np.full((20, 24), grey) for grey in (0.1, 0.6))]
    given.append(tmp_path / "missed.png")
    PIL.Image.fromarray(np.full((20, 24, 3), 40, np.uint8)).save(given[-1])
    model.set_params(calibration_size=size, encoder__memory=tmp_path / "cache")
    for _ in range(2):  # the second time, the file is known to the cache
        with pytest.warns(UserWarning, match=r"3 of 26 training images are blank.*Leave them out"):
            model.fit(given, [*labels[1:], *labels[:3]])
    with pytest.warns(UserWarning, match="blank, all pixels equal: image 7. Leave it out") as found:
        model.fit([*images[:7], np.zeros((20, 24)), *images[8:]], labels)
    assert found[0].filename == __file__
    names = rf"{given[-1]}, image 2 of the list \(counted from 0\)\. What is computed from such"
    with pytest.warns(UserWarning, match=f"^2 of 3 images are blank, all pixels equal: {names}"):
        model.predict_proba([given[-1], images[0], np.ones((20, 24, 3))])


def test_a_model_with_another_learner_cannot_be_saved(
    model: MicrographClassifier, texture_images: Images, tmp_path: Path
) -> None:
    images, labels = texture_images
    path = tmp_path / "model.hvlad"
    path.write_bytes(b"what was there")
    model.set_params(boosting=RandomForestClassifier(n_estimators=3)).fit(images, labels)
    with pytest.raises(ModelFileError, match="RandomForestClassifier cannot be saved"):
        model.save(path)
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]


class _Contrary(LogisticRegression):
    """Its probabilities contradict its margins, as those of support vector machines may."""

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.asarray(super().predict_proba(X)[:, ::-1])


class _MarginPerPair(_Contrary):
    def decision_function(self, X: Any) -> np.ndarray:
        return np.zeros((len(X), 5))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_predict_follows_the_margins_of_a_learner_that_has_them(
    model: MicrographClassifier, texture_images: Images, n_classes: int
) -> None:
    images, labels = texture_images
    kept = np.flatnonzero(np.isin(labels, np.unique(labels)[-n_classes:]))
    images, labels = [images[i] for i in kept], labels[kept]
    model.set_params(boosting=_Contrary(C=100), calibration_size=0).fit(images, labels)
    margins = model.decision_function(images)
    codes = margins.argmax(axis=1) if n_classes > 2 else (margins > 0).astype(int)
    assert model.predict(images).tolist() == model.classes_[codes].tolist() == labels.tolist()
    with pytest.warns(TrainingImagesWarning):
        assert model.score(images, labels) == 1
    model.set_params(boosting=_MarginPerPair(C=100)).fit(images, labels)
    codes = model.predict_proba(images).argmax(axis=1)
    assert model.predict(images).tolist() == model.classes_[codes].tolist()


PRIOR = {"flat": 0.4, "rings": 0.2, "stripes": 0.4}


class _NumbersOnly(LogisticRegression):
    """A learner that takes the classes 0 to k - 1, as xgboost's does."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        if np.unique(y).tolist() != list(range(len(np.unique(y)))):
            raise ValueError(f"Invalid classes inferred from unique values of `y`: {np.unique(y)}")
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize(("kind", "calibration_size"), [(str, None), (int, 0.3), (bool, 0)])
def test_a_learner_may_want_numbers_for_the_classes(
    model: MicrographClassifier, texture_images: Images, kind: type, calibration_size: float | None
) -> None:
    images, names = texture_images
    labels = {str: names, int: 10 * np.unique(names, return_inverse=True)[1], bool: names > "flat"}
    y = labels[kind]
    learner = make_pipeline(StandardScaler(), _NumbersOnly())
    model.set_params(boosting=learner, calibration_size=calibration_size).fit(images, y)
    assert model.classes_.tolist() == np.unique(y).tolist()
    assert np.mean(model.predict(images) == y) > 0.8
    assert model.predict_proba(images).shape == (24, len(np.unique(y)))
    if calibration_size != 0:
        held_out = model.held_out_evaluation()
        assert set(held_out.true) <= {str(label) for label in y.tolist()}
        judged = model.judge(images, max_error=0.4)
        most_probable = model.classes_[judged.proba.argmax(axis=1)]
        assert judged.labels.tolist() == most_probable.tolist()
        assert model.predict_set(images, 0.5).shape == (24, len(np.unique(y)))


def test_class_weights_of_a_learner_are_given_by_label(
    model: MicrographClassifier, texture_images: Images
) -> None:
    images, labels = texture_images
    weights = {"flat": 1.0, "rings": 1e-9, "stripes": 1.0}
    for learner in (
        LogisticRegression(class_weight=weights),
        make_pipeline(StandardScaler(), LogisticRegression(class_weight=weights)),
    ):
        model.set_params(boosting=learner, calibration_size=0).fit(images, labels)
        assert "rings" not in model.predict(images).tolist()
        assert model.get_params()["boosting"] is learner  # unchanged
    model.set_params(boosting=LogisticRegression(class_weight={"Rings": 2.0}))
    with pytest.raises(ValueError, match="a weight for 'Rings', which is none of the classes"):
        model.fit(images, labels)


@pytest.mark.parametrize(
    "learner",
    [
        make_pipeline(StandardScaler(), BoostedSoftmaxClassifier(prior=PRIOR, n_estimators=0)),
        GridSearchCV(LogisticRegression(), {"class_weight": [PRIOR]}, cv=2, error_score="raise"),
        GridSearchCV(
            LogisticRegression(),
            {"C": [1.0]},
            cv=2,
            scoring=make_scorer(precision_score, labels=["rings"], average="macro"),
            error_score="raise",
        ),
    ],
)
def test_parameters_of_a_learner_may_name_labels(
    model: MicrographClassifier, texture_images: Images, learner: Any
) -> None:
    images, labels = texture_images
    model.set_params(boosting=learner, calibration_size=0).fit(images, labels)
    assert model.boosting_.classes_.tolist() == model.classes_.tolist()
    assert np.mean(model.predict(images) == labels) > 0.6


@pytest.mark.parametrize("with_forest", [False, True])
@pytest.mark.parametrize(("calibration_size", "seed"), [(None, 0), (0.4, 1)])
@pytest.mark.filterwarnings("ignore:the learner, a Random:UserWarning")
@pytest.mark.filterwarnings("ignore::hypervlad.models.NeverPredictedWarning")
def test_neither_order_nor_names_change_the_model_and_what_is_held_out(
    model: MicrographClassifier,
    texture_images: Images,
    tmp_path: Path,
    calibration_size: float | None,
    seed: int,
    with_forest: bool,
) -> None:
    if with_forest:  # it depends on the order of its rows
        model.set_params(boosting=RandomForestClassifier(5))
    rng = np.random.default_rng(seed)
    labels = texture_images[1]
    paths = []
    for i, image in enumerate(texture_images[0]):
        noisy = np.clip(255 * (image + 0.3 * rng.standard_normal(image.shape)), 0, 255)
        paths.append(tmp_path / f"{i}.png")
        PIL.Image.fromarray(noisy.astype(np.uint8)).save(paths[-1])
    groups = np.arange(24) // 2
    model.set_params(calibration_size=calibration_size, random_state=seed)
    first = clone(model).fit(paths, labels, groups=groups)

    order = rng.permutation(24)
    (tmp_path / "renamed").mkdir()
    renamed = [paths[i].rename(tmp_path / "renamed" / f"{rng.integers(1e9)}.png") for i in order]
    named = [f"group {1000 - groups[i]}" for i in order]
    second = clone(model).fit(renamed, labels[order], groups=named)

    def by_image(fitted: MicrographClassifier, positions: np.ndarray) -> dict[int, np.ndarray]:
        rows = fitted.training_.positions[fitted.held_out_.rows]
        return dict(zip(positions[rows].tolist(), fitted.held_out_.proba, strict=True))

    expected, found = by_image(first, np.arange(24)), by_image(second, order)
    assert found.keys() == expected.keys()
    for image, proba in expected.items():
        np.testing.assert_allclose(found[image], proba, atol=1e-6)
    accuracies = [each.held_out_evaluation().balanced_accuracy for each in (first, second)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1e-12)
