"""Found outlines compared with the true ones: matched particles, overlap, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.statistics.groups import left_out_interval, share_interval


def matched_labels(
    true: ArrayLike, found: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Match the particles of two label images by an intersection over union above 0.5.

    With more than half in common, each particle matches at most one other.

    Parameters
    ----------
    true, found : array of int, shape (H, W)
        Label images, 0 for background.

    Returns
    -------
    pairs : ndarray of int64, shape (n, 2)
        Labels in `true` and in `found`, in the order of the former.
    iou : ndarray of float64, shape (n,)

    Raises
    ------
    ValueError
        If the shapes differ, or a value is not a label.

    Examples
    --------
    >>> pairs, iou = matched_labels([[1, 1, 0, 2]], [[7, 7, 7, 0]])
    >>> pairs.tolist(), iou.round(2).tolist()
    ([[1, 7]], [0.67])
    """
    true, found = _checked(true, found)
    true_labels, true_areas = np.unique(true, return_counts=True)
    found_labels, found_areas = np.unique(found, return_counts=True)
    both = (true > 0) & (found > 0)
    n = len(found_labels)
    rows = np.searchsorted(true_labels, true[both])
    codes, overlap = np.unique(
        rows * n + np.searchsorted(found_labels, found[both]), return_counts=True
    )
    rows, columns = np.divmod(codes, n)
    iou = overlap / (true_areas[rows] + found_areas[columns] - overlap)
    chosen = iou > 0.5
    pairs = np.stack([true_labels[rows[chosen]], found_labels[columns[chosen]]], axis=1)
    return pairs.astype(np.int64), iou[chosen]


class OutlineTally:
    """Scores of found outlines over fields that are added one by one; see `matched_labels`.

    Parameters
    ----------
    min_area : int, default=20
        Particles of fewer pixels, true or found, are neither expected nor counted as mistakes.

    Examples
    --------
    >>> from hypervlad.evaluation import OutlineTally
    >>> tally = OutlineTally(min_area=1)
    >>> tally.add([[1, 1, 0, 2]], [[7, 7, 7, 0]])
    >>> scores = tally.scores()
    >>> scores["precision"], scores["recall"], scores["image_iou"]
    (1.0, 0.5, 0.5)
    """

    def __init__(self, min_area: int = 20) -> None:
        self.min_area = min_area
        # Matched particles, overlap, and the diameters of true and found particles.
        self._fields: list[tuple[int, float, list[NDArray[Any]]]] = []

    def add(self, true: ArrayLike, found: ArrayLike) -> None:
        """Add a field: two label images (H, W), 0 for background."""
        true, found = _checked(true, found)
        either = np.count_nonzero((true > 0) | (found > 0))
        both = np.count_nonzero((true > 0) & (found > 0))
        # All particles are matched: one slightly too small, on either side, is no mistake.
        pairs, _ = matched_labels(true, found)
        sides = [np.unique(labels[labels > 0], return_counts=True) for labels in (true, found)]
        large = [areas >= self.min_area for _, areas in sides]
        places = [np.searchsorted(side[0], pairs[:, k]) for k, side in enumerate(sides)]
        is_match = large[0][places[0]] & large[1][places[1]]
        for is_large, place in zip(large, places, strict=True):
            is_large[place] = is_match
        diameters = [
            2 * np.sqrt(areas[is_large] / np.pi)
            for (_, areas), is_large in zip(sides, large, strict=True)
        ]
        overlap = both / either if either else 1.0
        self._fields.append((int(is_match.sum()), overlap, diameters))

    def update(self, other: OutlineTally) -> None:
        """Add the fields of another tally."""
        self._fields += other._fields

    def scores(self) -> dict[str, float]:
        """Return the scores by name, of all fields together; NaN where one is not defined.

        "image_iou" (of the area of particles, mean of the fields), "precision", "recall", "f1",
        "n_true", "n_found", "n_matched", "number_ratio" (found over true), and of the equivalent
        diameters in pixels "true_diameter", "found_diameter" (medians) and "diameter_ratio" (of the
        medians, found over true). A ValueError without a field.
        """
        return self._scores(self._fields)

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % intervals of shares and ratios in `scores`, by name.

        Fields are drawn, not particles. Those of precision, recall and F1 are Wilson's, for as many
        particles as the fields are worth; the others are Student's, of the logarithms of ratios.
        NaN with one field, and where a score is not defined.
        """
        scores, found = self.scores(), dict[str, tuple[float, float]]()
        fields = [self._fields[:k] + self._fields[k + 1 :] for k in range(len(self._fields))]
        without = [self._scores(each) if each else dict.fromkeys(scores, np.nan) for each in fields]
        matched, n_true, n_found = np.transpose([(n, *map(len, own)) for n, _, own in self._fields])
        numbers = {"precision": n_found, "recall": n_true, "f1": (n_true + n_found) / 2}
        for name in ("image_iou", "number_ratio", "diameter_ratio", *numbers):
            whole, others = scores[name], np.array([each[name] for each in without])
            with np.errstate(divide="ignore", invalid="ignore"):
                if name in numbers:
                    n = numbers[name]
                    ends: Any = share_interval(whole, others, n.sum(), matched, n)
                elif name == "image_iou":
                    ends = np.clip(left_out_interval(whole, others)[:2], 0, 1)
                else:
                    ends = np.exp(left_out_interval(np.log(whole), np.log(others))[:2])
            found[name] = float(ends[0]), float(ends[1])
        return found

    def _scores(self, fields: Sequence[Any]) -> dict[str, float]:
        if not fields:
            raise ValueError("there are no fields to score; add at least one")
        n_matched, overlaps, diameters = zip(*fields, strict=True)
        together = [np.concatenate(side) for side in zip(*diameters, strict=True)]
        n_matched, n_true, n_found = sum(n_matched), *map(len, together)
        true, found = (float(np.median(side)) if len(side) else np.nan for side in together)
        return {
            "image_iou": float(np.mean(overlaps)),
            "precision": _share(n_matched, n_found),
            "recall": _share(n_matched, n_true),
            "f1": _share(2 * n_matched, n_true + n_found),
            "n_true": n_true,
            "n_found": n_found,
            "n_matched": n_matched,
            "number_ratio": _share(n_found, n_true),
            "true_diameter": true,
            "found_diameter": found,
            "diameter_ratio": found / true,
        }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else np.nan


def _checked(
    true: ArrayLike, found: ArrayLike
) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    first, second = np.asarray(true), np.asarray(found)
    for name, labels in (("true", first), ("found", second)):
        if labels.ndim != 2 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
            raise ValueError(
                f"{name} must be a label image (H, W) of whole numbers, 0 for background; got type "
                f"{labels.dtype} and shape {labels.shape}"
            )
    if first.shape != second.shape:
        raise ValueError(f"the label images differ in shape: {first.shape} and {second.shape}")
    return first, second
