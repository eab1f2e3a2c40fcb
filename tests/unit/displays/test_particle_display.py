"""Outlines of particles in the colours of their classes."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from support.displays import texts

from hypervlad.particles import Outline
from hypervlad.results import ParticleDisplay
from hypervlad.results.displays.colours import CLASS_COLOURS
from hypervlad.results.displays.particles import contours

LABELS = np.zeros((60, 90), int)
LABELS[10:20, 10:30], LABELS[30:50, 40:60], LABELS[0:5, 80:90] = 1, 2, 3


def test_outlines_have_the_colours_of_their_classes():
    display = ParticleDisplay(np.zeros((60, 90)), LABELS, ["rod", "cube", "rod"]).plot()
    lines = [(to_hex(c.get_color()[0]), len(c.get_paths())) for c in display.ax_.collections]
    cube, rod = CLASS_COLOURS[:2]
    assert lines == [(cube, 1), (cube, 1), (rod, 2), (rod, 1)], "outlines, and the legend"
    assert texts(display) == ["cube", "rod"]
    outline = display.ax_.collections[0].get_paths()[0].vertices * 90 / display.ax_.get_xlim()[1]
    np.testing.assert_allclose([outline.min(axis=0), outline.max(axis=0)], [[40, 30], [60, 50]])


def test_given_classes_keep_their_colours_and_the_seventh_is_dashed():
    names = list("abcdefg")
    display = ParticleDisplay(
        np.zeros((60, 90)), LABELS, ["g", "g", "a"], class_names=names, pixel_size=2.0
    ).plot()
    assert texts(display) == [*names, "20 nm"]
    first, last = display.ax_.collections[0], display.ax_.collections[12]
    assert len(first.get_paths()) == 1
    assert len(last.get_paths()) == 2
    assert to_hex(last.get_color()[0]) == to_hex(first.get_color()[0])
    assert last.get_linestyle() != first.get_linestyle()


def test_without_classes_there_is_no_legend():
    display = ParticleDisplay(np.zeros((60, 90)), LABELS).plot()
    (lines,) = display.ax_.collections
    assert len(lines.get_paths()) == 3
    assert texts(display) == []
    assert ParticleDisplay(np.zeros((60, 90)), 0 * LABELS, []).plot().class_names == []


def test_lines_run_around_pixels_and_holes():
    ring = np.ones((3, 4), bool)
    ring[1, 1] = False
    outer, hole = contours(Outline(1, (10, 20, 13, 24), ring))
    np.testing.assert_allclose([outer.min(axis=0), outer.max(axis=0)], [[20, 10], [24, 13]])
    np.testing.assert_allclose([hole.min(axis=0), hole.max(axis=0)], [[21, 11], [22, 12]])


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((np.zeros((50, 90)), LABELS), {}, "outlines of 60 x 90 pixels for an image of 50 x 90"),
        ((np.zeros((60, 90)), LABELS, ["a"]), {}, "one class for each of 3"),
        ((np.zeros((60, 90)), LABELS, list("abc")), {"class_names": "ab"}, "there are c"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        ParticleDisplay(*arguments, **options)
