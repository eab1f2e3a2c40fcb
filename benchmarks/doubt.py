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
from accuracy import DATA_SETS
from checkpoints import load_or_run
from doubt_scores import MAX_ERRORS, summary
from folds import DataSet
from sklearn.model_selection import GroupShuffleSplit
from sources import origin

from hypervlad import MicrographClassifier, default_encoder
from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier.heldout import cross_held_out
from hypervlad.classifier.judging import judge_vectors, vector_sets
from hypervlad.classifier.suspects import label_issues
from hypervlad.classifier.training import TrainingImages, projected

HERE = Path(__file__).resolve().parent
SEED = 2000
TEST_SHARE = 0.25
COVERAGE = 0.9
APART = 0.3
FLIPPED = 0.1  # share of training labels that are made wrong, to be found
CODE = ("doubt", "folds")


def splits_of(
    data: DataSet, n_splits: int, seed: int = SEED
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw groups by lot; a draw that leaves a class without training images is drawn again."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    by_lot = GroupShuffleSplit(100 * n_splits, test_size=TEST_SHARE, random_state=seed)
    for train, test in by_lot.split(data.paths, data.y, data.groups):
        if len(np.unique(data.y[train])) == len(data.classes):
            found.append((train, test))
        if len(found) == n_splits:
            return found
    raise SystemExit(f"{data.name}: a class has too few groups to be split")


def answers(
    data: DataSet, train: np.ndarray, test: np.ndarray, seed: int, memory: str | None
) -> dict[str, Any]:
    """Return what a model, both ways of holding out, and its memory say of new images."""
    encoder = default_encoder(random_state=seed, memory=memory)
    model = MicrographClassifier(encoder, random_state=seed)
    model.fit(list(data.paths[train]), data.y[train], groups=data.groups[train])
    vectors = model.encoder_.transform(list(data.paths[test]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no answer is sure: counted, not told
        judged = {share: judge_vectors(model, vectors, share) for share in MAX_ERRORS}
    any_of_them = judged[MAX_ERRORS[0]]
    apart = MicrographClassifier(encoder, calibration_size=APART, random_state=seed)
    apart.fit(list(data.paths[train]), data.y[train], groups=data.groups[train])
    return {
        "truth": np.searchsorted(data.classes, data.y[test]),
        "proba": any_of_them.proba,
        "novelty": any_of_them.novelty,
        "points": any_of_them.projected,
        "cross": vector_sets(model, vectors, COVERAGE),
        "split": apart.predict_set(list(data.paths[test]), COVERAGE),
        **{f"kind_{share:g}": found.kind for share, found in judged.items()},
        **found_of_flipped(model, data, train, seed),
    }


def found_of_flipped(
    model: MicrographClassifier, data: DataSet, train: np.ndarray, seed: int
) -> dict[str, Any]:
    """Make some labels wrong and look for them, on the vectors that the model has."""
    vectors = model.encoder_.transform(list(data.paths[train]))
    rng = np.random.default_rng(seed)
    codes = np.searchsorted(data.classes, data.y[train])
    flipped = rng.random(len(train)) < FLIPPED
    moved = rng.integers(1, len(data.classes), len(train))
    labels = data.classes[np.where(flipped, (codes + moved) % len(data.classes), codes)]
    groups = np.unique(data.groups[train], return_inverse=True)[1]
    known = {"groups": groups, "views": list(model.encoder_.feature_parts.values())}
    learner = BoostedSoftmaxClassifier(random_state=seed).fit(vectors, labels, **known)
    held_out = cross_held_out(learner, vectors, labels, groups, known, seed)
    rows = np.arange(len(train))
    training = TrainingImages.of(list(data.paths[train]), labels, groups, rows, projected(vectors))
    suspect = np.zeros(len(train), dtype=bool)
    if held_out is not None:
        suspect[[issue.position for issue in label_issues(held_out, training, data.classes)]] = True
    return {"flipped": flipped, "suspect": suspect}


def strangers(
    data: DataSet,
    train: np.ndarray,
    test: np.ndarray,
    left_out: Any,
    seed: int,
    memory: str | None,
) -> dict[str, Any]:
    """Return the novelty of new images to a model that knows nothing of one class."""
    train = train[data.y[train] != left_out]
    encoder = default_encoder(random_state=seed, memory=memory)
    model = MicrographClassifier(encoder, calibration_size=0, random_state=seed)
    model.fit(list(data.paths[train]), data.y[train], groups=data.groups[train])
    vectors = model.encoder_.transform(list(data.paths[test]))
    novelty = model.training_.nearest(projected(vectors))[1]
    return {
        "novelty": novelty,
        "confidence": model.boosting_.predict_proba(vectors).max(axis=1),
        "is_strange": data.y[test] == left_out,
    }


def measure(data: DataSet, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of a data set over all splits."""
    of_all: list[dict[str, Any]] = []
    of_strangers: list[dict[str, Any]] = []
    whence = origin(arguments.threads, *CODE)
    memory = None if arguments.cache is None else str(arguments.cache)
    for number, (train, test) in enumerate(splits_of(data, arguments.splits)):
        seed = SEED + number
        settings = {"data": data.digest, "split": number, "seed": SEED, "origin": whence}
        place = arguments.checkpoints / f"{data.name}-{number}.json"
        run = functools.partial(answers, data, train, test, seed, memory)
        found = load_or_run(place, {**settings, "what": "answers"}, run)
        of_all.append({**found, "groups": data.groups[test]})
        if number < arguments.strangers and len(data.classes) > 2:
            left_out = data.classes[number % len(data.classes)]
            place = place.with_name(f"{data.name}-{number}-strangers.json")
            run = functools.partial(strangers, data, train, test, left_out, seed, memory)
            of_strangers.append(load_or_run(place, {**settings, "what": "strangers"}, run))
        print(f"{data.name}: split {number + 1} of {arguments.splits}", flush=True)
    return summary(of_all, of_strangers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--strangers", type=int, default=6, help="splits with a class left out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=HERE / "checkpoints" / "doubt")
    parser.add_argument("--cache", type=Path, help="folder that spares passes of the network")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "doubt.json")
    arguments = parser.parse_args()
    import torch  # after hypervlad, which tells threads to sleep while they wait

    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {
        "splits": arguments.splits,
        "coverage": COVERAGE,
        "apart": APART,
        "flipped": FLIPPED,
        "origin": origin(arguments.threads, *CODE),
        "sets": {},
    }
    for name in arguments.sets:
        result["sets"][name] = measure(DataSet.load(arguments.data / name), arguments)
        print(json.dumps(result["sets"][name], indent=1), flush=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
