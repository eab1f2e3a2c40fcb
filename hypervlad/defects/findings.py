"""The defective regions of an image: peaks of its score map, and what is around them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects
from skimage.measure import label
from skimage.morphology import reconstruction

from hypervlad.common.constraints import Number
from hypervlad.common.stored import Maybe, StoredPart, Value
from hypervlad.images.annotations import Annotation, annotation_mask
from hypervlad.objects.measures import feret_diameters
from hypervlad.objects.particle import Outline, Outlines, cropped
from hypervlad.objects.windows import grown_window

#: A region ends where the score has fallen to this share of its peak, above the usual score.
OUTLINE_SHARE = 0.55
# A region of at least so many cells ends at this share of its mean score, above the usual one, if
# that is lower: the peak of a wide defect is its most unusual cell, not typical of it.
_WIDE_CELLS, _WIDE_SHARE = 8, 0.65
_TOLERANCE = 1e-9  # of logarithms
# Of the images from which the lowest peak of a region is learnt
_SHARE_HIGHEST, _MIN_HIGHEST, _REGIONS_PER_IMAGE = 0.2, 5, 0.25
_REACH = 32  # pixels around a peak in which its region is first looked for
_RING = 3  # pixels, at least, of the surroundings with which a region is compared
_RING_SHARE = 0.25  # of the region's diameter: the width of larger rings
_RING_GAP = 2  # pixels of the edge of a defect, which are neither
_FINITE = Value(float, Number())


@dataclass(frozen=True, eq=False, kw_only=True)
class Region(Outline):
    """The outline of a connected region of defective pixels; all lengths are in pixels.

    Attributes
    ----------
    label, box, mask
        As of an :class:`hypervlad.particles.Outline`; the highest region of an image is 1.
    area : int
        Pixels inside the outline.
    score : float
        Of its peak: the highest of its cells, or pixels.
    length, breadth : float
        Its longest and shortest diameter (Feret diameters).
    contrast : float
        Mean grey level of its pixels minus that of its surroundings, a share of the range from
        black to white as images are read, between -1 and 1; NaN without an image, or surroundings.
    area_interval : (float, float) or None
        In which the defect's area probably lies, by the synthetic defects of ``fit`` that have such
        regions; it contains `area`, and nothing larger than the image. The first is 0 if only the
        upper end is known. None if nothing is known.
    """

    area: int
    score: float
    length: float
    breadth: float
    contrast: float = math.nan
    area_interval: tuple[float, float] | None = None

    @property
    def row(self) -> int:
        """First row of its box."""
        return self.box[0]

    @property
    def column(self) -> int:
        """First column of its box."""
        return self.box[1]

    @property
    def height(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def width(self) -> int:
        return self.box[3] - self.box[1]

    @property
    def diameter(self) -> float:
        """Diameter of a circle with the same area."""
        return math.sqrt(4 * self.area / math.pi)


@dataclass(frozen=True)
class RegionRule(StoredPart):
    """Which pixels are a region: those around a peak of the cells that reach 0.55 of the highest.

    A wide region, of at least 8 cells, ends at 0.65 of its mean, if that is lower. `least` is the
    lowest peak of a region; in an image with regions, the highest peak always has one. `usual` is
    the score of usual pixels. None: all connected pixels that reach `least` are a region.
    """

    least: Annotated[float, _FINITE]
    usual: Annotated[float | None, Maybe(_FINITE)]

    @classmethod
    def of(cls, images: Sequence[tuple[NDArray[np.floating], float]], usual: float) -> RegionRule:
        """Learn from scores of the cells (R, S), and of the image, of held-out defect-free images.

        Of the fifth of the images with the highest scores, at least five, one in four has a region,
        or fewer have several: so images that are falsely called anomalous have few.
        """
        order = sorted(range(len(images)), key=lambda i: -images[i][1])
        highest = order[: max(_MIN_HIGHEST, round(_SHARE_HIGHEST * len(images)))]
        found = [[peak for peak, _ in peaks(scores, usual)] for scores, _ in images]
        # If these have no peak, it is the highest of the others.
        unseen = max(itertools.chain(*found), default=usual)
        of_highest = sorted(itertools.chain(*(found[i] for i in highest)), reverse=True)
        n = max(1, int(_REGIONS_PER_IMAGE * len(highest)))
        if len(of_highest) <= n:
            return cls(max(of_highest, default=unseen), usual)
        return cls((of_highest[n - 1] + of_highest[n]) / 2, usual)

    def regions(self, scores: NDArray[np.float32], cells: NDArray[np.floating]) -> Iterator[Region]:
        """Yield the regions of a map (H, W), around the peaks of the cells (R, S) that it shows.

        There is at least one, around the highest peak: an anomalous image must show why.
        """
        seen = np.zeros(scores.shape, bool)
        if self.usual is None:
            labels = label(scores >= np.float32(self.least), connectivity=2)
            for number, window in enumerate(find_objects(labels), 1):
                inside, own = labels[window] == number, scores[window]
                seen[window] |= inside
                yield _region(inside, float(own[inside].max()), window)
        else:
            of_cell = scores.size / cells.size
            for peak, cell in sorted(peaks(cells, self.usual), reverse=True):
                if peak < np.float32(self.least) and seen.any():
                    break
                place = _highest_near(scores, cell, cells.shape)
                # Of several highest cells of a region, the first counts; one alone may be blurred.
                if not seen[place] and scores[place] > self.usual:
                    mask, window = _around(place, scores, self.usual, OUTLINE_SHARE, seen)
                    if mask.sum() >= _WIDE_CELLS * of_cell:
                        mean = float(scores[window][mask].mean()) - self.usual
                        share = _WIDE_SHARE * mean / (float(scores[place]) - self.usual)
                        wide = _around(place, scores, self.usual, min(share, OUTLINE_SHARE), seen)
                        # Not if it would reach around the region of a higher peak.
                        if scores[wide[1]][wide[0]].max() <= scores[window][mask].max():
                            mask, window = wide
                    seen[window] |= mask
                    yield _region(mask, peak, window)
        if not seen.any():
            row, column = np.unravel_index(int(scores.argmax()), scores.shape)
            place, usual = (int(row), int(column)), float(np.median(scores))
            mask, window = _around(place, scores, usual, OUTLINE_SHARE, seen)
            yield _region(mask, float(scores[place]), window)


def _highest_near(
    scores: NDArray[np.float32], cell: tuple[int, int], shape: tuple[int, ...]
) -> tuple[int, int]:
    """Return the highest pixel within half a cell around one of (R, S) cells."""
    sides = np.divide(scores.shape, shape)
    starts = [max(0, int((at - 0.5) * side)) for at, side in zip(cell, sides, strict=True)]
    ends = [math.ceil((at + 1.5) * side) for at, side in zip(cell, sides, strict=True)]
    near = scores[starts[0] : ends[0], starts[1] : ends[1]]
    row, column = np.unravel_index(int(near.argmax()), near.shape)
    return starts[0] + int(row), starts[1] + int(column)


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
        anomalous has at least one, around the highest of its cells.
    in_training : bool
        Whether the scorer was trained on an image with the same pixels.
    annotations : sequence of Annotation
        What was left out of the image.
    digest : str
        Of the image's pixels, by which copies are told; "" if it is not known.
    """

    map: NDArray[np.float32]
    threshold: float
    score: float
    regions: list[Region]
    in_training: bool = False
    annotations: Sequence[Annotation] = ()
    digest: str = ""

    @classmethod
    def of(
        cls,
        scores: NDArray[np.float32],
        threshold: float,
        score: float | None = None,
        *,
        rule: RegionRule | None = None,
        cells: NDArray[np.floating] | None = None,
        pixels: NDArray[np.floating] | None = None,
        in_training: bool = False,
        annotations: Sequence[Annotation] = (),
    ) -> Finding:
        """Find the regions of a score map: none if the image's score is too low.

        Parameters
        ----------
        scores : ndarray of float32, shape (H, W)
        threshold : float
        score : float, optional
            Of the image; by default the highest of its pixels.
        rule : RegionRule, optional
            By default, all pixels that reach the threshold are defective.
        cells : ndarray (R, S), optional
            The scores of the cells that the map shows; by default, each pixel is one.
        pixels : ndarray (H, W), optional
            The grey image, for the contrast of regions.
        in_training : bool, default=False
        annotations : sequence of Annotation, optional
            Where the map shows nothing.

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
        found = cls(scores, threshold, own, [], in_training, annotations)
        if found.is_defective:
            own_rule = RegionRule(threshold, None) if rule is None else rule
            regions = list(own_rule.regions(scores, scores if cells is None else cells))
            regions.sort(key=lambda each: (-each.score, *each.box[:2]))
            found.regions.extend(replace(each, label=k) for k, each in enumerate(regions, 1))
            if pixels is not None:
                mask = found.mask
                found.regions[:] = [_with_contrast(each, pixels, mask) for each in found.regions]
        return found

    @functools.cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The defective pixels (H, W)."""
        mask = np.zeros(self.map.shape, bool)
        for region in self.regions:
            mask[region.window] |= region.mask
        return mask

    @property
    def outlines(self) -> Outlines:
        """The regions as outlines, to be measured and written as those of particles."""
        return Outlines((self.map.shape[0], self.map.shape[1]), tuple(self.regions))

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
    def annotation_share(self) -> float:
        """Share of the image that ``annotations`` cover."""
        return float(annotation_mask(self.annotations, self.map.shape).mean())

    @property
    def area_fraction(self) -> float:
        """Share of the image that is defective, without what ``annotations`` cover."""
        return self.area / max(1, self.mask.size * (1 - self.annotation_share))


def peaks(scores: NDArray[np.floating], usual: float) -> list[tuple[float, tuple[int, int]]]:
    """Return the score and the place of each peak of a map (H, W).

    Between two peaks, the score falls to 0.55 of the lower one, above the usual score.
    """
    excess = np.asarray(scores, np.float64) - usual
    positive = excess[excess > 0]
    if not positive.size:
        return []
    logarithms = np.log(np.maximum(excess, OUTLINE_SHARE * positive.min()))
    height = -math.log(OUTLINE_SHARE)
    tops = logarithms - reconstruction(logarithms - height, logarithms) >= height - _TOLERANCE
    found = []
    for number, window in enumerate(find_objects(labels := label(tops, connectivity=2)), 1):
        row, column = np.argwhere(labels[window] == number)[0]
        place = int(row) + window[0].start, int(column) + window[1].start
        found.append((float(scores[place]), place))
    return found


def _around(
    place: tuple[int, int],
    scores: NDArray[np.float32],
    usual: float,
    share: float,
    taken: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], tuple[slice, slice]]:
    """Return which pixels are connected with a place and reach a share of its score, above the
    usual one, in a window of the map.
    """
    least, reach = usual + share * (scores[place] - usual), _REACH
    while True:  # Of large maps, only the surroundings are labelled.
        corner = max(0, place[0] - reach), max(0, place[1] - reach)
        window = np.s_[corner[0] : place[0] + reach + 1, corner[1] : place[1] + reach + 1]
        centre = place[0] - corner[0], place[1] - corner[1]
        labels = label((scores[window] >= least) & ~taken[window], connectivity=2)
        mask = labels == labels[centre]
        if np.abs(np.argwhere(mask) - centre).max() < reach:
            return mask, window
        reach *= 2


def _region(mask: NDArray[np.bool_], score: float, window: tuple[slice, slice]) -> Region:
    """Measure the pixels of a mask, which is that of a window of the image."""
    outline = cropped(mask, window[0].start, window[1].start)
    assert outline is not None
    length, breadth = feret_diameters(outline.mask)
    return Region(
        label=1,
        box=outline.box,
        mask=outline.mask,
        area=int(outline.mask.sum()),
        score=score,
        length=length,
        breadth=breadth,
    )


def _with_contrast(
    region: Region, pixels: NDArray[np.floating], defective: NDArray[np.bool_]
) -> Region:
    """Compare a region with a ring around it, of which other regions are left out if they can."""
    width = max(_RING, math.ceil(_RING_SHARE * region.diameter))
    reach = _RING_GAP + width
    window = grown_window(region.window, reach)
    part = pixels[window]
    own = np.zeros(part.shape, bool)
    top, left = region.box[0] - window[0].start, region.box[1] - window[1].start
    own[top : top + region.height, left : left + region.width] = region.mask
    distance = distance_transform_edt(~own)
    ring = (distance > _RING_GAP) & (distance <= reach)
    if not ring.any():
        return region
    if not defective[window][ring].all():
        ring &= ~defective[window]
    return replace(region, contrast=float(part[own].mean() - part[ring].mean()))
