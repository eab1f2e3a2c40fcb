"""From scores of images that a model had not seen to the score that counts as defective."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gumbel_r, median_abs_deviation

from hypervlad.defects.truth import MIXED
from hypervlad.patches import NORMAL

_GUMBEL_DEVIATION = 0.767049251325708  # the median absolute deviation of the standard one
_HIGHEST = 0.005  # of an image's windows


def image_score(windows: NDArray[np.floating]) -> float:
    """Return the score of an image: the mean of the highest two-hundredth of its windows'.

    The highest alone is a matter of chance, the more so the larger an image is.
    """
    n_highest = max(1, round(_HIGHEST * windows.size))
    return float(np.partition(windows, windows.size - n_highest, axis=None)[-n_highest:].mean())


@dataclass(frozen=True, eq=False)
class Judged:
    """Scores of an image's windows by a model that had not seen the image; no mixed ones.

    Attributes
    ----------
    scores : ndarray of float32, shape (n,)
    is_defective : ndarray of bool, shape (n,)
    """

    scores: NDArray[np.float32]
    is_defective: NDArray[np.bool_]

    @classmethod
    def of(cls, scores: NDArray[np.floating], labels: NDArray[np.str_]) -> Judged:
        known = labels != MIXED
        return cls(scores[known].astype(np.float32), labels[known] != NORMAL)


def threshold_at_rate(images: Iterable[Judged], rate: float) -> float:
    """Return a score that about this share of such images reaches in a sound place.

    An image's highest score is an extreme value: taken to follow Gumbel's distribution, whose
    median and median absolute deviation are those of the images, which a few bad images among the
    good hardly move.
    """
    highest = [
        image.scores[~image.is_defective].max() for image in images if not image.is_defective.all()
    ]
    above = (gumbel_r.isf(rate) - gumbel_r.median()) / _GUMBEL_DEVIATION
    usual = np.float32(np.median(highest) + above * median_abs_deviation(highest))
    return float(np.nextafter(usual, np.float32(np.inf)))


def threshold_at_patch_rate(images: Iterable[Judged], rate: float) -> float:
    """Return a score that at most this share of the sound windows of all images reaches."""
    scores = np.concatenate([image.scores[~image.is_defective] for image in images])
    return float(np.nextafter(np.quantile(scores, 1 - rate, method="higher"), np.float32(np.inf)))


def threshold_of_best_f1(images: Iterable[Judged]) -> float:
    """Return the score from which on calling windows defective has the best F1."""
    listed = list(images)
    scores = np.concatenate([image.scores for image in listed])
    defective = np.concatenate([image.is_defective for image in listed])
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(defective[order])
    called = np.arange(1, len(scores) + 1)
    f1 = 2 * hits / (called + defective.sum())
    is_last = np.append(scores[1:] < scores[:-1], True)  # equal scores go together
    best = int(np.argmax(np.where(is_last, f1, -1)))
    following = scores[best + 1] if best + 1 < len(scores) else scores[best] - 1
    between = (scores[best] + following) / np.float32(2)
    return float(between if between > following else scores[best])
