import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from support.displays import TwoCodebooks, texts

from hypervlad.evaluation import Evaluation
from hypervlad.images import ReadOptions
from hypervlad.results import (
    CodewordMapDisplay,
    ConfusionDisplay,
    ContactSheetDisplay,
    OrientationDisplay,
    ReliabilityDisplay,
    SelectiveAccuracyDisplay,
    save_png,
)
from hypervlad.results.displays.base import literal, shorten, thumbnail
from hypervlad.results.displays.colours import RIGHT, WRONG

CLASSES = ["fibre", "matrix"]
IMAGES = [np.full((8, 8 + 2 * i), i / 6, dtype="float32") for i in range(6)]
TRUE = ["fibre", "fibre", "fibre", "matrix", "matrix", "matrix"]
FIBRE = np.array([0.9, 0.55, 0.2, 0.7, 0.4, 0.05])
PROBA = np.column_stack([FIBRE, 1 - FIBRE])


@pytest.mark.parametrize(
    ("select", "expected"),
    [("least_certain", [1, 4, 3, 2, 0, 5]), ("mistakes", [2, 3]), ("all", [0, 1, 2, 3, 4, 5])],
)
def test_a_contact_sheet_shows_the_images_requested_in_order(select, expected):
    sheet = ContactSheetDisplay.from_predictions(
        IMAGES, PROBA, classes=CLASSES, y_true=TRUE, select=select
    )
    assert [lines[0] for lines in sheet.captions] == [f"image {i}" for i in expected]
    assert len(sheet.ax_.images) == len(expected)


def test_captions_say_the_prediction_and_whether_it_was_right():
    sheet = ContactSheetDisplay.from_predictions(
        IMAGES, PROBA, classes=CLASSES, y_true=TRUE, n_images=3
    )
    assert sheet.captions == [
        ["image 1", "✓ fibre, 55 %", "true: fibre"],
        ["image 4", "✓ matrix, 60 %", "true: matrix"],
        ["image 3", "✗ fibre, 70 %", "true: matrix"],
    ]
    assert sheet.colours == [RIGHT, RIGHT, WRONG]
    assert texts(sheet)[1] == "✓ fibre, 55 %"


def test_files_are_read_with_the_given_options(tmp_path):
    Image.fromarray(np.full((6, 6), 128, dtype="uint8")).save(tmp_path / "a.png")
    options = ReadOptions(scaling=(0, 128))
    sheet = ContactSheetDisplay([tmp_path / "a.png"], [["a"]], read_options=options).plot()
    assert sheet.ax_.images[0].get_array().max() == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "best"}, "expected .least_certain."),
        ({"y_true": ["fibre"]}, "one true label for each of 6 images; got 1"),
        ({"classes": ["one"]}, r"shape \(6, 1\); got \(6, 2\)"),
    ],
)
def test_a_contact_sheet_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        ContactSheetDisplay.from_predictions(
            IMAGES, PROBA, **{"classes": CLASSES, "y_true": TRUE, **options}
        )


def test_a_reliability_diagram_counts_each_image_once():
    display = ReliabilityDisplay.from_predictions(TRUE, PROBA, classes=CLASSES)
    assert display.bins.counts.sum() == len(TRUE)
    heights = [bar.get_height() for bar in display.ax_.patches]
    np.testing.assert_allclose(heights, display.bins.accuracy[display.bins.counts > 0])
    assert str(display.bins.counts.max()) in texts(display)


def test_a_selective_accuracy_curve_counts_unknown_labels_as_mistakes():
    y = ["fibre", "matrix", "ghost", "fibre"]
    proba = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]
    result = Evaluation(y, np.array(proba), CLASSES)
    display = SelectiveAccuracyDisplay.from_predictions(y, proba, classes=CLASSES)
    assert display.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert display.accuracy.tolist() == [1, 1, 2 / 3, 0.5], "a ghost cannot be predicted"
    assert display.area == result.selective_area == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)


@pytest.mark.parametrize("limits", [None, (0.995, 1)])
def test_no_label_of_a_selective_accuracy_curve_is_rounded(limits):
    display = SelectiveAccuracyDisplay([0.5, 1.0], [1.0, 0.99], area=0.995).plot()
    display.ax_.set_ylim(limits)
    display.figure_.canvas.draw()
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    shown = [float(label.removesuffix(" %")) / 100 for label in labels]
    np.testing.assert_allclose(shown, display.ax_.get_yticks())


def test_captions_shrink_with_small_axes_and_do_not_overlap():
    figure = plt.figure(figsize=(6, 3), dpi=200)
    ax = figure.subplots(1, 2)[0]
    sheet = ContactSheetDisplay.from_predictions(
        IMAGES, PROBA, classes=CLASSES, y_true=TRUE, n_images=6, ax=ax
    )
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in sheet.ax_.texts if text.get_text()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    figure.set_size_inches(40, 20)
    figure.canvas.draw()
    assert {text.get_fontsize() for text in sheet.ax_.texts} == {8.5}, "never enlarged"
    plt.setp(sheet.ax_.texts, fontsize=12)
    figure.canvas.draw()
    assert {text.get_fontsize() for text in sheet.ax_.texts} == {12}, "the size of a user"


def test_a_confusion_matrix_writes_counts_and_long_names():
    labels = ["a class with a name that is far too long", "fibre", "$x^2$"]
    display = ConfusionDisplay.from_predictions(
        [labels[0], "fibre", "fibre"], ["fibre", "fibre", labels[0]], labels=labels
    )
    np.testing.assert_array_equal(display.matrix, [[0, 1, 0], [1, 1, 0], [0, 0, 0]])
    assert texts(display) == ["1", "1", "1"]
    ticks = display.ax_.get_xticklabels()
    assert ticks[0].get_text() == "a class wi…ar too long"
    assert ticks[0].get_rotation() == 40
    assert ticks[2].get_text() == r"\$x^2\$"


def test_many_classes_go_without_numbers():
    labels = [f"class {number}" for number in range(30)]
    display = ConfusionDisplay.from_predictions(labels, labels)
    assert texts(display) == []
    assert max(display.figure_size) < 16


DISPLAYS = {
    "sheet": lambda **o: ContactSheetDisplay.from_predictions(
        IMAGES, PROBA, classes=CLASSES, y_true=TRUE, **o
    ),
    "words": lambda **o: CodewordMapDisplay.from_estimator(TwoCodebooks(), IMAGES, **o),
    "reliability": lambda **o: ReliabilityDisplay.from_predictions(
        TRUE, PROBA, classes=CLASSES, **o
    ),
    "selective accuracy": lambda **o: SelectiveAccuracyDisplay.from_predictions(
        TRUE, PROBA, classes=CLASSES, **o
    ),
    "confusion": lambda **o: ConfusionDisplay.from_predictions(TRUE, TRUE, **o),
    "directions": lambda **o: OrientationDisplay.from_image(np.eye(64), **o),
}


@pytest.mark.parametrize("make", DISPLAYS.values(), ids=DISPLAYS)
def test_a_display_draws_into_the_given_axes(make):
    ax = Figure().add_subplot()
    display = make(ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert plt.get_fignums() == []
    again = display.plot()
    assert again is display
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("make", DISPLAYS.values(), ids=DISPLAYS)
def test_a_png_has_the_size_that_the_display_asks_for(make):
    stream = io.BytesIO()
    width, height = save_png(lambda ax: make(ax=ax), stream)
    with Image.open(stream) as picture:
        assert picture.size == (int(width * 144), int(height * 144))
        assert np.ptp(np.asarray(picture)) > 100
    assert plt.get_fignums() == []


def test_names_that_look_like_formulas_or_cannot_be_drawn_do_no_harm():
    names = ["$\\frac{1", "тест\u4e2d", "bad\udcff", "line\nbreak", "$" * 3, "_hidden"]
    sheet = ContactSheetDisplay.from_predictions(
        IMAGES, PROBA, classes=["$a_", "b$"], y_true=TRUE, names=names
    )
    assert save_png(lambda ax: sheet.plot(ax=ax), io.BytesIO())[0] > 0


@pytest.mark.parametrize("shape", [(5, 5), (1, 900), (641, 700, 3)])
def test_thumbnails_keep_the_mean(shape):
    image = np.random.default_rng(0).random(shape)
    small = thumbnail(image, side=100)
    assert small.ndim == image.ndim
    assert min(small.shape[:2]) >= 1
    assert small.mean() == pytest.approx(image.mean(), abs=0.05)


def test_text_is_made_safe_and_short():
    assert literal("a$b\n\udcff") == "a\\$b ?"
    assert shorten("short") == "short"
    assert len(shorten("x" * 80)) == 26
