"""The page of classified images: what is in it, and that nothing breaks or leaves it."""

import csv
import dataclasses
import re
import tracemalloc
import warnings

import numpy as np
import pytest
from PIL import Image
from support.classifications import classification
from support.commands import run
from support.pages import Page, percent
from support.tiny import make_tiny_encoder

from hypervlad import MicrographClassifier
from hypervlad.images import ImageReadError, SkippedImage, SkippedImagesWarning
from hypervlad.results import write_classified_page

EVIL = "</script><script>alert(1)</script><!-- & \"quoted\" 'names' ]]>"


@pytest.fixture
def files(texture_images, tmp_path):
    """Images that the model does not know: those of training, cropped."""
    folder = tmp_path / "new"
    folder.mkdir()
    paths = [folder / f"{i:02d}.png" for i in range(9)]
    for path, image in zip(paths, texture_images[0], strict=False):
        Image.fromarray(np.round(255 * image[1:]).astype(np.uint8)).save(path)
    return paths


@pytest.fixture
def made(fitted, tmp_path):
    """Write the page of images, and take it apart."""
    path = tmp_path / "deep" / "page.html"

    def write(images, model=fitted, **options):
        assert write_classified_page(path, model, images, **options) == path
        return Page(path)

    return write


@pytest.fixture(scope="module")
def plain(texture_images):
    """A classifier that has held nothing out, and reads 100 as white."""
    images, labels = texture_images
    encoder = make_tiny_encoder().set_params(read_options={"scaling": (0, 100)})
    scaled = [np.round(100 * image).astype(np.uint16) for image in images]
    return MicrographClassifier(encoder, calibrate=False, random_state=0).fit(scaled, labels)


def test_the_page_has_what_the_model_says(made, fitted, files):
    """Here in the table for browsers without scripts."""
    page, judged = made(files, max_error=0.6), fitted.judge(files, 0.6)
    page.assert_safe()
    kinds = {"out_of_distribution": "unlike the training images"}
    for row, (file, label, share, kind, reason) in enumerate(
        zip(
            files, judged.labels, judged.proba.max(axis=1), judged.kind, judged.reasons, strict=True
        )
    ):
        cells = {str(file), str(label), percent(share), kinds.get(kind, kind), reason}
        assert any(cells <= set(each) for each in page.rows), row
    assert f"{(judged.kind == 'sure').sum()} sure" in page.spaced
    assert "at most 60.0 % should be wrong" in page.spaced
    assert "could not be read" not in page.spaced
    assert ["trained on", "24 images"] in page.rows


def test_the_page_notes_what_the_terminal_says(made, fitted, model, files, folder, texture_images):
    deep, blank = files[0].with_name("deep.png"), files[0].with_name("blank.png")
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(deep)
    Image.fromarray(np.full((16, 16), 80, np.uint8)).save(blank)
    Image.fromarray(np.round(255 * texture_images[0][0]).astype(np.uint8)).save(files[8])
    images = [*files, blank, deep]
    with warnings.catch_warnings(record=True, action="always") as caught:
        page = made(images)
    said = sorted(str(each.message)[:20] for each in caught)
    assert said == ["1 of 11 images is bl", "pixels of another ty", "unlike nearly all tr"]
    table = ["--coverage", "0.9", "-o", files[0].with_name("t.csv")]
    printed = run("predict", model, *images, "--page", files[0].with_name("p.html"), *table).stderr
    notes = [line.removeprefix("warning: ") for line in printed.splitlines()[:-1]]
    sets = fitted.classify(images, coverage=0.9).sets
    rows = csv.DictReader(table[-1].read_text("utf-8").splitlines())
    for row, own in zip(rows, sets, strict=True):
        assert row["possible"] == "|".join(fitted.classes_[own])
    assert len(notes) >= 3
    for note in notes:
        assert f"{note}." in page.spaced, note
    novelty = np.where(np.arange(11) > 8, 5.0, 0.5)
    found = dataclasses.replace(fitted.classify(images), novelty=novelty)
    words = made(images, predictions=found).spaced
    assert "2 of 11 images are unlike all training images (1 blank): " in words
    assert "1 of 11 images is a training image (the same pixels): " + str(files[8]) in words
    listed = run("predict", model, folder).stderr
    assert re.search(r"24 of 24 images are training images .*: (\S+, ){4}\S+ and 19 more", listed)


def test_images_that_cannot_be_read_are_listed_with_the_reason(made, fitted, files):
    files[4].write_bytes(b"\x89PNG\r\n\x1a\n half an image")
    with pytest.raises(ImageReadError, match=r"04\.png"):
        made(files)
    fitted.encoder_.set_params(on_error="skip")
    with pytest.warns(SkippedImagesWarning) as caught:
        page = made(files)
    (bad,) = caught[0].message.skipped  # type: ignore[union-attr]
    in_order = [*(str(file) for file in files if file != files[4]), str(files[4])]
    assert [row[0] for row in page.rows if row[0].endswith(".png")] == in_order
    assert [str(files[4]), bad.reason.partition(": ")[2]] in page.rows
    assert len(page.jpegs) == 8
    assert "1 image could not be read" in page.spaced


def test_few_images_are_in_memory_at_a_time(made, tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((1000, 1000), np.uint8)).save(path)
    found = classification([[1, 0, 0]] * 24)
    tracemalloc.start()
    made([path] * 24, predictions=found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 4 * 1000**2, "24 images of 4 MB"


def test_names_and_labels_cannot_break_the_page(made, fitted, texture_images):
    images = texture_images[0][:5]
    fitted.classes_ = np.array([f"{EVIL} {label}" for label in fitted.classes_])
    names = [EVIL, "b\x00\x1b[31m", "c\udcff.png", "\u2028", "</noscript><p>"]
    title = f"{EVIL} {{}} $style"
    found = classification(np.eye(3)[[0, 1, 2, 0, 1]], kinds=["ambiguous"] * 5)
    bad = dataclasses.replace(found.images, skipped=(SkippedImage(0, EVIL, EVIL),))
    found = dataclasses.replace(found, images=bad)
    page = made(images, names=names, predictions=found, title=title, true_labels=[EVIL] * 5)
    page.assert_safe()
    assert page.source.count("</noscript>") == 2
    assert title in page.words
    shown = [EVIL, r"b\x00\x1b[31m", r"c\udcff.png", r"\u2028", "</noscript><p>"]
    for name, label in zip(shown, fitted.classes_[[0, 1, 2, 0, 1]], strict=True):
        assert any(row[:2] == [name, str(label)] for row in page.rows)
