"""Out-of-fold predictions beside their scores, so that a method can be added to a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Facts = dict[str, Any]


@dataclass(frozen=True)
class Predictions:
    """What each method said of the images of one data set, and what that took.

    Attributes
    ----------
    proba : dict
        Out-of-fold probabilities of each method, float32 of shape (n_repeats, n, n_classes); NaN
        for images that are never tested.
    told : dict
        Of each method: ``fit_seconds``, ``predict_seconds``, ``repeats`` and ``origin``, the
        code, libraries and machine that it was measured with.
    """

    proba: dict[str, np.ndarray] = field(default_factory=dict)
    told: dict[str, Facts] = field(default_factory=dict)

    def add(self, title: str, proba: np.ndarray, told: Facts) -> None:
        """Put in a method, in the place of an earlier result of it."""
        self.proba[title], self.told[title] = proba.astype(np.float32), told

    def ordered(self, titles: list[str]) -> Predictions:
        """Return the same in this order; methods that it does not name come last."""
        names = sorted(self.proba, key=lambda t: titles.index(t) if t in titles else len(titles))
        return Predictions({t: self.proba[t] for t in names}, {t: self.told[t] for t in names})


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
            told = {key: row[key] for key in ("fit_seconds", "predict_seconds", "repeats")}
            told["measured"] = row["measured"]
            told["origin"] = facts["origins"][row["origin"]]
            proba = arrays[f"{row['data']}/{row['method']}"]
            by_set[row["data"]].add(row["method"], proba, told)
    return by_set
