"""What detectors and light add to an image: hot pixels, dead lines, seams, uneven light."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.common.progress import note_doubt
from hypervlad.images.morphology import EIGHT, extreme
from hypervlad.images.resampling import areas_of, by_rows

_REACH = 1  # pixels, from the middle of squares, whose levels are no hot pixels
_MAX_RANGE = 5.0  # of grey levels, by that of squares: of noise alone, at most 4
_MAX_HOT, _MAX_HOT_SHARE = 4, 0.01  # pixels of a cluster; of the image, as fine stripes have more
# Lines of a detector's dead or hot pixels: how many of the pixels are beyond both neighbours, of at
# most how many that are compared; by how many times as much as these are beyond the next ones,
# which they are in real lines; share of all lines, as fine stripes are more.
_OF_LINE, _ALONG, _ALONE, _MAX_LINES = 0.95, 512, 4, 0.01
# Seams of tiles: along the whole line or half of it, the step from one line to the next is so many
# times what is usual (at least the third value, of the range), which is less in the middle of the
# image. The lines before and after step by less than a share of it, here and in each quarter, where
# half of it is at least; fewer lines than tiles fit have half of it. Tiles are as wide as a share
# of the image. All of 36 drawn mats with steps of a tenth of the range have them, 29 of 36 with a
# twentieth, and none of 325 real images.
_CLEAR, _IN_MIDDLE, _LEAST_STEP, _SHARP, _STEADY, _MIN_TILE = 7.0, 5.0, 0.002, 0.3, 0.5, 0.125
_QUARTERS = 4  # of a line
_LEAST_SEAM, _MOST_SEAM = 0.01, 0.35  # of the range, that tiles differ by; more are edges
_OF_LEVEL = 0.3  # of a grey level, which medians may step by, is usual
# A surface of this degree is uneven light if its range is so many standard deviations of what is
# left, whose coarse part varies by less than this share of the range. With slopes and vignettes of
# three and five times the contrast, 56 of 56 drawn images have it, of twice 14 of 28; with steps,
# discs and spheres of 60 to 260 pixels instead, none of 140 of 480. Narrower beams are not
# recognised. With 2.5 instead of 6, two of 400 empty fields more have a false particle.
_DEGREE, _MIN_LIGHT, _MAX_LEFT = 2, 6.0, 0.06
_COARSE, _MAX_SAMPLE = 16, 2**16  # parts of a side; pixels that are looked at
# Fewer levels of grey are steps, and more pixels of the first or the last one are saturated.
_MIN_LEVELS, _MAX_SATURATED = 64, 0.01
_KEEP = '--set scaling=percentile (in Python, read_options={{"scaling": "percentile"}}) keeps it'
_UNEVEN_LIGHT = (
    "brightness changes smoothly across the image, {:.2g} times as much as what is left varies: "
    "taken out as uneven light; if it is of the sample, " + _KEEP
)
_SEAMS = (
    "brightness steps by up to {:.2g} of its range along straight lines from side to side, as "
    "where tiles of a detector or a mosaic meet: taken out; if it is of the sample, such as the "
    "edge of a film, " + _KEEP
)


def without_dead_lines(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace rows and columns that are darker or brighter than both neighbours all along."""
    for axis in (0, 1):
        lines = np.moveaxis(grey, axis, 0)
        some = np.pad(lines[:, :: max(1, lines.shape[1] // _ALONG)], ((2, 2), (0, 0)), "edge")
        own, after, before = some[2:-2], some[3:-1], some[1:-3]
        beyond = [(own > np.maximum(after, before)), (own < np.minimum(after, before))]
        is_dead = np.max([each.mean(axis=1) for each in beyond], axis=0) > _OF_LINE
        dead = np.flatnonzero(is_dead[1:-1]) + 1
        nearest = (after[dead] + before[dead]) / 2
        apart = own[dead] - nearest, nearest - (some[4:][dead] + some[:-4][dead]) / 2
        steps, usual = (np.abs(np.median(each, axis=1)) for each in apart)
        dead = dead[steps > _ALONE * usual]
        if 0 < len(dead) <= max(1, _MAX_LINES * len(lines)):
            grey = grey.copy()
            np.moveaxis(grey, axis, 0)[dead] = (lines[dead - 1] + lines[dead + 1]) / 2
            grey = stretched(grey)
    return grey


def without_hot_pixels(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip pixels and small clusters far beyond all others, beside which no contrast counts."""
    squares = partial(extreme, reach=_REACH)
    # The range that squares reach.
    low = float(by_rows(partial(squares, pick=np.maximum), grey, _REACH).min())
    high = float(by_rows(partial(squares, pick=np.minimum), grey, _REACH).max())
    reach = _MAX_RANGE * (high - low)
    if not 0 < reach < np.ptp(grey):
        return grey
    far = (grey > low + reach) | (grey < high - reach)
    clusters, n = ndimage.label(far, EIGHT)
    is_hot = far & (areas_of(clusters, n)[clusters] <= _MAX_HOT)
    if not 0 < is_hot.mean() <= _MAX_HOT_SHARE:
        return grey
    return stretched(np.where(is_hot, grey.clip(low, high), grey))


def without_seams(
    grey: NDArray[np.float32], mask: NDArray[np.bool_], name: str
) -> NDArray[np.float32]:
    """Subtract the levels of tiles that meet along straight lines, and note it."""
    starts = [_tile_starts(*each) for each in ((grey, mask), (grey.T, mask.T))]
    levels = _tile_levels(grey, mask, starts)
    if not _LEAST_SEAM <= (step := np.ptp(levels)) <= _MOST_SEAM:
        return grey
    note_doubt(name, _SEAMS.format(step))
    rows, columns = (
        np.repeat(np.arange(len(each) + 1), np.diff([0, *each, n]))
        for each, n in zip(starts, grey.shape, strict=True)
    )
    return _even(grey - levels[rows][:, columns], mask)


def _tile_starts(lines: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the lines at which tiles begin, but the first one."""
    n = len(lines)
    if min(lines.shape) < _COARSE:
        return np.zeros(0, np.intp)
    some = slice(None, None, max(1, lines.shape[1] // _ALONG))
    lines, seen = lines[:, some], seen[:, some]
    own = _of_quarters(np.diff(lines, axis=0) * (seen[1:] & seen[:-1]))
    parts = np.s_[:], np.s_[: _QUARTERS // 2], np.s_[_QUARTERS // 2 :]
    steps_of = [own[part].mean(axis=0) for part in parts]
    least = np.where(np.abs(np.arange(1, n) - n / 2) < 1, _IN_MIDDLE, _CLEAR)
    if not any((np.abs(step) > least * _usual(step)).any() for step in steps_of):
        return np.zeros(0, np.intp)  # most images, at once
    n_levels = len(np.unique(lines[:: max(1, n // _ALONG)]))
    rounding = _OF_LEVEL * float(np.ptp(lines)) / max(n_levels - 1, 1)
    further = np.pad(_of_quarters(lines[5:] - lines[:-5]), ((0, 0), (2, 2)))
    is_start = np.zeros(n - 1, bool)
    for part, step in zip(parts, steps_of, strict=True):
        shares = np.vstack([own[part], further[part].mean(axis=0)]) / np.where(step, step, np.inf)
        is_seam = (shares > _STEADY).all(axis=0) & (np.abs(step) > least * _usual(step, rounding))
        is_seam &= _STEADY * np.abs(step) > np.sort(np.abs(step))[-round(1 / _MIN_TILE)]
        for steps, most in ((step, _SHARP), *((each, _STEADY) for each in own[part])):
            beside = np.abs(np.pad(steps, 1))
            beside = np.maximum(beside[:-2], beside[2:])
            is_seam &= beside < np.maximum(most * np.abs(step), 3 * _usual(steps, rounding))
        is_start |= is_seam
    starts = np.flatnonzero(is_start) + 1
    sizes = np.diff([0, *starts, n])
    return np.asarray(starts[np.minimum(sizes[1:], sizes[:-1]) >= _MIN_TILE * n])


def _of_quarters(lines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the median of each quarter of lines, shape (4, n)."""
    # NumPy sorts short rows ten times as fast as it finds their medians.
    ordered = [np.sort(part, axis=1) for part in np.array_split(lines, _QUARTERS, axis=1)]
    middles = [each[:, [(each.shape[1] - 1) // 2, each.shape[1] // 2]] for each in ordered]
    return np.asarray(np.stack(middles).mean(axis=2))


def _usual(steps: NDArray[np.float32], rounding: float = 0.0) -> float:
    return max(1.25 * float(np.abs(steps).mean()), _LEAST_STEP, rounding)


def _tile_levels(
    grey: NDArray[np.float32], mask: NDArray[np.bool_], starts: list[NDArray[np.intp]]
) -> NDArray[np.float32]:
    """Return the levels of tiles that explain best by how much brightness steps between them."""
    tiles = np.arange(np.prod([len(each) + 1 for each in starts])).reshape(len(starts[0]) + 1, -1)
    sides, steps = [np.zeros(tiles.size)], [0.0]
    for axis in (0, 1):
        lines, seen, own = (np.moveaxis(each, axis, 0) for each in (grey, mask, tiles))
        for n, k in enumerate(starts[axis]):
            both, apart = seen[k - 1] & seen[k], lines[k] - lines[k - 1]
            ends = [0, *starts[1 - axis], len(apart)]
            for before, after, low, high in zip(own[n], own[n + 1], ends, ends[1:], strict=False):
                shown = apart[low:high][both[low:high]]
                steps.append(float(np.median(shown)) if len(shown) else 0.0)
                sides.append(np.eye(tiles.size)[after] - np.eye(tiles.size)[before])
    levels = np.linalg.lstsq(np.stack(sides), np.array(steps))[0].reshape(tiles.shape)
    return np.asarray(levels, np.float32)


def without_uneven_light(
    grey: NDArray[np.float32], mask: NDArray[np.bool_], name: str
) -> NDArray[np.float32]:
    """Subtract a smooth change of brightness that hides the contrast, and note it."""
    step = max(1, int((grey.size / _MAX_SAMPLE) ** 0.5))
    values, seen = grey[::step, ::step], mask[::step, ::step]
    levels, counts = np.unique(values[seen], return_counts=True)
    if min(grey.shape) < _COARSE or len(levels) < _MIN_LEVELS:
        return grey
    if max(counts[0], counts[-1]) > _MAX_SATURATED * counts.sum():
        return grey
    terms = [(i, j) for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
    powers = [np.polynomial.legendre.legvander(np.linspace(-1, 1, n), _DEGREE) for n in grey.shape]
    rows, across = (own[::step] for own in powers)
    columns = np.stack([np.outer(rows[:, i], across[:, j])[seen] for i, j in terms], axis=1)
    weights, *_ = np.linalg.lstsq(columns, values[seen], rcond=None)
    left, range_ = np.zeros(seen.shape), np.ptp(columns @ weights)
    left[seen] = values[seen] - columns @ weights
    rounding = np.ptp(levels) / (len(levels) - 1) / 2
    if not rounding < (deviation := left[seen].std()) < range_ / _MIN_LIGHT:
        return grey
    sigma = min(seen.shape) / _COARSE
    near = np.maximum(ndimage.gaussian_filter(seen.astype(float), sigma), 0.05)
    if (ndimage.gaussian_filter(left, sigma) / near)[seen].std() >= _MAX_LEFT * range_:
        return grey
    note_doubt(name, _UNEVEN_LIGHT.format(range_ / deviation))
    surface = np.zeros((_DEGREE + 1, _DEGREE + 1))
    surface[tuple(np.transpose(terms))] = weights
    down, right = (each.astype(np.float32) for each in (powers[0] @ surface, powers[1]))
    return _even(grey - down @ right.T, mask)


def _even(grey: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Stretch an image to the range within a mask."""
    return stretched(grey.clip(grey[mask].min(), grey[mask].max()))


def stretched(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale an image from its darkest and its brightest pixel."""
    range_ = np.ptp(grey)
    return np.asarray((grey - grey.min()) / range_ if range_ > 0 else grey, np.float32)
