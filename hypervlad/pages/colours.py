"""The colours of displays: of outcomes, and of directions."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.images.resampling import by_rows

Colours = NDArray[np.float32]
Colour = tuple[float, float, float]

DARK = "#222222"
GREY = "#444444"  # of less important text
RIGHT = "#1a7f37"
WRONG = "#b42318"
FOR: Colour = (0.86, 0.10, 0.16)  # red: evidence for a class
AGAINST: Colour = (0.10, 0.38, 0.92)  # blue
# Colours of similar hues to Okabe and Ito's (2008), with three levels of lightness: people with any
# kind of colour vision can tell them apart, also on a grey print.
FOUND: Colour = (0.80, 0.30, 0.0)
TRUE: Colour = (0.60, 0.86, 1.0)
# Of classes of particles: light enough for dark pixels, with a dark border for bright ones,
# and at least 30 apart in CIELAB, also for people who confuse red and green.
CLASS_COLOURS = ("#5ce1ff", "#f0410a", "#ffeb00", "#a04bff", "#c8ffb4", "#d15d74")
BORDER = "#000000a0"

_N_COLOURS = 360  # of directions
_LIGHTNESS, _TILT, _CHROMA = 0.70, 0.14, 0.16
_LMS_OF_LAB = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_RGB_OF_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_PERCENTILES = (0.5, 99.5)
_OPACITY = 0.9  # of a colour where the coherence is 1
_SHADOW, _LIGHT = 0.3, 0.8  # brightness of a colour on black pixels, and what white adds to it


def direction_colours(angles: ArrayLike) -> Colours:
    """Return sRGB in [0, 1], shape (..., 3), for each direction in radians, with period pi.

    Red is 0, ochre 45, cyan 90 and blue 135 degrees.
    """
    turn = np.asarray(angles, dtype=np.float32) * np.float32(_N_COLOURS / np.pi)
    return np.asarray(_table()[np.rint(turn).astype(np.intp) % _N_COLOURS])


def tint_by_direction(grey: NDArray[Any], angles: ArrayLike, strength: ArrayLike) -> Colours:
    """Tint grey pixels (H, W) in the colours of directions, in radians; brightness shows through.

    The strength is from 0 (grey) to 1 (coloured).
    """
    base = np.asarray(grey, dtype=np.float32)[..., None]
    share = np.float32(_OPACITY) * np.asarray(strength, dtype=np.float32)[..., None]
    colours = direction_colours(angles)
    colours *= np.float32(_SHADOW) + np.float32(_LIGHT) * base
    colours -= base
    colours *= share
    colours += base
    return np.clip(colours, 0, 1, out=colours)


def stretch_contrast(grey: NDArray[Any]) -> NDArray[np.float32]:
    """Stretch grey values (H, W) to [0, 1]; half a per cent at either end is clipped."""
    low, high = np.percentile(grey, _PERCENTILES)
    span = high - low if high > low else 1.0
    return by_rows(lambda rows: ((rows - low) / span).clip(0, 1).astype(np.float32), grey)


def as_rgb(pixels: NDArray[Any]) -> NDArray[np.float64]:
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2).astype(float)
    return pixels.astype(float)


@functools.cache
def _table() -> Colours:
    # B. Ottosson, "A perceptual color space for image processing", 2020. The lightness rises from
    # red to cyan, so that people who confuse red and green can tell them apart.
    around = np.linspace(0, 2 * np.pi, _N_COLOURS, endpoint=False)
    lab = np.stack(
        [_LIGHTNESS - _TILT * np.cos(around), _CHROMA * np.cos(around), _CHROMA * np.sin(around)],
        axis=-1,
    )
    linear = np.clip((lab @ _LMS_OF_LAB.T) ** 3 @ _RGB_OF_LMS.T, 0, 1)
    curved = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    table: Colours = np.where(linear <= 0.0031308, 12.92 * linear, curved).astype(np.float32)
    table.flags.writeable = False
    return table
