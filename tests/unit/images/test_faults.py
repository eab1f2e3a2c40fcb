"""Faults of images that change what is measured in them."""

import re
import warnings

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from support.commands import rows_of, run
from support.tiny import make_tiny_encoder

from hypervlad import MicrographClassifier, PatchDefectScorer
from hypervlad.data import make_fibre_images
from hypervlad.fibres import fibre_diameters, find_pores, local_orientation

OWN, SQUARE = (make_tiny_encoder().set_params(image_size=side) for side in (None, 128))
CLASSIFIER = MicrographClassifier(SQUARE, calibrate=False, random_state=0)
SCORER = PatchDefectScorer(OWN, n_codewords=8, fpr=0.2, n_planted=0, random_state=0)
(IMAGE,), _ = make_fibre_images(1, cover=0.4, random_state=0)
TINTED = IMAGE[..., None] * [1, 0.5, 0]
IMAGES, _ = make_fibre_images(6, size=96, random_state=0)


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape)


def shifted(image):
    walk = np.cumsum(2 * noise(len(image))) % 9
    return np.array([*map(lambda line, by: ndimage.shift(line, by, order=1), image, walk)])


FAULTS = {
    "saturated": (lambda image: image / np.quantile(image, 0.6), "saturated"),
    "dark": (lambda image: (image - np.median(image)) * 2, "saturated"),
    "blurred": (lambda image: ndimage.gaussian_filter(image, 6), "edges are blurred"),
    "uneven": (lambda image: image + 0.3 * noise(len(image), 1), "scan lines differ"),
    "shifted": (shifted, "scan lines are shifted"),
    "maps": (lambda image: np.stack([image, image[::-1], image], 2), "colours show"),
    "banded": (lambda own: own + ndimage.gaussian_filter(noise(len(own), 1), (4, 0)), "bands"),
}


@pytest.mark.parametrize(("change", "words"), FAULTS.values(), ids=FAULTS)
def test_what_a_fault_does_to_numbers_is_said(change, words):
    images = [IMAGE, *[change(IMAGE).clip(0, 1)] * 2]
    with warnings.catch_warnings(record=True, action="always") as said:
        local_orientation(images, sigma=3)
        with pytest.raises(ValueError):
            local_orientation([*images, "gone.png"], sigma=3)
    said = [str(each.message) for each in said if words in str(each.message)]
    assert ["image 1 of" in each and "image 2 of" in each for each in said] == [True, True]


def test_faults_are_kept_in_tables_said_again_by_resumed_runs_and_shown(tmp_path):
    SCORER.fit(IMAGES).save(model := tmp_path / "m.hvlad")
    (images := tmp_path / "in").mkdir()
    saturated = np.uint8(255 * FAULTS["saturated"][0](IMAGE[:128, :128]).clip(0, 1))
    for name, pixels in {"a.png": saturated, "b.png": saturated[::-1]}.items():
        Image.fromarray(pixels).save(images / name)
    for table, *command in (
        ("diameters.csv", "diameters"),
        ("alignment.csv", "align", "--no-figures"),
        ("scores.csv", "defects", "score", model),
        ("fields.csv", "particles", "find"),
    ):
        out, words = tmp_path / table, r"saturated .*: a\.png \(0\.\d+\), b\.png"
        for again in ([], ["--resume"] if command[0] in ("diameters", "particles") else []):
            assert re.search(words, run(*command, images, "-o", out, *again).stderr), command
        assert ["saturated" in row["note"] for row in rows_of(out / table)] == [True, True]
        assert re.search(f"noted.*{words}", run("report", out, "-o", out / "paper").stdout)
        for page in out.glob("*.html"):
            assert re.search(f"Noted: .*{words}", page.read_text("utf-8")), page


@pytest.mark.parametrize("turn", range(2))
@pytest.mark.parametrize("changed", [IMAGE, IMAGE * 255 // 1, IMAGE > 0.5, TINTED])
def test_neither_few_levels_nor_long_fibres_along_the_lines_are_faults(changed, turn):
    with warnings.catch_warnings(action="error"):
        local_orientation(np.rot90(changed.astype(np.float32), turn), sigma=3)


@pytest.mark.parametrize("model", [CLASSIFIER, SCORER])
def test_only_faults_that_are_unusual_in_training_are_said(model, tmp_path):
    model.set_params(encoder__memory=str(tmp_path))
    uneven = [image + 0.3 * noise(len(image), 1) for image in IMAGES]
    other = np.tile(np.uint16(9999 * IMAGES[0]), (3, 3))
    like, soft, flat = IMAGES[1], ndimage.gaussian_filter(IMAGES[0], 3), IMAGES[0] / 8 + 0.4
    for known in (IMAGES, IMAGES, uneven):  # with a cache, and vectors in it
        model.fit(known, ["a", "b"] * 3 if model is CLASSIFIER else None)
        with warnings.catch_warnings(record=True, action="always") as found:
            model.predict([like, soft, flat, *uneven[:2], other])
        found = [str(each.message) for each in found]
        assert sum("of another " in each for each in found) == 2  # type and size
        for numbers in (re.findall(r"image (\d+) of", each) for each in found):
            assert numbers == sorted(numbers), "threads come to images in any order"
        said = [each for each in found if "image 3 " in each and "lines differ" in each]
        assert len(said) == (known is IMAGES)
        looks = r"^unlike nearly all.* image 1 [^)]*\) \([^)]*sharpness 0.* image 2 .*contrast 0"
        assert sum(re.search(looks, each) is not None for each in found) == 1
        assert not any("unlike" in each and "image 0 " in each for each in found if said)


def test_places_along_an_edge_lie_within_the_image():
    for image in make_fibre_images(2, size=160, cover=0.6, random_state=0)[0]:
        image = np.pad(image, ((0, 3), (0, 0)), mode="edge")
        found = fibre_diameters(image)
        assert (np.abs(found.positions + 0.5) <= image.shape).all()
        find_pores(image, found)
