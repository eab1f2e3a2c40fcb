"""By how much particles stand out: steps of grey values at outlines, and texture beside these."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.images.morphology import grown, shrunk
from hypervlad.images.resampling import halved, smoothed
from hypervlad.objects.windows import side_by_side

_RING = 3  # pixels to both sides of an outline, between which grey values step
_MIN_FREE = 0.25  # of the pixels around a particle, which no other one has
_LEAST_TEXTURE = 16  # pixels, of the sides of what background is judged by
_MAX_PARTS, _PART = 9, 1024  # at most, of this side in pixels, likewise
_UPPER = 1.2816  # standard deviations from the median of a Gaussian to the quantile .9
_LEAST_CORE = 20  # pixels further within, whose grey values vary


class Edges(NamedTuple):
    """What outlines show: of each, by how much it is brighter within than beyond, times a sign; the
    share of it that is the image's edge; by how much pixels along its edge, and all of its pixels,
    are brighter, (n, 2), and how many these are; and the standard deviation of grey values further
    within, as a share of the step. NaN is unknown.
    """

    steps: NDArray[np.float64]
    at_edge: NDArray[np.float64]
    contrasts: NDArray[np.float64]
    areas: NDArray[np.int64]
    spreads: NDArray[np.float64]


def pixel_noise(grey: NDArray[np.float32]) -> float:
    """Return the standard deviation from pixel to pixel: of white noise, nine tenths of its own."""
    return float(np.median(np.abs(grey - ndimage.gaussian_filter(grey, 1)))) / 0.6745


def edges_of(grey: NDArray[np.float32], labels: NDArray[np.int32], sign: int) -> Edges:
    n = int(labels.max(initial=0))
    lengths, spreads, contrasts = np.ones(n), np.full(n, np.nan), np.full((n, 2), np.nan)
    areas = np.zeros((n, 2), np.int64)
    ends = (labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1])
    n_ends = np.bincount(np.concatenate(ends), minlength=n + 1)[1:]
    for some in side_by_side(labels, _RING + 1):
        of, at, there = some.at, some.numbers - 1, some.take(labels, -1)
        own, outside, free = there == some.of_column, there == -1, there == 0
        del there  # of the largest images, each copy takes 268 MB
        lengths[at] = some.counts(own & ~shrunk(own))
        within = own & ~shrunk(own | outside, _RING, corners=True)
        beyond = grown(own, _RING, corners=True) & ~own & ~outside
        free &= beyond
        is_free = some.counts(free) >= _MIN_FREE * some.counts(beyond)
        beyond = np.where(is_free[of], free, beyond)
        above = some.take(grey)
        with np.errstate(divide="ignore", invalid="ignore"):  # an image that is one particle
            above -= (some.sums(above, beyond) / some.counts(beyond)).astype(np.float32)[of]
            above *= sign
            for column, part in enumerate((within, own)):
                areas[at, column] = some.counts(part)
                contrasts[at, column] = some.sums(above, part) / areas[at, column]
            core = own & ~within
            n_core, steps = some.counts(core), contrasts[at, 0]
            above -= (some.sums(above, core) / n_core).astype(np.float32)[of]
            above *= above
            spread = np.sqrt(some.sums(above, core) / n_core) / steps
            spreads[at] = np.where((n_core >= _LEAST_CORE) & (steps > 0), spread, np.nan)
    return Edges(np.nan_to_num(contrasts[:, 0]), n_ends / lengths, contrasts, areas, spreads)


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
) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
    """Return the function that says how much means of so many pixels of background vary.

    They are means by Gaussian weights, less those by weights twice as wide, in a pyramid of halved
    images; of the largest images, some parts are taken.
    """
    corners = list(itertools.product(*(range(0, extent, _PART) for extent in grey.shape)))
    pools = defaultdict[float, list[NDArray[np.float32]]](list)  # by logarithms of areas
    for top, left in corners[:: -(-len(corners) // _MAX_PARTS)]:
        window = slice(top, top + _PART), slice(left, left + _PART)
        free = ~grown(labels[window] > 0, 2)
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
        return lambda areas: np.full(areas.shape, 1e-9)
    known, deviations = np.transpose(logs)
    return lambda areas: np.exp(np.interp(np.log(areas), known, deviations))
