"""Are prediction sets, refusals and suspect labels reliable? Measured on real images.

Repeated splits: a quarter of the groups, held out at random, is new to the model.

    python -m benchmarks.uncertainty --data ../shared/data --splits 10
"""

from __future__ import annotations

import argparse
import functools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.data import DATA_SETS, TEST_SHARE, DataSet, random_splits
from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, origin, save_result
from benchmarks.uncertainty.tables import uncertainty_table
from hypervlad import MicrographClassifier, default_encoder
from hypervlad.evaluation import (
    expected_calibration_error,
    selective_accuracy_curve,
)

SEED = 2000
COVERAGE = 0.9
CHANGED = 0.1  # share of training labels that are changed, to be found
MAX_ERRORS = (0.05, 0.1, 0.2)
KEPT = 0.7

Split = dict[str, Any]


def answers(
    data: DataSet, train: np.ndarray, test: np.ndarray, seed: int, network: Mapping[str, str]
) -> dict[str, Any]:
    """Return the answers about new images: probabilities, sets, what is sure."""
    encoder = default_encoder(random_state=seed, **network)
    model = MicrographClassifier(encoder, random_state=seed)
    model.fit(list(data.paths[train]), data.y[train], groups=data.groups[train])
    vectors = model.encoder_.transform(list(data.paths[test]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "no answer is sure", which is counted here
        judged = {share: model.judge_vectors(vectors, share) for share in MAX_ERRORS}
    first = judged[MAX_ERRORS[0]]
    by_learner = model.held_out_.by_learner(vectors, first.proba)
    sets = model.held_out_.sets(by_learner, first.proba, first.novelty, COVERAGE)
    return {
        "truth": data.codes[test],
        "proba": first.proba,
        "cross": sets,
        **{f"kind_{share:g}": found.kind for share, found in judged.items()},
    }


def found_of_changed(
    data: DataSet, train: np.ndarray, seed: int, network: Mapping[str, str]
) -> dict[str, Any]:
    """Change some labels and search for them."""
    rng = np.random.default_rng(seed)
    codes = data.codes[train]
    changed = rng.random(len(train)) < CHANGED
    moved = rng.integers(1, len(data.classes), len(train))
    labels = data.classes[np.where(changed, (codes + moved) % len(data.classes), codes)]
    encoder = default_encoder(random_state=seed, **network)
    model = MicrographClassifier(encoder, random_state=seed)
    model.fit(list(data.paths[train]), labels, groups=data.groups[train])
    suspect = np.zeros(len(train), dtype=bool)
    suspect[[issue.position for issue in model.label_issues()]] = True
    return {"changed": changed, "suspect": suspect}


def summary(answers: Sequence[Split], changed: Sequence[Split]) -> dict[str, Any]:
    """Return the scores of a data set, from the answers to each split and to changed labels."""
    of_each = [
        {
            "accuracy": float((each["proba"].argmax(1) == each["truth"]).mean()),
            "calibration_error": expected_calibration_error(each["truth"], each["proba"]),
            "selective_accuracy": selective_accuracy(each),
            **{f"cross_{name}": value for name, value in sets(each).items()},
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


def sets(split: Split) -> dict[str, float]:
    """Return coverage by group and by image, and the mean size, of sets of classes."""
    held = split["cross"][np.arange(len(split["truth"])), split["truth"]]
    by_group = [held[split["groups"] == group].mean() for group in np.unique(split["groups"])]
    return {
        "coverage": float(np.mean(by_group)),
        "coverage_of_images": float(held.mean()),
        "size": float(split["cross"].sum(1).mean()),
    }


def selective_accuracy(split: Split) -> float:
    """Return the accuracy on the most confident part; ties are not divided."""
    curve = selective_accuracy_curve(split["truth"], split["proba"])
    return float(curve.accuracy[np.searchsorted(curve.coverage, KEPT)])


def refusals(splits: Sequence[Split], kind: str) -> dict[str, float]:
    """Return the share of sure answers, and the share of wrong ones among them."""
    is_sure = np.concatenate([each[kind] == "sure" for each in splits])
    wrong = np.concatenate([each["proba"].argmax(1) != each["truth"] for each in splits])
    error = float(wrong[is_sure].mean()) if is_sure.any() else -1.0
    return {"share": float(is_sure.mean()), "error": error}


def scores_of_changed(splits: Sequence[Split]) -> dict[str, float]:
    """Return how well changed labels are found."""
    changed = np.concatenate([each["changed"] for each in splits])
    suspect = np.concatenate([each["suspect"] for each in splits])
    return {
        "recall": float(suspect[changed].mean()),
        "precision": float(changed[suspect].mean()) if suspect.any() else 0.0,
        "suspect": float(suspect.mean()),
    }


def measure(data: DataSet, options: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of a data set over all splits."""
    found: dict[str, list[dict[str, Any]]] = {"answers": [], "changed": []}
    network = {"backbone": options.backbone, "weights": options.weights}
    for number, (train, test) in enumerate(random_splits(data, options.splits, SEED)):
        seed = SEED + number
        settings = {"data": data.digest, "split": number, "seed": SEED} | network
        asked = {"answers": functools.partial(answers, data, train, test, seed, network)}
        if number < options.few:
            asked["changed"] = functools.partial(found_of_changed, data, train, seed, network)
        for what, run in asked.items():
            path = options.checkpoints / f"{data.name}-{number}-{what}.json"
            answer = load_or_run(path, {**settings, "what": what}, run)
            found[what].append({**answer, "groups": data.groups[test]})
        print(f"{data.name}: split {number + 1} of {options.splits}", flush=True)
    return summary(**found)


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "uncertainty" / "uncertainty.json"
    parser = new_parser(__doc__, out, checkpoints="uncertainty", threads=1)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--few", type=int, default=6, help="splits with changed labels")
    add_network(parser)
    options = parse(parser, argv)
    sets = {name: measure(DataSet.load(options.data / name), options) for name in options.sets}
    facts = {"splits": options.splits, "few": options.few, "sets": sets, "origin": origin()}
    facts |= {"coverage": COVERAGE, "changed": CHANGED, "backbone": options.backbone}
    save_result(options.out, facts)
    print(uncertainty_table(facts))


if __name__ == "__main__":
    main()
