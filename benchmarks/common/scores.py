"""Scores of out-of-fold probabilities, with intervals that resample groups, not images."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common.data import DataSet
from hypervlad.evaluation import calibration_error_range, expected_calibration_error

N_DRAWS = 2000
SEED = 0


@dataclass(frozen=True)
class OutOfFold:
    """The predictions of one method for images of groups that it was not trained on.

    Attributes
    ----------
    codes : ndarray of int, shape (n,)
        The true classes, as columns of `proba`.
    groups : ndarray of shape (n,)
    proba : ndarray of shape (n_repeats, n, n_classes)
    """

    codes: np.ndarray
    groups: np.ndarray
    proba: np.ndarray

    @classmethod
    def of(cls, data: DataSet, proba: np.ndarray) -> OutOfFold:
        """Leave out the images that are never tested, whose probabilities are NaN."""
        tested = ~np.isnan(proba[:, :, 0]).any(axis=0)
        return cls(data.codes[tested], data.groups[tested], proba[:, tested])

    @property
    def right(self) -> np.ndarray:
        """Share of the repeats in which each image was classified correctly, shape (n,)."""
        return (self.proba.argmax(axis=2) == self.codes).mean(axis=0)

    @property
    def losses(self) -> np.ndarray:
        """Log-loss of each image, averaged over the repeats, shape (n,)."""
        of_truth = self.proba[:, np.arange(len(self.codes)), self.codes]
        return -np.log(np.maximum(of_truth, np.finfo(np.float64).eps)).mean(axis=0)

    @property
    def balanced_accuracy(self) -> float:
        counts = np.bincount(self.codes)
        return float((np.bincount(self.codes, self.right)[counts > 0] / counts[counts > 0]).mean())

    def calibration(self) -> dict[str, Any]:
        """Return the calibration error, and the range that perfect calibration would show.

        Means over the repeats: pooled ones would count each image several times.
        """
        errors = [expected_calibration_error(self.codes, p) for p in self.proba]
        ranges = [calibration_error_range(p, random_state=SEED) for p in self.proba]
        low, high = np.mean(ranges, axis=0)
        error = float(np.mean(errors))
        return {"error": error, "range": [float(low), float(high)], "inside": bool(error <= high)}


class GroupDraws:
    """Groups resampled with replacement, the same samples for everything that is compared.

    Parameters
    ----------
    groups : ndarray of shape (n,)
    name : str
        Of the data set. Sets with equally many groups must not share their samples: the variance
        of a mean over sets would not be the sum of their variances.
    """

    def __init__(self, groups: np.ndarray, name: str = "") -> None:
        _, self._group_of_row = np.unique(groups, return_inverse=True)
        self._sizes = np.bincount(self._group_of_row)
        n_groups = len(self._sizes)
        rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
        drawn = rng.integers(n_groups, size=(N_DRAWS, n_groups))
        self.times = np.stack([np.bincount(row, minlength=n_groups) for row in drawn])

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over the rows of the sampled groups, shape (n_draws,)."""
        sums = self.times @ np.bincount(self._group_of_row, values)
        return np.asarray(sums / (self.times @ self._sizes))

    def interval(self, values: np.ndarray) -> list[float]:
        """Return the 95 % interval of the mean."""
        return [float(x) for x in np.percentile(self.means(values), [2.5, 97.5])]


def gain(values: Sequence[np.ndarray], draws: Sequence[GroupDraws]) -> dict[str, Any]:
    """Return the mean over data sets of row-wise differences, with its paired standard error.

    Above zero is better; ``within_two_errors``: no worse than two standard errors.
    """
    drawn = np.mean([d.means(v) for v, d in zip(values, draws, strict=True)], axis=0)
    value, error = float(np.mean([v.mean() for v in values])), float(drawn.std(ddof=1))
    # Rounding must not turn a tie into a loss.
    return {"gain": value, "error": error, "within_two_errors": value >= -2 * error - 1e-12}


def set_rows(
    results: dict[str, OutOfFold], default: str, draws: GroupDraws
) -> dict[str, dict[str, Any]]:
    """Return the scores of each method on one data set, compared with the best and the default."""
    rows = {name: _scores(oof, draws) for name, oof in results.items()}
    for kind, gains in _gains(results).items():
        best = max(gains, key=lambda name: gains[name].mean())
        for name in rows:
            against = {"best": best, "default": default}
            rows[name][f"{kind}_against"] = {
                role: {"method": other} | gain([gains[name] - gains[other]], [draws])
                for role, other in against.items()
                if other in gains
            }
    return rows


def mean_rows(
    by_set: list[dict[str, OutOfFold]], default: str, draws: list[GroupDraws]
) -> dict[str, dict[str, Any]]:
    """Return means over the data sets of the methods that ran on all of them."""
    everywhere = [name for name in by_set[0] if all(name in results for results in by_set)]
    gains = [_gains(results) for results in by_set]
    rows: dict[str, dict[str, Any]] = {}
    for name in everywhere:
        accuracy = float(np.mean([g["accuracy"][name].mean() for g in gains]))
        balanced = float(np.mean([results[name].balanced_accuracy for results in by_set]))
        loss = float(-np.mean([g["log_loss"][name].mean() for g in gains]))
        rows[name] = {"accuracy": accuracy, "balanced_accuracy": balanced, "log_loss": loss}
    best = {
        "accuracy": max(rows, key=lambda name: rows[name]["accuracy"]),
        "log_loss": min(rows, key=lambda name: rows[name]["log_loss"]),
    }
    for name, row in rows.items():
        for kind in best:
            row[f"{kind}_against"] = {
                role: {"method": other}
                | gain([g[kind][name] - g[kind][other] for g in gains], draws)
                for role, other in {"best": best[kind], "default": default}.items()
                if other in rows
            }
    return rows


def _gains(results: dict[str, OutOfFold]) -> dict[str, dict[str, np.ndarray]]:
    """Return scores per image for which larger is better, by score and method."""
    return {
        "accuracy": {name: oof.right for name, oof in results.items()},
        "log_loss": {name: -oof.losses for name, oof in results.items()},
    }


def _scores(oof: OutOfFold, draws: GroupDraws) -> dict[str, Any]:
    return {
        "accuracy": float(oof.right.mean()),
        "accuracy_interval": draws.interval(oof.right),
        "balanced_accuracy": oof.balanced_accuracy,
        "log_loss": float(oof.losses.mean()),
        "log_loss_interval": draws.interval(oof.losses),
        "calibration": oof.calibration(),
    }
