"""Do boosted trees help on image vectors? The default learner with its trees, and without them.

Synthetic TEM images of eight classes, of which more and more are learnt from, and grouped
cross-validation on sets of real images. The vectors are those of the default encoder. Without trees
is the linear part of the same fitted models, so both differ in nothing else.

    python -m benchmarks.accuracy.trees --data ../shared/data
"""

from __future__ import annotations

import argparse
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.folds import DATA_SETS, DataSet, folds_of
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.scores import GroupDraws
from benchmarks.common.sources import origin
from benchmarks.common.synthetic import tem_set
from benchmarks.common.tables import table
from hypervlad import BoostedSoftmaxClassifier, default_encoder
from hypervlad.boosting.logistic import log_losses

SETS = (*DATA_SETS, "magnetic_tile/images")
SEED = 4000
CODE = ("accuracy/trees", "common/folds", "common/synthetic")
N_TEM = 5323
N_TEM_TESTED = 1331
N_CODEBOOK = 500  # training images that the codebook is learnt from
N_CLASSES = 8
SCORES = ("losses", "right")  # of images, without trees and with them
Split = tuple[np.ndarray, np.ndarray, int]  # training rows, test rows, seed
DRAWS = {500: 8, 1000: 6, 2000: 4, 3992: 3}  # by the number of training images
# What vectors depend on, beside the files of the benchmark.
ENCODING = ("backbones", "codebook.py", "encoder", "hypercolumns.py", "images", "vlad.py")


def vectors(data: DataSet, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the vectors of all images, and the widths of their blocks; codebooks of `rows`."""
    encoder = default_encoder(random_state=0).fit(list(data.paths[rows]))
    X = encoder.transform(list(data.paths))
    return {"X": X, "widths": np.array(list(encoder.feature_blocks.values()))}


def compare(
    data: DataSet, found: Mapping[str, np.ndarray], train: np.ndarray, test: np.ndarray, seed: int
) -> dict[str, Any]:
    """Fit once; return losses and hits (2, n) of the test images without trees and with them."""
    X, codes = found["X"], np.searchsorted(data.classes, data.y[test])
    model = BoostedSoftmaxClassifier(prior="sqrt", random_state=seed)
    model.fit(X[train], data.y[train], groups=data.groups[train], blocks=found["widths"].tolist())
    margins = model.decision_function(X[test]).reshape(len(test), -1)
    both = [margins - model.tree_margins(X[test]), margins]
    return {
        "losses": np.array([log_losses(each, codes) for each in both]),
        "right": np.array([classes_of(each) == codes for each in both], dtype=float),
        "rounds": model.n_estimators_,
        "gain": model.tree_gain_,
    }


def classes_of(margins: np.ndarray) -> np.ndarray:
    """Return the code of the most probable class of each row."""
    return margins.argmax(axis=1) if margins.shape[1] > 1 else (margins[:, 0] > 0).astype(int)


def row_of(
    name: str, n_train: float, groups: np.ndarray, parts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the scores without trees, and what trees add, of the models of one row.

    `losses` and `right` of a part are (2, n), with NaN for images that it did not test; images that
    several parts tested count once, with the mean of these parts.
    """
    row: dict[str, Any] = {"set": name, "n_train": round(n_train), "n_models": len(parts)}
    draws = GroupDraws(groups, name)
    for score, sign in zip(SCORES, (-1, 1), strict=True):
        without, with_trees = np.nanmean([part[score] for part in parts], axis=0)
        gains = sign * (with_trees - without)
        interval = draws.interval(gains)
        row[score] = {"without": without.mean(), "gain": gains.mean(), "interval": interval}
    row["rounds"] = [part["rounds"] for part in parts]
    row["cross_validated_gains"] = [part["gain"] for part in parts]
    return row


def tem_splits(order: np.ndarray, most_draws: int) -> list[list[Split]]:
    """Return the draws of each number of training images; no image of the codebook is tested."""
    splits = []
    for n_train, n_draws in DRAWS.items():
        draws = []
        for draw in range(min(n_draws, most_draws)):
            rng = np.random.default_rng([SEED, n_train, draw])
            others = rng.permutation(order[N_CODEBOOK:])
            test, rest = others[:N_TEM_TESTED], others[N_TEM_TESTED:]
            train = rng.permutation(np.append(order[:N_CODEBOOK], rest))[:n_train]
            draws.append((train, test, draw))
        splits.append(draws)
    return splits


def fold_splits(data: DataSet, repeats: int) -> list[Split]:
    """Return the folds of a set of real images."""
    return [(fold.train, fold.test, fold.seed) for fold in folds_of(data, repeats, SEED)]


def row_of_splits(
    data: DataSet, splits: Sequence[Split], parts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the row of the models of these splits; the scores of a part are of its test rows."""
    spread = []
    for (_, test, _), part in zip(splits, parts, strict=True):
        scores = {score: np.full((2, len(data.y)), np.nan) for score in SCORES}
        for score, values in scores.items():
            values[:, test] = part[score]
        spread.append({**part, **scores})
    tested = np.unique(np.concatenate([test for _, test, _ in splits]))
    for part in spread:
        part |= {score: part[score][:, tested] for score in SCORES}
    n_train = float(np.mean([len(train) for train, _, _ in splits]))
    return row_of(data.name, n_train, data.groups[tested], spread)


def row_texts(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of a row of the table."""
    cells = [row["set"], f"{row['n_train']:,}"]
    for score in SCORES:
        low, high = row[score]["interval"]
        cells += [f"{row[score]['without']:.4f}"]
        cells += [f"{row[score]['gain']:+.4f} [{low:+.4f}, {high:+.4f}]"]
    kept = [n for n in row["rounds"] if n]
    cells.append(f"{len(kept)} of {row['n_models']}")
    of_kept = [g for g, n in zip(row["cross_validated_gains"], row["rounds"], strict=True) if n]
    return [*cells, f"{np.mean(of_kept):+.4f}" if of_kept else "–"]


def trees_table(facts: Mapping[str, Any]) -> str:
    """Return the table of a stored result."""
    heads = ["set", "training images", "log-loss without trees", "reduced by trees"]
    heads += ["accuracy without trees", "gain", "trees kept", "expected of kept trees"]
    return table(heads, map(row_texts, facts["rows"]))


def parsed(
    description: str, name: str, most_draws: int, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Return the arguments of a program that compares models of these sets."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled folders")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--tem", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--draws", type=int, default=most_draws, help="at most, of synthetic TEM")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "trees")
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy" / f"{name}.json")
    return parser.parse_args(argv)


def encoded_sets(
    arguments: argparse.Namespace,
) -> Iterator[tuple[DataSet, dict[str, Any], list[list[Split]]]]:
    """Yield each set, its vectors, and the splits of each of its rows."""
    torch.set_num_threads(arguments.threads)
    sets: list[tuple[DataSet, np.ndarray, list[list[Split]]]] = []
    if arguments.tem:
        data = tem_set(arguments.checkpoints / "images", N_TEM, N_CLASSES)
        order = np.random.default_rng(SEED).permutation(N_TEM)
        sets.append((data, np.sort(order[:N_CODEBOOK]), tem_splits(order, arguments.draws)))
    for name in arguments.sets:
        data = DataSet.load(arguments.data / name)
        data.name = name  # more than the last folder
        sets.append((data, np.arange(len(data.y)), [fold_splits(data, arguments.repeats)]))
    code = origin(arguments.threads, *CODE[1:], modules=ENCODING)
    for data, of_codebook, splits in sets:
        path = arguments.checkpoints / f"{data.name}.json"
        settings = {"data": data.digest, "rows": of_codebook.tolist()} | code
        encode = functools.partial(vectors, data, of_codebook)
        yield data, load_or_run(path, settings, encode), splits


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parsed(__doc__, "trees", max(DRAWS.values()), argv)
    code = origin(arguments.threads, *CODE)
    rows: list[dict[str, Any]] = []
    for data, found, splits_of_rows in encoded_sets(arguments):
        for splits in splits_of_rows:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about classes of one or two groups
                parts = [compare(data, found, *split) for split in splits]
            rows.append(row_of_splits(data, splits, parts))
            print(*row_texts(rows[-1]), flush=True)
            save_result(arguments.out, {"origin": code, "rows": rows})


if __name__ == "__main__":
    main()
