"""Scores of defect maps, pixel by pixel and region by region, against the true masks.

Everywhere a higher score means more defective, and a mask is True where there is a defect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from hypervlad.images.masks import as_mask

__all__ = [
    "PixelTally",
    "area_fraction_error",
    "per_region_overlap",
    "pixel_auroc",
    "pixel_average_precision",
]

Maps: TypeAlias = ArrayLike | Sequence[ArrayLike]
Mask: TypeAlias = NDArray[np.bool_]
_TOUCHING = np.ones((3, 3), dtype=int)  # corners too
_BIN_BITS = 21  # sign, eight of the exponent, twelve of the digits
_N_BINS = 1 << _BIN_BITS


def pixel_auroc(score_maps: Maps, masks: Maps) -> float:
    """How well scores tell defective pixels from sound ones: the area under the ROC curve.

    The chance that a defective pixel, drawn from all images, has a higher score than a sound one.
    Defects that cover many pixels count more than small ones: see `per_region_overlap`.

    Parameters
    ----------
    score_maps : array of shape (H, W), or sequence of n such arrays
        Scores, higher where more defective; sizes may differ between images.
    masks : array of shape (H, W), or sequence of n such arrays
        True (or 1, or 255) where there is a defect; of the same sizes.

    Returns
    -------
    auroc : float
        1 for a perfect map, 0.5 for one that says nothing.

    Raises
    ------
    ValueError
        If shapes do not fit, a score is not finite, a mask is no mask, or no pixel (or every one)
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
    """Precision averaged over the recalls at which defective pixels are found.

    Unlike `pixel_auroc` it tells good maps apart where defects are rare: a map that says nothing
    has the share of defective pixels.

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
    """Area under the per-region overlap (AU-PRO): every region has the same weight, however small.

    At a threshold, the overlap of a region is the share of its pixels whose score is at least the
    threshold, and the false-positive rate the share of all sound pixels, of all images, for which
    that holds. The mean overlap over all regions is integrated over the false-positive rate from 0
    to `max_fpr`, by trapezoids, and divided by it. A region is a connected part of a mask, corners
    included.

    Parameters
    ----------
    score_maps, masks
        As in `pixel_auroc`.
    max_fpr : float, default=0.3
        In (0, 1].

    Returns
    -------
    overlap : float
        1 for a perfect map; ``max_fpr / 2`` for one that says nothing.

    Raises
    ------
    ValueError
        As `pixel_auroc`, or if `max_fpr` is out of range.

    References
    ----------
    P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, "The MVTec anomaly detection
    dataset", International Journal of Computer Vision 129, 2021, section 5.

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
    gains /= gains.sum()  # each region holds one in all
    order = np.argsort(-scores, kind="stable")
    scores, sound = scores[order], ~defective[order]
    # Pixels of one score come and go together.
    last_of_ties = np.append(scores[1:] != scores[:-1], True)
    overlap = np.append(0.0, np.cumsum(gains[order])[last_of_ties])
    rate = np.append(0.0, np.cumsum(sound)[last_of_ties] / sound.sum())
    return _area_to(rate, overlap, max_fpr)


class PixelTally:
    """The scores above for images one after the other, in memory that does not grow with them.

    Scores count as equal if they agree in their first twelve binary digits (1 part in 4,096). Give
    log-odds rather than probabilities, many of which may be equally close to 1.

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
        self._sound, self._defective = (np.zeros(_N_BINS, dtype=np.int64) for _ in range(2))
        self._shares = np.zeros(_N_BINS)  # of regions; each has one in all
        self._n_regions = 0.0

    def add(self, score_map: ArrayLike, mask: ArrayLike) -> None:
        """Count an image in.

        Parameters
        ----------
        score_map : array of shape (H, W)
        mask : array of shape (H, W)

        Raises
        ------
        ValueError
            If shapes differ, a score is not finite or the mask is none.
        """
        scores, truth = _check_pair(score_map, mask, 0)
        bins, flat = _bins(scores).ravel(), truth.ravel()
        self._sound += np.bincount(bins[~flat], minlength=_N_BINS)
        if flat.any():
            shares = _shares_of_regions(truth)[flat]
            self._defective += np.bincount(bins[flat], minlength=_N_BINS)
            self._shares += np.bincount(bins[flat], shares, minlength=_N_BINS)
            self._n_regions += shares.sum()

    def auroc(self) -> float:
        """As `pixel_auroc`; NaN unless there are pixels of both kinds."""
        if not self._has_both():
            return float("nan")
        return float(auc(_reached(self._sound), _reached(self._defective)))

    def average_precision(self) -> float:
        """As `pixel_average_precision`; NaN unless there are pixels of both kinds."""
        if not self._has_both():
            return float("nan")
        found = np.cumsum(self._defective[::-1])
        called = found + np.cumsum(self._sound[::-1])
        precision = found / np.maximum(called, 1)
        return float((self._defective[::-1] * precision).sum() / found[-1])

    def per_region_overlap(self, *, max_fpr: float = 0.3) -> float:
        """As `per_region_overlap`; NaN unless there are pixels of both kinds."""
        _check_rate(max_fpr)
        if not self._has_both():
            return float("nan")
        overlap = np.append(0.0, np.cumsum(self._shares[::-1]) / self._n_regions)
        return _area_to(_reached(self._sound), overlap, max_fpr)

    def best_f1(self) -> tuple[float, float]:
        """The highest F1 of pixels, and the score from which on they are then called defective.

        Of several such scores the highest. Chosen on these very images, it is no forecast for
        others. NaN both, unless there are pixels of both kinds.
        """
        if not self._has_both():
            return float("nan"), float("nan")
        found = np.cumsum(self._defective[::-1])
        called = found + np.cumsum(self._sound[::-1])
        f1 = 2 * found / (called + found[-1])
        best = int(f1.argmax())
        return float(f1[best]), _lowest_of(_N_BINS - 1 - best)

    def _has_both(self) -> bool:
        return bool(self._sound.any() and self._defective.any())


def area_fraction_error(predicted: ArrayLike, mask: ArrayLike) -> float:
    """Predicted minus true defective area, as a fraction of the image.

    Parameters
    ----------
    predicted : array of shape (H, W)
        True (or 1, or 255) where a defect is seen.
    mask : array of shape (H, W)
        The same where there is one.

    Returns
    -------
    error : float
        Predicted minus true share of the pixels, between -1 and 1.

    Raises
    ------
    ValueError
        If the shapes differ or one of them is no mask.

    Examples
    --------
    >>> from hypervlad.metrics import area_fraction_error
    >>> area_fraction_error([[1, 1], [0, 0]], [[1, 0], [0, 0]])
    0.25
    """
    seen, truth = as_mask(predicted, "predicted"), as_mask(mask, "mask")
    check_same_shape(seen, truth, "predicted", "mask")
    return float(seen.mean() - truth.mean())


def check_same_shape(first: NDArray[Any], second: NDArray[Any], name: str, other: str) -> None:
    """Complain if two maps of an image differ in size.

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


def _bins(scores: NDArray[np.floating[Any]]) -> NDArray[np.uint32]:
    """Return bins in the scores' order: the first digits of their binary form, sign mended."""
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
    """Return what share reaches each bin, from none on, the highest bin first."""
    return np.append(0.0, np.cumsum(counts[::-1]) / counts.sum())


def _check_pairs(
    score_maps: Maps, masks: Maps
) -> tuple[list[NDArray[np.floating[Any]]], list[Mask]]:
    maps, truths = _listed(score_maps), _listed(masks)
    if len(maps) != len(truths) or not maps:
        raise ValueError(
            f"expected one mask for each score map and at least one; got {len(maps)} maps and "
            f"{len(truths)} masks."
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
    """One map may come alone."""
    if not isinstance(maps, np.ndarray):
        maps = list(maps)
        alone = bool(maps) and np.ndim(maps[0]) == 1
        return [np.asarray(maps)] if alone else maps
    return [maps] if maps.ndim == 2 else list(maps)


def _pixels(
    maps: list[NDArray[np.floating[Any]]], truths: list[Mask]
) -> tuple[NDArray[np.floating[Any]], Mask]:
    """All pixels of all images: score, and whether it is defective."""
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
    """Each pixel's share of its region's area, 0 outside of regions; flat."""
    regions, _ = label(truth, structure=_TOUCHING)
    shares = 1 / np.maximum(np.bincount(regions.ravel()), 1)  # no pixel may lie outside of all
    shares[0] = 0.0
    return np.asarray(shares[regions.ravel()])
