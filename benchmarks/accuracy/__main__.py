"""Is the default better than simpler methods? A comparison on real images.

Grouped, stratified, repeated cross-validation on labelled folders; every method uses the same
folds, min(5, groups of the rarest class) of them. Each fold is kept in a checkpoint, so that an
interrupted run resumes. All out-of-fold probabilities are stored with the scores, so that ``--add``
can add a method to earlier results.

    python -m benchmarks.accuracy --data ../shared/data
    python -m benchmarks.accuracy --data ../shared/data --add --methods luo2021 --repeats 1
    python -m benchmarks.accuracy --folder my/images --out my.json   # and its groups.csv, if any
    python -m benchmarks.accuracy --data ../shared/data --curve      # how many images are needed
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

from benchmarks.accuracy import curve
from benchmarks.accuracy.methods import CODE, Method, all_methods, run
from benchmarks.accuracy.predictions import Predictions, load_predictions, save_predictions
from benchmarks.accuracy.tables import DEFAULT, LAYOUT, LUO2021, claims
from benchmarks.common.folds import DATA_SETS, DataSet, Fold, folds_of, number_of_folds
from benchmarks.common.results import CHECKPOINTS, RESULTS, measured_now, save_result
from benchmarks.common.scores import GroupDraws, OutOfFold, mean_rows, set_rows
from benchmarks.common.sources import origin

SEED = 1000  # not the folds of `variants`, on which the default was chosen
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
        # In single precision, probabilities sum to one only approximately.
        proba[fold.repeat, fold.test] = result["proba"] / result["proba"].sum(1, keepdims=True)
        for kind, values in seconds.items():
            values.append(result[kind])
    return proba, {kind: sum(values) / n_repeats for kind, values in seconds.items()}


def predict(
    methods: Mapping[str, Method],
    data: DataSet,
    arguments: argparse.Namespace,
    earlier: Predictions,
) -> Predictions:
    """Run every method on one data set, and add its predictions to earlier ones.

    Methods with earlier results of the same code, libraries and kind of machine are not run again.
    """
    folds = folds_of(data, arguments.repeats, SEED)
    same = {"repeats": arguments.repeats, "origin": origin(arguments.threads, *CODE)}
    for method in methods.values():
        known = earlier.facts.get(method.title, {})
        if same.items() <= known.items():
            print(f"{data.name}: {method.title}: already in the results", flush=True)
            continue
        started = time.perf_counter()
        proba, seconds = cross_validate(method, folds, arguments.checkpoints)
        earlier.add(method.title, proba, {**seconds, **same, "measured": measured_now()})
        print(f"{data.name}: {method.title}: {time.perf_counter() - started:.0f} s", flush=True)
    return earlier


def facts_of(data: DataSet, results: Mapping[str, OutOfFold]) -> dict[str, Any]:
    """Return the facts about a data set that its tables show."""
    groups = next(iter(results.values())).groups
    return {
        "n": len(groups),
        "n_left_out": len(data.y) - len(groups),
        "n_groups": len(np.unique(groups)),
        "n_classes": len(data.classes),
        "folds": number_of_folds(data.y, data.groups),
        "digest": data.digest,
    }


def score(by_set: Mapping[str, Predictions], data_sets: Mapping[str, DataSet]) -> dict[str, Any]:
    """Return the scores of all methods: facts about the sets, rows, means, and their origins."""
    out_of_fold, all_draws, rows, sets = [], [], [], {}
    origins: list[dict[str, Any]] = []
    for name, predictions in by_set.items():
        if not predictions.proba:
            continue  # not measured yet
        data = data_sets[name]
        results = {t: OutOfFold.of(data, p) for t, p in predictions.proba.items()}
        draws = GroupDraws(next(iter(results.values())).groups, name)
        for title, row in set_rows(results, DEFAULT, draws).items():
            facts = predictions.facts[title]
            if facts["origin"] not in origins:
                origins.append(facts["origin"])
            row |= facts | {"origin": origins.index(facts["origin"])}
            rows.append({"data": name, "method": title} | row)
        out_of_fold.append(results)
        all_draws.append(draws)
        sets[name] = facts_of(data, results)
    means = mean_rows(out_of_fold, DEFAULT, all_draws)
    means_rows = [{"method": title} | row for title, row in means.items()]
    return {"sets": sets, "rows": rows, "means": means_rows, "origins": origins}


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        low, high = row["accuracy_interval"]
        calibration = row["calibration"]
        calibrated = "" if calibration["inside"] else "above range "
        print(
            f"{row['data']:12s} {row['method']:58s} "
            f"accuracy {row['accuracy']:.3f} [{low:.3f}, {high:.3f}] "
            f"balanced {row['balanced_accuracy']:.3f} log-loss {row['log_loss']:.3f} "
            f"ECE {calibration['error']:.3f} {calibrated}"
            f"fit {row['fit_seconds']:.1f} s predict {row['predict_seconds']:.1f} s",
            flush=True,
        )


def print_means(means: Sequence[Mapping[str, Any]]) -> None:
    for row in means:
        text = f"{'mean':12s} {row['method']:58s} "
        for kind in ("accuracy", "log_loss"):
            text += f"{kind} {row[kind]:.3f} "
            if "default" in row[f"{kind}_against"]:
                against = row[f"{kind}_against"]["default"]
                text += f"(gain on the default {against['gain']:+.3f} ± {against['error']:.3f}) "
        print(text, flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that contains the data sets")
    parser.add_argument("--curve", action="store_true", help="measure learning curves instead")
    parser.add_argument("--sets", nargs="+", help="data sets in it")
    parser.add_argument(
        "--folder",
        type=Path,
        action="append",
        default=[],
        help="your own labelled folder, with its groups.csv if there is one; may be repeated",
    )
    parser.add_argument("--methods", nargs="+", help="short names; all by default")
    parser.add_argument(
        "--add",
        action="store_true",
        help="keep the stored results of other methods, even with another number of repeats",
    )
    parser.add_argument(
        "--luo2021-from",
        type=Path,
        metavar="FILE",
        help="with --add: run nothing, but copy luo2021, which always uses its own network, from "
        "the results of another backbone",
    )
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet", help="'imagenet' or a file")
    parser.add_argument("--vgg16", help="file of VGG-16's convolutional weights for luo2021")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "accuracy")
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file of the results; required unless the whole standard run is made",
    )
    arguments = parser.parse_args(argv)
    arguments.sets = arguments.sets or (curve.SETS if arguments.curve else DATA_SETS)
    if arguments.data is None and not arguments.folder:
        parser.error("give --data, a folder of data sets, or --folder, a labelled folder")
    names = [*([] if arguments.data is None else arguments.sets)]
    names += [folder.resolve().name for folder in arguments.folder]
    if len(set(names)) < len(names):
        parser.error(f"data sets are named by the name of their folder, which must differ: {names}")
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    if arguments.luo2021_from is not None and (arguments.methods or not arguments.add):
        parser.error("--luo2021-from runs nothing: give it with --add and without --methods")
    if arguments.out is None and not arguments.curve and not is_standard(arguments):
        parser.error(
            "give --out FILE: the project's own results need the whole standard run (--data with "
            "its sets, the default weights, all methods and repeats or --add)"
        )
    return arguments


def is_standard(arguments: argparse.Namespace) -> bool:
    """Return whether a run may replace the project's own results."""
    same_sets = not arguments.folder and arguments.data is not None
    # With --add, the results of other sets are kept.
    same_sets = same_sets and (arguments.add or set(arguments.sets) == set(DATA_SETS))
    same_sets = same_sets and set(arguments.sets) <= set(DATA_SETS)
    whole = arguments.methods is None and arguments.repeats == REPEATS
    return same_sets and arguments.weights == "imagenet" and (whole or arguments.add)


def choose(arguments: argparse.Namespace) -> tuple[dict[str, Method], list[str]]:
    """Return the requested methods that can run, and the titles of all methods that can.

    Methods that cannot run are printed.
    """
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
    if left_out and arguments.out is None and not arguments.add:
        end = "give --out FILE: the project's own results need all methods"
        sys.exit("\n".join(["some methods cannot run:", *left_out, end]))
    for line in left_out:
        print(f"left out: {line}", flush=True)
    chosen = {name: methods[name] for name in asked if name in methods}
    return chosen, [*(method.title for method in methods.values()), *LUO2021]


def earlier_results(
    out: Path, arguments: argparse.Namespace, data_sets: Mapping[str, DataSet]
) -> dict[str, Predictions]:
    """Return the predictions to which methods are added; empty without ``--add``."""
    by_set = {name: Predictions() for name in data_sets}
    if arguments.add and out.exists():
        by_set |= read_results(out, data_sets, backbone=arguments.backbone)
    if arguments.luo2021_from is not None:
        others = read_results(arguments.luo2021_from, data_sets)
        for name, predictions in others.items():
            for title in set(LUO2021) & set(predictions.proba):
                by_set[name].add(title, predictions.proba[title], predictions.facts[title])
    return by_set


def read_results(
    path: Path, data_sets: Mapping[str, DataSet], **expected: Any
) -> dict[str, Predictions]:
    """Return the predictions stored with a file of results, which must have the same folds."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    expected |= {"layout": LAYOUT, "seed": SEED}
    found = {key: facts.get(key) for key in expected}
    found["data sets"] = {name: s["digest"] for name, s in facts["sets"].items()}
    # An interrupted run may not have reached all of them.
    expected["data sets"] = {
        name: data.digest for name, data in data_sets.items() if name in facts["sets"]
    }
    for key, value in expected.items():
        if found[key] != value:
            sys.exit(f"{path}: --add needs results of the same {key}: {found[key]}, not {value}")
    return load_predictions(path.with_suffix(".npz"), facts)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    if arguments.curve:
        curve.run(arguments)
        return
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    methods, known = choose(arguments)
    if arguments.luo2021_from is not None:
        methods = {}
    to_run = [] if arguments.data is None else list(arguments.sets)
    kept = DATA_SETS if is_standard(arguments) else []
    folders = [arguments.data / name for name in dict.fromkeys([*kept, *to_run])]
    data_sets = {d.name: d for d in map(DataSet.load, [*folders, *arguments.folder])}
    to_run += [folder.resolve().name for folder in arguments.folder]
    out = arguments.out or RESULTS / "accuracy" / f"accuracy_{arguments.backbone}.json"
    by_set = earlier_results(out, arguments, data_sets)
    for name in to_run:
        data = data_sets[name]
        by_set[name] = predict(methods, data, arguments, by_set[name]).ordered(known)
        data.forget_features()
        if arguments.add or name == to_run[-1]:
            facts = {"layout": LAYOUT, "backbone": arguments.backbone, "seed": SEED}
            facts |= score(by_set, data_sets)
            save_result(out, facts)
            save_predictions(out.with_suffix(".npz"), by_set)
    print_rows(facts["rows"])
    print("\n".join(f"- {line}" for line in claims(facts["rows"])), flush=True)
    print_means(facts["means"])


if __name__ == "__main__":
    main()
