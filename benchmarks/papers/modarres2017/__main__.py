"""Is a fine-tuned ImageNet network better? The two approaches of the 2017 paper and ours.

    python -m benchmarks.papers.modarres2017 --data SEM_dataset --backbones inception_v3 resnet50
    python -m benchmarks.papers.modarres2017 --data images --groups groups.csv --test others
    python -m benchmarks.papers.modarres2017          # ten synthetic categories

The folder has one sub-folder per category; the NFFA-EUROPE SEM data set can be used as it is. All
methods use the same grouped, stratified folds. Each fold is kept in a checkpoint, and each epoch of
a fine-tuning, so that an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.folds import DataSet, Fold, folds_of
from benchmarks.common.results import CHECKPOINTS, RESULTS, measured_now, save_result
from benchmarks.common.scores import GroupDraws, OutOfFold
from benchmarks.common.sources import origin
from benchmarks.papers.modarres2017.data import read_folder, synthetic_folder
from benchmarks.papers.modarres2017.methods import CODE, Method, all_methods, run
from hypervlad.metrics import expected_calibration_error

SEED = 1000  # the folds of `accuracy.py`


def cross_validate(
    method: Method, folds: Sequence[Fold], second: DataSet | None, checkpoints: Path
) -> dict[str, Any]:
    """Return the out-of-fold scores of a method, and those on a second test set."""
    data = folds[0].data
    n_repeats = 1 + max(fold.repeat for fold in folds)
    proba = np.full((n_repeats, len(data.y), len(data.classes)), np.nan)
    others: list[np.ndarray] = []
    values_of: dict[str, list[float]] = {"fit_seconds": [], "ms": [], "epochs": []}
    for fold in folds:
        result = run(method, fold, [] if second is None else list(second.paths), checkpoints)
        proba[fold.repeat, fold.test] = result["proba"] / result["proba"].sum(1, keepdims=True)
        for name, values in values_of.items():
            values.append(result[name])
        others += [result["second"]] if second is not None else []
        print(f"{data.name}: {method.title}: fold {fold.repeat}.{fold.number} done", flush=True)
    row = scores(OutOfFold.of(data, proba))
    row |= {name: float(np.mean(values)) for name, values in values_of.items()}
    if second is not None:
        codes = np.searchsorted(data.classes, second.y)
        row["second"] = scores(OutOfFold(codes, second.groups, np.stack(others)))
    return row


def scores(found: OutOfFold) -> dict[str, Any]:
    """Return accuracy, top-2 accuracy, log-loss, calibration error, and scores per class."""
    proba, codes = found.proba, found.codes
    n_classes = proba.shape[2]
    best_two = np.argsort(-proba, axis=2, kind="stable")[:, :, :2]
    confusion = np.zeros((n_classes, n_classes))
    for answers in proba.argmax(axis=2):
        np.add.at(confusion, (codes, answers), 1 / len(proba))
    errors = [expected_calibration_error(codes, each) for each in proba]
    return {
        "accuracy": float(found.right.mean()),
        "accuracy_interval": GroupDraws(found.groups).interval(found.right),
        "top2": float((best_two == codes[:, None]).any(axis=2).mean()),
        "balanced_accuracy": found.balanced_accuracy,
        "log_loss": float(found.losses.mean()),
        "ece": float(np.mean(errors)),
        "classes": per_class(confusion),
        "confusion": confusion.tolist(),
    }


def per_class(confusion: np.ndarray) -> list[dict[str, float | None]]:
    """Return precision, recall and F1 of each class; None where they are undefined."""
    right = np.diag(confusion)
    predicted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    rows = []
    for r, s, t in zip(right.tolist(), predicted.tolist(), true.tolist(), strict=True):
        precision, recall = (r / s if s else None), (r / t if t else None)
        f1 = 2 * r / (s + t) if s + t else None
        rows.append({"precision": precision, "recall": recall, "f1": f1, "n": t})
    return rows


def second_test_set(folder: Path | None, data: DataSet) -> DataSet | None:
    """Read a second test set, whose categories must be among those of the training images."""
    if folder is None:
        return None
    second = read_folder(folder, None)
    unknown = sorted(set(second.y.tolist()) - set(data.classes.tolist()))
    if unknown:
        raise SystemExit(f"{folder}: categories without training images: {', '.join(unknown)}")
    return second


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with one sub-folder per category; by default, synthetic images",
    )
    parser.add_argument("--groups", type=Path, help="CSV table: path,group")
    parser.add_argument("--test", type=Path, help="folder of a second test set")
    parser.add_argument("--backbones", nargs="+", default=["mobilenet_v2"])
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="BACKBONE=FILE",
        help="file with the weights of a backbone; may be repeated",
    )
    parser.add_argument(
        "--trainable",
        nargs="*",
        default=["all"],
        choices=["head", "last", "all"],
        help="which layers are fine-tuned, one method for each; no value: none",
    )
    parser.add_argument(
        "--without-ours", action="store_true", help="only the two approaches of the paper"
    )
    parser.add_argument("--max-epochs", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folds", type=int, default=5, help="maximum number of folds")
    parser.add_argument("--synthetic", type=int, default=60, help="images of each category")
    parser.add_argument("--size", type=int, default=224, help="of synthetic images, pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "modarres2017")
    parser.add_argument("--out", type=Path, default=RESULTS / "papers")
    arguments = parser.parse_args(argv)
    if arguments.folds < 2 or arguments.repeats < 1:
        parser.error("--folds is at least 2, --repeats at least 1")
    if any("=" not in given for given in arguments.weights):
        parser.error("--weights BACKBONE=FILE, such as vgg16=vgg16.pth")
    return arguments


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Add results to those of earlier runs on the same images."""
    earlier: dict[str, Any] = {}
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
    same = ("digest", "folds", "repeats", "second")
    rows = [dict(row) for row in facts["rows"]]
    if all(earlier.get(name) == facts[name] for name in same):
        new = {row["method"] for row in rows}
        rows = [row for row in earlier["rows"] if row["method"] not in new] + rows
    save_result(path, {**facts, "rows": rows})


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    folder = arguments.data
    if folder is None:
        folder = synthetic_folder(arguments.checkpoints, arguments.synthetic, arguments.size)
    data = read_folder(folder, arguments.groups)
    second = second_test_set(arguments.test, data)
    weights = dict(given.split("=", 1) for given in arguments.weights)
    methods, missing = all_methods(
        arguments.backbones, weights, arguments.trainable, arguments.max_epochs
    )
    for backbone, reason in missing.items():
        print(f"left out: {backbone}: {reason}", flush=True)
    methods = [m for m in methods if not (arguments.without_ours and m.kind == "ours")]
    if not methods:
        raise SystemExit("none of the networks has weights here")
    folds = folds_of(data, arguments.repeats, SEED, arguments.folds)
    code_origin = origin(arguments.threads, *CODE, "papers/modarres2017/__main__")
    facts: dict[str, Any] = {
        "data": data.name,
        "is_synthetic": arguments.data is None,
        "n": len(data.y),
        "n_groups": len(np.unique(data.groups)),
        "classes": data.classes.tolist(),
        "digest": data.digest,
        "folds": 1 + max(fold.number for fold in folds),
        "repeats": arguments.repeats,
        "second": None if second is None else {"data": second.name, "digest": second.digest},
        "rows": [],
    }
    for method in methods:
        row = cross_validate(method, folds, second, arguments.checkpoints)
        parameters = dict(method.parameters)
        facts["rows"] = [
            {
                "method": method.title,
                "parameters": parameters,
                "origin": code_origin,
                "measured": measured_now(),
            }
            | row
        ]
        write(arguments.out / f"modarres2017_{data.name}.json", facts)
        print(
            f"{data.name}: {method.title}: accuracy {row['accuracy']:.3f} top-2 {row['top2']:.3f} "
            f"log-loss {row['log_loss']:.3f} ECE {row['ece']:.3f} fit {row['fit_seconds']:.1f} s "
            f"{row['ms']:.1f} ms per image",
            flush=True,
        )


if __name__ == "__main__":
    main()
