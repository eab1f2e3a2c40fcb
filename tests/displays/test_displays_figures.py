import io
import subprocess
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hypervlad.displays import (
    CodewordMapDisplay,
    ConfusionDisplay,
    ContactSheetDisplay,
    ReliabilityDisplay,
    SelectiveAccuracyDisplay,
    save_png,
    word_colours,
)
from hypervlad.displays.contact_sheet import RIGHT, WRONG
from hypervlad.displays.reliability import reliability_bins
from hypervlad.displays.tiles import literal, shorten, thumbnail

CLASSES = ["fibre", "matrix"]
IMAGES = [np.full((8, 8 + 2 * i), i / 6, dtype="float32") for i in range(6)]
TRUE = ["fibre", "fibre", "fibre", "matrix", "matrix", "matrix"]
FIBRE = np.array([0.9, 0.55, 0.2, 0.7, 0.4, 0.05])
PROBA = np.column_stack([FIBRE, 1 - FIBRE])


class Encoder:
    """Three codewords, told apart by brightness; two codebooks."""

    codebook_ = SimpleNamespace(codewords=(np.eye(3), np.arange(8.0).reshape(4, 2)))
    taps_ = ("layer1", "layer2")

    def codeword_maps(self, image):
        return np.stack([np.full((4, 4), 2), np.arange(16).reshape(4, 4) % 4])


def texts(display):
    return [text.get_text() for text in display.ax_.texts]


@pytest.mark.parametrize(
    ("select", "expected"),
    [("least_certain", [1, 4, 3, 2, 0, 5]), ("mistakes", [2, 3]), ("all", [0, 1, 2, 3, 4, 5])],
)
def test_a_contact_sheet_shows_the_images_asked_for_in_order(select, expected):
    sheet = ContactSheetDisplay.from_predictions(
        IMAGES, PROBA, classes=CLASSES, y_true=TRUE, select=select
    )
    assert [lines[0] for lines in sheet.captions] == [f"image {i}" for i in expected]
    assert len(sheet.ax_.images) == len(expected)


def test_captions_say_what_the_model_said_and_whether_it_was_right():
    sheet = ContactSheetDisplay.from_predictions(
        IMAGES, PROBA, classes=CLASSES, y_true=TRUE, n_images=3
    )
    assert sheet.captions == [
        ["image 1", "✓ fibre, 55 % sure", "true: fibre"],
        ["image 4", "✓ matrix, 60 % sure", "true: matrix"],
        ["image 3", "✗ fibre, 70 % sure", "true: matrix"],
    ]
    assert sheet.colours == [RIGHT, RIGHT, WRONG]
    assert texts(sheet)[1] == "✓ fibre, 55 % sure"


def test_captions_without_the_truth():
    sheet = ContactSheetDisplay.from_predictions(IMAGES, PROBA, classes=CLASSES, n_images=1)
    assert sheet.captions == [["image 1", "fibre, 55 % sure"]]


def test_files_are_read_with_the_given_options(tmp_path):
    Image.fromarray(np.full((6, 6), 128, dtype="uint8")).save(tmp_path / "a.png")
    sheet = ContactSheetDisplay(
        [tmp_path / "a.png"], [["a"]], read_options={"scaling": (0, 128)}
    ).plot()
    assert sheet.ax_.images[0].get_array().max() == 1.0


def test_a_contact_sheet_of_nothing_is_empty():
    sheet = ContactSheetDisplay.from_predictions([], np.empty((0, 2)), classes=CLASSES)
    assert sheet.captions == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "mistakes"}, "needs y_true"),
        ({"select": "best"}, "expected .least_certain."),
        ({"y_true": ["fibre"]}, "6 images but 1 true labels"),
        ({"classes": ["one"]}, r"1 classes; got an array of shape \(6, 2\)"),
    ],
)
def test_a_contact_sheet_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        ContactSheetDisplay.from_predictions(IMAGES, PROBA, **{"classes": CLASSES, **options})


def test_captions_must_match_images():
    with pytest.raises(ValueError, match="6 images and 1 captions"):
        ContactSheetDisplay(IMAGES, [["one"]])


def test_codeword_maps_come_beside_each_image():
    display = CodewordMapDisplay.from_estimator(Encoder(), IMAGES[:2], names=["a", "b"])
    assert texts(display) == [
        *("a", "words of layer1", "words of layer2"),
        *("b", "words of layer1", "words of layer2"),
    ]
    painted = display.ax_.images[1].get_array()
    np.testing.assert_allclose(painted, np.broadcast_to(word_colours(np.eye(3))[2], (4, 4, 3)))


def test_a_map_covers_its_image_whatever_its_grid():
    wide = np.zeros((10, 40), dtype="float32")
    display = CodewordMapDisplay([wide], [np.zeros((1, 4, 4), dtype=int)]).plot()
    shapes = [
        (abs(x1 - x0), abs(y1 - y0))
        for x0, x1, y0, y1 in (image.get_extent() for image in display.ax_.images)
    ]
    assert shapes[0] == pytest.approx((1, 0.25))
    assert shapes[1] == pytest.approx(shapes[0])


def test_places_without_a_word_are_white():
    words = np.array([[0, -1], [-1, 1]])
    display = CodewordMapDisplay([np.zeros((2, 2))], [words]).plot()
    painted = display.ax_.images[1].get_array()
    np.testing.assert_array_equal(painted[0, 1], [1, 1, 1])
    assert not np.allclose(painted[0, 0], painted[1, 1])


@pytest.mark.parametrize(
    "maps",
    [
        [np.zeros((4, 4))],
        [np.zeros(4, dtype=int)],
        [np.zeros((4, 4), dtype=int)] * 2,
    ],
)
def test_malformed_maps_are_refused(maps):
    with pytest.raises(ValueError, match="map"):
        CodewordMapDisplay([np.zeros((4, 4))], maps)


@pytest.mark.parametrize("words", [1, 2, 16, 256, np.random.default_rng(0).normal(size=(256, 9))])
def test_words_get_colours_of_their_own(words):
    colours = word_colours(words)
    n_words = words if isinstance(words, int) else len(words)
    assert colours.shape == (n_words, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert len(np.unique(colours.round(4), axis=0)) == n_words


def test_similar_words_get_similar_colours():
    rng = np.random.default_rng(0)
    clusters = rng.normal(size=(8, 5)) * 10
    words = np.repeat(clusters, 4, axis=0) + rng.normal(size=(32, 5)) * 0.01
    colours = word_colours(words).reshape(8, 4, 3)
    within = np.ptp(colours, axis=1).mean()
    across = np.ptp(colours.mean(axis=1), axis=0).mean()
    assert within < across / 2


def test_reliability_bins_by_hand():
    confidence = np.array([0.5, 0.55, 0.6, 1.0])
    mean, share, counts = reliability_bins(confidence, np.array([1, 0, 1, 1]), n_bins=5)
    np.testing.assert_array_equal(counts, [0, 0, 3, 0, 1])
    np.testing.assert_allclose(mean[[2, 4]], [0.55, 1.0])
    np.testing.assert_allclose(share[[2, 4]], [2 / 3, 1.0])
    assert np.isnan(mean[0])


def test_a_reliability_diagram_counts_each_image_once():
    display = ReliabilityDisplay.from_predictions(TRUE, PROBA, classes=CLASSES)
    assert display.counts.sum() == len(TRUE)
    heights = [bar.get_height() for bar in display.ax_.patches]
    np.testing.assert_allclose(heights, display.accuracy[display.counts > 0])
    assert str(display.counts.max()) in texts(display)


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
    "sheet": lambda **o: ContactSheetDisplay.from_predictions(IMAGES, PROBA, classes=CLASSES, **o),
    "words": lambda **o: CodewordMapDisplay.from_estimator(Encoder(), IMAGES, **o),
    "reliability": lambda **o: ReliabilityDisplay.from_predictions(
        TRUE, PROBA, classes=CLASSES, **o
    ),
    "selective accuracy": lambda **o: SelectiveAccuracyDisplay.from_predictions(
        TRUE, PROBA, classes=CLASSES, **o
    ),
    "confusion": lambda **o: ConfusionDisplay.from_predictions(TRUE, TRUE, **o),
}


@pytest.mark.parametrize("make", DISPLAYS.values(), ids=DISPLAYS)
def test_a_display_draws_where_it_is_told(make):
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
    width, height = save_png(lambda ax: make(ax=ax), stream, dpi=50)
    with Image.open(stream) as picture:
        assert picture.size == (int(width * 50), int(height * 50))
        assert np.ptp(np.asarray(picture)) > 100
    assert plt.get_fignums() == []


def test_names_that_look_like_formulas_or_cannot_be_drawn_do_no_harm():
    names = ["$\\frac{1", "тест\u4e2d", "bad\udcff", "line\nbreak", "$" * 3, "_hidden"]
    sheet = ContactSheetDisplay.from_predictions(IMAGES, PROBA, classes=["$a_", "b$"], names=names)
    assert save_png(lambda ax: sheet.plot(ax=ax), io.BytesIO())[0] > 0


def test_drawing_leaves_the_backend_alone():
    code = (
        "import io, sys, numpy as np, matplotlib\n"
        "before = dict.__getitem__(matplotlib.rcParams, 'backend')\n"
        "from hypervlad.displays import ContactSheetDisplay, save_png\n"
        "sheet = ContactSheetDisplay([np.eye(4)], [['a']])\n"
        "save_png(lambda ax: sheet.plot(ax=ax), io.BytesIO())\n"
        "assert dict.__getitem__(matplotlib.rcParams, 'backend') is before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shape", [(5, 5), (1, 900), (900, 3), (641, 700, 3), (3000, 2)])
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
