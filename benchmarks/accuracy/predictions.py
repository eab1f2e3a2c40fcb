"""Out-of-fold predictions, stored with their scores so that a method can be added later."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.data import DataSet
from benchmarks.common.results import Facts, load_result

SEED = 1000  # of the first repeat's folds


@dataclass(frozen=True)
class Predictions:
    """The predictions of each method for the images of one data set, and their origin.

    Attributes
    ----------
    proba : dict
        Out-of-fold probabilities by method, float32 of shape (n_repeats, n, n_classes); NaN for
        images that are never tested.
    facts : dict
        By method: ``fit_seconds``, ``predict_seconds``, ``repeats``, ``measured`` and ``origin``.
    """

    proba: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)

    def add(self, title: str, proba: np.ndarray, facts: Facts) -> None:
        """Add a method; it replaces an earlier result of the same method."""
        self.proba[title], self.facts[title] = proba.astype(np.float32), facts

    def ordered(self, titles: Sequence[str]) -> Predictions:
        """Return the methods in this order; those without a place come last."""
        order = {title: number for number, title in enumerate(titles)}
        names = sorted(self.proba, key=lambda title: order.get(title, len(order)))
        return Predictions({t: self.proba[t] for t in names}, {t: self.facts[t] for t in names})


def save_predictions(path: Path, by_set: Mapping[str, Predictions]) -> None:
    """Write the probabilities of all data sets to one .npz file."""
    arrays = {
        f"{name}/{title}": proba
        for name, predictions in by_set.items()
        for title, proba in predictions.proba.items()
    }
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_predictions(
    path: Path, data_sets: Mapping[str, DataSet], **expected: Any
) -> dict[str, Predictions]:
    """Return the predictions stored with a file of results, which must be of the same images."""
    facts = load_result(path)
    found = {key: facts.get(key) for key in (*expected, "seed")}
    found["images"] = {name: s["digest"] for name, s in facts["sets"].items()}
    # An interrupted run may not have reached all of them.
    own = {name: data.digest for name, data in data_sets.items() if name in facts["sets"]}
    expected |= {"seed": SEED, "images": own}
    for key, value in expected.items():
        if found[key] != value:
            sys.exit(f"{path} is not of the same {key}: {found[key]}, not {value}; give --out")
    by_set: dict[str, Predictions] = {name: Predictions() for name in facts["sets"]}
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        for row in facts["rows"]:
            kept = ("fit_seconds", "predict_seconds", "repeats", "measured")
            of_method = {key: row[key] for key in kept}
            of_method["origin"] = facts["origins"][row["origin"]]
            proba = arrays[f"{row['data']}/{row['method']}"]
            by_set[row["data"]].add(row["method"], proba, of_method)
    return by_set
