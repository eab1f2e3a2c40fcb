"""Warnings point to the line of the user's code, whatever calls hypervlad in between."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.impute import SimpleImputer
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from support.tiny import make_tiny_encoder

from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier, load_image_folder

#: Called with a fitted model, images with a damaged and a blank one, and labels.
Call = Callable[[MicrographClassifier, list[Any], list[str]], Any]
BOTH = ("1 of 24 images could not be read", "1 of 24 images is blank")


def place_and_words(call: Call, *arguments: Any) -> list[tuple[str, int, str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*arguments)
    return [(each.filename, each.lineno, str(each.message)) for each in caught]


@pytest.fixture
def images(texture_images: Any, tmp_path: Path) -> list[Any]:
    (tmp_path / "damaged.png").write_bytes(b"no image")
    return [*texture_images[0][:22], np.zeros((20, 24)), tmp_path / "damaged.png"]


@pytest.fixture
def model(texture_images: Any) -> MicrographClassifier:
    learner = BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)
    encoder = make_tiny_encoder().set_params(on_error="skip")
    return MicrographClassifier(encoder, boosting=learner, random_state=0).fit(*texture_images)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, images, labels: model.predict(images), BOTH),
        (lambda model, images, labels: model.predict_set(images, 0.99), ("with a coverage", *BOTH)),
        (lambda model, images, labels: model.judge(images, 0.001), ("no answer is sure", *BOTH)),
        (
            lambda model, images, _: model.judge_vectors(model.encoder_.encode(images[:2]).vectors),
            ("no answer is sure",),
        ),
        (lambda model, images, labels: model.classify(images, coverage=0.99), ("with a coverage",)),
        (lambda model, images, labels: model.classify(images).images.warn(), BOTH),
        (lambda model, images, labels: model.score(images, labels), (*BOTH, "22 of 23 images")),
        (lambda model, images, labels: model.encoder_.transform(images), BOTH),
        (lambda model, images, labels: model.encoder_.encode(images).warn(), BOTH),
        (lambda model, images, labels: model.encoder.fit(images), BOTH[:1]),
        (
            lambda model, images, labels: model.fit([*images[:23], images[0]], labels),
            ("1 of 24 training images is blank", "training images of equal pixels have different"),
        ),
        (
            lambda model, images, labels: model.fit(images, labels),
            (BOTH[0], "1 of 23 training images is blank"),
        ),
    ],
)
def test_estimators_warn_at_the_line_that_calls_them(model, images, texture_images, call, words):
    labels = texture_images[1].tolist()
    found = place_and_words(call, model, images, labels)
    assert {place[:2] for place in found} == {(__file__, call.__code__.co_firstlineno)}
    assert len(found) == len(words)
    for expected, (_, _, text) in zip(words, found, strict=True):
        assert text.startswith(expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, images, labels: cross_val_predict(model, images, labels, cv=2),
        lambda model, images, labels: make_pipeline(model.encoder, SimpleImputer()).fit(images),
    ],
)
def test_the_line_that_calls_scikit_learn_is_named(model, images, texture_images, call):
    found = place_and_words(call, model, images, texture_images[1].tolist())
    assert any(text.startswith("1 of ") for *_, text in found)
    assert {place[:2] for place in found} == {(__file__, call.__code__.co_firstlineno)}


def test_functions_warn_at_the_line_that_calls_them(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png", "loose.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    call = lambda *_: load_image_folder(tmp_path)  # noqa: E731
    found = place_and_words(call)
    assert [place[:2] for place in found] == [(__file__, call.__code__.co_firstlineno)] * 2
