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
