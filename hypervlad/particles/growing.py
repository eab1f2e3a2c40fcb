"""One particle grown from what is in it, where finding has missed it or outlined it wrongly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize

from hypervlad.features.lazy_torch import usual_torch
from hypervlad.images.morphology import grown, shrunk
from hypervlad.images.resampling import halved
from hypervlad.objects.measures import solidity
from hypervlad.objects.particle import Outline, cropped
from hypervlad.objects.windows import Window
from hypervlad.particles.decoder import brightness_of, parts_of
from hypervlad.particles.scales import finder_network

_HALF = 128  # pixels to each side of the point that are looked at, on each scale
_WINDOW = 2 * _HALF
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
Pixels = NDArray[np.intp]  # (n, 2), rows and columns: one, or a line of pixels that share sides
Box = tuple[int, int, int, int]


class _Region(NamedTuple):
    """A region that may be a particle, in its box on one scale."""

    quality: float
    window: Window
    mask: Mask
    shrinking: int


@dataclass(frozen=True, eq=False)
class GrowingField:
    """An image in which particles grow from points, or from strokes in them."""

    grey: NDArray[np.float32]  # (H, W)
    _fields_of: dict[tuple[int, ...], NDArray[np.uint8]] = field(init=False, default_factory=dict)

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
        for grey in self._smaller:
            if max(grey.shape) <= _WINDOW:
                for sign in (1, -1):
                    self._kept(grey, sign)
            else:
                _warm_up(min(_WINDOW, grey.shape[0]), min(_WINDOW, grey.shape[1]))

    def grown(
        self,
        at: Pixels,
        taken: Callable[[Box], Mask],
        label: int,
        before: Outline | None = None,
    ) -> Outline:
        """Return the outline of the particle that has all of the pixels `at`.

        Of regions with these pixels, as the network separates them and as grey levels do, it is the
        most convex one whose edge looks like a border; if that is the outline of `before`, it is
        the next one, and after the last the first. `taken` returns the pixels of a box (top, left,
        bottom, right) that other outlines have. A ValueError if there is no such region.
        """
        regions = list[_Region]()
        contrast = abs(float(np.median(self.grey[tuple(at.T)])) - self._brightness[0])
        for n_halved, grey in enumerate(self._smaller):
            if not any(each.quality >= _SURE for each in regions):
                regions += self._regions(grey, 2**n_halved, at, taken, contrast)
        found = list[Outline]()
        for each in sorted(regions, key=lambda each: -each.quality):
            if each.quality < _MIN_QUALITY or len(found) == _MAX_CHOICES:
                break
            outline = _in_full_size(each, at, taken, label)
            if outline and all(_shared(outline, other) < _ALIKE for other in found):
                found.append(outline)
        if not found:
            raise ValueError("nothing with an edge around it is here: draw around the particle (A)")
        known = [before is not None and _shared(each, before) > _SAME for each in found]
        return found[(known.index(True) + 1) % len(found) if any(known) else 0]

    def _kept(
        self, grey: NDArray[np.float32], sign: int, contrast: float = 0.0
    ) -> NDArray[np.uint8]:
        """Return the fields of a whole scale, which every particle needs."""
        if contrast > self._brightness[1]:
            return self._fields(grey, sign, contrast)
        key = *grey.shape, sign
        if key not in self._fields_of:
            self._fields_of[key] = self._fields(grey, sign, contrast)
        return self._fields_of[key]

    def _fields(self, grey: NDArray[np.float32], sign: int, contrast: float) -> NDArray[np.uint8]:
        """Return fields, scaled by the contrast where particles cover too little for the range."""
        middle, range_ = self._brightness
        with usual_torch():
            brightness = middle, max(range_, contrast)
            return finder_network().fields(grey, _WINDOW, sign < 0, brightness)

    def _regions(
        self,
        grey: NDArray[np.float32],
        shrinking: int,
        at: Pixels,
        taken: Callable[[Box], Mask],
        contrast: float,
    ) -> Iterator[_Region]:
        """Return regions that the pixels are in, of one scale."""
        at = np.minimum(at // shrinking, np.array(grey.shape) - 1)
        here = ((at.min(axis=0) + at.max(axis=0)) // 2).tolist()
        # All windows of an image have one size: the first of each size takes longer.
        height, width = (min(_WINDOW, side) for side in grey.shape)
        top, left = (
            min(max(0, p - _HALF), whole - own)
            for p, whole, own in zip(here, grey.shape, (height, width), strict=True)
        )
        bottom, right = top + height, left + width
        at = at - (top, left)
        if (at < 0).any() or (at >= (height, width)).any():
            return
        rows, columns = line = tuple(at.T)
        # A particle that the box cuts is seen whole on a smaller scale.
        cut = np.zeros((height, width), bool)
        cut[: _FRAME * (top > 0)] = cut[len(cut) - _FRAME * (bottom < len(grey)) :] = True
        cut[:, : _FRAME * (left > 0)] = True
        cut[:, cut.shape[1] - _FRAME * (right < grey.shape[1]) :] = True
        fields_of = self._kept if grey.shape == (height, width) else self._fields
        grey = grey[top:bottom, left:right]
        box = tuple(shrinking * side for side in (top, left, bottom, right))
        free = ~taken(box)[::shrinking, ::shrinking]
        free[line] = True
        least = _LEAST if shrinking == 1 else _LEAST_COARSE
        smooth = ndimage.gaussian_filter(grey, _SMOOTHING)
        on_line = np.zeros(free.shape, bool)
        on_line[line] = True
        near = grown(on_line, _SEED, corners=True)
        for sign in (1, -1):
            fields = fields_of(grey, sign, contrast)
            masks = [
                np.isin(parts, own) & (fields[0] < level)
                for parts in (parts_of(fields, each, 4, 4, at=on_line) for each in _SEPARATIONS)
                if (own := np.setdiff1d(parts[line], 0)).size
                for level in _LEVELS
            ]
            values = sign * smooth
            lowest, own = np.percentile(values[free], 2), np.median(values[near])
            masks += [values >= level for level in np.linspace(lowest, own, _N_STEPS + 2)[1:-1]]
            seen = set[tuple[int, int, int]]()
            for mask in masks:
                mask &= free
                mask[line] = True
                pieces, _ = ndimage.label(mask)
                piece = pieces == pieces[rows[0], columns[0]]
                area = int(np.count_nonzero(piece))
                down, across = window = ndimage.find_objects(piece.view(np.uint8))[0]
                key = (area, down.start, across.start)
                if area < least or key in seen or (piece & cut).any():
                    continue
                seen.add(key)
                filled = ndimage.binary_fill_holes(piece[window]) & free[window]
                edge = filled & ~shrunk(filled)
                others = fields[:2, *window][:, edge].sum() / edge.sum()
                border = max(0.0, 1 - float(others) / 255)
                quality = border**0.5 * solidity(filled) ** _CONVEX
                down, across = (
                    slice(side.start + first, side.stop + first)
                    for side, first in ((down, top), (across, left))
                )
                yield _Region(quality, (down, across), filled, shrinking)


@functools.cache
def _warm_up(height: int, width: int) -> None:
    """Let the network find out how to compute windows of this size, once."""
    with usual_torch():
        finder_network().fields(np.zeros((height, width), np.float32), _WINDOW, False, (0.0, 1.0))


def _in_full_size(
    region: _Region, at: Pixels, taken: Callable[[Box], Mask], label: int
) -> Outline | None:
    """Return the outline of a region: smooth if it is of a smaller scale, and beside others."""
    mask, shrinking = region.mask, region.shrinking
    if shrinking > 1:
        size = tuple(shrinking * side for side in mask.shape)
        mask = resize(mask.astype(np.float32), size, order=1) >= 0.5
    top, left = (shrinking * side.start for side in region.window)
    mask = mask & ~taken((top, left, top + mask.shape[0], left + mask.shape[1]))
    inside = at - (top, left)  # also of what smoothing has taken away
    mask[tuple(inside[((inside >= 0) & (inside < mask.shape)).all(axis=1)].T)] = True
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
