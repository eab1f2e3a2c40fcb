"""The defective regions of an image: peaks of its score map, and what is around them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects
from skimage.measure import label
from skimage.morphology import reconstruction

from hypervlad.particles.measures import feret_diameters

#: A region ends where the score has fallen to this share of its peak, above the usual score. By
#: this share, areas are right for defects that are larger than the map's cells.
OUTLINE_SHARE = 0.5
_TOLERANCE = 1e-9  # of logarithms
_RING = 3  # pixels, at least, of the surroundings with which a region is compared
_RING_SHARE = 0.25  # of the region's diameter: the width of larger rings
_RING_GAP = 2  # pixels of the edge of a defect, which are neither


@dataclass(frozen=True, eq=False)
class Region:
    """A connected region of defective pixels; all lengths are in pixels.

    Attributes
    ----------
    row, column, height, width : int
        Upper left corner and size of its bounding box.
    area : int
        Pixels. Of a defect that is smaller than about three cells of the map it says little.
    score : float
        The highest of its pixels: its peak.
    mask : ndarray of bool, shape (height, width)
    length, breadth : float
        Its longest and shortest diameter (Feret diameters).
    contrast : float
        Mean grey level of its pixels minus that of its surroundings, between -1 and 1; NaN without
        an image, or surroundings.
    area_estimate : float or None
        The area of synthetic defects that look as large as this region; None if it is not known,
        or the region is too small to say more than that the defect is below ``area_interval[1]``.
    area_interval : (float, float) or None
        Between which nine in ten of these areas lie; None if it is not known.
    """

    row: int
    column: int
    height: int
    width: int
    area: int
    score: float
    mask: NDArray[np.bool_] = field(repr=False)
    length: float = math.nan
    breadth: float = math.nan
    contrast: float = math.nan
    area_estimate: float | None = None
    area_interval: tuple[float, float] | None = None

    @property
    def diameter(self) -> float:
        """Diameter of a circle with the same area."""
        return math.sqrt(4 * self.area / math.pi)

    @property
    def window(self) -> tuple[slice, slice]:
        """The bounding box as slices of the image."""
        return (
            slice(self.row, self.row + self.height),
            slice(self.column, self.column + self.width),
        )


@dataclass(frozen=True, eq=False)
class Finding:
    """The defective pixels and regions of an image.

    Attributes
    ----------
    map : ndarray of float32, shape (H, W)
        Scores of the pixels.
    threshold : float
        From which on the score of an image is called anomalous.
    score : float
        Of the image.
    regions : list of Region
        The highest peak first. An image that is called normal has none; one that is called
        anomalous, too, if nothing stands out in it.
    in_training : bool
        Whether the scorer was trained on an image with the same pixels.
    """

    map: NDArray[np.float32]
    threshold: float
    score: float
    regions: list[Region]
    in_training: bool = False

    @classmethod
    def of(
        cls,
        scores: NDArray[np.float32],
        threshold: float,
        score: float | None = None,
        *,
        least: float | None = None,
        usual: float | None = None,
        pixels: NDArray[np.floating] | None = None,
        in_training: bool = False,
    ) -> Finding:
        """Find the regions of a score map: none if the image's score is too low.

        Parameters
        ----------
        scores : ndarray of float32, shape (H, W)
        threshold : float
        score : float, optional
            Of the image; by default the highest of its pixels.
        least : float, optional
            The lowest peak of a region; by default ``threshold``.
        usual : float, optional
            The score of usual pixels. If it is given, a region ends where the score has fallen
            half-way from its peak to this; otherwise all pixels that reach ``least`` are defective.
        pixels : ndarray (H, W), optional
            The grey image, for the contrast of regions.
        in_training : bool, default=False

        Examples
        --------
        >>> import numpy as np
        >>> from hypervlad.models import Finding
        >>> scores = np.zeros((4, 6), dtype=np.float32)
        >>> scores[1:3, 2:5] = 7
        >>> (region,) = Finding.of(scores, threshold=5.0).regions
        >>> region.row, region.column, region.area, region.score
        (1, 2, 6, 7.0)
        """
        own = float(scores.max()) if score is None else score
        found = cls(scores, threshold, own, [], in_training)
        if found.is_defective:
            bottom = threshold if least is None else least
            regions = list(_regions(scores, bottom, usual))
            regions.sort(key=lambda each: (-each.score, each.row, each.column))
            found.regions.extend(regions)
            if pixels is not None:
                mask = found.mask
                found.regions[:] = [_with_contrast(each, pixels, mask) for each in regions]
        return found

    @functools.cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The defective pixels (H, W)."""
        mask = np.zeros(self.map.shape, bool)
        for region in self.regions:
            mask[region.window] |= region.mask
        return mask

    @property
    def is_defective(self) -> bool:
        """Whether the score of the image reaches the threshold."""
        return self.score >= self.threshold

    @property
    def highest(self) -> tuple[int, int]:
        """Row and column of the pixel with the highest score."""
        row, column = np.unravel_index(int(self.map.argmax()), self.map.shape)
        return int(row), int(column)

    @property
    def area(self) -> int:
        """Number of defective pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def area_fraction(self) -> float:
        """Share of the image that is defective."""
        return float(self.mask.mean())


def peaks(scores: NDArray[np.floating], usual: float) -> list[tuple[float, tuple[int, int]]]:
    """Return the score and the place of each peak of a map (H, W).

    Between two peaks, the score falls to half of the lower one, above the usual score.
    """
    excess = np.asarray(scores, np.float64) - usual
    positive = excess[excess > 0]
    if not positive.size:
        return []
    logarithms = np.log(np.maximum(excess, positive.min()))
    height = -math.log(OUTLINE_SHARE)
    tops = logarithms - reconstruction(logarithms - height, logarithms) >= height - _TOLERANCE
    found = []
    for number, window in enumerate(find_objects(labels := label(tops, connectivity=2)), 1):
        row, column = np.argwhere(labels[window] == number)[0]
        place = int(row) + window[0].start, int(column) + window[1].start
        found.append((float(scores[place]), place))
    return found


def _regions(scores: NDArray[np.float32], least: float, usual: float | None) -> Iterator[Region]:
    level = least if usual is None else usual + OUTLINE_SHARE * (least - usual)
    labels = label(scores >= np.float32(level), connectivity=2)
    for number, window in enumerate(find_objects(labels), 1):
        inside, own = labels[window] == number, scores[window]
        corner = window[0].start, window[1].start
        if usual is None:
            yield _region(inside, own, corner)
            continue
        own = np.where(inside, own, np.float32(usual))
        seen = np.zeros(own.shape, bool)
        for peak, place in sorted(peaks(own, usual), reverse=True):
            if peak < np.float32(least):
                break
            reached = label(own >= usual + OUTLINE_SHARE * (peak - usual), connectivity=2)
            outline = reached == reached[place]
            if not seen[place]:  # of several highest pixels of a region, the first counts
                yield _region(outline, own, corner)
            seen |= outline


def _region(
    mask: NDArray[np.bool_], scores: NDArray[np.float32], corner: tuple[int, int]
) -> Region:
    (rows, columns) = find_objects(mask.astype(np.uint8))[0]
    own = mask[rows, columns].copy()
    length, breadth = feret_diameters(own)
    return Region(
        corner[0] + rows.start,
        corner[1] + columns.start,
        own.shape[0],
        own.shape[1],
        int(own.sum()),
        float(scores[mask].max()),
        own,
        length=length,
        breadth=breadth,
    )


def _with_contrast(
    region: Region, pixels: NDArray[np.floating], defective: NDArray[np.bool_]
) -> Region:
    """Compare a region of an image with a ring around it, without other defective pixels."""
    width = max(_RING, math.ceil(_RING_SHARE * region.diameter))
    reach = _RING_GAP + width
    window = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in region.window)
    own = np.zeros(defective.shape, bool)
    own[region.window] = region.mask
    distance = distance_transform_edt(~own[window])
    ring = (distance > _RING_GAP) & (distance <= reach) & ~defective[window]
    if not ring.any():
        return region
    part = pixels[window]
    return replace(region, contrast=float(part[own[window]].mean() - part[ring].mean()))
