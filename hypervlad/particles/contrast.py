"""By how much particles stand out: steps of grey values at outlines, and texture beside these."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.images.resampling import halved, smoothed
from hypervlad.objects.splitting import EIGHT, grown_window

_RING = 3  # pixels to both sides of an outline, between which grey values step
_MIN_FREE = 0.25  # of the pixels around a particle, which no other one has
_LEAST_TEXTURE = 16  # pixels, of the sides of what background is judged by
_MAX_PARTS, _PART = 9, 1024  # at most, of this side in pixels, likewise
_UPPER = 1.2816  # standard deviations from the median of a Gaussian to the quantile .9
_LEAST_CORE = 20  # pixels further within, whose grey values vary


class Edges(NamedTuple):
    """What outlines show: of each, by how much it is brighter within than beyond, times a sign; the
    share of it that is the image's edge; by how much, with the area, of one or two parts; and the
    standard deviation of grey values further within, as a share of the step.
    """

    steps: NDArray[np.float64]
    at_edge: NDArray[np.float64]
    contrasts: dict[int, list[tuple[float, int]]]
    spreads: NDArray[np.float64]


def pixel_noise(grey: NDArray[np.float32]) -> float:
    """Return the standard deviation from pixel to pixel: of white noise, nine tenths of its own."""
    return float(np.median(np.abs(grey - ndimage.gaussian_filter(grey, 1)))) / 0.6745


def edges_of(grey: NDArray[np.float32], labels: NDArray[np.int32], sign: int) -> Edges:
    n = int(labels.max(initial=0))
    steps, lengths, contrasts = np.zeros(n), np.ones(n), dict[int, list[tuple[float, int]]]()
    spreads = np.full(n, np.nan)
    ends = (labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1])
    n_ends = np.bincount(np.concatenate(ends), minlength=n + 1)[1:]
    for number, window in enumerate(ndimage.find_objects(labels)):
        around = grown_window(window, _RING + 1)
        own, values = labels[around] == number + 1, sign * grey[around]
        if n_ends[number]:
            lengths[number] = np.count_nonzero(own & ~ndimage.binary_erosion(own))
        within = own & ~ndimage.binary_erosion(own, EIGHT, iterations=_RING, border_value=1)
        beyond = ndimage.binary_dilation(own, EIGHT, iterations=_RING) & ~own
        free = beyond & (labels[around] == 0)
        if free.sum() >= _MIN_FREE * beyond.sum():
            beyond = free
        if not beyond.any():  # an image that is one particle
            continue
        outer = values[beyond].mean()
        parts = [values[part] for part in (within, own) if part.any()]
        contrasts[number] = [(part.mean() - outer, part.size) for part in parts]
        steps[number] = contrasts[number][0][0]
        core = values[own & ~within]
        if len(core) >= _LEAST_CORE and steps[number] > 0:
            spreads[number] = core.std() / steps[number]
    return Edges(steps, n_ends / lengths, contrasts, spreads)


def stands_out(
    values: NDArray[np.float32], weights: NDArray[np.float32], *widths: float
) -> NDArray[np.float32]:
    """Return means by narrow Gaussian weights less those by wide ones; values times weights."""
    means = list[NDArray[np.float32]]()
    for width in widths:  # in place: of the largest images, each copy takes 64 MB
        means.append(smoothed(values, width))
        total = smoothed(weights, width)
        means[-1] /= np.maximum(total, 1e-6, out=total)
    means[0] -= means[1]
    return means[0]


def texture_of(
    grey: NDArray[np.float32], labels: NDArray[np.int32], sign: int
) -> Callable[[int], float]:
    """Return the function that says how much means of so many pixels of background vary.

    They are means by Gaussian weights, less those by weights twice as wide, in a pyramid of halved
    images; of the largest images, some parts are taken.
    """
    corners = list(itertools.product(*(range(0, extent, _PART) for extent in grey.shape)))
    pools = defaultdict[float, list[NDArray[np.float32]]](list)  # by logarithms of areas
    for top, left in corners[:: -(-len(corners) // _MAX_PARTS)]:
        window = slice(top, top + _PART), slice(left, left + _PART)
        free = ~ndimage.binary_dilation(labels[window] > 0, iterations=2)
        values, weights = np.where(free, sign * grey[window], 0), free.astype(np.float32)
        area = 4 * np.pi  # of Gaussian weights, as that of equal ones of as little noise
        while min(values.shape) >= _LEAST_TEXTURE:
            pools[np.log(area)].append(stands_out(values, weights, 1, 2)[weights > 0.5])
            values, weights = map(halved, (values, weights))
            area *= 4
    logs = list[tuple[float, float]]()
    for log_area, pool in pools.items():
        differences = np.concatenate(pool)
        if len(differences) >= _LEAST_TEXTURE**2:
            # Of noise that is brighter in few places, the upper side counts.
            middle, upper = np.quantile(differences, [0.5, 0.9])
            if upper > middle:
                logs.append((log_area, float(np.log((upper - middle) / _UPPER))))
    if not logs:
        return lambda area: 1e-9
    areas, deviations = np.transpose(logs)
    return lambda area: float(np.exp(np.interp(np.log(area), areas, deviations)))
