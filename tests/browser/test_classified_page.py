"""The page of classified images in a real browser, from the disk: sorted, filtered, opened."""

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest
from PIL import Image
from support.browsing import Window
from support.classifications import classification
from support.pages import percent
from support.tiny import make_tiny_encoder
from support.waiting import wait_until

from hypervlad import MicrographClassifier
from hypervlad.results import write_classified_page

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys

EVIL = "scans/</script><script>document.title='broken'</script><!-- & \"'149.png"
FILES = ["50%#a?b 3.png", "javascript:alert(1) 4.png", os.fsdecode(b"caf\xe9 5.png")]
CLASSES = ["flat", "rings", "stripes"]
KINDS = ["sure", "ambiguous", "unlike the training images"]
N = 150
# Shares that are rounded in a way of their own.
SHARES = [[0.99996, 0.00004, 0], [0.9989, 0.00105, 0.00005], [0.33334, 0.33333, 0.33333 - 1e-5]]


@pytest.fixture(scope="module")
def model(texture_images):
    return MicrographClassifier(make_tiny_encoder(), random_state=0).fit(*texture_images)


class Sheet(Window):
    """A page of images, of which some are files, and what it was made of."""

    def __init__(self, browser, model, folder):
        rng = np.random.default_rng(1)
        codes, self.proba = rng.integers(3, size=N), rng.dirichlet(np.ones(3), N)
        self.kinds, is_unlike = np.array(KINDS)[codes], np.flatnonzero(codes == 2).tolist()
        self.proba[:3] = SHARES / np.sum(SHARES, axis=1, keepdims=True)
        self.names = [f"scans/{number}.png" for number in range(N - 1)] + [EVIL]
        self.names[3:6] = FILES
        images = [rng.random((8, 300)).astype(np.float32) for _ in range(N)]
        images[3:6] = [folder / name for name in FILES]
        for file in images[3:6]:
            Image.new("L", (8, 8)).save(file)
        # As the page has them: of two images that differ in later digits only, the name decides.
        self.confidence = np.round(self.proba.max(axis=1), 6)
        self.order = np.argsort(self.confidence, kind="stable").tolist()
        self.labels = np.array(CLASSES)[self.proba.argmax(axis=1)]
        others = rng.choice([*CLASSES, None, "<b>new</b>"], N)
        self.truth = np.where(rng.random(N) < 0.5, self.labels, others).tolist()
        kinds = [["sure", "ambiguous", "out_of_distribution"][code] for code in codes]
        bad = [(N, Path("bad.tif"))]
        self.found = classification(self.proba, unlike=is_unlike, kinds=kinds, skipped=bad)
        given = {"names": [*self.names, "bad.tif"], "true_labels": [*self.truth, None]}
        given |= {"max_error": 0.75, "predictions": self.found}
        path = folder / "classified.html"
        super().__init__(browser, write_classified_page(path, model, [*images, np.eye(3)], **given))

    @property
    def shown(self):
        """The images whose cards are shown, in order; there are as many as the page says."""
        text = self.text  # once: it may change
        found = [int(number) for number in re.findall(r"(\d+)\.png\n", text)]
        for n in re.findall(rf"^(?:(\d+) of )?{N} images$", text, re.M):
            assert len(found) == int(n or N) or "Next →" in text
        return found

    def counts(self, names):
        """The numbers of images on the buttons that filter by these names."""
        return [int(self.find(name).text.split()[-1]) for name in names]


@pytest.fixture(scope="module")
def made(browser, model, tmp_path_factory):
    return Sheet(browser, model, tmp_path_factory.mktemp("pages"))


@pytest.fixture
def sheet(made):
    made.open()
    made.choose("At once", "480")
    yield made
    made.assert_safe()


def test_images_are_sorted_and_paged(sheet):
    assert sheet.browser.title == "Classified images"
    assert sheet.shown == sheet.order
    assert "bad.tif damaged" in sheet.words
    for name, key in (
        ("most confident first", -sheet.confidence),
        ("by class", sheet.labels),
        ("least like the training images first", -sheet.found.novelty),
        ("by name", [0 if name in FILES else 1 for name in sheet.names]),
    ):
        sheet.choose("Order", name)
        values = [key[k] for k in sheet.shown]
        assert len(values) == N
        assert values == sorted(values), name
    numbers = [each for each in sheet.shown if each not in (3, 4, 5, 149)]
    assert numbers == sorted(numbers), "2 before 10"
    sheet.choose("Order", "least confident first")
    sheet.choose("At once", "60")
    assert sheet.shown == sheet.order[:60]
    sheet.click("Next →", "Next →")
    assert sheet.shown == sheet.order[120:]
    assert "121 – 150 of 150" in sheet.text
    assert not sheet.find("Next →").is_enabled()
    sheet.click("← Previous")
    assert sheet.shown == sheet.order[60:120]
    shown = "return [...document.images].every((image) => image.naturalWidth > 0)"
    wait_until(lambda: sheet.run(shown), "the pictures")


def test_filters_leave_what_fits_and_count_it(sheet):
    labels, is_unlike = sheet.labels, sheet.kinds == KINDS[2]
    assert sheet.counts(CLASSES) == [(labels == name).sum() for name in CLASSES]
    assert sheet.counts(KINDS) == [(sheet.kinds == kind).sum() for kind in KINDS]
    sheet.click(KINDS[2])
    assert set(sheet.shown) == set(np.flatnonzero(is_unlike))
    of_unlike = [(labels[is_unlike] == name).sum() for name in CLASSES]
    assert sheet.counts(CLASSES) == of_unlike
    sheet.click(CLASSES[0])
    assert set(sheet.shown) == set(np.flatnonzero(is_unlike & (labels == CLASSES[0])))
    assert sheet.counts(CLASSES) == of_unlike, "to add others"
    sheet.click("Clear all filters")
    assert len(sheet.shown) == N
    sheet.write("from", "50")
    sheet.write("to", "60")
    between = (sheet.confidence >= 0.5) & (sheet.confidence <= 0.6)
    assert set(sheet.shown) == set(np.flatnonzero(between))
    sheet.click("Clear all filters")
    assert len(sheet.shown) == N
    sheet.write("Name contains", "/14")
    wait_until(lambda: len(sheet.shown) == 10, "the images of this name")
    assert set(sheet.shown) == {14, *range(140, 149)}
    sheet.write("Name contains", "nowhere")
    wait_until(lambda: "No image fits these filters." in sheet.text, "no image")


def test_details_are_those_of_the_image_also_by_keys(sheet):
    order = sheet.order
    sheet.click(sheet.names[order[0]])
    for place, k in enumerate(order[:8] + order[-3:]):
        if place == 8:
            sheet.press(Keys.ESCAPE, Keys.END, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ENTER)
        shares = sorted(zip(np.round(sheet.proba[k], 6), CLASSES, strict=True), reverse=True)
        for words in (
            f"Class {sheet.labels[k]} Confidence {percent(sheet.confidence[k])}",
            f"Prediction {sheet.kinds[k]}",
            " ".join(f"{label} {percent(share)}" for share, label in shares),
            f"Distance from training images {sheet.found.novelty[k]:.2f}",
            "Nearest training images",
        ):
            assert words in sheet.words
        assert sheet.text.splitlines()[0] == sheet.names[k]
        sheet.press(Keys.ARROW_RIGHT) if place % 2 else sheet.click("Next →")
    assert f"{N} of {N}" in sheet.text
    sheet.press(Keys.ARROW_LEFT, Keys.ESCAPE)
    wait_until(lambda: sheet.focused.startswith(sheet.names[order[-2]]), "the focus where one is")
    sheet.press(Keys.ARROW_RIGHT)
    assert sheet.focused.startswith(sheet.names[order[-1]])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_links_lead_to_files_of_any_name(sheet):
    for name in FILES:
        sheet.click(name.encode("utf-8", "backslashreplace").decode())
        link = urlsplit(sheet.find("Open the original file").get_attribute("href"))
        assert link.scheme == "file"
        assert unquote_to_bytes(link.path) == os.fsencode(sheet.page.parent / name)
        sheet.press(Keys.ESCAPE)
