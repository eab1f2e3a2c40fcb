"""Margins of one level: what surrounds an image that was turned, shifted or seen through a hole."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_EIGHT = np.ones((3, 3), bool)
# Margins have a corner of the image, and one level: compression changes it by so much, but half of
# it by little, and where much within has it, it is the background's. The rest is convex, with other
# levels along its edge. It reaches all sides, and is so large, or larger; or it is a rectangle.
_BLANK, _RINGING, _EXACT, _LEAST_MARGIN, _FOLLOWED = 2, 20, 0.5, 0.005, 0.9
_MAX_WITHIN, _WITHIN, _TO_ALL_SIDES = 0.3, 0.6, 0.45
_BLURRED = 3  # pixels, of the edge
_BESIDE = 4  # pixels beside the edge, within which other levels are
_RECTANGLE = 0.97  # least share of its box that a rectangle fills

Mask: TypeAlias = NDArray[np.bool_]
Grey: TypeAlias = NDArray[np.float32]


def find_margins(grey: Grey) -> list[Mask]:
    """Return where margins are, (H, W), of each level, in levels of 0 to 255."""
    corners = [each for rows in (grey[:3], grey[-3:]) for each in (rows[:, :3], rows[:, -3:])]
    levels = {float(np.median(each)) for each in corners if np.ptp(each) <= _BLANK}
    found = (_margin_of(grey, level) for level in sorted(levels))
    return [each for each in found if each is not None]


def _margin_of(grey: Grey, level: float) -> Mask | None:
    other = np.abs(grey - level) > _RINGING
    if not 0 < other.mean() <= 1 - _LEAST_MARGIN:
        return None
    shown = convex_hull(other)
    ends = [np.flatnonzero(shown.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    spaces = [(low, n - 1 - high) for (low, high), n in zip(ends, grey.shape, strict=True)]
    box = np.prod([high + 1 - low for low, high in ends])
    is_apart = np.min(spaces) > _BLURRED and shown.sum() < _RECTANGLE * box
    least = _TO_ALL_SIDES if np.max(spaces) <= _BLURRED else _WITHIN
    if is_apart or not least <= shown.mean() <= 1 - _LEAST_MARGIN:
        return None
    edge = shown & ~ndimage.binary_erosion(shown, _EIGHT, border_value=1)
    own, within = ((np.abs(grey[each] - level) <= _BLANK).mean() for each in (~shown, shown))
    followed = ndimage.binary_dilation(other, _EIGHT, _BESIDE)[edge].mean()
    return ~shown if own >= _EXACT and within <= _MAX_WITHIN and followed >= _FOLLOWED else None


def convex_hull(mask: Mask) -> Mask:
    from skimage.morphology import convex_hull_image  # not above: importing it takes long

    return np.asarray(convex_hull_image(mask))
