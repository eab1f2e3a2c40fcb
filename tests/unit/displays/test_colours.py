"""Colours of outcomes, directions and codewords, also for other kinds of colour vision."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import rgb2lab
from support.displays import colours

from hypervlad.results import (
    DefectMapDisplay,
    OrientationDisplay,
    ParticleDisplay,
    PatchConfusionDisplay,
)

# Of linear RGB, for complete dichromats: G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A
# physiologically-based model for simulation of color vision deficiency", IEEE Transactions on
# Visualization and Computer Graphics 15, 2009.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


@pytest.fixture
def outcomes():
    """The colours of the legends of defects."""
    image, mask = np.full((20, 20), 0.5), np.eye(20, dtype=bool)
    maps = colours(DefectMapDisplay([image], [mask], [mask], 1, masks=[mask]).plot())
    patches = colours(PatchConfusionDisplay([image], [mask], [mask]).plot())
    names = {"true": "mask", "hit": "hit", "false": "false alarm", "missed": "missed"}
    both = maps | patches
    return {"found": both["found"], **{name: both[text] for name, text in names.items()}}


def linear(colour):
    values = np.asarray(colour)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def as_seen(colour, vision):
    values = np.clip(VISION[vision] @ linear(colour), 0, 1)
    curved = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.asarray(rgb2lab(curved))


@pytest.mark.parametrize("vision", VISION)
def test_outcomes_and_classes_differ_for_every_vision(outcomes, vision):
    """A CIELAB distance of 2 is just visible side by side."""
    pairs = [("found", "true"), *combinations(("hit", "false", "missed"), 2)]
    for pair in pairs:
        one, other = (as_seen(outcomes[name], vision) for name in pair)
        assert np.linalg.norm(one - other) > 35
    display = ParticleDisplay(np.zeros((9, 9)), np.eye(9, dtype=int), ["a"], class_names="abcdef")
    lines = display.plot().ax_.collections
    classes = {tuple(to_rgb(each.get_color()[0])) for each in lines}
    assert len(classes) == 6
    for pair in combinations(classes, 2):
        one, other = (as_seen(colour, vision) for colour in pair)
        assert np.linalg.norm(one - other) > 30


def test_directions_have_a_period_of_half_a_turn_and_no_jump():
    rim = OrientationDisplay.from_image(np.eye(32)).panels_[2].patches[48:]
    colours = np.array([bar.get_facecolor()[:3] for bar in rim])
    assert 0 <= colours.min() < colours.max() <= 1
    np.testing.assert_allclose(colours[:24], colours[24:])
    assert np.abs(np.diff(colours, axis=0)).max() < 0.3
    assert colours[0].argmax() == 0, "red"
    assert colours[12].argmin() == 0, "cyan"
