"""Is doubt to be relied on? Sets, refusals, novelty and suspect labels on real images.

Repeated splits by group: a quarter of the groups, drawn by lot, is new to the model, codebook
included. Of each split a checkpoint keeps what the model said, so that an interrupted run goes on
and scores can be computed anew.

    python benchmarks/doubt.py --data ../shared/data
    python benchmarks/doubt.py --data ../shared/data --splits 20 --checkpoints DIR
"""

from __future__ import annotations

import argparse
import functools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.folds import DATA_SETS, DataSet, random_splits
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.uncertainty.scores import MAX_ERRORS, summary
from hypervlad import MicrographClassifier, default_encoder
from hypervlad.classifier.assessment import project_vectors

SEED = 2000
COVERAGE = 0.9
APART = 0.3
FLIPPED = 0.1  # share of training labels that are made wrong, to be found
CODE = ("uncertainty/__main__", "common/folds")


def answers(data: DataSet, train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, Any]:
    """Return what a model, both ways of holding out, and its memory say of new images."""
    encoder = default_encoder(random_state=seed)
    model = MicrographClassifier(encoder, random_state=seed)
    model.fit(list(data.paths[train]), data.y[train], groups=data.groups[train])
    vectors = model.encoder_.transform(list(data.paths[test]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no answer is sure: counted, not told
        judged = {share: model.judge_vectors(vectors, share) for share in MAX_ERRORS}
    any_of_them = judged[MAX_ERRORS[0]]
    apart = MicrographClassifier(encoder, calibration_size=APART, random_state=seed)
    apart.fit(list(data.paths[train]), data.y[train], groups=data.groups[train])
    return {
        "truth": np.searchsorted(data.classes, data.y[test]),
        "proba": any_of_them.proba,
        "novelty": any_of_them.novelty,
        "points": any_of_them.projected,
        "cross": model.predict_set_of_vectors(vectors, COVERAGE),
        "split": apart.predict_set(list(data.paths[test]), COVERAGE),
        **{f"kind_{share:g}": found.kind for share, found in judged.items()},
    }


def found_of_flipped(data: DataSet, train: np.ndarray, seed: int) -> dict[str, Any]:
    """Make some labels wrong and look for them."""
    rng = np.random.default_rng(seed)
    codes = np.searchsorted(data.classes, data.y[train])
    flipped = rng.random(len(train)) < FLIPPED
    moved = rng.integers(1, len(data.classes), len(train))
    labels = data.classes[np.where(flipped, (codes + moved) % len(data.classes), codes)]
    model = MicrographClassifier(default_encoder(random_state=seed), random_state=seed)
    model.fit(list(data.paths[train]), labels, groups=data.groups[train])
    suspect = np.zeros(len(train), dtype=bool)
    suspect[[issue.position for issue in model.label_issues()]] = True
    return {"flipped": flipped, "suspect": suspect}


def strangers(
    data: DataSet,
    train: np.ndarray,
    test: np.ndarray,
    left_out: Any,
    seed: int,
) -> dict[str, Any]:
    """Return the novelty of new images to a model that knows nothing of one class."""
    train = train[data.y[train] != left_out]
    model = MicrographClassifier(
        default_encoder(random_state=seed), calibration_size=0, random_state=seed
    )
    model.fit(list(data.paths[train]), data.y[train], groups=data.groups[train])
    vectors = model.encoder_.transform(list(data.paths[test]))
    novelty = model.training_.nearest(project_vectors(vectors))[1]
    return {
        "novelty": novelty,
        "confidence": model.boosting_.predict_proba(vectors).max(axis=1),
        "is_strange": data.y[test] == left_out,
    }


def measure(data: DataSet, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of a data set over all splits."""
    found: dict[str, list[dict[str, Any]]] = {"answers": [], "strangers": [], "flipped": []}
    whence = origin(arguments.threads, *CODE)
    for number, (train, test) in enumerate(random_splits(data, arguments.splits, SEED)):
        seed, left_out = SEED + number, data.classes[number % len(data.classes)]
        settings = {"data": data.digest, "split": number, "seed": SEED, "origin": whence}
        asked = {"answers": functools.partial(answers, data, train, test, seed)}
        if number < arguments.few:
            asked["flipped"] = functools.partial(found_of_flipped, data, train, seed)
            if len(data.classes) > 2:
                asked["strangers"] = functools.partial(strangers, data, train, test, left_out, seed)
        for what, run in asked.items():
            place = arguments.checkpoints / f"{data.name}-{number}-{what}.json"
            said = load_or_run(place, {**settings, "what": what}, run)
            found[what].append({**said, "groups": data.groups[test]})
        print(f"{data.name}: split {number + 1} of {arguments.splits}", flush=True)
    return summary(**found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument(
        "--few", type=int, default=6, help="splits with a class left out, and with wrong labels"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "uncertainty")
    parser.add_argument("--out", type=Path, default=RESULTS / "uncertainty" / "uncertainty.json")
    arguments = parser.parse_args()
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {
        "splits": arguments.splits,
        "few": arguments.few,
        "coverage": COVERAGE,
        "apart": APART,
        "flipped": FLIPPED,
        "origin": origin(arguments.threads, *CODE),
        "sets": {},
    }
    for name in arguments.sets:
        result["sets"][name] = measure(DataSet.load(arguments.data / name), arguments)
        print(json.dumps(result["sets"][name], indent=1), flush=True)
    save_result(arguments.out, result)


if __name__ == "__main__":
    main()
