"""Evidence maps and the patches of codewords."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from support.displays import texts

from hypervlad import (
    BoostedSoftmaxClassifier,
    HypercolumnVLAD,
    ImageReadError,
    MicrographClassifier,
)
from hypervlad.common.wording import percent
from hypervlad.images import ReadOptions
from hypervlad.results import CodewordPatchesDisplay, EvidenceDisplay
from hypervlad.results.displays import codewords as codewords_module
from hypervlad.results.displays.codewords import (
    CodewordFinder,
    chosen_images,
    strongest_boxes,
)
from hypervlad.results.displays.colours import AGAINST, FOR
from hypervlad.results.displays.evidence import overlay, signed, smooth


@pytest.fixture(scope="module")
def model(texture_images):
    images, labels = texture_images
    encoder = HypercolumnVLAD(
        "tiny",
        weights="random",
        image_size=16,
        n_codewords=4,
        blocks=("joint", "per_layer", "pooled"),
        turns=2,
        sampling=400,
        random_state=0,
    )
    boosting = BoostedSoftmaxClassifier(n_estimators=0, Cs=10.0)
    return MicrographClassifier(encoder, boosting=boosting, random_state=0).fit(images, labels)


def test_each_image_stands_beside_its_evidence(model, texture_images):
    images, _ = texture_images
    display = EvidenceDisplay.from_estimator(
        model, images[:2], y_true=["flat", "flat"], names=["a", "b"]
    )
    said = model.predict(images[:2])
    assert said.tolist() == ["flat", "rings"]
    proba = model.predict_proba(images[:2]).max(axis=1)
    found = [model.explain(image) for image in images[:2]]
    flat, rings = (
        f"positions {signed(f.maps[i].sum())}, bias {signed(f.baseline[i])}"
        for i, f in enumerate(found)
    )
    assert texts(display) == [
        *("a", "✓ true: flat", f"flat, {percent(proba[0])}", flat),
        *("b", "✗ true: flat", f"rings, {percent(proba[1])}", rings),
        *("against", " for the class"),
    ]
    assert len(display.ax_.images) == 5


def test_classes_are_shown_as_requested(model, texture_images):
    images = texture_images[0][:2]
    found = [model.explain(image) for image in images]
    assert EvidenceDisplay(images, found).shown == [[0], [1]]
    order = np.argsort(-model.predict_proba(images), axis=1)
    assert EvidenceDisplay(images, found, runner_up=True).shown == order[:, :2].tolist()
    named = EvidenceDisplay(images, found, labels=["stripes", "flat"])
    assert named.shown == [[2, 0], [2, 0]]


def test_red_is_for_and_blue_against():
    grey = np.full((4, 8), 0.5)
    evidence = np.zeros((4, 8))
    evidence[:, :2], evidence[:, 6:] = 9, -9
    painted = overlay(grey, evidence)
    assert painted.min() >= 0
    assert painted.max() <= 1
    assert painted[0, 0, 0] - painted[0, 0, 2] > 0.4
    assert painted[0, 7, 2] - painted[0, 7, 0] > 0.4
    np.testing.assert_allclose(painted[:, 4], painted[0, 4, 0])
    assert FOR[0] > FOR[2]
    assert AGAINST[2] > AGAINST[0]


def test_the_overlay_takes_the_images_size_and_colour_images():
    assert overlay(np.zeros((10, 30, 3)), np.zeros((4, 4))).shape == (10, 30, 3)


def test_smoothing_keeps_what_lies_inside():
    maps = np.zeros((2, 50, 50))
    maps[0, 25, 25], maps[1, 20, 20] = 1, -2
    result = smooth(maps)
    np.testing.assert_allclose(result.sum(axis=(1, 2)), [1, -2])
    assert result[0].max() < 0.5


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "+0.0"), (-0.04, "+0.0"), (-1.26, "−1.3"), (12, "+12.0")]
)
def test_signed_numbers(value, text):
    assert signed(value) == text


def test_an_image_without_evidence_is_drawn(model, texture_images):
    images, _ = texture_images
    found = model.explain(images[0])
    nothing = {name: 0 * maps for name, maps in found.blocks.items()}
    display = EvidenceDisplay(images[:1], [dataclasses.replace(found, blocks=nothing)]).plot()
    painted = np.asarray(display.ax_.images[1].get_array())
    np.testing.assert_allclose(painted[..., 0], painted[..., 2])


def test_the_evidence_of_trees_is_written_beside_that_of_places(model, texture_images):
    images, _ = texture_images
    found = dataclasses.replace(model.explain(images[0]), trees=np.array([1.0, 0.5, -1.5]))
    display = EvidenceDisplay(images[:1], [found], labels=["flat"]).plot()
    assert "trees +1.0" in texts(display)
    without = EvidenceDisplay(images[:1], [model.explain(images[0])])
    assert display.figure_size[1] > without.figure_size[1]


def test_what_does_not_fit_is_refused(model, texture_images):
    images, _ = texture_images
    found = [model.explain(images[0])]
    with pytest.raises(ImageReadError, match="wrap"):
        EvidenceDisplay.from_estimator(model, images[0])
    with pytest.raises(ValueError, match="no class 'ring'"):
        EvidenceDisplay(images[:1], found, labels=["ring"])
    with pytest.raises(ValueError, match="one explanation for each of 2 images; got 1"):
        EvidenceDisplay(images[:2], found)
    with pytest.raises(ValueError, match=r"wrap one in a list: \['flat'\]"):
        EvidenceDisplay(images[:1], found, labels="flat")


# --- patches ------------------------------------------------------------------------------------


def test_the_codewords_of_each_class_are_shown_as_patches(model, texture_images, monkeypatch):
    monkeypatch.setattr(codewords_module, "N_IMAGES", 9)
    images, labels = texture_images
    display = CodewordPatchesDisplay.from_estimator(model, images, labels)
    assert [codeword.label for codeword in display.codewords] == np.repeat(
        model.classes_, 3
    ).tolist()
    assert display.title.startswith("Patches 4 pixels wide from 9 of 24 images")
    for codeword in display.codewords:
        assert 0 < len(codeword.patches) <= 6
        assert {labels[patch.image] for patch in codeword.patches} == {codeword.label}
        for patch in codeword.patches:
            top, bottom, left, right = patch.box
            assert bottom - top == right - left == 4
            np.testing.assert_allclose(
                patch.pixels, images[patch.image][top:bottom, left:right], atol=1e-6
            )
            assert patch.mask.shape == patch.pixels.shape
            assert patch.mask.any()
    assert texts(display)[1:4] == [
        "flat",
        texts(display)[2],
        f"evidence {signed(display.codewords[0].evidence, 2)}",
    ]


def test_the_strongest_codewords_of_a_class_come_first(model, texture_images):
    images, labels = texture_images
    members = np.flatnonzero(labels == "rings").tolist()[:3]
    codewords = CodewordFinder(model, images).codewords_of("rings", members)
    explained = [model.explain(images[i]).words for i in members]
    means = {
        (part, k): np.mean([words[part][1, k] for words in explained])
        for part, table in explained[0].items()
        for k in range(table.shape[1])
    }
    expected = sorted(means, key=lambda each: -means[each])[:3]
    assert [(each.codebook, each.number) for each in codewords] == expected
    np.testing.assert_allclose(
        [each.evidence for each in codewords], [means[each] for each in expected]
    )
    # Patches are first of different images, and do not overlap.
    assert any(len(each.patches) > 3 for each in codewords)
    for codeword in codewords:
        of_image = [patch.image for patch in codeword.patches]
        n_images = len(set(of_image))
        assert len(set(of_image[:n_images])) == n_images
        for i, a in enumerate(codeword.patches):
            for b in codeword.patches[:i]:
                apart = abs(a.box[0] - b.box[0]) >= 4 or abs(a.box[2] - b.box[2]) >= 4
                assert a.image != b.image or apart


class BorderModel:
    """Three codewords: the strongest at the border, one mostly there, one in the middle."""

    encoder_ = SimpleNamespace(fitted_params_=SimpleNamespace(read_options=ReadOptions()))
    classes_ = np.array(["a"])

    def __init__(self, n_border: int = 1) -> None:
        border, both, middle = np.zeros((3, 40, 40))
        border[0], border[:, -1], border[20, 20] = 5, 5, 0.1
        both[1], both[10:13, 30:33] = 3, 2
        middle[30, 5] = 9
        self.maps = [*[border] * n_border, both, middle]

    def explain(self, image, words=()):
        return SimpleNamespace(
            words={"joint": np.array([[each.sum() for each in self.maps]])},
            word_maps={("joint", k): self.maps[k][None] for _, k in words},
            index_of=lambda label: 0,
        )


def test_no_patch_is_chosen_for_the_border_of_an_image():
    images = [np.full((80, 80), 0.5, np.float32)] * 2
    display = CodewordPatchesDisplay.from_estimator(BorderModel(), images, ["a", "a"])
    assert [codeword.number for codeword in display.codewords] == [1, 2]
    assert [codeword.patches[0].box for codeword in display.codewords] == [
        (15, 31, 55, 71),
        (53, 69, 3, 19),
    ]
    assert display.title.startswith("Patches 16 pixels wide from 2 images; ")
    assert display.title.endswith("; not shown: 1 codeword of the border")
    # Strong evidence at the border does not hide that in the middle.
    assert display.codewords[0].patches[0].mask.any()
    shown = CodewordPatchesDisplay.from_estimator(BorderModel(0), images, ["a", "a"])
    assert "border" not in shown.title
    # After many codewords of the border, the search for others ends.
    none = CodewordPatchesDisplay.from_estimator(BorderModel(13), images, ["a", "a"])
    assert list(none.codewords) == []
    assert none.title.endswith("; not shown: 12 codewords of the border")


def test_the_title_has_nanometres_if_files_have_a_pixel_size(
    model, texture_images, tmp_path, monkeypatch
):
    monkeypatch.setattr(codewords_module, "N_IMAGES", 3)
    images, labels = texture_images
    paths = []
    for number, image in enumerate(images):
        paths.append(tmp_path / f"{number}.tif")
        facts = {"unit": "nm", "spacing": 1.0}
        tifffile.imwrite(paths[-1], image, imagej=True, metadata=facts, resolution=(0.5, 0.5))
    display = CodewordPatchesDisplay.from_estimator(model, paths, labels)
    assert "4 pixels wide (8 nm) from 3 of 24 images" in display.title


def test_images_are_chosen_evenly():
    y = ["a"] * 10 + ["b"] * 2
    assert chosen_images(range(12), y, ["a", "b"], 6) == [("a", [0, 4, 9]), ("b", [10, 11])]
    assert chosen_images(range(12), y, ["b", "a"], 1) == [("b", [10]), ("a", [0])]
    with pytest.raises(ValueError, match="none of the 12 images is of the class 'c'"):
        chosen_images(range(12), y, ["c"], 6)


def test_boxes_lie_around_the_evidence_and_inside_the_image():
    evidence = np.full((8, 8), -1.0)
    evidence[0, 0], evidence[7, 7], evidence[6, 7] = 9, 3, 2.9
    # The third place is 10 pixels from the second, within a square that is taken already.
    boxes = strongest_boxes(evidence, (80, 160), side=20, n_boxes=9)
    assert boxes == [(0, 20, 0, 20), (60, 80, 140, 160)]
    assert strongest_boxes(evidence, (80, 160), side=20, n_boxes=1) == boxes[:1]
    assert strongest_boxes(-np.ones((4, 4)), (80, 80), side=20, n_boxes=3) == []
