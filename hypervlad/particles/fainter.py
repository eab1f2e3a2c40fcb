"""Particles that are missed: fainter than others or than uneven light, or as strong as others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize

from hypervlad.images.morphology import grown, shrunk
from hypervlad.images.resampling import areas_of, by_rows, halved, nearest, smoothed
from hypervlad.images.sample import Sample
from hypervlad.objects.splitting import renumbered
from hypervlad.objects.windows import BoolMap, LabelMap
from hypervlad.particles.contrast import edges_of, stands_out
from hypervlad.particles.decoder import brightness_of

# Pixels at half the size: of spots, of what is around them, and what that is averaged from.
_NARROW, _WIDE, _REACH = 0.75, 6.0, 24
_CLEARANCE, _LEAST = 2, 1000  # pixels there: around particles, and of what is beside these
_INNER = np.s_[12:-12, 12:-12]  # pixels there; uneven light has an end at the image's edge
_STANDS_OUT = 4.0  # standard deviations
_STRONGEST = 90  # percentile of particles, some of which may be as faint as spots
_HALO = 0.5  # share of spots that rise towards particles, twice that of all pixels or more
_MIN_SPOTS = 6  # to be more than dirt, and to be alike
# Contrast of spots over that of other particles; the ratio of upper and lower tenths of contrasts
# and areas. Spots of supporting films have 2 and more, and 5 to 17; drawn ones 1.0 to 1.4, and 2.
_FAINTER, _ALIKE, _ALIKE_AREAS = (0.05, 0.35), 1.8, 4.5
_MAX_KNOWN = 0.3  # of a new outline, that is particles from before
_MIN_MISSED = 0.1  # of the particles, spots without outline that are mentioned
# Of light: its least width in pixels, and that to which it is averaged in halved images; of how
# much less the range is without it; and how many of the particles are still found then.
_LEAST_WIDTH, _AVERAGED, _CLEARER, STILL_FOUND = 5.0, 4.0, 1.15, 0.9
_LEAST_WEIGHT = np.float32(0.02)  # of pixels beside particles, for those far from any
_AT_MOST = 1024  # pixels of a side, by which ranges are judged
# Regions that stand out as particles do, without an outline: how much of the step they have within,
# and at their edges; their least area by the median of particles, and all of them by all of these.
_AS_STRONG, _SHARP, _LARGE_ENOUGH, _MIN_BARE = 0.9, 0.3, 0.3, 0.05
_BARE = (
    "{:,} regions stand out as much as particles, but have no outline, {:.0%} of the area of those "
    "that have one; outlines beside them may be wrong, too"
)
_NOTE = (
    "{:,} spots as faint as each other, {:.2g} times as much as other particles, stand out from "
    "the noise, but have no outline: numbers and sizes leave them out"
)


@dataclass(frozen=True, eq=False)
class FaintSpots:
    """Spots beside particles, which are alike, and the image in which they stand out."""

    grey: NDArray[np.float32]  # without the contrast of other particles beyond that of the spots
    at: NDArray[np.intp]  # (n,), the pixel of each spot
    share: float  # of the contrast of other particles, that spots have

    def added(self, labels: LabelMap, seen: LabelMap) -> LabelMap:
        """Return the outlines with those that this image shows beside them, if these are alike."""
        areas = areas_of(seen, int(seen.max()))
        known = areas_of(np.where(labels > 0, seen, 0), len(areas) - 1)
        is_new = (known <= _MAX_KNOWN * areas) & (areas > 0)
        is_new[0] = False
        if is_new.sum() < _MIN_SPOTS or not _alike(areas[is_new], _ALIKE_AREAS):
            return labels
        n = int(labels.max())
        new = np.where(is_new[seen], seen, 0)
        within = areas_of(np.where(new > 0, labels, 0), n)  # parts of faint particles
        is_kept = within < (1 - _MAX_KNOWN) * areas_of(labels, n)
        labels = np.where(is_kept[labels], labels, 0)
        return renumbered(np.where((new > 0) & (labels == 0), new + n, labels).astype(np.int32))

    def missed(self, labels: LabelMap) -> tuple[float, str]:
        """Return how many spots no outline contains, for each one, as a logarithm; and a note."""
        n, n_missed = int(labels.max()), int(np.count_nonzero(labels.ravel()[self.at] == 0))
        if n_missed < max(_MIN_SPOTS, _MIN_MISSED * n):
            return 0.0, ""
        return float(np.log1p(n_missed / n)), _NOTE.format(n_missed, self.share)


def evened(sample: Sample, labels: LabelMap) -> NDArray[np.float32] | None:
    """Return an image without light as uneven as particles are wide; None if it differs little.

    The labels have the image's size, or half of it.
    """
    half, _, free = _beside(sample, labels)
    areas = areas_of(labels, int(labels.max()))[1:] * (sample.grey.size / labels.size)
    width = max(_LEAST_WIDTH, float(np.sqrt(np.median(areas[areas > 0])))) / 2
    values, weights = np.where(free, half, 0), free.astype(np.float32)
    if not free.any():
        return None
    while width >= 2 * _AVERAGED and min(values.shape) > 2:
        values, weights, width = halved(values), halved(weights), width / 2
    usual = np.float32(np.median(half[free]) * _LEAST_WEIGHT)
    light = (smoothed(values, width) + usual) / (smoothed(weights, width) + _LEAST_WEIGHT)
    some = sample.grey[:: -(-len(sample.grey) // _AT_MOST), :: -(-len(sample.grey.T) // _AT_MOST)]
    ranges = [brightness_of(each)[1] for each in (some, some - nearest(light, some.shape))]
    if ranges[0] <= _CLEARER * ranges[1]:
        return None
    even = sample.grey - resize(light, sample.grey.shape, order=1)
    even -= even.min()
    return np.asarray(even / even.max(), np.float32)


def faint_spots(
    sample: Sample, labels: LabelMap, polarity: str | None, min_area: int
) -> FaintSpots | None:
    """Look for several spots that are alike, and much fainter than outlined particles.

    These have a polarity, or that of their medians.
    """
    half, is_own, free = _beside(sample, labels)
    if np.count_nonzero(free[_INNER]) < _LEAST or not is_own.any():
        return None
    is_bright = bool(np.median(half[is_own]) > np.median(half[free]))
    sign = 1 if (is_bright if polarity is None else polarity == "bright") else -1
    half *= sign
    beyond = by_rows(_beyond_around, np.where(free, half, np.nan), _REACH)
    within = np.zeros_like(free)
    within[_INNER] = free[_INNER]
    beyond[~within] = 0
    middle = np.median(beyond[within])
    deviation = 1.4826 * np.median(np.abs(beyond[within] - middle))
    spots, n = ndimage.label(beyond > middle + _STANDS_OUT * deviation)
    at = np.flatnonzero(spots)
    of, own = spots.ravel()[at] - 1, beyond.ravel()[at]
    areas, most, peaks = np.bincount(of, minlength=n), np.zeros(n, np.float32), np.zeros(n, np.intp)
    np.maximum.at(most, of, own)
    is_peak = own == most[of]
    peaks[of[is_peak]] = at[is_peak]
    cores = np.bincount(of[own > most[of] / 2], minlength=n)  # hot pixels have small ones
    is_spot = cores >= min_area / 4
    if np.count_nonzero(is_spot) < _MIN_SPOTS or not _alike(areas[is_spot], _ALIKE_AREAS):
        return None
    contrasts = most[is_spot]
    step = np.percentile(half[is_own], _STRONGEST) - np.median(half[free])
    share = float(np.median(contrasts) / max(step, 1e-9))
    if not (_FAINTER[0] < share < _FAINTER[1] and _alike(contrasts, _ALIKE)):
        return None
    y, x = np.unravel_index(peaks[is_spot], spots.shape)
    is_beside = grown(~free)  # where light around particles is brightest
    if is_beside[y, x].mean() > max(_HALO, 2 * is_beside[within].mean()):
        return None
    top = np.float32(sign * np.percentile(half[free], 99))
    clipped = (np.minimum if sign > 0 else np.maximum)(sample.grey, top)
    return FaintSpots(clipped, np.ravel_multi_index((2 * y, 2 * x), labels.shape), share)


def _beyond_around(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far values, NaN if unknown, are beyond those around them."""
    is_known = ~np.isnan(values)
    return stands_out(np.where(is_known, values, 0), is_known.astype(np.float32), _NARROW, _WIDE)


def bare_regions(sample: Sample, labels: LabelMap, polarity: str) -> tuple[float, str]:
    """Return, as `FaintSpots.missed` does, how many regions as strong as particles are missed."""
    half, is_own, free = _beside(sample, labels)
    if not (is_own.any() and free.any()):
        return 0.0, ""
    sign = 1 if polarity == "bright" else -1
    smooth = ndimage.gaussian_filter(sign * half, 1)
    usual = np.median(smooth[free])
    step = np.median(smooth[is_own]) - usual
    regions, n = ndimage.label(grown(shrunk(free & (smooth > usual + _AS_STRONG * step))))
    own = areas_of(labels, int(labels.max()))[1:] / 4  # at half the size
    areas = areas_of(regions, n)[1:]
    is_bare = areas >= _LARGE_ENOUGH * np.median(own[own > 0])
    is_bare &= edges_of(half, regions, sign).steps >= _SHARP * step
    n_bare, share = int(np.count_nonzero(is_bare)), float(areas[is_bare].sum() / own.sum())
    if n_bare < _MIN_SPOTS or share < _MIN_BARE:
        return 0.0, ""
    return float(np.log1p(n_bare / np.count_nonzero(own))), _BARE.format(n_bare, share)


def _beside(sample: Sample, labels: LabelMap) -> tuple[NDArray[np.float32], BoolMap, BoolMap]:
    """Return the image at half the size, and what is outlined and what lies beside that there."""
    half = halved(sample.grey)
    is_own, is_hidden = nearest(labels, half.shape) > 0, ~nearest(sample.mask, half.shape)
    return half, is_own, ~grown(is_own | is_hidden, _CLEARANCE)


def _alike(values: NDArray[Any], ratio: float) -> bool:
    low, high = np.quantile(values, [0.1, 0.9])
    return bool(high <= ratio * low)
