"""One particle grown from a point in it, where finding has missed it or outlined it wrongly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize

from hypervlad.features.lazy_torch import usual_torch
from hypervlad.objects.measures import solidity
from hypervlad.objects.particle import Outline, cropped
from hypervlad.particles.decoder import brightness_of, parts_of
from hypervlad.particles.finding import finder_network

_HALF = 128  # pixels to each side of the point that are looked at, on each scale
_SEPARATIONS = 0.95, 0.6  # of the parts among which the particle may be
_LEVELS = 80, 128, 190  # of 255: probability of background where it may end
_N_STEPS = 12  # grey levels where it may end, of bright and of dark ones
_SMOOTHING, _SEED = 1.0, 2  # pixels: of grey levels, and to each side of the point for its own
_LEAST, _LEAST_COARSE = 12, 1200  # pixels of a particle, and of one that is seen on smaller scales
_CONVEX = 4  # power of the solidity, beside the root of the probability of a border
_MIN_QUALITY, _SURE = 0.33, 0.45  # of a particle, above that of background; no other scale is tried

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]


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

    def grown(self, at: tuple[int, int], taken: Callable[[Box], Mask], label: int) -> Outline:
        """Return the outline of the particle at a pixel, `at` its row and column.

        Of regions around the pixel, as the network separates them and as grey levels do, it is the
        most convex one whose edge looks like a border. `taken` returns the pixels of a box (top,
        left, bottom, right) that other outlines have. A ValueError if there is no such region.
        """
        found, best, scale = None, _MIN_QUALITY, 1.0
        while True:
            half = round(_HALF / scale)
            low = [max(0, each - half) for each in at]
            high = [min(side, each + half) for side, each in zip(self.grey.shape, at, strict=True)]
            box = low[0], low[1], high[0], high[1]
            for quality, mask in self._regions(box, at, ~taken(box), scale):
                if quality > best:
                    best, found = quality, cropped(mask, low[0], low[1], label)
            if best >= _SURE or half >= max(self.grey.shape):
                break
            scale /= 2
        if found is None:
            raise ValueError("nothing with an edge around it is here: draw around the particle (A)")
        return found

    def _regions(
        self, box: Box, at: tuple[int, int], free: Mask, scale: float
    ) -> Iterator[tuple[float, Mask]]:
        """Return regions of a box that the pixel is in, with how much they look like a particle."""
        whole = self.grey[box[0] : box[2], box[1] : box[3]]
        size = tuple(max(1, round(side * scale)) for side in whole.shape)
        y, x = (min(int((p - o) * scale), s - 1) for p, o, s in zip(at, box, size, strict=False))
        grey = whole if scale == 1 else resize(whole, size, order=1, anti_aliasing=True)
        if scale < 1:
            free = resize(free, size, order=0)
        free[y, x] = True
        # A particle that the box cuts is seen whole on a smaller scale.
        cut = np.ones(size, bool)
        cut[box[0] > 0 : size[0] - (box[2] < self.grey.shape[0]),
            box[1] > 0 : size[1] - (box[3] < self.grey.shape[1])] = False  # fmt: skip
        least = _LEAST if scale == 1 else _LEAST_COARSE
        smooth = ndimage.gaussian_filter(grey, _SMOOTHING)
        near = slice(max(0, y - _SEED), y + _SEED + 1), slice(max(0, x - _SEED), x + _SEED + 1)
        for sign in (1, -1):
            with usual_torch():
                fields = finder_network().fields(grey, max(size), sign < 0, self._brightness)
            masks = [
                (parts == parts[y, x]) & (fields[0] < level)
                for parts in (parts_of(fields, each, 4, 4) for each in _SEPARATIONS)
                if parts[y, x]
                for level in _LEVELS
            ]
            values = sign * smooth
            lowest, own = np.percentile(values[free], 2), np.median(values[near])
            masks += [values >= level for level in np.linspace(lowest, own, _N_STEPS + 2)[1:-1]]
            seen = set[int]()
            for mask in masks:
                mask &= free
                mask[y, x] = True
                pieces, _ = ndimage.label(mask)
                own_piece = pieces == pieces[y, x]
                area = int(np.count_nonzero(own_piece))
                if area < least or area in seen or (own_piece & cut).any():
                    continue
                seen.add(area)
                window = ndimage.find_objects(own_piece.view(np.uint8))[0]
                filled = ndimage.binary_fill_holes(own_piece[window]) & free[window]
                edge = filled & ~ndimage.binary_erosion(filled)
                border = fields[2][window][edge].mean() / 255
                quality = float(np.sqrt(border)) * solidity(filled) ** _CONVEX
                region = np.zeros(size, bool)
                region[window] = filled
                if scale < 1:
                    region = resize(region.astype(np.float32), whole.shape, order=1) >= 0.5
                yield quality, region
