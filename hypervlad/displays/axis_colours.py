"""A colour for each direction of an axis: a cyclic map whose period is half a turn."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Colours = NDArray[np.float32]
_N_COLOURS = 360
# A circle of hues in OKLab, tilted: what runs from red to green, which many people cannot see, also
# runs from dark to light.
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
_STRENGTH = 0.9  # of a colour where the coherence is 1
_SHADOW, _LIGHT = 0.3, 0.8  # how bright a colour is on black pixels, and how much more on white


def direction_colours(angles: ArrayLike) -> Colours:
    """Return a colour for each direction.

    The map is cyclic: theta and theta + pi have one colour. Red stands for 0, ochre for 45, cyan
    for 90 and blue for 135 degrees; the lightness rises from the first to the third, so that
    people who do not tell red from green see four colours too. It is a tilted circle in OKLab [1]_.

    Parameters
    ----------
    angles : array-like of float, any shape
        Radians, finite.

    Returns
    -------
    ndarray of float32, shape (..., 3)
        sRGB in [0, 1].

    References
    ----------
    .. [1] Ottosson. "A perceptual color space for image processing", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.displays import direction_colours
    >>> red, cyan, red_too = direction_colours([0, np.pi / 2, np.pi])
    >>> red.round(1).tolist() == red_too.round(1).tolist(), bool(cyan.sum() > red.sum())
    (True, True)
    """
    turn = np.asarray(angles, dtype=np.float32) * np.float32(_N_COLOURS / np.pi)
    return _table()[np.rint(turn).astype(np.intp) % _N_COLOURS]


def coloured(grey: NDArray[Any], angles: ArrayLike, strength: ArrayLike) -> Colours:
    """Lay the colours of directions over grey pixels, whose brightness still shows.

    Parameters
    ----------
    grey : ndarray of shape (H, W)
        In [0, 1].
    angles : array-like of shape (H, W)
        Radians.
    strength : array-like of shape (H, W)
        From 0, grey, to 1, coloured: the coherence.

    Returns
    -------
    ndarray of float32, shape (H, W, 3)
        In [0, 1].
    """
    base = np.asarray(grey, dtype=np.float32)[..., None]
    share = np.float32(_STRENGTH) * np.asarray(strength, dtype=np.float32)[..., None]
    colours = direction_colours(angles)
    colours *= np.float32(_SHADOW) + np.float32(_LIGHT) * base
    colours -= base
    colours *= share
    colours += base
    return np.clip(colours, 0, 1, out=colours)


def stretched(grey: NDArray[Any]) -> NDArray[np.float32]:
    """Spread the brightness of an image over [0, 1], but for a few pixels at either end.

    Parameters
    ----------
    grey : ndarray of shape (H, W)

    Returns
    -------
    ndarray of float32, shape (H, W)
    """
    low, high = np.percentile(grey, _PERCENTILES)
    span = high - low if high > low else 1.0
    return np.clip((grey - low) / span, 0, 1).astype(np.float32)


@functools.cache
def _table() -> Colours:
    around = np.linspace(0, 2 * np.pi, _N_COLOURS, endpoint=False)
    lab = np.stack(
        [
            _LIGHTNESS - _TILT * np.cos(around),
            _CHROMA * np.cos(around),
            _CHROMA * np.sin(around),
        ],
        axis=-1,
    )
    linear = np.clip((lab @ _LMS_OF_LAB.T) ** 3 @ _RGB_OF_LMS.T, 0, 1)
    curved = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    table: Colours = np.where(linear <= 0.0031308, 12.92 * linear, curved).astype(np.float32)
    table.flags.writeable = False
    return table
