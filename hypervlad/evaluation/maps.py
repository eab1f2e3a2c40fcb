"""Scores of defect maps, by pixel and by region, against masks.

Higher scores are more defective, and a mask is True where there is a defect.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label
from sklearn.metrics import auc

from hypervlad.images.masks import as_mask

Mask: TypeAlias = NDArray[np.bool_]
_MAX_RATE = 0.3  # of false positives, up to which the overlap is integrated
_TOUCHING = np.ones((3, 3), dtype=int)  # corners too
_BIN_BITS = 21  # sign, eight of the exponent, twelve of the digits
N_BINS = 1 << _BIN_BITS


class PixelTally:
    """Scores of maps that are added one by one, in memory that does not grow with their number.

    Scores are rounded to twelve binary digits (1 part in 4,096). Use log-odds rather than
    probabilities, because probabilities close to 1 would become equal.

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
        """Add an image.

        Parameters
        ----------
        score_map : array of shape (H, W)
            Finite; higher where more defective.
        mask : array of shape (H, W)
            True (or 1, or 255) where there is a defect.
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
        """The average precision of pixels; NaN unless there are pixels of both kinds.

        Random maps have the share of defective pixels.
        """
        if not self._has_both():
            return float("nan")
        found = np.cumsum(self._defective[::-1])
        called = found + np.cumsum(self._defect_free[::-1])
        precision = found / np.maximum(called, 1)
        return float((self._defective[::-1] * precision).sum() / found[-1])

    def per_region_overlap(self) -> float:
        """The area under the per-region overlap (AU-PRO), in which all regions have one weight.

        The mean share of each region's pixels that reach a threshold is integrated over the
        false-positive rate from 0 to 0.3 and divided by 0.3 [1]_: 1 for perfect maps, 0.15 for
        random ones. A region is a connected component of a mask, with connections across corners.
        NaN unless there are pixels of both kinds.

        References
        ----------
        .. [1] P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger and C. Steger, "The MVTec anomaly
           detection dataset", International Journal of Computer Vision 129, 2021, section 5.
        """
        if not self._has_both():
            return float("nan")
        overlap = np.append(0.0, np.cumsum(self._shares[::-1]) / self._n_regions)
        rate = _reached(self._defect_free)
        inside = rate <= _MAX_RATE
        rates = np.append(rate[inside], _MAX_RATE)
        overlaps = np.append(overlap[inside], np.interp(_MAX_RATE, rate, overlap))
        return float(auc(rates, overlaps) / _MAX_RATE)

    def best_f1(self) -> tuple[float, float]:
        """The highest F1 of pixels, and the highest threshold at which it is reached.

        Both are optimistic; NaN unless there are pixels of both kinds.
        """
        if not self._has_both():
            return float("nan"), float("nan")
        found = np.cumsum(self._defective[::-1])
        called = found + np.cumsum(self._defect_free[::-1])
        f1 = 2 * found / (called + found[-1])
        best = int(f1.argmax())
        return float(f1[best]), _lowest_of(N_BINS - 1 - best)

    def _has_both(self) -> bool:
        return bool(self._defect_free.any() and self._defective.any())


def area_fraction_error(predicted: ArrayLike, mask: ArrayLike) -> float:
    """Predicted minus true defective area, as a fraction of the image, between -1 and 1.

    Parameters
    ----------
    predicted, mask : array of shape (H, W)
        True (or 1, or 255) where there is a defect. A ValueError for anything else.

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


def _lowest_of(number: int) -> float:
    ordered = np.uint32(number << (32 - _BIN_BITS))
    positive = ordered >> 31 == 1
    digits = ordered ^ np.uint32(1 << 31) if positive else ~ordered
    return float(np.array([digits], dtype=np.uint32).view(np.float32)[0])


def _reached(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the pixels in each bin or above, the highest bin first, from 0 on."""
    return np.append(0.0, np.cumsum(counts[::-1]) / counts.sum())


def _shares_of_regions(truth: Mask) -> NDArray[np.float64]:
    """Return each pixel's share of the area of its region, flat; 0 outside all regions."""
    regions, _ = label(truth, structure=_TOUCHING)
    shares = 1 / np.maximum(np.bincount(regions.ravel()), 1)  # there may be no pixel outside
    shares[0] = 0.0
    return np.asarray(shares[regions.ravel()])
