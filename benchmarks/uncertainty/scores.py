"""Scores of prediction sets, refusals and suspect labels over repeated splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.common.folds import TEST_SHARE
from hypervlad.metrics import (
    expected_calibration_error,
    selective_accuracy_area,
    selective_accuracy_curve,
)
from hypervlad.review.ranking import informativeness, rank

MAX_ERRORS = (0.05, 0.1, 0.2)
KEPT = 0.7
REVIEWED = 0.3

Split = dict[str, Any]


def summary(answers: Sequence[Split], changed: Sequence[Split]) -> dict[str, Any]:
    """Return the scores of a data set.

    Parameters
    ----------
    answers, changed : sequence of dicts
        The answers to each split, with the groups of the tested images; those of some splits with
        changed labels.
    """
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
        "errors_caught": {name: errors_caught(answers, way) for name, way in ORDERS.items()},
        "n_tested": float(np.mean([len(each["truth"]) for each in answers])),
        "sure": {f"{share:g}": refusals(answers, f"kind_{share:g}") for share in MAX_ERRORS},
        "changed": scores_of_changed(changed),
    }


def mean_and_interval(values: Sequence[float]) -> list[float]:
    """Return the mean over splits and its 95 % interval, for splits that share images.

    Student's t with the variance of C. Nadeau and Y. Bengio, "Inference for the generalization
    error", Machine Learning 52, 2003.
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


def errors_caught(splits: Sequence[Split], order_of: Callable[[Split], np.ndarray]) -> float:
    """Return the share of all wrong answers that are among the reviewed images."""
    n_wrong = n_caught = 0
    for split in splits:
        wrong = split["proba"].argmax(1) != split["truth"]
        n_wrong += int(wrong.sum())
        n_caught += int(wrong[order_of(split)[: round(REVIEWED * len(wrong))]].sum())
    return n_caught / max(1, n_wrong)


def by_queue(split: Split) -> np.ndarray:
    """Order images as a review queue of all of them."""
    return rank(informativeness(split["proba"], split["novelty"]), split["points"])


def by_weights(split: Split) -> np.ndarray:
    """Sample images with the scores of the queue as weights; see `labelling.weighted`."""
    noise = np.exp(np.random.default_rng(0).gumbel(size=len(split["proba"])))
    return rank(informativeness(split["proba"], split["novelty"]) * noise, split["points"])


def by_margin(split: Split) -> np.ndarray:
    """Order images by the lead of the most probable class, the smallest first."""
    ordered = np.sort(split["proba"], axis=1)
    return np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")


def wrong_first(split: Split) -> np.ndarray:
    """Order images so that no other order catches more errors."""
    return np.argsort(split["proba"].argmax(1) == split["truth"], kind="stable")


ORDERS = {"queue": by_queue, "weighted": by_weights, "margin": by_margin, "best": wrong_first}


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
