"""The systems of the papers, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier
from support.networks import save_whole, torchvisions_own

import hypervlad
from hypervlad import MicrographClassifier
from hypervlad.models import TransferClassifier
from hypervlad.models.presets import luo2021, modarres2017

Images = tuple[list[np.ndarray], np.ndarray]

PAPER = {
    "encoder__backbone": "vgg16",
    "encoder__weights": "pretrained",
    "encoder__taps": tuple(f"features.{i}" for i in (3, 8, 15, 22, 29)),
    "encoder__image_size": 224,
    "encoder__grid": 5000,
    "encoder__blocks": ("joint",),
    "encoder__sampling": "luo2021",
    "encoder__n_codewords": 100,
    "boosting__n_estimators": 100,
    "boosting__learning_rate": 0.1,
    "boosting__max_depth": 3,
    "boosting__n_iter_no_change": None,
    "boosting__init": None,
    "boosting__class_weight": None,
}


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, {}),
        (
            {"grid": "image", "n_codewords": 64, "n_estimators": 7, "weights": "vgg16.pth"},
            {"encoder__grid": "image", "encoder__n_codewords": 64}
            | {"boosting__n_estimators": 7, "encoder__weights": "vgg16.pth"},
        ),
        (
            {"backbone": "mobilenet_v2"},
            {"encoder__backbone": "mobilenet_v2", "encoder__taps": None},
        ),
        (
            {"n_jobs": 3, "device": "cpu", "memory": "there", "random_state": 5, "verbose": True},
            {"boosting__n_jobs": 3, "encoder__device": "cpu"}
            | {"encoder__memory": "there", "random_state": 5, "verbose": True},
        ),
    ],
)
def test_parameters_are_the_papers_but_for_what_is_named(
    options: dict[str, Any], changed: dict[str, Any]
) -> None:
    parameters = luo2021(**options).get_params()
    expected = PAPER | changed
    assert {name: parameters[name] for name in expected} == expected


@pytest.mark.parametrize("mode", ["features", "finetune"])
def test_modarres2017_is_inception_v3_and_the_classifiers_defaults(mode: Any) -> None:
    changed = {"backbone": "inception_v3", "mode": mode, "trainable": "all"}
    assert modarres2017(mode).get_params() == TransferClassifier().get_params() | changed
    given = {"backbone": "resnet50", "weights": "w.pth", "trainable": "last", "max_epochs": 9}
    given |= {"checkpoint": "c", "device": "cpu", "n_jobs": 2, "verbose": True}
    parameters = modarres2017(mode, **given, random_state=3).get_params()
    assert {name: parameters[name] for name in given} == given


@pytest.mark.full  # Inception at 299 pixels
@pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning")
def test_modarres2017_learns_at_299_pixels() -> None:
    images = list(np.random.default_rng(0).random((6, 60, 80), dtype=np.float32))
    model = modarres2017(weights="random", max_epochs=1, random_state=0)
    model.fit(images, ["film", "tip"] * 3)
    assert model.image_size_ == 299
    assert model.head_.coef.shape == (2048, 2)


@pytest.mark.full  # VGG-16, and a vector of 147,200 features
def test_147200_features_normalised_within_codewords_then_as_a_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.random((60, 60)).astype(np.float32) ** (i + 1) for i in range(4)]
    weights = save_whole(torchvisions_own("vgg16"), tmp_path / "w.pth")
    model = luo2021(weights=weights, grid=60, n_estimators=1, random_state=0)
    model.set_params(encoder__image_size=64)
    with pytest.warns(UserWarning, match="one or two different samples"):
        model.fit(images, ["a", "a", "b", "b"])
    codebook = model.encoder_.codebook_
    assert [len(p.mean) for p in codebook.projections] == [64, 128, 256, 512, 512]
    assert codebook.joint.shape == (100, 1472)
    vectors = model.encoder_.transform(images)
    assert vectors.shape == (4, 147_200)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    # All of one length, as if the codewords were normalised first; empty codewords stay zero.
    for vector in vectors:
        lengths = np.linalg.norm(vector.reshape(100, 1472), axis=1)
        lengths = lengths[lengths > 0]
        assert len(lengths) > 10
        np.testing.assert_allclose(lengths, len(lengths) ** -0.5, rtol=1e-4)


@pytest.mark.parametrize("boosting", [None, GradientBoostingClassifier()])
def test_all_trees_are_kept_and_saved(
    boosting: Any, texture_images: Images, tmp_path: Path
) -> None:
    images, labels = texture_images
    model = luo2021(backbone="tiny", weights="random", grid=50, n_codewords=4, random_state=0)
    model.set_params(encoder__image_size=16)
    if boosting is not None:
        model.set_params(boosting=clone(boosting))
    model.fit(images[:18], labels[:18])
    assert model.boosting_.n_features_in_ == 4 * (6 + 8 + 10)
    assert model.score(images[18:], labels[18:]) > 0.8
    if boosting is not None:
        assert model.boosting_.estimators_.shape == (100, 3)
        return
    assert model.boosting_.booster_.num_boosted_rounds() == 100
    assert len(model.boosting_.booster_.get_dump()) == 100 * 3
    model.save(tmp_path / "paper.hvlad")
    loaded: MicrographClassifier = hypervlad.load(tmp_path / "paper.hvlad")
    np.testing.assert_array_equal(loaded.predict_proba(images), model.predict_proba(images))
    expected, found = model.get_params(), loaded.get_params()
    for name in ("boosting__n_iter_no_change", "encoder__sampling", "encoder__grid"):
        assert found[name] == expected[name]


def test_the_boosters_agree_on_new_rows() -> None:
    """Margins of rows not learnt from, in shape and in size: 30 or 300 trees are half or 1.4 x."""
    X, y = make_classification(
        600, 20, n_informative=8, n_classes=3, class_sep=1.0, flip_y=0, random_state=0
    )
    found = []
    for learner in (luo2021().boosting, GradientBoostingClassifier()):
        proba = learner.set_params(random_state=0).fit(X[:400], y[:400]).predict_proba(X[400:])
        margins = np.log(proba)
        found.append(margins - margins.mean(axis=1, keepdims=True))
        assert (margins.argmax(axis=1) == y[400:]).mean() > 0.75
    xgboost, scikit_learn = found
    assert np.corrcoef(xgboost.ravel(), scikit_learn.ravel())[0, 1] > 0.95
    assert 0.75 < xgboost.std() / scikit_learn.std() < 1.3
