"""Colours of outcomes, directions and codewords, also for other kinds of colour vision."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import rgb2lab
from support.displays import pictures
from support.tiny import make_tiny_encoder

from hypervlad.results import (
    CodewordMapDisplay,
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
    *_, true, found = pictures(DefectMapDisplay([image], [mask], [mask], 1, masks=[mask]).plot())
    *_, hit, false, missed, _ = pictures(PatchConfusionDisplay([image], [mask], [mask]).plot())
    shown = {"true": true, "found": found, "hit": hit, "false": false, "missed": missed}
    return {name: each[0, 0] for name, each in shown.items()}


def linear(colour):
    values = np.asarray(colour)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def as_seen(colour, vision):
    values = np.clip(VISION[vision] @ linear(colour), 0, 1)
    curved = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.asarray(rgb2lab(curved))


def contrast(one, other):
    """The contrast ratio of the Web Content Accessibility Guidelines, from 1 to 21."""
    low, high = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (one, other))
    return (high + 0.05) / (low + 0.05)


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


def test_outcomes_differ_on_a_grey_print(outcomes):
    pairs = [("found", "true"), *combinations(("hit", "false", "missed"), 2)]
    assert all(contrast(outcomes[one], outcomes[other]) > 1.6 for one, other in pairs)
    assert contrast(outcomes["missed"], outcomes["false"]) > 3


@pytest.fixture(scope="module")
def of_direction():
    """The colours of directions, in radians, at the rim of the half wheel in the figure."""
    display = OrientationDisplay.from_image(np.eye(32))
    (wheel,) = [each for each in pictures(display) if each.shape[-1] == 4]
    side = len(wheel)

    def colours(angles):
        rows = np.rint((1 - 0.99 * np.sin(angles)) * (side - 1)).astype(int)
        columns = np.rint((1 + 0.99 * np.cos(angles)) * (side - 0.5)).astype(int)
        return wheel[rows, columns, :3]

    return colours


def test_directions_have_a_period_of_half_a_turn_and_no_jump(of_direction):
    colours = of_direction(np.linspace(0, np.pi, 361))
    assert 0 <= colours.min() < colours.max() <= 1
    np.testing.assert_allclose(colours[0], colours[-1], atol=0.06)
    assert np.abs(np.diff(colours, axis=0)).max() < 0.06
    assert colours[0].argmax() == 0, "red"
    assert colours[180].argmin() == 0, "cyan"


@pytest.mark.parametrize("vision", ["protanopia", "deuteranopia"])
def test_people_without_red_or_green_tell_directions_apart(of_direction, vision):
    seen = of_direction(np.deg2rad(np.arange(0, 180, 22.5))) ** 2.2 @ VISION[vision].T
    seen = np.clip(seen, 0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert apart[~np.eye(len(seen), dtype=bool)].min() > 0.08
    assert apart[::2, ::2][~np.eye(4, dtype=bool)].min() > 0.22


def of_codewords(codewords):
    """The colours of codewords, by a map that has each of them once."""
    encoder = make_tiny_encoder().fit([np.random.default_rng(0).random((16, 16))])
    book = encoder.codebook_
    encoder.codebook_ = dataclasses.replace(book, joint=None, per_layer=(codewords,))
    encoder.codeword_maps = lambda _: np.arange(len(codewords))[None, None]
    display = CodewordMapDisplay.from_estimator(encoder, [np.zeros((16, 16))])
    return pictures(display)[1][0]


@pytest.mark.parametrize("n_codewords", [1, 2, 256])
def test_codewords_get_different_colours(n_codewords):
    colours = of_codewords(np.random.default_rng(0).normal(size=(n_codewords, 9)))
    assert colours.shape == (n_codewords, 3)
    assert 0 <= colours.min() < colours.max() <= 1
    assert len(np.unique(colours.round(4), axis=0)) == n_codewords


def test_similar_codewords_get_similar_colours():
    rng = np.random.default_rng(0)
    clusters = rng.normal(size=(8, 5)) * 10
    words = np.repeat(clusters, 4, axis=0) + rng.normal(size=(32, 5)) * 0.01
    colours = of_codewords(words).reshape(8, 4, 3)
    within = np.ptp(colours, axis=1).mean()
    across = np.ptp(colours.mean(axis=1), axis=0).mean()
    assert within < across / 2
