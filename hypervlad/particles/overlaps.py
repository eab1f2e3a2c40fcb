"""Where particles overlap in transmission, both show: that region is no particle of its own."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.images.morphology import grown
from hypervlad.objects.measures import solidity
from hypervlad.objects.splitting import borders_of
from hypervlad.objects.windows import LabelMap, grown_window, joint_window

_BETWEEN = 0.7  # of the outline of an overlap, that two particles have
_RING = 3  # pixels around the three regions, in which the background is
# Contrast of an overlap, over the sum of both; more than each, as a share of the lesser of both.
_SUM, _MORE = (0.75, 1.25), 0.4
# Solidity that both gain by it, as each lacks a part otherwise, and what they have then.
_GAIN, _CONVEX = 0.02, 0.88
_ONE = 1.15  # times the contrast of one particle, above which it is that of several


def silhouettes(
    grey: NDArray[np.float32], labels: LabelMap, sign: int
) -> NDArray[np.float32] | None:
    """Return the image with overlaps as bright or dark as one particle; None if there is none.

    An overlap lies between two regions, has the contrast of both together, and makes both more
    convex.
    """
    windows, levels = ndimage.find_objects(labels), list[float]()
    for number, both in _between_two(labels).items():
        around = grown_window(joint_window(*(windows[each - 1] for each in (number, *both))), _RING)
        values, masks = sign * grey[around], [labels[around] == each for each in (number, *both)]
        free = grown(np.logical_or.reduce(masks), _RING)
        free &= labels[around] == 0
        if not free.any():
            continue
        background = float(values[free].mean())
        contrast, *others = (float(values[each].mean()) - background for each in masks)
        are_summed = min(others) > 0 and _SUM[0] <= contrast / sum(others) <= _SUM[1]
        if not are_summed or contrast < max(others) + _MORE * min(others):
            continue
        overlap, *alone = masks
        whole = [solidity(each | overlap) for each in alone]
        gains = [own - solidity(each) for own, each in zip(whole, alone, strict=True)]
        if min(gains) >= _GAIN and min(whole) >= _CONVEX:
            levels.append(background + _ONE * max(others))
    if not levels:
        return None
    level = np.float32(sign * np.median(levels))
    return (np.minimum if sign > 0 else np.maximum)(grey, level)


def _between_two(labels: LabelMap) -> dict[int, list[int]]:
    """Return which regions lie between two others, and these."""
    beside = defaultdict[int, list[tuple[int, int]]](list)
    for pair, length in zip(*borders_of(labels), strict=True):
        for one, other in (pair.tolist(), pair[::-1].tolist()):
            beside[one].append((int(length), other))
    found = dict[int, list[int]]()
    for number, own in beside.items():
        most = sorted((each for each in own if each[1]), reverse=True)[:2]
        is_between = sum(n for n, _ in most) >= _BETWEEN * sum(n for n, _ in own)
        if number and len(most) == 2 and is_between:
            found[number] = [other for _, other in most]
    return found
