"""Evidence maps."""

import dataclasses

import numpy as np
import pytest
from support.displays import pictures, texts
from support.pages import percent
from support.tiny import make_tiny_encoder

from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier
from hypervlad.results import EvidenceDisplay


@pytest.fixture(scope="module")
def model(texture_images):
    encoder = make_tiny_encoder().set_params(blocks=("joint", "per_layer", "pooled"), turns=2)
    boosting = BoostedSoftmaxClassifier(n_estimators=0, Cs=10.0)
    return MicrographClassifier(encoder, boosting=boosting, random_state=0).fit(*texture_images)


def signed(value):
    return f"{round(float(value), 1) + 0.0:+.1f}".replace("-", "−")


def test_each_image_stands_beside_its_evidence(model, texture_images):
    images = texture_images[0][:2]
    display = EvidenceDisplay.from_estimator(
        model, images, y_true=["flat", "flat"], names=["a", "b"]
    )
    assert model.predict(images).tolist() == ["flat", "rings"]
    proba = model.predict_proba(images).max(axis=1)
    found = [model.explain(image) for image in images]
    flat, rings = (
        f"positions {signed(each.maps[i].sum())}, bias {signed(each.baseline[i])}"
        for i, each in enumerate(found)
    )
    assert texts(display) == [
        *("a", "✓ true: flat", f"flat, {percent(proba[0])}", flat),
        *("b", "✗ true: flat", f"rings, {percent(proba[1])}", rings),
        *("against ", " for the class"),
    ]
    for each, explained in zip(proba, found, strict=True):
        margins = explained.maps.sum(axis=(1, 2)) + explained.baseline
        others = np.exp(margins - margins.max())
        assert each == pytest.approx(1 / others.sum(), rel=1e-3), "they add up to the margins"
    assert len(pictures(display)) == 5
    named = EvidenceDisplay(images, found, labels=["stripes", "flat"])
    assert named.shown == [[2, 0], [2, 0]]
    order = np.argsort(-model.predict_proba(images), axis=1)
    assert EvidenceDisplay(images, found, runner_up=True).shown == order[:, :2].tolist()


def painted(model, image, maps, **changes):
    """Show an image whose evidence for the first class is such a map."""
    own = {"blocks": {"joint": np.stack([maps, 0 * maps, 0 * maps])}}
    found = dataclasses.replace(model.explain(image), **own, **changes)
    return EvidenceDisplay([image], [found], labels=["flat"]).plot()


def test_red_is_for_and_blue_against(model):
    maps = np.zeros((40, 80))
    maps[:, :20], maps[:, 60:] = 9, -9
    for image in (np.full((20, 40), 0.5), np.full((20, 40, 3), 0.5), np.zeros((20, 40))):
        picture, bar = pictures(painted(model, image, maps))[1:]
        assert picture.shape == (20, 40, 3)
        assert 0 <= picture.min() < picture.max() <= 1
        assert picture[10, 0, 0] - picture[10, 0, 2] > 0.4
        assert picture[10, 39, 2] - picture[10, 39, 0] > 0.4
        np.testing.assert_allclose(picture[10, 20], picture[10, 20, 0])
        assert picture[10, 20, 0] > 0.25, "colours would not show on black"
        assert bar[0, 0, 2] > bar[0, 0, 0]
        assert bar[0, -1, 0] > bar[0, -1, 2]
    picture = pictures(painted(model, np.full((20, 40), 0.5), 0 * maps))[1]
    np.testing.assert_allclose(picture[..., 0], picture[..., 2])
