"""The defective pixels and regions of an image at a threshold."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label, regionprops


@dataclass(frozen=True)
class Region:
    """A connected region of defective pixels.

    Attributes
    ----------
    row, column, height, width : int
        Upper left corner and size of its bounding box, pixels.
    area : int
        Pixels.
    score : float
        The highest of its pixels.
    """

    row: int
    column: int
    height: int
    width: int
    area: int
    score: float

    @property
    def diameter(self) -> float:
        """Diameter of a circle with the same area, pixels."""
        return math.sqrt(4 * self.area / math.pi)


@dataclass(frozen=True, eq=False)
class Finding:
    """The defective pixels and regions of an image.

    Attributes
    ----------
    map : ndarray of float32, shape (H, W)
        Scores of the pixels.
    threshold : float
    score : float
        Of the image.
    mask : ndarray of bool, shape (H, W)
        The defective pixels.
    in_training : bool
        Whether the scorer was trained on an image with the same pixels.
    """

    map: NDArray[np.float32]
    threshold: float
    score: float
    mask: NDArray[np.bool_]
    in_training: bool = False

    @classmethod
    def of(
        cls,
        scores: NDArray[np.float32],
        threshold: float,
        score: float | None = None,
        *,
        in_training: bool = False,
    ) -> Finding:
        """Find the defective pixels of a score map: none if the image's score is too low.

        Parameters
        ----------
        scores : ndarray of float32, shape (H, W)
        threshold : float
        score : float, optional
            Of the image; by default the highest of its pixels.
        in_training : bool, default=False

        Examples
        --------
        >>> import numpy as np
        >>> from hypervlad.models import Finding
        >>> scores = np.zeros((4, 6), dtype=np.float32)
        >>> scores[1:3, 2:5] = 7
        >>> Finding.of(scores, threshold=5.0).regions
        [Region(row=1, column=2, height=2, width=3, area=6, score=7.0)]
        """
        highest = float(scores.max())
        own = highest if score is None else score
        # An anomalous image has a defect: its highest pixel, if none reaches the threshold.
        level = min(threshold, highest) if own >= threshold else math.inf
        mask = scores >= np.float32(level)
        return cls(scores, threshold, own, mask, in_training)

    @functools.cached_property
    def regions(self) -> list[Region]:
        """Connected regions of the mask, the highest score first."""
        found = []
        for each in regionprops(label(self.mask, connectivity=2), self.map):
            top, left, bottom, right = map(int, each.bbox)
            most = float(each.intensity_max)
            found.append(Region(top, left, bottom - top, right - left, int(each.area), most))
        return sorted(found, key=lambda region: (-region.score, region.row, region.column))

    @property
    def is_defective(self) -> bool:
        """Whether the score of the image reaches the threshold."""
        return self.score >= self.threshold

    @property
    def area(self) -> int:
        """Number of defective pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def area_fraction(self) -> float:
        """Share of the image that is defective."""
        return float(self.mask.mean())
