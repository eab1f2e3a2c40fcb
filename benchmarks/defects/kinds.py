"""Which kinds of defects are found? Label-free methods, by the mean and the worst over kinds.

    python -m benchmarks.defects.kinds --data ../shared/data/magnetic_tile
    python -m benchmarks.defects.kinds --data ../shared/data/neu_steel/crazing --train 25 --test 20

Each method learns from defect-free images only. Other defect-free images are tested, the same ones
with made defects, and the images with defects of their own. Repeated with other splits and with
fewer images to learn from. A folder without images/ holds defect-free images only: any
homogeneous set will do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, origin, save_result
from benchmarks.defects.methods import OURS, Method, Ours, PaDiM, PatchCore, SquareNetwork
from benchmarks.defects.scores import (
    Resampling,
    SplitScores,
    differences,
    found_at_rate,
    image_auroc,
    paired_difference,
)
from benchmarks.defects.surfaces import FREE, Surface, read_surface, split_surface
from benchmarks.defects.tables import kinds_section, mean_and_worst
from hypervlad.evaluation import PixelTally, wilson_interval

TRAIN = (5, 20, 40)
FPR = 0.05
OF_PIXELS = ("pixel_ap", "pixel_auroc", "pro")
Runs = dict[tuple[str, int], list[dict[str, Any]]]  # of the splits, by method and training images


def contestants(network: dict[str, str]) -> dict[str, Callable[[int], Method]]:
    """Return what makes each method for a seed, by title."""
    squares = SquareNetwork(**network, keep=True)
    return {
        OURS: lambda seed, **given: Ours(**network, random_state=seed, fpr=FPR, **given),
        "PatchCore": lambda seed: PatchCore(squares, seed),
        "PaDiM": lambda seed: PaDiM(squares, seed),
    }


def scores_by_kind(
    method: Method, surface: Surface, train: np.ndarray, test: np.ndarray
) -> dict[str, Any]:
    """Fit a method and score test images, one map in memory at a time.

    Returns
    -------
    dict
        ``scores`` of the test images; ``pixel_ap``, ``pixel_auroc`` and ``pro`` by kind of defect,
        over its images and the defect-free ones; ``threshold``, None if the method has none.
    """
    method.fit([surface.images[i] for i in train], None)
    scores = np.full(len(test), np.nan)

    def score_kind(kind: str, tally: PixelTally) -> PixelTally:
        for at in np.flatnonzero(surface.kinds[test] == kind):
            score_map, scores[at] = method.score(surface.images[test[at]])
            tally.add(score_map, surface.masks[test[at]])
        return tally

    defect_free = score_kind(FREE, PixelTally())
    tested = [kind for kind in surface.kinds_of_defects() if kind in surface.kinds[test]]
    tallies = ((kind, score_kind(kind, copy.deepcopy(defect_free))) for kind in tested)
    pixels = {
        kind: (tally.average_precision(), tally.auroc(), tally.per_region_overlap())
        for kind, tally in tallies
    }
    of_pixels = {
        name: {kind: values[i] for kind, values in pixels.items()}
        for i, name in enumerate(OF_PIXELS)
    }
    return {"scores": scores, **of_pixels, "threshold": getattr(method, "threshold", None)}


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
        make: Callable[[int], Method],
        n_train: int,
        seed: int,
        only_free: bool = False,
    ) -> dict[str, Any]:
        """Return the scores of a method on a split, from their checkpoint if there is one."""
        train, test = split_surface(self.surface, n_train, self.n_test, seed)
        if only_free:
            test = test[self.surface.kinds[test] == FREE]
        own = {"title": title, "seed": seed, "train": train.tolist(), "test": test.tolist()}
        path = self.folder / f"{self.surface.name}-{n_train}-{seed}.json"
        measure = partial(scores_by_kind, make(seed), self.surface, train, test)
        run = load_or_run(path, self.settings | own, measure)
        return run | {"kinds": self.surface.kinds[test], "specimens": self.surface.specimens[test]}


def row(title: str, n_train: int, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the scores of a method by kind, one for each split."""
    kinds = [kind for kind in dict.fromkeys(runs[0]["kinds"].tolist()) if kind != FREE]
    found: dict[str, Any] = {"method": title, "n_train": n_train}
    found["image_auroc"] = {
        kind: [image_auroc(run["scores"], run["kinds"], kind) for run in runs] for kind in kinds
    }
    found["at_5_percent"] = {
        kind: [found_at_rate(run["scores"], run["kinds"], kind, FPR) for run in runs]
        for kind in kinds
    }
    for name in OF_PIXELS:
        found[name] = {kind: [run[name][kind] for run in runs] for kind in kinds}
    if runs[0]["threshold"] is not None:
        found["called"] = {
            kind: [
                float((run["scores"][run["kinds"] == kind] >= run["threshold"]).mean())
                for run in runs
            ]
            for kind in (*kinds, FREE)
        }
    return found


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
            first = row(ours, n_train, runs[ours, n_train])["pixel_ap"]
            rows[-1]["difference_of_pixel_ap"] = paired_difference(first, rows[-1]["pixel_ap"])
    return rows


def false_alarms(
    bench: Bench, make: Callable[[int], Method], n_train: int, n_splits: int
) -> dict[str, Any]:
    """Return the share of unused defect-free images that ours calls defective.

    Its interval counts each specimen once, although it is tested in several splits.
    """
    called, specimens = [], set[int]()
    make = partial(make, n_planted=0)  # limits do not matter here
    for seed in range(n_splits):
        run = bench.run(OURS, make, n_train, seed, only_free=True)
        called.append(run["scores"] >= run["threshold"])
        specimens.update(run["specimens"].tolist())
    share = float(np.mean(np.concatenate(called)))
    low, high = wilson_interval(share, len(specimens))
    found = {"fpr": FPR, "share": share, "low": low, "high": high}
    return found | {"n_specimens": len(specimens), "n_splits": n_splits, "n_train": n_train}


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "defects", checkpoints="defects", threads=2)
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--good", default=FREE, help="class of the defect-free images")
    parser.add_argument("--groups", type=Path, help="CSV file with the specimens of the images")
    parser.add_argument("--train", type=int, nargs="+", default=TRAIN, help="images to learn from")
    parser.add_argument("--test", type=int, default=40, help="defect-free images to test")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--false-alarm-splits", type=int, default=20)
    add_network(parser)
    options = parse(parser, argv)
    n_trains = sorted(options.train)
    surface = read_surface(options.data, options.good, options.groups).with_made_defects()
    network = {"backbone": options.backbone, "weights": options.weights}
    settings = {"digest": surface.digest} | network
    bench = Bench(surface, settings, options.checkpoints, options.test)
    methods = contestants(network)
    runs: Runs = {}
    for n_train in reversed(n_trains):
        for title, make in methods.items():
            own = [bench.run(title, make, n_train, seed) for seed in range(options.splits)]
            runs[title, n_train] = own
            mean, worst = mean_and_worst(row(title, n_train, own)["image_auroc"])
            print(f"{surface.name}: {title} of {n_train}: {mean:.3f}, {worst:.3f}", flush=True)
    result = {
        "surface": surface.name,
        "n_splits": options.splits,
        "n_test": options.test,
        "rows": rows_of(surface, runs),
        "false_alarms": false_alarms(
            bench, methods[OURS], n_trains[-1], options.false_alarm_splits
        ),
        "origin": origin(),
    }
    save_result(options.out / f"kinds_{surface.name.replace(' ', '_')}.json", result)
    print(kinds_section([result]))


if __name__ == "__main__":
    main()
