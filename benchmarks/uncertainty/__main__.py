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

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.data import DATA_SETS, DataSet, random_splits
from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, origin, save_result
from benchmarks.uncertainty.scores import MAX_ERRORS, summary
from benchmarks.uncertainty.tables import uncertainty_table
from hypervlad import MicrographClassifier, default_encoder

SEED = 2000
COVERAGE = 0.9
CALIBRATION_SIZE = 0.3
CHANGED = 0.1  # share of training labels that are changed, to be found


def answers(
    data: DataSet, train: np.ndarray, test: np.ndarray, seed: int, network: Mapping[str, str]
) -> dict[str, Any]:
    """Return the answers about new images: probabilities, both kinds of sets, what is sure."""
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
        "truth": data.codes[test],
        "proba": first.proba,
        "cross": sets,
        "split": with_held_out.predict_set(list(data.paths[test]), COVERAGE),
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
