"""Evidence maps, codeword maps, and the patches of codewords."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from support.displays import pictures, texts
from support.pages import percent
from support.tiny import make_tiny_encoder

from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier
from hypervlad.images import ReadOptions
from hypervlad.results import CodewordMapDisplay, CodewordPatchesDisplay, EvidenceDisplay


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
        *("against", " for the class"),
    ]
    for each, explained in zip(proba, found, strict=True):
        margins = explained.maps.sum(axis=(1, 2)) + explained.baseline
        others = np.exp(margins - margins.max())
        assert each == pytest.approx(1 / others.sum(), rel=1e-3), "they add up to the margins"
    assert len(display.ax_.images) == 5
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


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "+0.0"), (-0.04, "+0.0"), (-1.26, "−1.3"), (12, "+12.0")]
)
def test_evidence_is_summed_with_its_sign_beside_that_of_trees(model, value, text):
    image, maps = np.full((8, 8), 0.5), np.full((8, 8), value / 64)
    trees, baseline = np.array([value, 0.5, -1.5]), np.array([0.5, 0, 0])
    display = painted(model, image, maps, trees=trees, baseline=baseline)
    assert texts(display)[2:4] == [f"positions {text}, bias +0.5", f"trees {text}"]
    without = painted(model, image, maps)
    assert not [line for line in texts(without) if line.startswith("trees")]
    assert display.figure_size[1] > without.figure_size[1]


# --- codeword maps ------------------------------------------------------------------------------


def test_codeword_maps_come_beside_each_image(model, texture_images):
    images = texture_images[0][:2]
    display = CodewordMapDisplay.from_estimator(model, images, names=["a", "b"])
    layers = [f"codewords of {each}" for each in ("all taps", *model.encoder_.taps_)]
    assert texts(display) == ["a", *layers, "b", *layers]
    n = 1 + len(layers)
    for start, image in zip((0, n), images, strict=True):
        maps = model.encoder_.codeword_maps(image)
        for plane, picture in zip(maps, pictures(display)[start + 1 : start + n], strict=True):
            colours = {tuple(picture[place]) for place in np.ndindex(plane.shape)}
            assert len(colours) == len(np.unique(plane))
            for word in np.unique(plane):
                assert len(np.unique(picture[plane == word], axis=0)) == 1


def test_a_map_covers_its_image_and_is_white_where_there_is_no_codeword():
    wide, words = np.zeros((10, 40), dtype="float32"), np.array([[[0, -1], [-1, 1]]])
    display = CodewordMapDisplay([wide], [words], [np.eye(3)]).plot()
    shapes = [
        (abs(x1 - x0), abs(y1 - y0))
        for x0, x1, y0, y1 in (image.get_extent() for image in display.ax_.images)
    ]
    assert shapes[0] == pytest.approx((1, 0.25))
    assert shapes[1] == pytest.approx(shapes[0])
    expected = [[[1, 0, 0], [1, 1, 1]], [[1, 1, 1], [0, 1, 0]]]
    np.testing.assert_array_equal(pictures(display)[1], expected)


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
    assert patches.title.startswith("Patches 4 pixels wide (8 nm) from 9 images; ")
    for codeword in patches.codewords:
        assert 0 < len(codeword.patches) <= 6
        assert {labels[patch.image] for patch in codeword.patches} == {codeword.label}
        of_image = [patch.image for patch in codeword.patches]
        n_images = len(set(of_image))
        assert len(set(of_image[:n_images])) == n_images, "first of different images"
        for i, patch in enumerate(codeword.patches):
            top, bottom, left, right = patch.box
            assert bottom - top == right - left == 4
            cut = images[patch.image][top:bottom, left:right]
            assert np.corrcoef(patch.pixels.ravel(), cut.ravel())[0, 1] > 0.99
            assert patch.mask.shape == patch.pixels.shape
            assert patch.mask.any()
            for other in codeword.patches[:i]:
                apart = abs(top - other.box[0]) >= 4 or abs(left - other.box[2]) >= 4
                assert patch.image != other.image or apart, "they do not overlap"
    assert texts(patches)[1] == "flat"
    assert texts(patches)[3] == f"evidence {signed(patches.codewords[0].evidence, 2)}"
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


class Explained:
    """A model whose codewords have such evidence at the places of every image of class a."""

    encoder_ = SimpleNamespace(fitted_params_=SimpleNamespace(read_options=ReadOptions()))
    classes_ = np.array(["a"])

    def __init__(self, *maps):
        self.maps, self.images = maps, list[Any]()

    def explain(self, image, words=()):
        self.images.append(image)
        return SimpleNamespace(
            words={"joint": np.array([[each.sum() for each in self.maps]])},
            word_maps={("joint", k): self.maps[k][None] for _, k in words},
            index_of=lambda label: 0,
        )

    def patches(self, images):
        return CodewordPatchesDisplay.from_estimator(self, images, ["a"] * len(images))


def test_no_patch_is_chosen_for_the_border_of_an_image():
    images = [np.full((80, 80), 0.5, np.float32)] * 2
    border, both, middle = np.zeros((3, 40, 40))
    border[0], border[:, -1], border[20, 20] = 5, 5, 0.1
    both[1], both[10:13, 30:33] = 3, 2
    middle[30, 5] = 9
    display = Explained(border, both, middle).patches(images)
    assert [codeword.number for codeword in display.codewords] == [1, 2]
    assert [codeword.patches[0].box for codeword in display.codewords] == [
        (15, 31, 55, 71),
        (53, 69, 3, 19),
    ]
    assert display.title.startswith("Patches 16 pixels wide from 2 images; ")
    assert display.title.endswith("; not shown: 1 codeword of the border")
    # Strong evidence at the border does not hide that in the middle.
    assert display.codewords[0].patches[0].mask.any()
    assert "border" not in Explained(both, middle).patches(images).title
    # After many codewords of the border, the search for others ends.
    none = Explained(*[border] * 13, both, middle).patches(images)
    assert list(none.codewords) == []
    assert none.title.endswith("; not shown: 12 codewords of the border")


def test_patches_lie_around_the_evidence_and_inside_the_image():
    evidence = np.full((8, 8), -1.0)
    evidence[0, 0], evidence[7, 7], evidence[6, 7] = 90, 30, 29
    display = Explained(evidence).patches([np.full((80, 160), 0.5, np.float32)])
    # The third place is 10 pixels from the second, within a square that is taken already.
    (codeword,) = display.codewords
    assert [patch.box for patch in codeword.patches] == [(0, 16, 2, 18), (64, 80, 142, 158)]


def test_at_most_sixty_images_are_explained_spaced_evenly():
    images = [np.full((20, 20), number / 100, np.float32) for number in range(90)]
    model = Explained(np.eye(8))
    assert "from 60 of 90 images" in model.patches(images).title
    used = sorted({round(100 * float(image[0, 0])) for image in model.images})
    assert used == np.linspace(0, 89, 60).round().astype(int).tolist()
