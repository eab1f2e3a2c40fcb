"""Which kinds of defects are found? Label-free methods, by the mean and the worst over kinds.

    python -m benchmarks.defects.kinds --data ../shared/data/magnetic_tile
    python -m benchmarks.defects.kinds --data ../shared/data/neu_steel/crazing --train 25 --test 20

Each method learns from defect-free images only. Other defect-free images are tested, the same ones
with made defects, and the images with defects of their own; without a folder, synthetic nanofibre
mats. Repeated with other splits and with fewer images to learn from. A folder without images/ holds
defect-free images only: any homogeneous set will do.

``--variants FILE`` compares variants of a method instead: a Python file with a function
``variants(seed)`` that returns a dict of functions, each of which makes an object with the methods
of `benchmarks.defects.rivals.Method`. The table of choices says which one would be chosen without
looking at one kind of defect, and how it does on that kind.
"""

from __future__ import annotations

import argparse
import hashlib
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.defects.comparisons import (
    Resampling,
    SplitScores,
    choices_without_a_kind,
    differences,
    image_auroc,
)
from benchmarks.defects.methods import Ours
from benchmarks.defects.rivals import Method, SquareNetwork, all_rivals
from benchmarks.defects.scores import scores_by_kind
from benchmarks.defects.surfaces import (
    FREE,
    Surface,
    mats_by_kind,
    read_surface,
    split_surface,
)
from benchmarks.defects.tables import kinds_section, mean_and_worst
from hypervlad.defects import default_patch_encoder
from hypervlad.metrics import wilson_interval
from hypervlad.presets import anomalydino

OURS = "hypervlad"
TRAIN_TILES, TRAIN_MATS = (5, 20, 40), (80,)
N_MATS_OF_KIND = 40
CODE_OF_RIVALS = ("defects/rivals", "defects/scores")
MODULES_OF_RIVALS = ("backbones", "hypercolumns.py", "metrics/maps.py")
COSTS = ("network_ms", "other_ms", "search_ms", "bytes")
Makers = dict[str, Callable[[], Method]]
Runs = dict[tuple[str, int], list[dict[str, Any]]]  # of the splits, by method and training images


def contestants(
    threads: int, variants: Path | None, backbone: str, weights: str
) -> tuple[Callable[[int], Makers], dict[str, dict[str, Any]]]:
    """Return what makes the methods for a seed, and the code that each depends on, by title."""
    of_ours = origin(threads, *CODE_OF_RIVALS, "defects/methods")
    if variants:
        makers = runpy.run_path(str(variants))["variants"]
        of_ours["variants"] = hashlib.sha256(variants.read_bytes()).hexdigest()
        return makers, dict.fromkeys(makers(0), of_ours)
    of_rivals = origin(threads, *CODE_OF_RIVALS, modules=MODULES_OF_RIVALS)
    network = SquareNetwork(backbone, weights, keep=True)

    def ours(seed: int) -> Ours:
        encoder = default_patch_encoder(backbone=backbone, weights=weights)
        return Ours({"encoder": encoder, "random_state": seed})

    def few_images(n: int, seed: int) -> Ours:
        scorer = anomalydino(backbone, weights=weights, n_references=n, random_state=seed)
        return Ours(scorer.get_params(deep=False))

    def of_this_package(seed: int) -> Makers:
        return {OURS: lambda: ours(seed)} | {
            f"AnomalyDINO, {n} images": partial(few_images, n, seed) for n in (4, 16)
        }

    def all_methods(seed: int) -> Makers:
        return of_this_package(seed) | all_rivals(network, seed)

    own = dict.fromkeys(of_this_package(0), of_ours)
    return all_methods, dict.fromkeys(all_methods(0), of_rivals) | own


@dataclass(frozen=True)
class Bench:
    """A surface, and what the checkpoints of its runs depend on."""

    surface: Surface
    settings: dict[str, Any]
    folder: Path
    n_test: int

    def run(
        self,
        title: str,
        make: Callable[[], Method],
        n_train: int,
        seed: int,
        only_free: bool = False,
        **settings: Any,
    ) -> dict[str, Any]:
        """Return the scores of a method on a split, from their checkpoint if there is one."""
        train, test = split_surface(self.surface, n_train, self.n_test, seed)
        if only_free:
            test = test[self.surface.kinds[test] == FREE]
        own = {"title": title, "seed": seed, "train": train.tolist(), "test": test.tolist()}
        path = self.folder / f"{self.surface.name}-{n_train}-{seed}.json"
        run = load_or_run(
            path,
            self.settings | own | settings,
            lambda: scores_by_kind(make(), self.surface, train, test),
        )
        return run | {"kinds": self.surface.kinds[test], "specimens": self.surface.specimens[test]}


def row(title: str, n_train: int, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the scores of a method by kind, one for each split, and the means of its costs."""
    kinds = [kind for kind in dict.fromkeys(runs[0]["kinds"].tolist()) if kind != FREE]
    found: dict[str, Any] = {"method": title, "n_train": n_train}
    for name, scores in (("image_auroc", "scores"), ("control", "control")):
        found[name] = {
            kind: [_or_none(image_auroc(run[scores], run["kinds"], kind)) for run in runs]
            for kind in kinds
        }
    for name in ("pixel_auroc", "pro"):
        found[name] = {kind: [run[name][kind] for run in runs] for kind in kinds}
    if runs[0]["threshold"] is not None:
        found["called"] = {
            kind: [
                float((run["scores"][run["kinds"] == kind] >= run["threshold"]).mean())
                for run in runs
            ]
            for kind in (*kinds, FREE)
        }
    return found | {name: float(np.mean([run[name] for run in runs])) for name in COSTS}


def _or_none(score: float) -> float | None:
    """Return None for NaN, which JSON lacks."""
    return None if np.isnan(score) else score


def rows_of(surface: Surface, runs: Runs) -> list[dict[str, Any]]:
    """Return the rows of all methods, compared with the first one."""
    ours = next(iter(runs))[0]
    rows = []
    for (title, n_train), own in runs.items():
        rows.append(row(title, n_train, own))
        if title != ours:
            splits = [
                SplitScores(
                    run["kinds"], run["specimens"], {ours: base["scores"], title: run["scores"]}
                )
                for base, run in zip(runs[ours, n_train], own, strict=True)
            ]
            resampling = Resampling(surface.kinds, surface.specimens, splits)
            rows[-1]["differences"] = differences(splits, ours, title, resampling)
    return rows


def false_alarms(
    bench: Bench, n_train: int, n_splits: int, fpr: float, code: dict[str, Any]
) -> dict[str, Any]:
    """Return the share of unused defect-free images that ours calls defective.

    Its interval counts each specimen once, although it is tested in several splits.
    """
    called, specimens = [], set[int]()
    for seed in range(n_splits):
        encoder = default_patch_encoder(
            backbone=bench.settings["backbone"], weights=bench.settings["weights"]
        )
        make = partial(Ours, {"encoder": encoder, "random_state": seed, "fpr": fpr})
        run = bench.run(OURS, make, n_train, seed, only_free=True, fpr=fpr, code=code)
        called.append(run["scores"] >= run["threshold"])
        specimens.update(run["specimens"].tolist())
    share = float(np.mean(np.concatenate(called)))
    low, high = wilson_interval(share, len(specimens))
    found = {"fpr": fpr, "share": share, "low": low, "high": high}
    return found | {"n_specimens": len(specimens), "n_splits": n_splits, "n_train": n_train}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of images; by default, mats")
    parser.add_argument("--good", default=FREE, help="class of the defect-free images")
    parser.add_argument("--groups", type=Path, help="CSV file with the specimens of the images")
    parser.add_argument(
        "--train", type=int, nargs="+", help="images to learn from; 5 20 40, of mats 80"
    )
    parser.add_argument("--test", type=int, default=40, help="defect-free images to test")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--methods", nargs="+", help="titles; all by default")
    parser.add_argument("--variants", type=Path, help="Python file with variants of a method")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="pretrained", help="as in HypercolumnVLAD")
    parser.add_argument("--fpr", type=float, nargs="*", default=[0.05])
    parser.add_argument("--false-alarm-splits", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "defects")
    parser.add_argument("--out", type=Path, default=RESULTS / "defects")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    n_trains = sorted(arguments.train or (TRAIN_TILES if arguments.data else TRAIN_MATS))
    plain = (
        read_surface(arguments.data, arguments.good, arguments.groups)
        if arguments.data
        else mats_by_kind(n_trains[-1] + arguments.test, N_MATS_OF_KIND)
    )
    surface = plain.with_made_defects()
    network = {"backbone": arguments.backbone, "weights": arguments.weights}
    settings = {"digest": surface.digest} | network
    bench = Bench(surface, settings, arguments.checkpoints, arguments.test)
    makers, code_of = contestants(arguments.threads, arguments.variants, **network)
    titles = arguments.methods or list(makers(0))
    runs: Runs = {}
    for n_train in reversed(n_trains):
        for title in titles:
            runs[title, n_train] = [
                bench.run(title, makers(seed)[title], n_train, seed, code=code_of[title])
                for seed in range(arguments.splits)
            ]
            mean, worst = mean_and_worst(row(title, n_train, runs[title, n_train])["image_auroc"])
            print(f"{surface.name}: {title} of {n_train}: {mean:.3f}, {worst:.3f}", flush=True)
    result = {
        "surface": surface.name,
        "n_splits": arguments.splits,
        "n_test": arguments.test,
        "rows": rows_of(bench.surface, runs),
        "origin": code_of[titles[0]],
    }
    result["choices"] = choices_without_a_kind(
        {
            each["method"]: {kind: float(np.mean(v)) for kind, v in each["image_auroc"].items()}
            for each in result["rows"]
            if each["n_train"] == n_trains[-1]
        }
    )
    if titles[0] == OURS:
        result["false_alarms"] = [
            false_alarms(bench, n_trains[-1], arguments.false_alarm_splits, fpr, code_of[OURS])
            for fpr in arguments.fpr
        ]
    topic = "variants" if arguments.variants else "kinds"
    save_result(arguments.out / f"{topic}_{surface.name.replace(' ', '_')}.json", result)
    print(kinds_section([result]))


if __name__ == "__main__":
    main()
