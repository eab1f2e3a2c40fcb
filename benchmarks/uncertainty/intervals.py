"""Do the 95 % intervals of an accuracy contain it? On simulated groups of images.

    python -m benchmarks.uncertainty.intervals

The shares of right answers in the groups are drawn from a beta distribution around the true
accuracy, those of a group's images given its share are independent. The library's intervals are
shown beside Wilson's for as many trials as images and percentiles of bootstrap samples of groups;
and for the balanced accuracy of three classes, with groups that have images of each.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.common.tables import table
from hypervlad.metrics import accuracy_interval, balanced_accuracy_interval, wilson_interval

N_GROUPS = (5, 10, 20, 60, 120)
N_IMAGES = (2, 8, 50)  # of a group, on average
ACCURACIES = (0.6, 0.8, 0.9, 0.97)
CORRELATIONS = (0.02, 0.1, 0.3, 0.5)  # between the images of a group
N_BOOTSTRAPS = 200
Draw = tuple[np.ndarray, np.ndarray]  # right answers and groups of images
SIZES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "of equal size": lambda rng, n_groups, mean: np.full(n_groups, mean),
    "of Poisson sizes": lambda rng, n_groups, mean: 1 + rng.poisson(mean - 1, n_groups),
    "of lognormal sizes": lambda rng, n_groups, mean: np.ceil(
        rng.lognormal(np.log(mean) - 0.5, 1, n_groups)
    ).astype(int),
    "one with a third of all images": lambda rng, n_groups, mean: np.r_[
        mean * n_groups // 2, np.full(n_groups - 1, mean)
    ],
}


def bootstrap_interval(right: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return percentiles of the accuracy of bootstrap samples of groups."""
    hits, sizes = np.bincount(groups, right), np.bincount(groups)
    rows = np.random.default_rng(0).integers(len(sizes), size=(N_BOOTSTRAPS, len(sizes)))
    low, high = np.quantile(hits[rows].sum(axis=1) / sizes[rows].sum(axis=1), [0.025, 0.975])
    return low, high


RULES: dict[str, Callable[..., tuple[float, float]]] = {
    "the library's": accuracy_interval,
    "Wilson's, of images": lambda right, groups: wilson_interval(right.mean(), len(right)),
    "bootstrap of groups": bootstrap_interval,
}


def shares(
    rng: np.random.Generator, accuracy: float, correlation: float, n_groups: int
) -> np.ndarray:
    """Draw the shares of right answers in groups."""
    scale = 1 / correlation - 1
    return rng.beta(accuracy * scale, (1 - accuracy) * scale, n_groups)


def accuracy_rows(n_draws: int) -> list[dict[str, Any]]:
    """Return the share of intervals that contain the accuracy, and their widths, by sizes."""
    rows = []
    for (seed, (sizes, sizes_of)), rule in itertools.product(enumerate(SIZES.items()), RULES):
        covered, widths = [], []
        cells = itertools.product(N_GROUPS, N_IMAGES, ACCURACIES, CORRELATIONS)
        for cell, (n_groups, n_images, accuracy, correlation) in enumerate(cells):
            rng = np.random.default_rng([seed, cell])  # the same draws for all rules
            found = []
            for _ in range(n_draws):
                groups = np.repeat(np.arange(n_groups), sizes_of(rng, n_groups, n_images))
                of_groups = shares(rng, accuracy, correlation, n_groups)
                found.append(RULES[rule](rng.random(len(groups)) < of_groups[groups], groups))
            low, high = np.transpose(found)
            covered.append(float(((low <= accuracy) & (accuracy <= high)).mean()))
            widths.append(float((high - low).mean()))
        rows.append({"of": f"accuracy, groups {sizes}", "rule": rule, **_summary(covered, widths)})
    return rows


def balanced_rows(n_draws: int) -> list[dict[str, Any]]:
    """Return the same for the balanced accuracy of three classes, one of them small."""
    rows = []
    for mixed, of_class in ((False, "of one class"), (True, "of all classes")):
        covered, widths = [], []
        cells = itertools.product((12, 36), ACCURACIES, CORRELATIONS)
        for cell, (n_groups, accuracy, correlation) in enumerate(cells):
            rng = np.random.default_rng([mixed, cell])
            recalls = np.array([accuracy, accuracy**2, accuracy**3])
            found = []
            for _ in range(n_draws):
                groups = np.repeat(np.arange(n_groups), 6)
                own = rng.choice(3, n_groups, p=[0.5, 0.35, 0.15])
                own[:3] = range(3)  # each class has a group
                classes = np.tile([0, 0, 0, 1, 1, 2], n_groups) if mixed else own[groups]
                # A group that is easier than others is so for each of its classes.
                easy = np.array([shares(rng, r, correlation, n_groups) for r in recalls])
                if mixed:
                    easy = np.sort(easy, axis=1)[:, rng.permutation(n_groups)]
                right = rng.random(len(groups)) < easy[classes, groups]
                found.append(balanced_accuracy_interval(right, classes.tolist(), groups.tolist()))
            low, high = np.transpose(found)
            truth = recalls.mean()
            covered.append(float(((low <= truth) & (truth <= high)).mean()))
            widths.append(float((high - low).mean()))
        name = f"balanced accuracy, groups {of_class}"
        rows.append({"of": name, "rule": "the library's", **_summary(covered, widths)})
    return rows


def _summary(covered: list[float], widths: list[float]) -> dict[str, Any]:
    return {
        "mean": float(np.mean(covered)),
        "fifth": float(np.quantile(covered, 0.05)),
        "worst": min(covered),
        "width": float(np.mean(widths)),
        "cells": len(covered),
    }


def intervals_table(result: dict[str, Any]) -> str:
    """Return a row for each kind of groups and each rule."""
    rows = [
        [row["of"], row["rule"]]
        + [f"{row[share]:.1%}" for share in ("mean", "fifth", "worst")]
        + [f"{row['width']:.2f}", str(row["cells"])]
        for row in result["rows"]
    ]
    heads = ["interval of the", "rule", "contain it, mean", "95 % of settings: at least", "worst"]
    return (
        f"{result['n_draws']} draws of each setting, a number and size of groups, an accuracy and "
        f"a correlation.\n\n{table([*heads, 'width, mean', 'settings'], rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--out", type=Path, default=RESULTS / "uncertainty" / "intervals.json")
    arguments = parser.parse_args()
    rows = [*accuracy_rows(arguments.draws), *balanced_rows(arguments.draws)]
    result = {
        "n_draws": arguments.draws,
        "rows": rows,
        "origin": origin(1, "uncertainty/intervals"),
    }
    save_result(arguments.out, result)
    print(intervals_table(result))


if __name__ == "__main__":
    main()
