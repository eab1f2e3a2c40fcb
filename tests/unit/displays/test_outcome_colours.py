"""Colours of outcomes differ for any kind of colour vision, and in lightness."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from skimage.color import rgb2lab

from hypervlad.displays.colours import FALSE_ALARM, FOUND, HIT, MISSED, TRUE, Colour

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
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_colours_differ_for_every_vision(vision: str, one: Colour, other: Colour) -> None:
    """A CIELAB distance of 2 is just visible side by side."""
    assert np.linalg.norm(as_seen(one, vision) - as_seen(other, vision)) > 35


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_colours_differ_on_a_grey_print(one: Colour, other: Colour) -> None:
    assert contrast(one, other) > 1.6


def test_missed_and_false_alarm_differ_most() -> None:
    assert contrast(MISSED, FALSE_ALARM) > 3
