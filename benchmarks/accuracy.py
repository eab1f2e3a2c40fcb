"""Is the default better than what you would do without it? Methods compared on real images.

Grouped, stratified, repeated cross-validation on labelled folders; every method sees the same
folds, min(5, groups of the rarest class) of them. What is done is kept fold by fold in a folder of
checkpoints: an interrupted run goes on, and a method more does not repeat the others.

    python benchmarks/accuracy.py --data ../shared/data
    python benchmarks/accuracy.py --folder my/images --out my.json   # and its groups.csv, if any
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_tables import DEFAULT, LAYOUT, claims
from folds import DataSet, Fold, folds_of
from methods import Method, all_methods, run
from scores import GroupDraws, OutOfFold, mean_rows, set_rows
from sources import machine, versions

HERE = Path(__file__).resolve().parent
DATA_SETS = ("micrographs", "neu_steel", "nanofibre")
SEED = 1000  # not the folds of `tried.py`, on which the default was chosen
REPEATS = 2


def cross_validate(
    method: Method, folds: Sequence[Fold], checkpoints: Path
) -> tuple[np.ndarray, dict[str, float]]:
    """Return out-of-fold probabilities (n_repeats, n, n_classes) and the mean seconds of a fold.

    Images that are never tested have NaN.
    """
    data = folds[0].data
    n_repeats = 1 + max(fold.repeat for fold in folds)
    proba = np.full((n_repeats, len(data.y), len(data.classes)), np.nan)
    seconds: dict[str, list[float]] = {"fit_seconds": [], "predict_seconds": []}
    for fold in folds:
        result = run(method, fold, checkpoints)
        # Networks of single precision sum to one only nearly.
        proba[fold.repeat, fold.test] = result["proba"] / result["proba"].sum(1, keepdims=True)
        for kind, values in seconds.items():
            values.append(result[kind])
    return proba, {kind: sum(values) / n_repeats for kind, values in seconds.items()}


def compare(
    methods: Mapping[str, Method], data: DataSet, arguments: argparse.Namespace
) -> tuple[dict[str, OutOfFold], GroupDraws, dict[str, Any], dict[str, Any]]:
    """Run every method on one data set; return their predictions, scores and facts."""
    folds = folds_of(data, arguments.repeats, SEED)
    proba, seconds = {}, {}
    for method in methods.values():
        started = time.perf_counter()
        proba[method.title], seconds[method.title] = cross_validate(
            method, folds, arguments.checkpoints
        )
        print(f"{data.name}: {method.title}: {time.perf_counter() - started:.0f} s", flush=True)
    results = {name: OutOfFold.of(data, p) for name, p in proba.items()}
    groups = next(iter(results.values())).groups
    draws = GroupDraws(groups, data.name)
    rows = {name: row | seconds[name] for name, row in set_rows(results, DEFAULT, draws).items()}
    facts = {
        "n": len(groups),
        "n_left_out": len(data.y) - len(groups),
        "n_groups": len(np.unique(groups)),
        "n_classes": len(data.classes),
        "folds": 1 + max(fold.number for fold in folds),
        "digest": data.digest,
    }
    return results, draws, rows, facts


def print_rows(name: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    for title, row in rows.items():
        low, high = row["accuracy_interval"]
        calibration = row["calibration"]
        print(
            f"{name:12s} {title:58s} accuracy {row['accuracy']:.3f} [{low:.3f}, {high:.3f}] "
            f"balanced {row['balanced_accuracy']:.3f} log-loss {row['log_loss']:.3f} "
            f"ECE {calibration['error']:.3f} {'' if calibration['inside'] else 'above range '}"
            f"fit {row['fit_seconds']:.1f} s predict {row['predict_seconds']:.1f} s",
            flush=True,
        )


def print_means(means: Mapping[str, Mapping[str, Any]]) -> None:
    for title, row in means.items():
        text = f"{'mean':12s} {title:58s} "
        for kind in ("accuracy", "log_loss"):
            text += f"{kind} {row[kind]:.3f} "
            if "default" in row[f"{kind}_against"]:
                against = row[f"{kind}_against"]["default"]
                text += f"(gain on the default {against['gain']:+.3f} ± {against['error']:.3f}) "
        print(text, flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds the data sets")
    parser.add_argument("--sets", nargs="+", default=DATA_SETS, help="data sets in it")
    parser.add_argument(
        "--folder",
        type=Path,
        action="append",
        default=[],
        help="another labelled folder, with its groups.csv if there is one; may be repeated",
    )
    parser.add_argument("--methods", nargs="+", help="short names; all by default")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet", help="'imagenet' or a file")
    parser.add_argument("--vgg16", help="VGG-16's convolutional weights for luo2021, if elsewhere")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, default=HERE / ".checkpoints" / "accuracy")
    parser.add_argument(
        "--out", type=Path, help="JSON file of the results; needed for anything but the whole run"
    )
    arguments = parser.parse_args(argv)
    if arguments.data is None and not arguments.folder:
        parser.error("give --data, a folder of data sets, or --folder, a labelled folder")
    names = [*([] if arguments.data is None else arguments.sets)]
    names += [folder.resolve().name for folder in arguments.folder]
    if len(set(names)) < len(names):
        parser.error(f"data sets go by the name of their folder, which must differ: {names}")
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    if arguments.out is None and not is_standard(arguments):
        parser.error(
            "give --out FILE: the project's own results are of the whole standard run (--data "
            "with its sets, all methods, weights and repeats as they come)"
        )
    return arguments


def is_standard(arguments: argparse.Namespace) -> bool:
    """Whether a run may take the place of the project's own results."""
    whole = not arguments.folder and arguments.methods is None and arguments.data is not None
    as_it_comes = arguments.weights == "imagenet" and arguments.repeats == REPEATS
    return whole and as_it_comes and set(arguments.sets) == set(DATA_SETS)


def choose(arguments: argparse.Namespace) -> dict[str, Method]:
    """Return the methods that were asked for and can run; say which cannot."""
    methods, missing = all_methods(
        arguments.backbone, arguments.weights, arguments.vgg16, arguments.checkpoints
    )
    asked = arguments.methods or [*methods, *missing]
    unknown = [name for name in asked if name not in methods and name not in missing]
    if unknown:
        known = ", ".join([*methods, *missing])
        sys.exit(f"no method {', '.join(unknown)}; there are {known}")
    left_out = [f"{name}: {missing[name]}" for name in asked if name in missing]
    if len(left_out) == len(asked):
        sys.exit("\n".join(["none of the methods can run:", *left_out]))
    if left_out and arguments.out is None:
        end = "give --out FILE, as the project's own results are of all methods"
        sys.exit("\n".join(["some methods cannot run:", *left_out, end]))
    for line in left_out:
        print(f"left out: {line}", flush=True)
    return {name: methods[name] for name in asked if name in methods}


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    import torch  # after hypervlad, which tells threads to sleep while they wait

    torch.set_num_threads(arguments.threads)
    folders = [] if arguments.data is None else [arguments.data / n for n in arguments.sets]
    methods = choose(arguments)
    by_set, all_draws, rows, sets = [], [], [], {}
    for folder in [*folders, *arguments.folder]:
        data = DataSet.load(folder)
        results, draws, of_set, sets[data.name] = compare(methods, data, arguments)
        print_rows(data.name, of_set)
        by_set.append(results)
        all_draws.append(draws)
        rows += [{"data": data.name, "method": title} | row for title, row in of_set.items()]
    print("\n".join(f"- {line}" for line in claims(rows)), flush=True)
    means = mean_rows(by_set, DEFAULT, all_draws)
    print_means(means)
    facts = {
        "layout": LAYOUT,
        "backbone": arguments.backbone,
        "seed": SEED,
        "repeats": arguments.repeats,
        "threads": arguments.threads,
        "sets": sets,
        "rows": rows,
        "means": [{"method": title} | row for title, row in means.items()],
        "versions": versions(),
        "machine": machine(arguments.threads),
    }
    out = arguments.out or HERE / "results" / f"accuracy_{arguments.backbone}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts, indent=1), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
