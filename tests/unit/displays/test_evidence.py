"""Evidence maps, codeword maps, and the patches of codewords."""

import dataclasses

import numpy as np
import pytest
import tifffile
from support.displays import pictures, texts
from support.pages import percent
from support.tiny import make_tiny_encoder

from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier
from hypervlad.results import CodewordPatchesDisplay, EvidenceDisplay


@pytest.fixture(scope="module")
def model(texture_images):
    encoder = make_tiny_encoder().set_params(blocks=("joint", "per_layer", "pooled"), turns=2)
    boosting = BoostedSoftmaxClassifier(n_estimators=0, Cs=10.0)
    return MicrographClassifier(encoder, boosting=boosting, random_state=0).fit(*texture_images)


def signed(value, decimals=1):
    return f"{round(float(value), decimals) + 0.0:+.{decimals}f}".replace("-", "−")


# --- evidence -----------------------------------------------------------------------------------


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
        display = painted(model, image, maps)
        picture, bar = pictures(display)[1:]
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


# --- codeword maps ------------------------------------------------------------------------------


# --- patches ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def patches(model, texture_images, tmp_path_factory):
    """Of files with 2 nm per pixel."""
    images, labels, folder = *texture_images, tmp_path_factory.mktemp("images")
    for number, image in enumerate(images[:9]):
        facts = {"unit": "nm", "spacing": 1.0}
        file = folder / f"{number}.tif"
        tifffile.imwrite(file, image, imagej=True, metadata=facts, resolution=(0.5, 0.5))
    return CodewordPatchesDisplay.from_estimator(model, sorted(folder.iterdir()), labels[:9])


def test_the_codewords_of_each_class_are_shown_as_patches(model, patches, texture_images):
    images, labels = texture_images
    shown = [str(codeword.label) for codeword in patches.codewords]
    assert shown == np.repeat(model.classes_, 3).tolist()
    assert patches.ax_.get_title("left").startswith("Codewords in patches 4 pixels wide (8 nm); ")
    for codeword in patches.codewords:
        assert 0 < len(codeword.patches) <= 6
        assert {labels[patch.image] for patch in codeword.patches} == {codeword.label}
        assert len({patch.image for patch in codeword.patches}) == len(codeword.patches)
        for patch in codeword.patches:
            top, bottom, left, right = patch.box
            assert bottom - top == right - left == 4
            cut = images[patch.image][top:bottom, left:right]
            assert np.corrcoef(patch.pixels.ravel(), cut.ravel())[0, 1] > 0.99
            assert patch.mask.shape == patch.pixels.shape
            assert patch.mask.any()
    flat, *_, evidence = texts(patches)[0].splitlines()
    assert (flat, evidence) == ("flat", f"evidence {signed(patches.codewords[0].evidence, 2)}")
    red = np.ptp(pictures(patches)[0], axis=2) > 0.01
    np.testing.assert_array_equal(red, patches.codewords[0].patches[0].mask)


def test_the_strongest_codewords_of_a_class_come_first(model, patches, texture_images):
    images, labels = texture_images
    codewords = [each for each in patches.codewords if each.label == "rings"]
    found = [model.explain(images[i]).words for i in np.flatnonzero(labels[:9] == "rings")]
    means = {
        (part, k): np.mean([words[part][1, k] for words in found])
        for part, table in found[0].items()
        for k in range(table.shape[1])
    }
    expected = sorted(means, key=lambda each: -means[each])[:3]
    assert [(each.codebook, each.number) for each in codewords] == expected
    shown = [each.evidence for each in codewords]
    np.testing.assert_allclose(shown, [means[each] for each in expected], rtol=0.05)
