"""Out-of-fold predictions, stored with their scores so that a method can be added later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Facts = dict[str, Any]


@dataclass(frozen=True)
class Predictions:
    """The predictions of each method for the images of one data set, and their origin.

    Attributes
    ----------
    proba : dict
        Out-of-fold probabilities of each method, float32 of shape (n_repeats, n, n_classes); NaN
        for images that are never tested.
    facts : dict
        For each method: ``fit_seconds``, ``predict_seconds``, ``repeats``, ``measured`` (revision
        and date) and ``origin`` (code, libraries and machine).
    """

    proba: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)

    def add(self, title: str, proba: np.ndarray, facts: Facts) -> None:
        """Add a method; it replaces an earlier result of the same method."""
        self.proba[title], self.facts[title] = proba.astype(np.float32), facts

    def ordered(self, titles: list[str]) -> Predictions:
        """Return the methods in this order; those without a place come last."""
        names = sorted(self.proba, key=lambda t: titles.index(t) if t in titles else len(titles))
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


def load_predictions(path: Path, facts: Facts) -> dict[str, Predictions]:
    """Return the predictions of each data set whose scores are ``facts``."""
    by_set: dict[str, Predictions] = {name: Predictions() for name in facts["sets"]}
    with np.load(path, allow_pickle=False) as arrays:
        for row in facts["rows"]:
            of_method = {key: row[key] for key in ("fit_seconds", "predict_seconds", "repeats")}
            of_method["measured"] = row["measured"]
            of_method["origin"] = facts["origins"][row["origin"]]
            proba = arrays[f"{row['data']}/{row['method']}"]
            by_set[row["data"]].add(row["method"], proba, of_method)
    return by_set
