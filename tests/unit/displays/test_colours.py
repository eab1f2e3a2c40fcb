"""Colours of outcomes, directions and codewords, also for other kinds of colour vision."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import rgb2lab

from hypervlad.results.displays.colours import (
    CLASS_COLOURS,
    FALSE_ALARM,
    FOUND,
    HIT,
    MISSED,
    TRUE,
    Colour,
    codeword_colours,
    direction_colours,
    tint_by_direction,
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
PAIRS = [(FOUND, TRUE), *combinations((HIT, FALSE_ALARM, MISSED), 2)]


def linear(colour: Colour) -> np.ndarray:
    values = np.asarray(colour)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def as_seen(colour: Colour, vision: str) -> np.ndarray:
    values = np.clip(VISION[vision] @ linear(colour), 0, 1)
    curved = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.asarray(rgb2lab(curved))


def contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of the Web Content Accessibility Guidelines, from 1 to 21."""
    low, high = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_every_vision(vision: str) -> None:
    """A CIELAB distance of 2 is just visible side by side."""
    for one, other in PAIRS:
        assert np.linalg.norm(as_seen(one, vision) - as_seen(other, vision)) > 35


@pytest.mark.parametrize("vision", VISION)
def test_classes_differ_for_every_vision(vision: str) -> None:
    for pair in combinations(map(to_rgb, CLASS_COLOURS), 2):
        one, other = (as_seen(colour, vision) for colour in pair)
        assert np.linalg.norm(one - other) > 30


def test_colours_differ_on_a_grey_print() -> None:
    assert all(contrast(*pair) > 1.6 for pair in PAIRS)
    assert contrast(MISSED, FALSE_ALARM) > 3


def test_colours_have_a_period_of_half_a_turn_and_no_jump() -> None:
    angles = np.linspace(0, np.pi, 721)
    colours = direction_colours(angles)
    assert colours.dtype == np.float32
    assert colours.min() >= 0
    assert colours.max() <= 1
    np.testing.assert_allclose(colours, direction_colours(angles + np.pi), atol=0.06)
    np.testing.assert_array_equal(colours[0], colours[-1])
    assert np.abs(np.diff(colours, axis=0)).max() < 0.06
    assert direction_colours(0.3).shape == (3,)


@pytest.mark.parametrize("vision", ["protanopia", "deuteranopia"])
def test_people_without_red_or_green_tell_directions_apart(vision: str) -> None:
    seen = direction_colours(np.deg2rad(np.arange(0, 180, 22.5))) ** 2.2 @ VISION[vision].T
    seen = np.clip(seen, 0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert apart[~np.eye(len(seen), dtype=bool)].min() > 0.08
    assert apart[::2, ::2][~np.eye(4, dtype=bool)].min() > 0.25


def test_what_is_not_coherent_stays_grey() -> None:
    grey = np.linspace(0, 1, 12).reshape(3, 4)
    found = tint_by_direction(grey, np.full((3, 4), 1.0), np.zeros((3, 4)))
    np.testing.assert_allclose(found, np.repeat(grey[..., None], 3, axis=2), rtol=1e-6)
    full = tint_by_direction(grey, np.full((3, 4), 1.0), np.ones((3, 4)))
    assert (np.diff(full.mean(axis=-1).ravel()) > 0).all(), "brightness shows through"
    assert (np.ptp(full, axis=-1) > 0.05).all()


@pytest.mark.parametrize("n_codewords", [1, 2, 256])
def test_codewords_get_different_colours(n_codewords: int) -> None:
    colours = codeword_colours(np.random.default_rng(0).normal(size=(n_codewords, 9)))
    assert colours.shape == (n_codewords, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert len(np.unique(colours.round(4), axis=0)) == n_codewords


def test_similar_codewords_get_similar_colours() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.normal(size=(8, 5)) * 10
    words = np.repeat(clusters, 4, axis=0) + rng.normal(size=(32, 5)) * 0.01
    colours = codeword_colours(words).reshape(8, 4, 3)
    within = np.ptp(colours, axis=1).mean()
    across = np.ptp(colours.mean(axis=1), axis=0).mean()
    assert within < across / 2
