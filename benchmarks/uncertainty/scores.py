"""Scores of prediction sets, refusals and suspect labels over repeated splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.common.data import TEST_SHARE
from hypervlad.metrics import (
    expected_calibration_error,
    selective_accuracy_area,
    selective_accuracy_curve,
)

MAX_ERRORS = (0.05, 0.1, 0.2)
KEPT = 0.7

Split = dict[str, Any]


def summary(answers: Sequence[Split], changed: Sequence[Split]) -> dict[str, Any]:
    """Return the scores of a data set, from the answers to each split and to changed labels."""
    of_each = [
        {
            "accuracy": float((each["proba"].argmax(1) == each["truth"]).mean()),
            "calibration_error": expected_calibration_error(each["truth"], each["proba"]),
            "selective_accuracy": selective_accuracy(each),
            "selective_area": selective_accuracy_area(each["truth"], each["proba"]),
            **{
                f"{way}_{name}": value
                for way in ("cross", "split")
                for name, value in sets(each, way).items()
            },
        }
        for each in answers
    ]
    found: dict[str, Any] = {
        name: mean_and_interval([each[name] for each in of_each]) for name in of_each[0]
    }
    return found | {
        "sure": {f"{share:g}": refusals(answers, f"kind_{share:g}") for share in MAX_ERRORS},
        "changed": scores_of_changed(changed),
    }


def mean_and_interval(values: Sequence[float]) -> list[float]:
    """Return the mean over splits that share images, and its 95 % interval.

    Student's t with the variance of Nadeau and Bengio, Machine Learning 52, 2003.
    """
    n, mean = len(values), float(np.mean(values))
    variance = float(np.var(values, ddof=1)) * (1 / n + TEST_SHARE / (1 - TEST_SHARE))
    half = float(stats.t.ppf(0.975, n - 1)) * variance**0.5
    return [mean, mean - half, mean + half]


def sets(split: Split, way: str) -> dict[str, float]:
    """Return coverage by group and by image, and the mean size, of sets of classes."""
    held = split[way][np.arange(len(split["truth"])), split["truth"]]
    by_group = [held[split["groups"] == group].mean() for group in np.unique(split["groups"])]
    return {
        "coverage": float(np.mean(by_group)),
        "coverage_of_images": float(held.mean()),
        "size": float(split[way].sum(1).mean()),
    }


def selective_accuracy(split: Split) -> float:
    """Return the accuracy on the most confident part; ties are not divided."""
    curve = selective_accuracy_curve(split["truth"], split["proba"])
    return float(curve.accuracy[np.searchsorted(curve.coverage, KEPT)])


def refusals(splits: Sequence[Split], kind: str) -> dict[str, float]:
    """Return the share of sure answers, and the share of wrong ones among them."""
    is_sure = np.concatenate([each[kind] == "sure" for each in splits])
    wrong = np.concatenate([each["proba"].argmax(1) != each["truth"] for each in splits])
    error = float(wrong[is_sure].mean()) if is_sure.any() else float("nan")
    return {"share": float(is_sure.mean()), "error": error if is_sure.any() else -1.0}


def scores_of_changed(splits: Sequence[Split]) -> dict[str, float]:
    """Return how well changed labels are found."""
    changed = np.concatenate([each["changed"] for each in splits])
    suspect = np.concatenate([each["suspect"] for each in splits])
    return {
        "recall": float(suspect[changed].mean()),
        "precision": float(changed[suspect].mean()) if suspect.any() else 0.0,
        "suspect": float(suspect.mean()),
    }
