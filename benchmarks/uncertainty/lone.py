"""What is answered for images of a class of which only one image was trained on?

Each class in turn has one training image, the others ten of different groups. Codebooks are learnt
once per set, without labels. The further images of the class are judged by the rules of
`MicrographClassifier`, and by the same rules without those for classes that cannot be held out.

    python -m benchmarks.uncertainty.lone --data ../shared/data
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.folds import DATA_SETS, DataSet
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.scores import mean_of_sets
from benchmarks.common.sources import origin
from benchmarks.common.synthetic import tem_set
from benchmarks.common.tables import table, with_interval
from hypervlad import BoostedSoftmaxClassifier, default_encoder
from hypervlad.classifier.calibration import HeldOut, cross_predict_calibration
from hypervlad.conformal import confidence_for_error, prediction_sets

SEED = 3000
SETS = (*DATA_SETS, "magnetic_tile/images")
N_TRAINING = 10
N_NEW = 20
MAX_ERROR = 0.2
COVERAGE = 0.9


def split(data: DataSet, label: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows to train on, one of the label and few of the others, and rows of other groups."""
    rng = np.random.default_rng([SEED, seed])
    train: list[int] = []
    for each in data.classes:
        groups = rng.permutation(np.unique(data.groups[data.y == each]))
        chosen = groups[:1] if each == label else groups[: min(N_TRAINING, len(groups) - 1)]
        for group in chosen:
            train.append(rng.choice(np.flatnonzero((data.y == each) & (data.groups == group))))
    is_new = ~np.isin(data.groups, data.groups[train])
    of_class = [np.flatnonzero(is_new & (data.y == each)) for each in data.classes]
    return np.array(train), np.concatenate([rng.permutation(rows)[:N_NEW] for rows in of_class])


def answers(
    learner: BoostedSoftmaxClassifier, held_out: HeldOut, vectors: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    """Return for each new image what is answered with and without the rules for lone classes."""
    proba, rows = learner.predict_proba(vectors), np.arange(len(vectors))
    by_fold = held_out.by_learner(vectors, proba)
    plain = prediction_sets(by_fold, held_out.calibration, COVERAGE)
    plain[rows, proba.argmax(axis=1)] = True
    sets = held_out.sets(by_fold, proba, np.zeros(len(rows)), COVERAGE)  # none counts as unlike
    codes = np.searchsorted(learner.classes_, truth)
    confidence = held_out.confidence(by_fold, proba)
    sure_without = confidence >= max(confidence_for_error(held_out.calibration, MAX_ERROR), 0.5)
    sure, is_wrong = confidence >= held_out.threshold(MAX_ERROR), proba.argmax(axis=1) != codes
    return {
        "sure without": sure_without,
        "sure": sure,
        "sure and wrong without": sure_without & is_wrong,
        "sure and wrong": sure & is_wrong,
        "covered without": plain[rows, codes],
        "covered": sets[rows, codes],
        "size without": plain.sum(axis=1),
        "size": sets.sum(axis=1),
    }


def measure(data: DataSet, n_draws: int) -> list[dict[str, Any]]:
    """Return means over the draws for each class: of its new images, and of the others."""
    encoder = default_encoder(random_state=0).fit(list(data.paths))
    X, widths = encoder.transform(list(data.paths)), list(encoder.feature_blocks.values())
    rows = []
    for label in data.classes:
        found: dict[str, list[dict[str, np.ndarray]]] = {"lone": [], "others": []}
        for seed in range(n_draws):
            train, new = split(data, label, seed)
            labels, groups = data.y[train], np.unique(data.groups[train], return_inverse=True)[1]
            given: dict[str, Any] = {"groups": groups, "blocks": widths}
            learner = BoostedSoftmaxClassifier(prior="sqrt", random_state=0)
            learner.fit(X[train], labels, **given)
            held_out = cross_predict_calibration(learner, X[train], labels, groups, given, 0)
            assert held_out is not None
            by_image = answers(learner, held_out, X[new], data.y[new])
            is_lone = data.y[new] == label
            for side, chosen in (("lone", is_lone), ("others", ~is_lone)):
                found[side].append({name: values[chosen] for name, values in by_image.items()})
        row: dict[str, Any] = {"class": str(label)}
        for side, draws in found.items():
            row[side] = {
                name: float(np.concatenate([draw[name] for draw in draws]).mean())
                for name in draws[0]
            }
        rows.append(row)
    return rows


# Heading, whose images, and what of them.
COLUMNS = (
    ("of the class: sure and wrong", "lone", "sure and wrong"),
    ("covered", "lone", "covered"),
    ("of the others: sure", "others", "sure"),
    ("covered", "others", "covered"),
    ("classes in a set", "others", "size"),
)


def lone_section(stored: Mapping[str, Any]) -> str:
    """Return the table: a row per set."""
    lines = []
    for name, rows in stored["sets"].items():
        cells = [name]
        for _, side, measure_name in COLUMNS:
            both = []
            for rule in (f"{measure_name} without", measure_name):
                mean, interval = mean_of_sets([np.array([row[side][rule] for row in rows])])
                most = np.inf if measure_name == "size" else 1
                both.append(with_interval(mean, np.clip(interval, 0, most).tolist(), ".2f"))
            cells.append(" → ".join(both))
        lines.append(cells)
    heads = ["set", *(head for head, _, _ in COLUMNS)]
    return (
        f"{stored['n_draws']} draws. Without → with the rules for classes that cannot be held out "
        f"[95 % interval over the classes]; {MAX_ERROR:.0%} of wrong answers are accepted, and a "
        f"coverage of {COVERAGE:.0%} is requested.\n\n{table(heads, lines)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "lone")
    parser.add_argument("--out", type=Path, default=RESULTS / "uncertainty" / "lone.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", UserWarning)
    found = {}
    sets = {Path(name).parts[0]: DataSet.load(arguments.data / name) for name in SETS}
    synthetic = tem_set(arguments.checkpoints, 400)
    for name, data in {**sets, synthetic.name: synthetic}.items():
        found[name] = measure(data, arguments.draws)
        print(name, found[name], flush=True)
    stored = {
        "n_draws": arguments.draws,
        "sets": found,
        "origin": origin(arguments.threads, "uncertainty/lone", "common/folds"),
    }
    save_result(arguments.out, stored)
    print(lone_section(stored))


if __name__ == "__main__":
    main()
