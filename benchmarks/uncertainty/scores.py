"""Scores of doubt over repeated splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

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


def summary(
    answers: Sequence[Split], strangers: Sequence[Split], flipped: Sequence[Split]
) -> dict[str, Any]:
    """Return the scores of a data set.

    Parameters
    ----------
    answers, strangers, flipped : sequence of dicts
        What `doubt.answers` gave of each split, with the groups of the tested images;
        `doubt.strangers` and `doubt.found_of_flipped` of some.
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
        "strangers": scores_of_strangers(strangers),
        "flipped": scores_of_flipped(flipped),
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
    """Return the accuracy on the most confident part; ties are taken whole."""
    curve = selective_accuracy_curve(split["truth"], split["proba"])
    return float(curve.accuracy[np.searchsorted(curve.coverage, KEPT)])


def errors_caught(splits: Sequence[Split], order_of: Callable[[Split], np.ndarray]) -> float:
    """Return which part of all wrong answers is among those looked at."""
    n_wrong = n_caught = 0
    for split in splits:
        wrong = split["proba"].argmax(1) != split["truth"]
        n_wrong += int(wrong.sum())
        n_caught += int(wrong[order_of(split)[: round(REVIEWED * len(wrong))]].sum())
    return n_caught / max(1, n_wrong)


def by_queue(split: Split) -> np.ndarray:
    """Order images as the review does that puts all of them into its queue."""
    return rank(informativeness(split["proba"], split["novelty"]), split["points"])


def by_drawn(split: Split) -> np.ndarray:
    """Order images as the queue, but by lot with its worths as chances; see `labelling.drawn`."""
    noise = np.exp(np.random.default_rng(0).gumbel(size=len(split["proba"])))
    return rank(informativeness(split["proba"], split["novelty"]) * noise, split["points"])


def by_margin(split: Split) -> np.ndarray:
    """Order images by the lead of the most probable class, the smallest first."""
    ordered = np.sort(split["proba"], axis=1)
    return np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")


def wrong_first(split: Split) -> np.ndarray:
    """Order images so that no order could catch more errors."""
    return np.argsort(split["proba"].argmax(1) == split["truth"], kind="stable")


ORDERS = {"queue": by_queue, "drawn": by_drawn, "margin": by_margin, "best": wrong_first}


def refusals(splits: Sequence[Split], kind: str) -> dict[str, float]:
    """Return which part of all answers is sure, and how many of those are wrong."""
    is_sure = np.concatenate([each[kind] == "sure" for each in splits])
    wrong = np.concatenate([each["proba"].argmax(1) != each["truth"] for each in splits])
    error = float(wrong[is_sure].mean()) if is_sure.any() else float("nan")
    return {"share": float(is_sure.mean()), "error": error if is_sure.any() else -1.0}


def scores_of_strangers(strangers: Sequence[Split]) -> dict[str, float] | None:
    """Return how well images of an unknown class are told from others, by novelty."""
    usable = [each for each in strangers if 0 < each["is_strange"].mean() < 1]
    if not usable:
        return None
    strange = np.concatenate([each["is_strange"] for each in usable])
    unknown = np.concatenate([each["novelty"] > 1 for each in usable])
    auroc = [roc_auc_score(each["is_strange"], each["novelty"]) for each in usable]
    unsure = [roc_auc_score(each["is_strange"], -each["confidence"]) for each in usable]
    return {
        "auroc": float(np.mean(auroc)),
        "auroc_of_confidence": float(np.mean(unsure)),
        "strangers_called_unknown": float(unknown[strange].mean()),
        "others_called_unknown": float(unknown[~strange].mean()),
    }


def scores_of_flipped(splits: Sequence[Split]) -> dict[str, float]:
    """Return how well wrong labels are found."""
    flipped = np.concatenate([each["flipped"] for each in splits])
    suspect = np.concatenate([each["suspect"] for each in splits])
    return {
        "recall": float(suspect[flipped].mean()),
        "precision": float(flipped[suspect].mean()) if suspect.any() else 0.0,
        "suspect": float(suspect.mean()),
    }
