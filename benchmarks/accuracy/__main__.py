"""Is the default better than simpler methods? A comparison on real images.

Every method uses the same grouped, stratified folds. A run adds its methods to the results that
are in ``--out`` already.

    python -m benchmarks.accuracy --data ../shared/data
    python -m benchmarks.accuracy --folder my/images --out my.json   # and its groups.csv, if any
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.accuracy.methods import NAMES, Method, all_methods, run
from benchmarks.accuracy.predictions import SEED, Predictions, read_predictions, save_predictions
from benchmarks.accuracy.tables import DEFAULT, score_table
from benchmarks.common.data import DATA_SETS, DataSet, Fold, folds_of, number_of_folds
from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, Facts, measured_now, origin, save_result
from benchmarks.common.scores import GroupDraws, OutOfFold, mean_rows, set_rows


def cross_validate(
    method: Method, folds: Sequence[Fold], checkpoints: Path
) -> tuple[np.ndarray, dict[str, float]]:
    """Return out-of-fold probabilities (n_repeats, n, n_classes) and the seconds of a repeat.

    Images that are never tested have NaN.
    """
    data = folds[0].data
    n_repeats = 1 + max(fold.repeat for fold in folds)
    proba = np.full((n_repeats, len(data.y), len(data.classes)), np.nan)
    seconds = {"fit_seconds": 0.0, "predict_seconds": 0.0}
    for fold in folds:
        result = run(method, fold, checkpoints)
        # In single precision, probabilities sum to one only approximately.
        proba[fold.repeat, fold.test] = result["proba"] / result["proba"].sum(1, keepdims=True)
        for kind in seconds:
            seconds[kind] += result[kind] / n_repeats
    return proba, seconds


def predict(
    methods: Mapping[str, Method], data: DataSet, options: argparse.Namespace, found: Predictions
) -> None:
    """Run every method on one data set, and add its predictions to earlier ones."""
    folds = folds_of(data, options.repeats, SEED)
    for method in methods.values():
        started = time.perf_counter()
        proba, seconds = cross_validate(method, folds, options.checkpoints)
        facts = {**seconds, "repeats": options.repeats, "origin": origin()}
        found.add(method.title, proba, facts | {"measured": measured_now()})
        print(f"{data.name}: {method.title}: {time.perf_counter() - started:.0f} s", flush=True)


def score(by_set: Mapping[str, Predictions], data_sets: Mapping[str, DataSet]) -> Facts:
    """Return facts about the sets, the rows of all methods, their means, and their origins."""
    out_of_fold, all_draws, rows, sets = [], [], [], {}
    origins: list[Facts] = []
    for name, predictions in by_set.items():
        data = data_sets[name]
        results = {t: OutOfFold.of(data, p) for t, p in predictions.proba.items()}
        groups = next(iter(results.values())).groups
        draws = GroupDraws(groups, name)
        for title, row in set_rows(results, DEFAULT, draws).items():
            facts = predictions.facts[title]
            if facts["origin"] not in origins:
                origins.append(facts["origin"])
            row |= facts | {"origin": origins.index(facts["origin"])}
            rows.append({"data": name, "method": title} | row)
        out_of_fold.append(results)
        all_draws.append(draws)
        sets[name] = {
            "n": len(groups),
            "n_groups": len(np.unique(groups)),
            "folds": number_of_folds(data.y, data.groups),
            "digest": data.digest,
        }
    means = mean_rows(out_of_fold, DEFAULT, all_draws)
    means_rows = [{"method": title} | row for title, row in means.items()]
    return {"sets": sets, "rows": rows, "means": means_rows, "origins": origins}


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, checkpoints="accuracy", threads=2)
    parser.add_argument("--data", type=Path, help="folder that contains the data sets")
    parser.add_argument("--sets", nargs="+", default=DATA_SETS, help="data sets in it")
    parser.add_argument(
        "--folder", type=Path, action="append", default=[], help="a labelled folder of your own"
    )
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    add_network(parser)
    parser.add_argument("--vgg16", help="file of VGG-16's convolutional weights for luo2021")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file of results, needed with --folder")
    options = parse(parser, argv)
    if options.data is None and not options.folder:
        parser.error("give --data, a folder of data sets, or --folder, a labelled folder")
    if options.folder and options.out is None:
        parser.error("give --out FILE for results of your own images")
    folders = [options.data / name for name in options.sets] if options.data else []
    data_sets = {d.name: d for d in map(DataSet.load, [*folders, *options.folder])}
    if len(data_sets) < len(folders + options.folder):
        parser.error("data sets are named by the name of their folder, which must differ")
    methods, missing = all_methods(
        options.backbone, options.weights, options.vgg16, options.checkpoints
    )
    titles = [method.title for method in methods.values()]
    chosen = {name: methods[name] for name in options.methods if name in methods}
    for name in options.methods:
        if name in missing:
            print(f"left out: {name}: {missing[name]}", flush=True)
    if not chosen:
        raise SystemExit("none of the methods can run")
    out = options.out or RESULTS / "accuracy" / f"accuracy_{options.backbone}.json"
    by_set = {name: Predictions() for name in data_sets}
    if out.exists():
        by_set |= read_predictions(out, data_sets, backbone=options.backbone)
    for name, data in data_sets.items():
        predict(chosen, data, options, by_set[name])
        by_set[name] = by_set[name].ordered(titles)
        measured = {n: p for n, p in by_set.items() if p.proba}
        facts = {"backbone": options.backbone, "seed": SEED} | score(measured, data_sets)
        save_result(out, facts)
        save_predictions(out.with_suffix(".npz"), measured)
    print(score_table(facts))


if __name__ == "__main__":
    main()
