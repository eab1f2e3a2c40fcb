"""Figures of predictions with known labels, and what all displays have in common."""

import io
from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from support.displays import pictures, texts

from hypervlad.evaluation import Evaluation
from hypervlad.results import (
    ConfusionDisplay,
    ContactSheetDisplay,
    DefectMapDisplay,
    EvidenceDisplay,
    OrientationDisplay,
    ParticleDisplay,
    ReliabilityDisplay,
    save_png,
)

CLASSES = ["fibre", "matrix"]
IMAGES = [np.full((8, 8 + 2 * i), i / 6, dtype="float32") for i in range(6)]
TRUE = ["fibre", "fibre", "fibre", "matrix", "matrix", "matrix"]
FIBRE = np.array([0.9, 0.55, 0.2, 0.7, 0.4, 0.05])
PROBA = np.column_stack([FIBRE, 1 - FIBRE])


def sheet_of(ax=None, **options):
    captions = [[f"image {i}", f"answer {i}", label] for i, label in enumerate(TRUE)]
    return ContactSheetDisplay(IMAGES, captions, **options).plot(ax=ax)


# --- images with captions -----------------------------------------------------------------------


def test_a_contact_sheet_shows_images_with_captions_of_which_the_second_line_is_coloured():
    sheet = sheet_of(colours=["red"] * 3 + ["blue"] * 3)
    assert texts(sheet)[:3] == ["image 0", "answer 0", "fibre"]
    assert [each.mean() for each in pictures(sheet)] == pytest.approx([i / 6 for i in range(6)])
    colours = [tile.texts[1].get_color() for tile in sheet.ax_.child_axes]
    assert colours == ["red"] * 3 + ["blue"] * 3


def test_names_that_look_like_formulas_or_cannot_be_drawn_do_no_harm():
    names = ["$\\frac{1", "тест\u4e2d", "bad\udcff", "line\nbreak", "$" * 3, "_hidden"]
    sheet = ContactSheetDisplay(IMAGES, [[name, "a", "b"] for name in names])
    assert save_png(lambda ax: sheet.plot(ax=ax), io.BytesIO())[0] > 0
    assert texts(sheet)[::3] == [
        *("\\$\\frac{1", "тест\u4e2d", "bad?", "line break", r"\$\$\$", "_hidden")
    ]
    (text,) = texts(ContactSheetDisplay([np.eye(2)], [["x" * 40 + "y" * 40]]).plot())
    assert (len(text), text[0], text[-1], text.count("…")) == (26, "x", "y", 1)


# --- curves and matrices ------------------------------------------------------------------------


def test_a_reliability_diagram_counts_each_image_once():
    display = ReliabilityDisplay.from_predictions(TRUE, PROBA, classes=CLASSES)
    bins = display.bins
    assert bins.counts.sum() == len(TRUE)
    _, curve = display.ax_.lines
    np.testing.assert_allclose(curve.get_ydata(), bins.accuracy[bins.counts > 0])
    numbers = [text for text in texts(display) if text.isdigit()]
    assert numbers == [str(count) for count in bins.counts if count]
    groups = Evaluation(TRUE, np.asarray(PROBA), CLASSES, ["one"] * len(TRUE))
    drawn = display, ReliabilityDisplay(groups).plot()
    lines = [each.ax_.collections[-1].get_segments() for each in drawn]
    many = bins.counts[bins.counts > 0] > 1
    of_images, of_one = (np.diff(each, axis=1)[many, 0, 1] for each in lines)
    assert (of_one > of_images).all(), "images of one group are one trial"


def test_a_selective_accuracy_curve_counts_unknown_labels_as_mistakes():
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    found = Evaluation(["fibre", "matrix", "ghost", "fibre"], proba, CLASSES)
    assert found.selective_curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert found.selective_curve.accuracy.tolist() == [1, 1, 2 / 3, 0.5], "no ghost is predicted"


def test_a_confusion_matrix_writes_counts_and_long_names():
    labels = ["a class with a name that is far too long", "fibre", "$x^2$"]
    display = ConfusionDisplay([[0, 1, 0], [1, 1, 0], [0, 0, 0]], labels).plot()
    np.testing.assert_allclose(pictures(display)[0], [[0, 1, 0], [0.5, 0.5, 0], [0, 0, 0]])
    assert texts(display) == ["", "1", "", "1", "1", "", "", "", ""]
    ticks = display.ax_.get_xticklabels()
    assert ticks[0].get_text() == "a class wi…ar too long"
    assert ticks[0].get_rotation() == 40
    assert ticks[2].get_text() == r"\$x^2\$"
    many = [f"class {number}" for number in range(30)]
    display = ConfusionDisplay(np.eye(30, dtype=int), many).plot()
    assert texts(display) == [], "no numbers"
    assert max(display.figure_size) < 16


# --- all displays -------------------------------------------------------------------------------

DIRECTIONS = OrientationDisplay.from_image
DISPLAYS = {
    "sheet": sheet_of,
    "reliability": partial(ReliabilityDisplay.from_predictions, TRUE, PROBA, classes=CLASSES),
    "confusion": lambda **o: ConfusionDisplay(np.eye(2, dtype=int), CLASSES).plot(**o),
    "particles": lambda **o: ParticleDisplay(np.eye(9), np.eye(9, dtype=int)).plot(**o),
}


@pytest.mark.parametrize("make", DISPLAYS.values(), ids=DISPLAYS)
def test_a_display_draws_into_the_given_axes_and_is_saved_in_its_own_size(make):
    ax = Figure().add_subplot()
    display = make(ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert plt.get_fignums() == []
    stream = io.BytesIO()
    width, height = save_png(lambda ax: make(ax=ax), stream)
    with Image.open(stream) as picture:
        assert picture.size == (int(width * 144), int(height * 144))
        assert np.ptp(np.asarray(picture)) > 100
    assert plt.get_fignums() == []
    assert display.plot() is display
    assert len(plt.get_fignums()) == 1


IMAGE, MASK = np.full((60, 90), 0.5), np.zeros((60, 90), bool)
WORDS, DIAGONAL = np.zeros((1, 4, 4), int), np.diag([1, 2, 3])
UNUSED = SimpleNamespace(classes_=("a", "b"))


@pytest.mark.parametrize(
    ("make", "arguments", "options", "words"),
    [
        (ContactSheetDisplay, (IMAGES, [["a"]]), {}, "one caption for each of 6 images; got 1"),
        (EvidenceDisplay, ([IMAGE] * 2, [None]), {}, "one explanation for each of 2 images"),
        (EvidenceDisplay, ([IMAGE], [None]), {"labels": "flat"}, r"a list: \['flat'\]"),
        (EvidenceDisplay.from_estimator, (UNUSED, IMAGE), {}, "wrap"),
        (DefectMapDisplay, ([IMAGE], [], [MASK], 1), {}, "one map for each of 1 image; got 0"),
        (DefectMapDisplay, ([IMAGE], [IMAGE * np.nan], [MASK], 1), {}, "image 0: .*NaN"),
        (DefectMapDisplay, ([IMAGE], [WORDS], [MASK], 1), {}, r"got shape \(1, 4, 4\)"),
        (DefectMapDisplay, ([IMAGE], [IMAGE.T], [MASK.T], 1), {}, "60 x 90 pixels, but a map"),
        (DefectMapDisplay, ([IMAGE], [IMAGE], [MASK], 1), {"masks": [MASK.T]}, "mask of 90 x 60"),
        (ParticleDisplay, (IMAGE[:50], 1 * MASK), {}, "outlines of 60 x 90 pixels for an image"),
        (ParticleDisplay, (np.eye(3), DIAGONAL, ["a"]), {}, "one class for each of 3"),
        (ParticleDisplay, (np.eye(3), DIAGONAL, "abc"), {"class_names": "ab"}, "there are c"),
        (DIRECTIONS, (IMAGE,), {"method": "fft"}, "method must be .* not 'fft'"),
        (DIRECTIONS, (IMAGE,), {"pixel_size": "4"}, "pixel_size must be nanometres .* not '4'"),
        (DIRECTIONS, (IMAGE,), {"window": "5nm", "pixel_size": 5}, "5nm, 1 px .* at least 2"),
        (DIRECTIONS, (np.eye(64),), {"window": "1um", "pixel_size": 5}, "1um, 200 px"),
    ],
)
def test_what_does_not_fit_is_refused(make, arguments, options, words):
    with pytest.raises(ValueError, match=words):
        make(*arguments, **options).plot()
