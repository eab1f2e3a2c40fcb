"""One particle grown from a point in it, where finding has missed it or outlined it wrongly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize

from hypervlad.features.lazy_torch import usual_torch
from hypervlad.images.resampling import halved
from hypervlad.objects.measures import solidity
from hypervlad.objects.particle import Outline, cropped
from hypervlad.objects.splitting import Window
from hypervlad.particles.decoder import brightness_of, parts_of
from hypervlad.particles.finding import finder_network

_HALF = 128  # pixels to each side of the point that are looked at, on each scale
_FRAME = 8  # pixels of what is looked at, in which no particle may end: there is more beyond
_SEPARATIONS = 0.95, 0.6  # of the parts among which the particle may be
_LEVELS = 80, 128, 190  # of 255: probability of background where it may end
_N_STEPS = 12  # grey levels where it may end, of bright and of dark ones
_SMOOTHING, _SEED = 1.0, 2  # pixels: of grey levels, and to each side of the point for its own
_LEAST, _LEAST_COARSE = 12, 1200  # pixels of a particle, and of one that is seen on smaller scales
_CONVEX = 4  # power of the solidity, beside the root of the probability of a border
_MAX_CHOICES = 5  # regions, one after the other
_ALIKE, _SAME = 0.8, 0.95  # of all pixels of two regions, what they share
_MIN_QUALITY, _SURE = 0.33, 0.45  # of a particle, above that of background; no other scale is tried

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]


class _Region(NamedTuple):
    """A region that may be a particle, in its box on one scale."""

    quality: float
    window: Window
    mask: Mask
    shrinking: int


@dataclass(frozen=True, eq=False)
class GrowingField:
    """An image in which particles grow from points.

    Parameters
    ----------
    grey : ndarray of float32, shape (H, W)
    """

    grey: NDArray[np.float32]

    @functools.cached_property
    def _brightness(self) -> tuple[float, float]:
        return brightness_of(self.grey)

    @functools.cached_property
    def _smaller(self) -> list[NDArray[np.float32]]:
        found = [self.grey]
        while max(found[-1].shape) > _HALF:  # the last is seen whole from each of its pixels
            found.append(halved(found[-1]))
        return [each for each in found if each.size]

    def prepare(self) -> None:
        """Do beforehand what the first particle would wait for, of the image and of networks."""
        [*self._regions(self._smaller[-1], 1, (0, 0), lambda box: np.zeros((box[2], box[3]), bool))]

    def grown(
        self,
        at: tuple[int, int],
        taken: Callable[[Box], Mask],
        label: int,
        before: Outline | None = None,
    ) -> Outline:
        """Return the outline of the particle at a pixel, `at` its row and column.

        Of regions around the pixel, as the network separates them and as grey levels do, it is the
        most convex one whose edge looks like a border; if that is the outline of `before`, it is
        the next one, and after the last the first. `taken` returns the pixels of a box (top, left,
        bottom, right) that other outlines have. A ValueError if there is no such region.
        """
        regions = list[_Region]()
        for n_halved, grey in enumerate(self._smaller):
            if not any(each.quality >= _SURE for each in regions):
                regions += self._regions(grey, 2**n_halved, at, taken)
        found = list[Outline]()
        for each in sorted(regions, key=lambda each: -each.quality):
            if each.quality < _MIN_QUALITY or len(found) == _MAX_CHOICES:
                break
            outline = _in_full_size(each, taken, label)
            if outline and all(_shared(outline, other) < _ALIKE for other in found):
                found.append(outline)
        if not found:
            raise ValueError("nothing with an edge around it is here: draw around the particle (A)")
        known = [before is not None and _shared(each, before) > _SAME for each in found]
        return found[(known.index(True) + 1) % len(found) if any(known) else 0]

    def _regions(
        self,
        grey: NDArray[np.float32],
        shrinking: int,
        at: tuple[int, int],
        taken: Callable[[Box], Mask],
    ) -> Iterator[_Region]:
        """Return regions that the pixel is in, of one scale."""
        here = [min(p // shrinking, side - 1) for p, side in zip(at, grey.shape, strict=True)]
        top, left = (max(0, p - _HALF) for p in here)
        bottom, right = (min(s, p + _HALF) for s, p in zip(grey.shape, here, strict=True))
        y, x = here[0] - top, here[1] - left
        # A particle that the box cuts is seen whole on a smaller scale.
        cut = np.zeros((bottom - top, right - left), bool)
        cut[: _FRAME * (top > 0)] = cut[len(cut) - _FRAME * (bottom < len(grey)) :] = True
        cut[:, : _FRAME * (left > 0)] = True
        cut[:, cut.shape[1] - _FRAME * (right < grey.shape[1]) :] = True
        grey = grey[top:bottom, left:right]
        box = tuple(shrinking * side for side in (top, left, bottom, right))
        free = ~taken(box)[::shrinking, ::shrinking]
        free[y, x] = True
        least = _LEAST if shrinking == 1 else _LEAST_COARSE
        smooth = ndimage.gaussian_filter(grey, _SMOOTHING)
        near = slice(max(0, y - _SEED), y + _SEED + 1), slice(max(0, x - _SEED), x + _SEED + 1)
        for sign in (1, -1):
            with usual_torch():
                fields = finder_network().fields(grey, 2 * _HALF, sign < 0, self._brightness)
            masks = [
                (parts == parts[y, x]) & (fields[0] < level)
                for parts in (parts_of(fields, each, 4, 4) for each in _SEPARATIONS)
                if parts[y, x]
                for level in _LEVELS
            ]
            values = sign * smooth
            lowest, own = np.percentile(values[free], 2), np.median(values[near])
            masks += [values >= level for level in np.linspace(lowest, own, _N_STEPS + 2)[1:-1]]
            seen = set[tuple[int, int, int]]()
            for mask in masks:
                mask &= free
                mask[y, x] = True
                pieces, _ = ndimage.label(mask)
                piece = pieces == pieces[y, x]
                area = int(np.count_nonzero(piece))
                rows, columns = window = ndimage.find_objects(piece.view(np.uint8))[0]
                key = (area, rows.start, columns.start)
                if area < least or key in seen or (piece & cut).any():
                    continue
                seen.add(key)
                filled = ndimage.binary_fill_holes(piece[window]) & free[window]
                edge = filled & ~ndimage.binary_erosion(filled)
                border = float(fields[2][window][edge].mean() / 255)
                quality = border**0.5 * solidity(filled) ** _CONVEX
                rows, columns = (
                    slice(side.start + first, side.stop + first)
                    for side, first in ((rows, top), (columns, left))
                )
                yield _Region(quality, (rows, columns), filled, shrinking)


def _in_full_size(region: _Region, taken: Callable[[Box], Mask], label: int) -> Outline | None:
    """Return the outline of a region: smooth if it is of a smaller scale, and beside others."""
    mask, shrinking = region.mask, region.shrinking
    if shrinking > 1:
        size = tuple(shrinking * side for side in mask.shape)
        mask = resize(mask.astype(np.float32), size, order=1) >= 0.5
    top, left = (shrinking * side.start for side in region.window)
    mask = mask & ~taken((top, left, top + mask.shape[0], left + mask.shape[1]))
    return cropped(mask, top, left, label)


def _shared(one: Outline, other: Outline) -> float:
    """Return which share of all pixels of two outlines both have."""
    low = np.maximum(one.box[:2], other.box[:2])
    high = np.maximum(np.minimum(one.box[2:], other.box[2:]), low)
    own, others = (
        each.mask[tuple(map(slice, low - each.box[:2], high - each.box[:2]))]
        for each in (one, other)
    )
    shared = np.count_nonzero(own & others)
    return shared / (np.count_nonzero(one.mask) + np.count_nonzero(other.mask) - shared)
