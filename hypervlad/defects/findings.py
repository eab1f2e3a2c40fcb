"""The defective regions of a score map at a threshold, with their sizes and positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label, regionprops


@dataclass(frozen=True)
class Region:
    """A connected region whose scores reach the threshold.

    Attributes
    ----------
    row, column : int
        Upper left corner of its box, pixels.
    height, width : int
        Of its box, pixels.
    area : int
        Pixels.
    score : float
        The highest in it.
    """

    row: int
    column: int
    height: int
    width: int
    area: int
    score: float


@dataclass(frozen=True, eq=False)
class Finding:
    """What was found in an image.

    Attributes
    ----------
    map : ndarray of float32, shape (H, W)
        Scores.
    threshold : float
        Positions that reach it are defective.
    score : float
        Of the image.
    regions : list of Region
        The worst first.
    """

    map: NDArray[np.float32]
    threshold: float
    score: float
    regions: list[Region]

    @classmethod
    def of(
        cls, scores: NDArray[np.float32], threshold: float, score: float | None = None
    ) -> Finding:
        """Find the regions of a score map; the image's own score is its highest if not given.

        Examples
        --------
        >>> import numpy as np
        >>> from hypervlad.defects import Finding
        >>> scores = np.zeros((4, 6), dtype=np.float32)
        >>> scores[1:3, 2:5] = 7
        >>> Finding.of(scores, threshold=5.0).regions
        [Region(row=1, column=2, height=2, width=3, area=6, score=7.0)]
        """
        found = []
        for each in regionprops(label(scores >= threshold, connectivity=2), scores):
            top, left, bottom, right = map(int, each.bbox)
            highest = float(each.intensity_max)
            found.append(Region(top, left, bottom - top, right - left, int(each.area), highest))
        own = float(scores.max()) if score is None else score
        found.sort(key=lambda region: (-region.score, region.row, region.column))
        return cls(scores, threshold, own, found)

    @property
    def is_defective(self) -> bool:
        """Whether the image has a defective region."""
        return bool(self.regions)

    @property
    def area_fraction(self) -> float:
        """Share of the image that is defective."""
        return float((self.map >= self.threshold).mean())
