"""Are prediction sets, refusals and suspect labels reliable? Measured on real images.

Repeated splits by group: a quarter of the groups, held out at random, is new to the model, codebook
included. A checkpoint keeps the answers of each split, so that an interrupted run resumes and
scores can be computed again.

    python -m benchmarks.uncertainty --data ../shared/data
    python -m benchmarks.uncertainty --data ../shared/data --splits 20 --checkpoints DIR
"""

from __future__ import annotations

import argparse
import functools
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.folds import DATA_SETS, DataSet, random_splits
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.uncertainty.scores import MAX_ERRORS, summary
from hypervlad import MicrographClassifier, default_encoder

SEED = 2000
COVERAGE = 0.9
CALIBRATION_SIZE = 0.3
CHANGED = 0.1  # share of training labels that are changed, to be found
CODE = ("uncertainty/__main__", "common/folds")


def answers(
    data: DataSet, train: np.ndarray, test: np.ndarray, seed: int, network: Mapping[str, str]
) -> dict[str, Any]:
    """Return the answers about new images: probabilities, both kinds of sets, novelty."""
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
    with_held_out = MicrographClassifier(
        encoder, calibration_size=CALIBRATION_SIZE, random_state=seed
    )
    with_held_out.fit(list(data.paths[train]), data.y[train], groups=data.groups[train])
    return {
        "truth": np.searchsorted(data.classes, data.y[test]),
        "proba": first.proba,
        "novelty": first.novelty,
        "points": first.projected,
        "cross": sets,
        "split": with_held_out.predict_set(list(data.paths[test]), COVERAGE),
        **{f"kind_{share:g}": found.kind for share, found in judged.items()},
    }


def found_of_changed(
    data: DataSet, train: np.ndarray, seed: int, network: Mapping[str, str]
) -> dict[str, Any]:
    """Change some labels and search for them."""
    rng = np.random.default_rng(seed)
    codes = np.searchsorted(data.classes, data.y[train])
    changed = rng.random(len(train)) < CHANGED
    moved = rng.integers(1, len(data.classes), len(train))
    labels = data.classes[np.where(changed, (codes + moved) % len(data.classes), codes)]
    encoder = default_encoder(random_state=seed, **network)
    model = MicrographClassifier(encoder, random_state=seed)
    model.fit(list(data.paths[train]), labels, groups=data.groups[train])
    suspect = np.zeros(len(train), dtype=bool)
    suspect[[issue.position for issue in model.label_issues()]] = True
    return {"changed": changed, "suspect": suspect}


def measure(data: DataSet, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of a data set over all splits."""
    found: dict[str, list[dict[str, Any]]] = {"answers": [], "changed": []}
    code_origin = origin(arguments.threads, *CODE)
    network = {"backbone": arguments.backbone, "weights": arguments.weights}
    for number, (train, test) in enumerate(random_splits(data, arguments.splits, SEED)):
        seed = SEED + number
        settings = {"data": data.digest, "split": number, "seed": SEED, "origin": code_origin}
        settings |= network
        asked = {"answers": functools.partial(answers, data, train, test, seed, network)}
        if number < arguments.few:
            asked["changed"] = functools.partial(found_of_changed, data, train, seed, network)
        for what, run in asked.items():
            path = arguments.checkpoints / f"{data.name}-{number}-{what}.json"
            answer = load_or_run(path, {**settings, "what": what}, run)
            found[what].append({**answer, "groups": data.groups[test]})
        print(f"{data.name}: split {number + 1} of {arguments.splits}", flush=True)
    return summary(**found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument(
        "--few",
        type=int,
        default=6,
        help="number of splits with changed labels",
    )
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="pretrained", help="as in HypercolumnVLAD")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "uncertainty")
    parser.add_argument("--out", type=Path, default=RESULTS / "uncertainty" / "uncertainty.json")
    arguments = parser.parse_args()
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {
        "backbone": arguments.backbone,
        "splits": arguments.splits,
        "few": arguments.few,
        "coverage": COVERAGE,
        "calibration_size": CALIBRATION_SIZE,
        "changed": CHANGED,
        "origin": origin(arguments.threads, *CODE),
        "sets": {},
    }
    for name in arguments.sets:
        result["sets"][name] = measure(DataSet.load(arguments.data / name), arguments)
        print(json.dumps(result["sets"][name], indent=1), flush=True)
    save_result(arguments.out, result)


if __name__ == "__main__":
    main()
