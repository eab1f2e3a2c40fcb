"""Do the 95 % intervals of an accuracy contain it? On simulated groups of images.

    python -m benchmarks.uncertainty.intervals

The shares of right answers in the groups are drawn from a beta distribution around the true
accuracy, those of a group's images given its share are independent; or a few groups are all wrong.
The library's intervals are shown beside Wilson's for as many trials as images and percentiles of
bootstrap samples of groups; those of the balanced accuracy for groups of all classes, groups of one
class and single images.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial
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
LIBRARYS, BALANCED = "the library's", "balanced accuracy"
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
#: Right answers, classes and groups of images; classes are None if only the accuracy counts.
Draw = tuple[np.ndarray, np.ndarray | None, np.ndarray]


def draw_images(
    sizes: str,
    n_groups: int,
    n_images: int,
    accuracy: float,
    correlation: float,
    rng: np.random.Generator,
) -> Draw:
    """Draw groups of images without classes."""
    groups = np.repeat(np.arange(n_groups), SIZES[sizes](rng, n_groups, n_images))
    of_groups = draw_shares(rng, accuracy, correlation, n_groups)
    return rng.random(len(groups)) < of_groups[groups], None, groups


def draw_failing(n_groups: int, failing: float, errors: float, rng: np.random.Generator) -> Draw:
    """Draw groups some of which are all wrong."""
    groups = np.repeat(np.arange(n_groups), 30)
    is_failing = rng.random(n_groups) < failing
    return (rng.random(len(groups)) >= errors) & ~is_failing[groups], None, groups


def draw_all_classes(
    n_classes: int,
    n_groups: int,
    n_each: int,
    accuracy: float,
    correlation: float,
    rng: np.random.Generator,
) -> Draw:
    """Draw groups with as many images of each class."""
    groups = np.repeat(np.arange(n_groups), n_classes * n_each)
    classes = np.tile(np.repeat(np.arange(n_classes), n_each), n_groups)
    of_groups = draw_shares(rng, accuracy, correlation, n_groups)
    return rng.random(len(groups)) < of_groups[groups], classes, groups


def draw_classes(
    numbers: tuple[int, ...],
    recalls: tuple[float, ...],
    correlation: float,
    rng: np.random.Generator,
) -> Draw:
    """Draw classes of some numbers of images, in groups of five; in none if correlation is 0."""
    classes = np.repeat(np.arange(len(numbers)), numbers)
    of_images = np.array(recalls)[classes]
    if not correlation:
        return rng.random(len(classes)) < of_images, classes, np.arange(len(classes))
    groups = 1000 * classes + np.arange(len(classes)) // 5
    for group in np.unique(groups):
        own = groups == group
        of_images[own] = draw_shares(rng, recalls[group // 1000], correlation, 1)
    return rng.random(len(classes)) < of_images, classes, groups


def draw_shares(
    rng: np.random.Generator, accuracy: float, correlation: float, n_groups: int
) -> np.ndarray:
    """Draw the shares of right answers in groups."""
    scale = 1 / correlation - 1
    return rng.beta(accuracy * scale, (1 - accuracy) * scale, n_groups)


def settings() -> Iterator[tuple[str, float, Callable[[np.random.Generator], Draw]]]:
    """Yield what is measured, its true value, and how images are drawn."""
    for cell in itertools.product(SIZES, N_GROUPS, N_IMAGES, ACCURACIES, CORRELATIONS):
        yield f"accuracy, groups {cell[0]}", cell[3], partial(draw_images, *cell)
    for n_groups, failing, errors in itertools.product(
        (10, 20, 60), (0.03, 0.05, 0.1), (0.02, 0.1)
    ):
        truth, draw = (1 - failing) * (1 - errors), partial(draw_failing, n_groups, failing, errors)
        yield "accuracy, 3 to 10 % of the groups all wrong", truth, draw
    for of_all in itertools.product((3, 8, 20), (5, 10, 30), (1, 4), (0.8, 0.9, 0.97), (0.1, 0.5)):
        yield f"{BALANCED}, groups of all classes", of_all[3], partial(draw_all_classes, *of_all)
    numbers = ((60, 8, 4), (200, 50, 2), (100, 100, 10), (90, 9, 9))
    recalls = ((0.97, 0.94, 0.91), (0.9, 0.7, 0.5), (0.98, 0.98, 0.6), (0.8, 0.8, 0.8))
    for of_one in itertools.product(numbers, recalls, (0.0, 0.1, 0.5)):
        kind = "groups of one class" if of_one[2] else "single images"
        yield f"{BALANCED}, {kind}", float(np.mean(of_one[1])), partial(draw_classes, *of_one)


def bootstrap_interval(right: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return percentiles of the accuracy of bootstrap samples of groups."""
    hits, sizes = np.bincount(groups, right), np.bincount(groups)
    rows = np.random.default_rng(0).integers(len(sizes), size=(N_BOOTSTRAPS, len(sizes)))
    low, high = np.quantile(hits[rows].sum(axis=1) / sizes[rows].sum(axis=1), [0.025, 0.975])
    return low, high


def intervals(
    right: np.ndarray, classes: np.ndarray | None, groups: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Return the interval by each rule."""
    if classes is not None:
        return {LIBRARYS: balanced_accuracy_interval(right, classes.tolist(), groups.tolist())}
    return {
        LIBRARYS: accuracy_interval(right, groups.tolist()),
        "Wilson's, of images": wilson_interval(float(right.mean()), len(right)),
        "bootstrap of groups": bootstrap_interval(right, groups),
    }


def measure(n_draws: int) -> list[dict[str, Any]]:
    """Return how often intervals contain the true value, and their widths, by kind and rule."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed, (kind, truth, draw) in enumerate(settings()):
        rng = np.random.default_rng(seed)
        drawn = [intervals(*draw(rng)) for _ in range(n_draws)]
        for rule in drawn[0]:
            low, high = np.transpose([each[rule] for each in drawn])
            covered = float(((low <= truth) & (truth <= high)).mean())
            found.setdefault((kind, rule), []).append((covered, float((high - low).mean())))
    rows = []
    for (kind, rule), pairs in found.items():
        covered, widths = np.transpose(pairs)
        rows.append(
            {
                "of": kind,
                "rule": rule,
                "mean": float(covered.mean()),
                "fifth": float(np.quantile(covered, 0.05)),
                "worst": float(covered.min()),
                "width": float(widths.mean()),
                "settings": len(pairs),
            }
        )
    return rows


def intervals_table(result: dict[str, Any]) -> str:
    """Return a row for each kind of groups and each rule."""
    rows = [
        [row["of"], row["rule"]]
        + [f"{row[share]:.1%}" for share in ("mean", "fifth", "worst")]
        + [f"{row['width']:.2f}", str(row["settings"])]
        for row in result["rows"]
    ]
    heads = ["interval of the", "rule", "contain it, mean", "95 % of settings: at least", "worst"]
    return (
        f"{result['n_draws']} draws of each setting, a number and size of groups or classes, an "
        "accuracy and a correlation.\n\n"
        f"{table([*heads, 'width, mean', 'settings'], rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--out", type=Path, default=RESULTS / "uncertainty" / "intervals.json")
    arguments = parser.parse_args()
    result = {
        "n_draws": arguments.draws,
        "rows": measure(arguments.draws),
        "origin": origin(1, "uncertainty/intervals"),
    }
    save_result(arguments.out, result)
    print(intervals_table(result))


if __name__ == "__main__":
    main()
