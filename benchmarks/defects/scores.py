"""Scores of defect maps by patch, and comparisons of methods over kinds of defects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from benchmarks.defects.surfaces import FREE
from hypervlad.evaluation import PatchConfusion, patch_confusion

PATCH = 29  # pixels
_N_THRESHOLDS = 60  # among which the best F1 is searched
N_DRAWS = 2000


def patch_f1(maps: list[np.ndarray], masks: list[np.ndarray], threshold: float) -> float:
    """Return the F1 of patches over all images, at a threshold."""
    pairs = zip(maps, masks, strict=True)
    total = PatchConfusion.total(patch_confusion(m >= threshold, t, PATCH) for m, t in pairs)
    return 0.0 if np.isnan(total.f1) else total.f1


def best_patch_f1(maps: list[np.ndarray], masks: list[np.ndarray]) -> float:
    """Return the best F1 over all thresholds, chosen on the test images themselves."""
    values = np.concatenate([np.ravel(m)[::17] for m in maps])
    shares = 1 - np.geomspace(1e-4, 0.5, _N_THRESHOLDS)
    return max(patch_f1(maps, masks, t) for t in np.unique(np.quantile(values, shares)))


@dataclass(frozen=True)
class SplitScores:
    """The test images of a split, and their scores by some methods.

    Attributes
    ----------
    kinds : ndarray of n str
    specimens : ndarray of n int
        As in `Surface`: images of one specimen are resampled together.
    scores : dict of ndarray of n float
        By method.
    """

    kinds: np.ndarray
    specimens: np.ndarray
    scores: Mapping[str, np.ndarray]


def image_auroc(scores: np.ndarray, kinds: np.ndarray, kind: str) -> float:
    """Return the AUROC of the images of a kind against the defect-free ones."""
    return float(roc_auc_score(*_of_kind(scores, kinds, kind)))


def found_at_rate(scores: np.ndarray, kinds: np.ndarray, kind: str, rate: float) -> float:
    """Return the share of a kind that is found where this share of defect-free images is, too."""
    false, found, _ = roc_curve(*_of_kind(scores, kinds, kind))
    return float(np.interp(rate, false, found))


def _of_kind(scores: np.ndarray, kinds: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    rows = np.isin(kinds, (FREE, kind))
    return kinds[rows] == kind, scores[rows]


def paired_difference(
    ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], seed: int = 0
) -> dict[str, float]:
    """Return the mean difference over kinds, and its 95 % interval: splits are resampled.

    Both are by kind, with a value for each split.
    """
    gaps = np.mean([np.subtract(ours[kind], theirs[kind]) for kind in ours], axis=0)
    drawn = np.random.default_rng(seed).choice(gaps, (N_DRAWS, len(gaps))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": float(gaps.mean()), "low": float(low), "high": float(high)}


class Resampling:
    """Splits, and specimens within each kind, resampled: the same for all methods.

    Parameters
    ----------
    kinds, specimens : ndarray of n
        Of all images of the surface: see `Surface`.
    splits : sequence of SplitScores

    Attributes
    ----------
    times : ndarray of shape (n_draws, n)
        How often the first image of each specimen is drawn, and the others with it; 0 for them.
    times_of_split : ndarray of shape (n_draws, n_splits)
    """

    def __init__(
        self,
        kinds: np.ndarray,
        specimens: np.ndarray,
        splits: Sequence[SplitScores],
        n_draws: int = N_DRAWS,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self._splits = splits
        self.times = np.zeros((n_draws, len(kinds)))
        is_first = specimens == np.arange(len(specimens))
        for kind in np.unique(kinds[is_first]):
            members = np.flatnonzero(is_first & (kinds == kind))
            self.times[:, members] = _draw(rng, len(members), n_draws)
        self.times_of_split = _draw(rng, len(splits), n_draws)

    def aurocs(self, method: str, kind: str) -> np.ndarray:
        """Return the image AUROC of a kind, averaged over the splits, in each draw."""
        drawn = np.stack([self._aurocs(split, method, kind) for split in self._splits], 1)
        return (drawn * self.times_of_split).sum(1) / self.times_of_split.sum(1)

    def _aurocs(self, split: SplitScores, method: str, kind: str) -> np.ndarray:
        good, bad = split.kinds == FREE, split.kinds == kind
        scores = split.scores[method]
        wins = np.sign(scores[bad][:, None] - scores[good]) / 2 + 0.5  # ties count half
        of_good, of_bad = (self.times[:, split.specimens[rows]] for rows in (good, bad))
        n_pairs = of_bad.sum(1) * of_good.sum(1)
        n_won = ((of_bad @ wins) * of_good).sum(1)
        # A draw without images of a kind says nothing: the same score for all methods.
        return np.divide(n_won, n_pairs, out=np.full(len(n_pairs), 0.5), where=n_pairs > 0)


def _draw(rng: np.random.Generator, n: int, n_draws: int) -> np.ndarray:
    """Return how often each of n is drawn when n are drawn with replacement."""
    return rng.multinomial(n, np.full(n, 1 / n), size=n_draws)


def differences(
    splits: Sequence[SplitScores], ours: str, rival: str, resampling: Resampling
) -> dict[str, dict[str, float]]:
    """Return image AUROC of ours minus the rival's, by kind and as their ``mean``.

    Each with its ``value``, and ``low`` and ``high``, the ends of the 95 % interval.
    """
    kinds = [kind for kind in dict.fromkeys(splits[0].kinds.tolist()) if kind != FREE]
    values = {
        kind: np.mean(
            [
                image_auroc(split.scores[ours], split.kinds, kind)
                - image_auroc(split.scores[rival], split.kinds, kind)
                for split in splits
            ]
        )
        for kind in kinds
    }
    drawn = {kind: resampling.aurocs(ours, kind) - resampling.aurocs(rival, kind) for kind in kinds}
    values["mean"] = np.mean(list(values.values()))
    drawn["mean"] = np.mean(list(drawn.values()), axis=0)
    found = {}
    for name, value in values.items():
        low, high = np.percentile(drawn[name], [2.5, 97.5])
        found[name] = {"value": float(value), "low": float(low), "high": float(high)}
    return found
