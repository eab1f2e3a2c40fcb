"""Do directions that are shared with held-out images make these look easier than new ones?

Learners that are fitted without each fold, for prediction sets, share the principal directions of
all training images (`hypervlad.boosting.linear.FeatureBlocks`). With more than 2,048 images most
directions are cut. Here the held-out images are compared with new ones, with shared directions and
with directions of each learner's own images.

    python -m benchmarks.uncertainty.directions --images FOLDER   # that of benchmarks.speed.fitting
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.common.tables import mean_and_deviation, table
from hypervlad import BoostedSoftmaxClassifier, default_encoder
from hypervlad.boosting.linear import FeatureBlocks
from hypervlad.classifier.calibration import cross_predict_calibration
from hypervlad.conformal import prediction_sets

N_CODEBOOK = 1000
COVERAGE = 0.9
SHARED, OWN = "shared", "own"


def log_loss(proba: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean log loss of probabilities (n, n_classes)."""
    return float(-np.log(np.maximum(proba[np.arange(len(codes)), codes], 1e-15)).mean())


def compare(
    X: np.ndarray, y: np.ndarray, widths: Sequence[int], train: np.ndarray, new: np.ndarray
) -> dict[str, dict[str, float]]:
    """Return log losses of held-out and new images and coverage of new ones, by kind."""
    groups = np.arange(len(train))
    found = {}
    for kind in (SHARED, OWN):
        learner = BoostedSoftmaxClassifier(prior="sqrt", random_state=0)
        blocks = FeatureBlocks(X[train], widths, learner.max_linear_directions)
        given: dict[str, Any] = {"blocks": blocks if kind == SHARED else list(widths)}
        learner.fit(X[train], y[train], **given)
        held_out = cross_predict_calibration(learner, X[train], y[train], groups, given, 0)
        assert held_out is not None
        codes = np.searchsorted(learner.classes_, y[new])
        by_learner = held_out.by_learner(X[new], learner.predict_proba(X[new]))
        sets = prediction_sets(by_learner, held_out.calibration, COVERAGE)
        found[kind] = {
            "held out": log_loss(held_out.proba, held_out.codes),
            "new": float(np.mean([log_loss(each, codes) for each in by_learner])),
            "covered": float(sets[np.arange(len(new)), codes].mean()),
            "size": float(sets.sum(axis=1).mean()),
        }
    return found


def measure(folder: Path, n_train: int, n_new: int, n_draws: int) -> list[dict[str, Any]]:
    """Return a comparison for each of some disjoint sets of training images, on the same new ones.

    The images that the codebook is learnt from are new to no learner, so they are left out.
    """
    files = sorted(folder.glob("*/*.png"), key=lambda path: int(path.stem))
    files = files[: N_CODEBOOK + n_new + n_draws * n_train]
    encoder = default_encoder(random_state=0).fit(files[:N_CODEBOOK])
    X = encoder.transform(files[N_CODEBOOK:])
    y = np.array([path.parent.name for path in files[N_CODEBOOK:]])
    widths = list(encoder.feature_blocks.values())
    return [
        compare(X, y, widths, n_new + n_train * draw + np.arange(n_train), np.arange(n_new))
        for draw in range(n_draws)
    ]


def directions_table(facts: Mapping[str, Any]) -> str:
    """Return a row each for shared and own directions: mean and deviation over the draws."""
    heads = ["directions", "log loss, held out", "log loss, new"]
    rows = []
    for kind in (SHARED, OWN):
        columns = [
            [draw[kind][name] for draw in facts["draws"]]
            for name in ("held out", "new", "covered", "size")
        ]
        rows.append([kind, *map(mean_and_deviation, columns)])
    heads += [f"new images covered by {COVERAGE:.0%} sets", "classes in a set"]
    return table(heads, rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder with a folder per class")
    parser.add_argument("--training", type=int, default=2600, help="images of each draw")
    parser.add_argument("--new", type=int, default=5000, help="new images")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "uncertainty" / "directions.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    draws = measure(arguments.images, arguments.training, arguments.new, arguments.draws)
    facts = {"training": arguments.training, "new": arguments.new, "draws": draws}
    save_result(arguments.out, facts | {"origin": origin(arguments.threads)})
    print(directions_table(facts))


if __name__ == "__main__":
    main()
