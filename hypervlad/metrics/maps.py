"""Scores of defect maps, by pixel and by region, against masks.

Higher scores are more defective, and a mask is True where there is a defect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from hypervlad.images.masks import as_mask
from hypervlad.wording import counted

Maps: TypeAlias = ArrayLike | Sequence[ArrayLike]
Mask: TypeAlias = NDArray[np.bool_]
_TOUCHING = np.ones((3, 3), dtype=int)  # corners too
_BIN_BITS = 21  # sign, eight of the exponent, twelve of the digits
N_BINS = 1 << _BIN_BITS


def pixel_auroc(score_maps: Maps, masks: Maps) -> float:
    """Area under the ROC curve of pixels.

    The probability that a random defective pixel of all images has a higher score than a random
    defect-free pixel. Large defects weigh more than small ones: see `per_region_overlap`.

    Parameters
    ----------
    score_maps : array of shape (H, W), or sequence of n such arrays
        Scores, higher where more defective; sizes may differ between images.
    masks : array of shape (H, W), or sequence of n such arrays
        True (or 1, or 255) where there is a defect; of the same sizes.

    Returns
    -------
    auroc : float
        1 for a perfect map, 0.5 for a random one.

    Raises
    ------
    ValueError
        If shapes differ, a score is not finite, a mask is not a mask, or no pixel (or every pixel)
        is defective.

    Examples
    --------
    >>> from hypervlad.metrics import pixel_auroc
    >>> pixel_auroc([[0.1, 0.9], [0.4, 0.3]], [[0, 1], [0, 1]])
    0.75
    """
    scores, defective = _pixels(*_check_pairs(score_maps, masks))
    return float(roc_auc_score(defective, scores))


def pixel_average_precision(score_maps: Maps, masks: Maps) -> float:
    """Average precision of pixels.

    More informative than `pixel_auroc` if defects are rare: a random map scores the share of
    defective pixels.

    Parameters
    ----------
    score_maps, masks
        As in `pixel_auroc`.

    Returns
    -------
    average_precision : float
        As :func:`sklearn.metrics.average_precision_score`, in (0, 1].

    Raises
    ------
    ValueError
        As `pixel_auroc`.

    Examples
    --------
    >>> from hypervlad.metrics import pixel_average_precision
    >>> pixel_average_precision([[0.1, 0.9], [0.2, 0.3]], [[0, 1], [0, 1]])
    1.0
    """
    scores, defective = _pixels(*_check_pairs(score_maps, masks))
    return float(average_precision_score(defective, scores))


def per_region_overlap(score_maps: Maps, masks: Maps, *, max_fpr: float = 0.3) -> float:
    """Area under the per-region overlap (AU-PRO), in which all regions have the same weight.

    At a threshold, the overlap of a region is the share of its pixels whose score reaches the
    threshold, and the false-positive rate is the share of the defect-free pixels of all images
    whose score does. The mean overlap of all regions is integrated over the false-positive rate
    from 0 to `max_fpr` by the trapezoidal rule, and divided by `max_fpr`. A region is a connected
    component of a mask, with connections across corners.

    Parameters
    ----------
    score_maps, masks
        As in `pixel_auroc`.
    max_fpr : float, default=0.3
        In (0, 1].

    Returns
    -------
    overlap : float
        1 for a perfect map; ``max_fpr / 2`` for a random one.

    Raises
    ------
    ValueError
        As `pixel_auroc`, or if `max_fpr` is out of range.

    References
    ----------
    .. [1] P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger and C. Steger, "The MVTec anomaly
       detection dataset", International Journal of Computer Vision 129, 2021, section 5.

    Examples
    --------
    >>> from hypervlad.metrics import per_region_overlap
    >>> per_region_overlap([[0.9, 0.1, 0.2, 0.8]], [[1, 0, 0, 1]])
    1.0
    """
    _check_rate(max_fpr)
    maps, truths = _check_pairs(score_maps, masks)
    scores, defective = _pixels(maps, truths)
    gains = np.concatenate([_shares_of_regions(truth) for truth in truths])
    gains /= gains.sum()  # the shares of all regions add up to 1
    order = np.argsort(-scores, kind="stable")
    scores, defect_free = scores[order], ~defective[order]
    # Pixels of equal score share one threshold.
    last_of_ties = np.append(scores[1:] != scores[:-1], True)
    overlap = np.append(0.0, np.cumsum(gains[order])[last_of_ties])
    rate = np.append(0.0, np.cumsum(defect_free)[last_of_ties] / defect_free.sum())
    return _area_to(rate, overlap, max_fpr)


class PixelTally:
    """Scores of maps that are added one by one, in memory that does not grow with their number.

    Scores are rounded to twelve binary digits (1 part in 4,096). Use log-odds rather than
    probabilities, because probabilities close to 1 would become equal.

    Examples
    --------
    >>> from hypervlad.metrics import PixelTally
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
        mask : array of shape (H, W)

        Raises
        ------
        ValueError
            If shapes differ, a score is not finite or the mask is not a mask.
        """
        scores, truth = _check_pair(score_map, mask, 0)
        bins, flat = score_bins(scores).ravel(), truth.ravel()
        self._defect_free += np.bincount(bins[~flat], minlength=N_BINS)
        if flat.any():
            shares = _shares_of_regions(truth)[flat]
            self._defective += np.bincount(bins[flat], minlength=N_BINS)
            self._shares += np.bincount(bins[flat], shares, minlength=N_BINS)
            self._n_regions += shares.sum()

    def auroc(self) -> float:
        """As `pixel_auroc`; NaN unless there are pixels of both kinds."""
        if not self._has_both():
            return float("nan")
        return float(auc(_reached(self._defect_free), _reached(self._defective)))

    def average_precision(self) -> float:
        """As `pixel_average_precision`; NaN unless there are pixels of both kinds."""
        if not self._has_both():
            return float("nan")
        found = np.cumsum(self._defective[::-1])
        called = found + np.cumsum(self._defect_free[::-1])
        precision = found / np.maximum(called, 1)
        return float((self._defective[::-1] * precision).sum() / found[-1])

    def per_region_overlap(self, *, max_fpr: float = 0.3) -> float:
        """As `per_region_overlap`; NaN unless there are pixels of both kinds."""
        _check_rate(max_fpr)
        if not self._has_both():
            return float("nan")
        overlap = np.append(0.0, np.cumsum(self._shares[::-1]) / self._n_regions)
        return _area_to(_reached(self._defect_free), overlap, max_fpr)

    def best_f1(self) -> tuple[float, float]:
        """The highest F1 of pixels, and the highest threshold at which it is reached.

        Both are optimistic, because the threshold is chosen on these images. Both are NaN unless
        there are pixels of both kinds.
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
    """Predicted minus true defective area, as a fraction of the image.

    Parameters
    ----------
    predicted : array of shape (H, W)
        True (or 1, or 255) where a defect is predicted.
    mask : array of shape (H, W)
        True (or 1, or 255) where there is a defect.

    Returns
    -------
    error : float
        Predicted minus true share of the pixels, between -1 and 1.

    Raises
    ------
    ValueError
        If the shapes differ or one of them is not a mask.

    Examples
    --------
    >>> from hypervlad.metrics import area_fraction_error
    >>> area_fraction_error([[1, 1], [0, 0]], [[1, 0], [0, 0]])
    0.25
    """
    found, truth = as_mask(predicted, "predicted"), as_mask(mask, "mask")
    check_same_shape(found, truth, "predicted", "mask")
    return float(found.mean() - truth.mean())


def check_same_shape(first: NDArray[Any], second: NDArray[Any], name: str, other: str) -> None:
    """Raise an error if two maps of an image differ in size.

    Raises
    ------
    ValueError
    """
    if first.shape != second.shape:
        raise ValueError(
            f"{name} and {other} are of the same image: expected equal shapes, got {first.shape} "
            f"and {second.shape}."
        )


def _check_rate(max_fpr: float) -> None:
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr must be in (0, 1]; got {max_fpr!r}.")


def _area_to(rate: NDArray[np.float64], overlap: NDArray[np.float64], max_fpr: float) -> float:
    inside = rate <= max_fpr
    rates = np.append(rate[inside], max_fpr)
    overlaps = np.append(overlap[inside], np.interp(max_fpr, rate, overlap))
    return float(auc(rates, overlaps) / max_fpr)


def score_bins(scores: NDArray[np.floating[Any]]) -> NDArray[np.uint32]:
    """Return the bin of each score, in the order of the scores: its first binary digits."""
    digits = np.ascontiguousarray(scores + 0.0, dtype=np.float32).view(np.uint32)  # no -0.0
    negative = digits >> 31 == 1
    ordered = np.where(negative, ~digits, digits | np.uint32(1 << 31))
    return np.asarray(ordered >> (32 - _BIN_BITS))


def _lowest_of(number: int) -> float:
    """Return the lowest score of a bin."""
    ordered = np.uint32(number << (32 - _BIN_BITS))
    positive = ordered >> 31 == 1
    digits = ordered ^ np.uint32(1 << 31) if positive else ~ordered
    return float(np.array([digits], dtype=np.uint32).view(np.float32)[0])


def _reached(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the pixels in each bin or above, the highest bin first, from 0 on."""
    return np.append(0.0, np.cumsum(counts[::-1]) / counts.sum())


def _check_pairs(
    score_maps: Maps, masks: Maps
) -> tuple[list[NDArray[np.floating[Any]]], list[Mask]]:
    maps, truths = _listed(score_maps), _listed(masks)
    if len(maps) != len(truths) or not maps:
        raise ValueError(
            f"expected one mask for each score map and at least one; got "
            f"{counted(len(maps), 'map')} and {counted(len(truths), 'mask')}."
        )
    pairs = [_check_pair(*pair, i) for i, pair in enumerate(zip(maps, truths, strict=True))]
    return [scores for scores, _ in pairs], [truth for _, truth in pairs]


def _check_pair(scores: Any, mask: Any, i: int) -> tuple[NDArray[np.floating[Any]], Mask]:
    array = np.asarray(scores)
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"score map {i} holds NaN or infinity.")
    truth = as_mask(mask, f"mask {i}")
    check_same_shape(array, truth, f"score map {i}", "its mask")
    return array, truth


def _listed(maps: Any) -> list[Any]:
    """Return maps as a list; a single map is a list of one."""
    if not isinstance(maps, np.ndarray):
        maps = list(maps)
        is_single = bool(maps) and np.ndim(maps[0]) == 1
        return [np.asarray(maps)] if is_single else maps
    return [maps] if maps.ndim == 2 else list(maps)


def _pixels(
    maps: list[NDArray[np.floating[Any]]], truths: list[Mask]
) -> tuple[NDArray[np.floating[Any]], Mask]:
    """Return the scores of all pixels of all images, and which of them are defective."""
    scores = np.concatenate([scores.ravel() for scores in maps])
    defective = np.concatenate([truth.ravel() for truth in truths])
    n_defective = int(defective.sum())
    if n_defective in (0, len(defective)):
        kind = "no pixel" if n_defective == 0 else "every pixel"
        raise ValueError(
            f"{kind} is defective in any mask: expected both kinds. Are these the right masks?"
        )
    return scores, defective


def _shares_of_regions(truth: Mask) -> NDArray[np.float64]:
    """Return each pixel's share of the area of its region, flat; 0 outside all regions."""
    regions, _ = label(truth, structure=_TOUCHING)
    shares = 1 / np.maximum(np.bincount(regions.ravel()), 1)  # there may be no pixel outside
    shares[0] = 0.0
    return np.asarray(shares[regions.ravel()])
