"""Are images reported that are unlike all training images? Methods compared on real images.

Each class of each set is left out once; a quarter of the groups, held out at random, is new as
well. A good score is high for the class that was left out, and for noise, photographs and images of
other sets, and low for new images of the known classes. Each method's limit is the one that 5 % of
images like the training images exceed, estimated on training images of other groups alone.

    python -m benchmarks.uncertainty.novelty --data ../shared/data
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.folds import DATA_SETS, DataSet, random_splits
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.uncertainty.novelty_methods import METHODS, Vectors
from benchmarks.uncertainty.outside import outside_images
from hypervlad import BoostedSoftmaxClassifier, default_encoder
from hypervlad.classifier.fitting import cross_predict_calibration
from hypervlad.classifier.novelty import empty_images, empty_vectors

SEED = 2000
# The modules of the package that vectors and margins depend on.
MODULES = (
    "backbones",
    "boosting",
    "codebook.py",
    "encoder",
    "hypercolumns.py",
    "images",
    "splits.py",
    "vlad.py",
)


def encoded(
    data: DataSet, left_out: Any, train: np.ndarray, test: np.ndarray, others: dict[str, DataSet]
) -> dict[str, np.ndarray]:
    """Return vectors and margins of training images, new ones, and those of no class."""
    train, known = train[data.y[train] != left_out], test[data.y[test] != left_out]
    is_new = ~np.isin(data.groups, data.groups[train])
    unseen = np.flatnonzero((data.y == left_out) & is_new)
    outside, kinds = outside_images(others)
    encoder = default_encoder(random_state=SEED).fit(list(data.paths[train]))
    lists = {
        "known": list(data.paths[known]),
        "unseen": list(data.paths[unseen]),
        "outside": outside,
    }
    vectors = {name: encoder.transform(images) for name, images in lists.items()}
    own, labels = encoder.transform(list(data.paths[train])), data.y[train]
    groups = np.unique(data.groups[train], return_inverse=True)[1]
    given = {"groups": groups, "blocks": list(encoder.feature_blocks.values())}
    learner = BoostedSoftmaxClassifier(prior="sqrt", random_state=SEED).fit(own, labels, **given)
    held_out = cross_predict_calibration(learner, own, labels, groups, given, SEED)
    assert held_out is not None
    margins = np.full((len(own), len(learner.classes_)), np.nan)
    for number, fold in enumerate(held_out.learners):
        rows = held_out.rows[held_out.models == number]
        margins[rows] = margins_of(fold, own[rows])
    return {
        "train": own,
        "empty": empty_vectors(encoder),
        "labels": labels.astype(str),
        "groups": groups,
        "pooled": np.array([own.shape[1] - encoder.feature_blocks["pooled"], own.shape[1]]),
        "margins_train": margins,
        "kinds": kinds,
        **vectors,
        **{f"margins_{name}": margins_of(learner, each) for name, each in vectors.items()},
    }


def margins_of(learner: BoostedSoftmaxClassifier, vectors: np.ndarray) -> np.ndarray:
    """Return the margin of each class (n, n_classes)."""
    margins = learner.decision_function(vectors)
    return np.column_stack([-margins / 2, margins / 2]) if margins.ndim == 1 else margins


def scores(found: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Return the scores of each method for one class that was left out."""
    given = Vectors.of(found)
    rows = {}
    for name, method in METHODS.items():
        known, unseen, outside = method(given)  # in units of the limit
        truth = np.repeat([0, 1], [len(known), len(unseen)])
        rows[name] = {
            "auroc": float(roc_auc_score(truth, np.concatenate([known, unseen]))),
            "unseen_reported": float((unseen > 1).mean()),
            "known_reported": float((known > 1).mean()),
            "outside_reported": {
                str(kind): float((outside[found["kinds"] == kind] > 1).mean())
                for kind in dict.fromkeys(found["kinds"].tolist())
            },
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--others", nargs="*", default=["magnetic_tile/images"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "novelty")
    parser.add_argument("--out", type=Path, default=RESULTS / "uncertainty" / "novelty.json")
    arguments = parser.parse_args()
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    sets = {name: DataSet.load(arguments.data / name) for name in arguments.sets}
    further = {Path(name).parts[0]: arguments.data / name for name in arguments.others}
    loaded = sets | {name: DataSet.load(folder) for name, folder in further.items()}
    settings = {
        "seed": SEED,
        "data": {name: data.digest for name, data in loaded.items()},
        "empty": hashlib.sha256(np.stack(empty_images()).tobytes()).hexdigest(),
        "origin": origin(arguments.threads, "uncertainty/outside", "common/folds", modules=MODULES),
    }
    rows = []
    for name, data in sets.items():
        others = {other: each for other, each in loaded.items() if other != name}
        ((train, test),) = random_splits(data, 1, SEED)
        for label in data.classes.tolist():
            run = functools.partial(encoded, data, label, train, test, others)
            path = arguments.checkpoints / f"{name}-{label}.json"
            found = load_or_run(path, {**settings, "set": name, "left_out": label}, run)
            for method, row in scores(found).items():
                rows.append({"set": name, "left_out": label, "method": method, **row})
            print(f"{name}: without {label}", flush=True)
    save_result(
        arguments.out,
        {"origin": origin(arguments.threads, "uncertainty/novelty", "common/folds"), "cells": rows},
    )


if __name__ == "__main__":
    main()
