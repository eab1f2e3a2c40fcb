"""The systems of the papers, exactly."""

import pytest
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingClassifier

from hypervlad.models import TransferClassifier
from hypervlad.models.presets import luo2021, modarres2017

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
def test_parameters_are_the_papers_but_for_what_is_named(options, changed):
    parameters = luo2021(**options).get_params()
    expected = PAPER | changed
    assert {name: parameters[name] for name in expected} == expected


@pytest.mark.parametrize("mode", ["features", "finetune"])
def test_modarres2017_is_inception_v3_and_the_classifiers_defaults(mode):
    changed = {"backbone": "inception_v3", "mode": mode}
    assert modarres2017(mode).get_params() == TransferClassifier().get_params() | changed
    given = {"backbone": "resnet50", "weights": "w.pth", "max_epochs": 9}
    given |= {"device": "cpu", "verbose": True}
    parameters = modarres2017(mode, **given, random_state=3).get_params()
    assert {name: parameters[name] for name in given} == given


@pytest.mark.parametrize("boosting", [None, GradientBoostingClassifier()])
def test_all_trees_are_kept(boosting, texture_images):
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
    else:
        assert model.boosting_.trees_.roots.shape == (100, 3)
