"""Scores of defect maps against masks: by pixel, by region and by patch.

Higher scores are more defective, and a mask is True where there is a defect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label
from sklearn.metrics import auc

from hypervlad.common.constraints import check_side
from hypervlad.images.masks import as_mask

Mask: TypeAlias = NDArray[np.bool_]
_MAX_RATE = 0.3  # of false positives, up to which the overlap is integrated
_TOUCHING = np.ones((3, 3), dtype=int)  # corners too
_BIN_BITS = 21  # sign, eight of the exponent, twelve of the digits
N_BINS = 1 << _BIN_BITS
_DEFECTIVE_SHARE = 0.1  # of the pixels of a patch, from which on it is defective


class PixelTally:
    """Scores of pixels, from maps that are added one by one; its memory does not grow.

    Scores are rounded to 1 part in 4,096. Add log-odds rather than probabilities, because
    probabilities close to 1 would become equal.

    Examples
    --------
    >>> from hypervlad.evaluation import PixelTally
    >>> tally = PixelTally()
    >>> tally.add([[0.1, 0.9]], [[0, 1]])
    >>> tally.add([[0.4, 0.3]], [[0, 1]])
    >>> tally.auroc()
    0.75
    """

    def __init__(self) -> None:
        self._defect_free, self._defective = (np.zeros(N_BINS, dtype=np.int64) for _ in range(2))
        self._shares = np.zeros(N_BINS)  # of the regions; those of a region add up to 1
        self._n_regions = 0.0

    def add(self, score_map: ArrayLike, mask: ArrayLike) -> None:
        """Add the scores of an image and its mask, both of shape (H, W).

        Scores are finite. The mask is True (or 1, or 255) where there is a defect. A ValueError for
        anything else.
        """
        scores, truth = np.asarray(score_map), as_mask(mask, "mask")
        if scores.dtype.kind != "f":
            scores = scores.astype(np.float64)
        if not np.isfinite(scores).all():
            raise ValueError("the score map holds NaN or infinity.")
        check_same_shape(scores, truth, "score map", "mask")
        bins, flat = score_bins(scores).ravel(), truth.ravel()
        self._defect_free += np.bincount(bins[~flat], minlength=N_BINS)
        if flat.any():
            shares = _shares_of_regions(truth)[flat]
            self._defective += np.bincount(bins[flat], minlength=N_BINS)
            self._shares += np.bincount(bins[flat], shares, minlength=N_BINS)
            self._n_regions += shares.sum()

    def auroc(self) -> float:
        """The area under the ROC curve of pixels; NaN unless there are pixels of both kinds."""
        if not self._has_both():
            return float("nan")
        return float(auc(_reached(self._defect_free), _reached(self._defective)))

    def average_precision(self) -> float:
        """The average precision of pixels; NaN unless there are pixels of both kinds."""
        if not self._has_both():
            return float("nan")
        found, called = self._found_and_called()
        precision = found / np.maximum(called, 1)
        return float((self._defective[::-1] * precision).sum() / found[-1])

    def per_region_overlap(self) -> float:
        """The area under the per-region overlap (AU-PRO): 1 for perfect maps, 0.15 for random ones.

        The mean share of each region's pixels that reach a threshold is integrated over the
        false-positive rate from 0 to 0.3 and divided by 0.3 [1]_. Regions are connected components
        of masks, also across corners. NaN unless there are pixels of both kinds.

        References
        ----------
        .. [1] P. Bergmann et al., "The MVTec anomaly detection dataset", International Journal of
           Computer Vision 129, 2021, section 5.
        """
        if not self._has_both():
            return float("nan")
        overlap = np.append(0.0, np.cumsum(self._shares[::-1]) / self._n_regions)
        rate = _reached(self._defect_free)
        inside = rate <= _MAX_RATE
        rates = np.append(rate[inside], _MAX_RATE)
        overlaps = np.append(overlap[inside], np.interp(_MAX_RATE, rate, overlap))
        return float(auc(rates, overlaps) / _MAX_RATE)

    def best_f1(self) -> float:
        """The highest F1 of pixels at any threshold; NaN unless there are pixels of both kinds."""
        if not self._has_both():
            return float("nan")
        found, called = self._found_and_called()
        return float((2 * found / (called + found[-1])).max())

    def _found_and_called(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count defective and all pixels in each bin or above, the highest bin first."""
        found = np.cumsum(self._defective[::-1])
        return found, found + np.cumsum(self._defect_free[::-1])

    def _has_both(self) -> bool:
        return bool(self._defect_free.any() and self._defective.any())


def area_fraction_error(predicted: ArrayLike, mask: ArrayLike) -> float:
    """Predicted minus true defective area, as a fraction of the image, between -1 and 1.

    Both are arrays of shape (H, W), True (or 1, or 255) where there is a defect; a ValueError for
    anything else.

    Examples
    --------
    >>> from hypervlad.evaluation import area_fraction_error
    >>> area_fraction_error([[1, 1], [0, 0]], [[1, 0], [0, 0]])
    0.25
    """
    found, truth = as_mask(predicted, "predicted"), as_mask(mask, "mask")
    check_same_shape(found, truth, "predicted", "mask")
    return float(found.mean() - truth.mean())


def check_same_shape(first: NDArray[Any], second: NDArray[Any], name: str, other: str) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"{name} and {other} are of the same image: expected equal shapes, got {first.shape} "
            f"and {second.shape}."
        )


def score_bins(scores: NDArray[np.floating[Any]]) -> NDArray[np.uint32]:
    """Return the bin of each score, in the order of the scores: its first binary digits."""
    digits = np.ascontiguousarray(scores + 0.0, dtype=np.float32).view(np.uint32)  # no -0.0
    negative = digits >> 31 == 1
    ordered = np.where(negative, ~digits, digits | np.uint32(1 << 31))
    return np.asarray(ordered >> (32 - _BIN_BITS))


def _reached(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the pixels in each bin or above, the highest bin first, from 0 on."""
    return np.append(0.0, np.cumsum(counts[::-1]) / counts.sum())


def _shares_of_regions(truth: Mask) -> NDArray[np.float64]:
    """Return each pixel's share of the area of its region, flat; 0 outside all regions."""
    regions, _ = label(truth, structure=_TOUCHING)
    shares = 1 / np.maximum(np.bincount(regions.ravel()), 1)  # there may be no pixel outside
    shares[0] = 0.0
    return np.asarray(shares[regions.ravel()])


@dataclass(frozen=True)
class PatchConfusion:
    """Numbers of patches by truth and prediction, of one image or of many; positive is defective.

    Attributes
    ----------
    true_positives, false_positives, false_negatives, true_negatives : int
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def total(cls, confusions: Iterable[PatchConfusion]) -> PatchConfusion:
        """Return the sum of the counts of several images."""
        counts = [
            (c.true_positives, c.false_positives, c.false_negatives, c.true_negatives)
            for c in confusions
        ]
        return (
            cls(*(sum(column) for column in zip(*counts, strict=True))) if counts else cls(*[0] * 4)
        )

    @property
    def precision(self) -> float:
        """Share of the patches called defective that are; NaN if none is called defective."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the defective patches that are called so; NaN if there is none."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN if nothing is defective or called so."""
        wrong = self.false_positives + self.false_negatives
        return _ratio(2 * self.true_positives, 2 * self.true_positives + wrong)

    @property
    def accuracy(self) -> float:
        """Share of the patches that are classified correctly; NaN without patches."""
        right = self.true_positives + self.true_negatives
        return _ratio(right, right + self.false_positives + self.false_negatives)


def patch_confusion(predicted: ArrayLike, mask: ArrayLike, patch: int = 29) -> PatchConfusion:
    """Compare a defect map with a mask, patch by patch.

    The image is cut into squares from its upper left corner; those at the right and lower edges may
    be narrower. A square is defective if at least a tenth of its pixels are [1]_.

    Parameters
    ----------
    predicted, mask : array of shape (H, W)
        True (or 1, or 255) where there is a defect. A ValueError for anything else.
    patch : int, default=29
        Side of the squares in pixels.

    Returns
    -------
    PatchConfusion

    References
    ----------
    .. [1] F. Carrillo Pérez, "Defect detection in nanofibers by image
       classification", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.evaluation import patch_confusion
    >>> mask = np.zeros((58, 58), dtype=bool)
    >>> mask[:29] = True  # the upper two of four squares
    >>> confusion = patch_confusion(mask.T, mask)
    >>> confusion.true_positives, confusion.false_positives, confusion.f1
    (1, 1, 0.5)
    """
    found, truth = as_mask(predicted, "predicted"), as_mask(mask, "mask")
    check_same_shape(found, truth, "predicted", "mask")
    called, true = defective_patches(found, patch), defective_patches(truth, patch)
    return PatchConfusion(
        int((called & true).sum()),
        int((called & ~true).sum()),
        int((~called & true).sum()),
        int((~called & ~true).sum()),
    )


def defective_patches(mask: Mask, patch: int) -> NDArray[np.bool_]:
    """Return for each square whether at least a tenth of it is defective."""
    patch = check_side("patch", patch)
    starts = [np.arange(0, extent, patch) for extent in mask.shape]
    counts = np.add.reduceat(
        np.add.reduceat(mask, starts[0], axis=0, dtype=np.int64), starts[1], axis=1
    )
    heights, widths = (
        np.diff(np.append(start, extent)) for start, extent in zip(starts, mask.shape, strict=True)
    )
    # Rounded up to whole pixels, less rounding errors, so that 0.1 of 10 pixels is one pixel.
    needed = np.ceil(_DEFECTIVE_SHARE * np.outer(heights, widths) - 1e-9)
    return np.asarray(counts >= needed)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
