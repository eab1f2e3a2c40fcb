"""Outlines of particles in the colours of their classes, and scale bars."""

import numpy as np
import pytest
from support.displays import texts

from hypervlad.results import ParticleDisplay

LABELS = np.zeros((60, 90), int)
LABELS[10:20, 10:30], LABELS[30:50, 40:60], LABELS[0:5, 80:90] = 1, 2, 3
IMAGE = np.zeros((60, 90))


def lines_of(display):
    """The colours of lines, and their points in pixels."""
    scale = 90 / display.ax_.get_xlim()[1]
    return [
        (tuple(each.get_color()[0]), [scale * path.vertices for path in each.get_paths()])
        for each in display.ax_.collections
    ]


def box(points):
    return pytest.approx([*points.min(axis=0), *points.max(axis=0)])  # type: ignore[no-any-return]


def test_outlines_have_the_colours_of_their_classes():
    display = ParticleDisplay(IMAGE, LABELS, ["rod", "cube", "rod"]).plot()
    (cube, cubes), (rod, rods) = lines_of(display)
    assert cube != rod
    assert [box(each) for each in cubes] == [[40, 30, 60, 50]]
    assert [box(each) for each in rods] == [[10, 10, 30, 20], [80, 0, 90, 5]]
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["cube", "rod"]


@pytest.mark.parametrize(
    ("quarter", "text"),  # of the width of the image, in nm
    [
        *((1, "1 nm"), (1.99, "1 nm"), (2, "2 nm"), (49, "20 nm"), (5e5, "500 µm")),
        *((0.012, "10 pm"), (999.9, "500 nm"), (2e6, "2 mm"), (0.0501, "50 pm"), (1000, "1 µm")),
    ],
)
def test_scale_bars_are_round_and_at_most_a_quarter_of_the_width(quarter, text):
    display = ParticleDisplay(IMAGE, LABELS, pixel_size=quarter * 4 / 90).plot()
    assert texts(display) == [text]
    box, bar = (patch.get_bbox() for patch in display.ax_.patches)
    number, unit = text.split()
    length = float(number) * {"pm": 1e-3, "nm": 1, "µm": 1e3, "mm": 1e6}[unit]
    assert bar.width / display.ax_.get_xlim()[1] == pytest.approx(length / quarter / 4)
    assert box.x0 < bar.x0
    assert bar.x1 < box.x1 < display.ax_.get_xlim()[1]


@pytest.mark.parametrize(
    ("corners", "place"),
    [(["lr"], "ll"), (["ul"], "lr"), (["lr", "ll"], "ur"), (["lr", "ll", "ur", "ul"], "lr")],
)
def test_scale_bars_lie_beside_what_was_drawn_into_the_image(corners, place):
    image = np.random.default_rng(0).uniform(0.3, 0.5, (200, 300))
    for vertical, horizontal in corners:
        rows = slice(0, 24) if vertical == "u" else slice(-24, None)
        columns = slice(0, 90) if horizontal == "l" else slice(-90, None)
        image[rows, columns] = 0
    display = ParticleDisplay(image, np.zeros((200, 300), int), pixel_size=1.0).plot()
    box = display.ax_.patches[0].get_bbox()
    is_low = box.y0 > display.ax_.get_ylim()[0] / 2
    is_right = box.x0 > display.ax_.get_xlim()[1] / 2
    assert place == ("l" if is_low else "u") + ("r" if is_right else "l")
