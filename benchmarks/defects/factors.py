"""Why is the label-free design as it is? One factor changed at a time, by kinds of defects.

    python -m benchmarks.defects.factors --data ../shared/data/magnetic_tile

Each variant differs from the design of `hypervlad.PatchDefectScorer` in one factor. Without a
folder, synthetic nanofibre mats. Images, kinds and splits are those of `benchmarks.defects.kinds`.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.defects.cells import CellBench, Part, Split
from benchmarks.defects.comparisons import (
    Resampling,
    SplitScores,
    choices_without_a_kind,
    differences,
    image_auroc,
)
from benchmarks.defects.scores import _MIN_REMAINING, _SURROUNDINGS
from benchmarks.defects.surfaces import FREE, Surface, mats_by_kind, read_surface, split_surface
from benchmarks.defects.tables import factors_section
from hypervlad.defects import normal_images
from hypervlad.defects.cells import DESCRIPTIONS, resized
from hypervlad.defects.normal_images import NormalCells, log_of_highest, weights_of

N_TRAIN_TILES, N_TRAIN_MATS = 40, 80
N_MATS_OF_KIND = 40
SINGLE, WINDOWS = Part(), Part(window=3, relative=True)
SQUARE = Part(size="square", border="zeros", relative=True)
SMALL = Part(size="small square", border="zeros")
BASE = "present design"
Keep = Callable[[tuple[int, int]], np.ndarray]


@dataclass(frozen=True)
class Variant:
    """A way to score images.

    Attributes
    ----------
    parts : tuple of Part
    standardised : {"by edge", "globally"}
        Whether distances are relative to those at the same distance from the edge, or to all.
    combination : {"scores of images", "maps", "maximum"}
        Whether each part gives a score of the image, of which the mean logarithm or the maximum is
        taken, or one is made from the mean of their maps.
    weighted : bool
        Whether parts in which held-out images differ less count more.
    shares : tuple of float
        Of an image's places; the geometric mean of the means over the highest is its score. 0 for
        the maximum.
    """

    parts: tuple[Part, ...] = (SINGLE, WINDOWS, SQUARE, SMALL)
    standardised: Literal["by edge", "globally"] = "by edge"
    combination: Literal["scores of images", "maps", "maximum"] = "scores of images"
    weighted: bool = True
    shares: tuple[float, ...] = normal_images._TOP_SHARES

    def with_parts(self, **changes: Any) -> Variant:
        """Change all parts."""
        return replace(self, parts=tuple(replace(part, **changes) for part in self.parts))


def variants() -> dict[str, dict[str, Variant]]:
    """Return variants by factor and title, the present design first."""
    base = Variant()
    zeros = {"border": "zeros"}
    half = replace(SQUARE, size="half")
    return {
        BASE: {BASE: base},
        "windows at the image's own size": {
            "29 px every 7 px": Variant((Part(patch=29), SQUARE, SMALL)),
            "1 x 1 cells": Variant((SINGLE, SQUARE, SMALL)),
            "3 x 3 cells": Variant((WINDOWS, SQUARE, SMALL)),
        },
        "sizes of the image": {
            "its own": Variant((SINGLE, WINDOWS)),
            "224 px squares": Variant((SQUARE,)),
            "112 px squares": Variant((SMALL,)),
            "its own and 224 px": Variant((SINGLE, WINDOWS, SQUARE)),
            "its own and 112 px": Variant((SINGLE, WINDOWS, SMALL)),
            "its own and half": Variant((SINGLE, WINDOWS, half)),
        },
        "relative to their own image": {
            "no cells": base.with_parts(relative=False),
            "all cells": base.with_parts(relative=True),
            "the others": Variant(tuple(replace(p, relative=not p.relative) for p in base.parts)),
        },
        "border": {
            "mirrored at all sizes": base.with_parts(border="mirrored"),
            "zeros at all sizes": base.with_parts(**zeros),
        },
        "taps": {
            "3, 6 and 13": base.with_parts(taps=(3, 6, 13)),
            "6": base.with_parts(taps=(6,)),
            "13 (cells of 16 px)": base.with_parts(taps=(13,)),
        },
        "whitening": {
            "none": base.with_parts(whitening=0.0),
            "half power": base.with_parts(whitening=0.5),
            "64 principal components": base.with_parts(n_components=64),
        },
        "defect-free cells": {
            "1 codeword": base.with_parts(n_codewords=1),
            "32 codewords": base.with_parts(n_codewords=32),
            "500 codewords": base.with_parts(n_codewords=500),
            "not trimmed": base.with_parts(trim=False),
            "6,000 random cells": base.with_parts(n_codewords=6000, search="cells"),
        },
        "usual distances": {
            "the same everywhere": replace(base, standardised="globally"),
            "the same everywhere, all borders mirrored": replace(
                base.with_parts(border="mirrored"), standardised="globally"
            ),
        },
        "combination": {
            "maximum": replace(base, combination="maximum"),
            "mean of maps": replace(base, combination="maps"),
            "all weights equal": replace(base, weighted=False),
            "mean of maps, all weights equal": replace(base, combination="maps", weighted=False),
        },
        "image score": {
            "maximum": replace(base, shares=(0.0,)),
            **{f"highest {s:.1%}": replace(base, shares=(s,)) for s in (0.001, 0.01, 0.03, 0.1)},
            "highest 0.1, 1, 10 and 100 %": replace(base, shares=(0.001, 0.01, 0.1, 1.0)),
        },
        "earlier designs": {
            "29 px, own size, highest 0.5 %": Variant(
                (Part(patch=29),), "globally", shares=(0.005,)
            ),
            "1 x 1 and 3 x 3 cells, 224 px, highest 1 %": Variant(
                (SINGLE, Part(window=3), replace(SQUARE, relative=False)),
                combination="maps",
                weighted=False,
                shares=(0.01,),
            ),
        },
    }


def standardised(distances: dict[str, Any], split: Split, how: str) -> dict[int, np.ndarray]:
    """Return the standardised distances (R, S) of held-out and test images, by number."""
    held_out = [distances[str(i)] for i in split.held_out]
    empty = np.zeros(0, np.float32)
    part = NormalCells(DESCRIPTIONS[0], empty, empty, empty, empty, empty)
    part = part.standardised_by(held_out, aligned=False)
    if how == "globally":
        usual, high = np.quantile(np.concatenate([each.ravel() for each in held_out]), [0.5, 0.9])
        same = np.ones_like(part.usual)
        part = replace(part, usual=usual * same, spread=(high - usual) * same)
    images = [*split.held_out.tolist(), *split.test.tolist()]
    return {i: part.standardised(distances[str(i)]) for i in images}


def _all(shape: tuple[int, int]) -> np.ndarray:
    return np.ones(shape, dtype=bool)


def score_of_image(
    maps: Sequence[np.ndarray],
    weights: np.ndarray,
    levels: np.ndarray,
    variant: Variant,
    is_far: Keep,
) -> float:
    """Return the score of an image from the standardised maps of all parts.

    ``is_far`` returns the places of a map that count.
    """
    if variant.combination == "maps":
        maps = [np.tensordot(weights, [resized(own, maps[0].shape) for own in maps], axes=1)]
        weights, levels = np.ones(1), np.zeros(1)
    kept = [own[is_far(own.shape)] for own in maps]
    if not all(
        own.size >= _MIN_REMAINING * each.size for own, each in zip(kept, maps, strict=True)
    ):
        return float("nan")
    logarithms = np.array([log_of_highest(own, variant.shares) for own in kept]) - levels
    if variant.combination == "maximum":
        return float(logarithms.max())
    return float(np.dot(weights, logarithms))


class FactorBench:
    """Scores the test images of a surface by variants."""

    def __init__(self, cells: CellBench, splits: Sequence[Split]) -> None:
        self._cells = cells
        self._splits = splits
        self._surface = cells.surface

    def row(self, factor: str, title: str, variant: Variant) -> dict[str, Any]:
        """Return the image AUROC of a variant by kind, one for each split, and its control's.

        ``difference`` is that of the mean from the present design's, with its 95 % interval.
        """
        kinds, found = self._surface.kinds_of_defects(), self._scores(variant)
        of_tests = [self._surface.kinds[split.test] for split in self._splits]
        row: dict[str, Any] = {"factor": factor, "variant": title}
        for column, name in enumerate(("image_auroc", "control")):
            row[name] = {}
            for kind in kinds:
                pairs = zip(found, of_tests, strict=True)
                values = [image_auroc(scores[:, column], tested, kind) for scores, tested in pairs]
                row[name][kind] = [None if np.isnan(value) else value for value in values]
        base = self._scores(Variant())
        of_splits = [
            SplitScores(tested, self._surface.specimens[split.test], {"": a[:, 0], title: b[:, 0]})
            for a, b, tested, split in zip(base, found, of_tests, self._splits, strict=True)
        ]
        resampling = Resampling(self._surface.kinds, self._surface.specimens, of_splits)
        return row | {"difference": differences(of_splits, title, "", resampling)["mean"]}

    @functools.cache  # noqa: B019 (one bench per run)
    def _scores(self, variant: Variant) -> list[np.ndarray]:
        """Return the scores of the test images of each split: see `_scores_of_split`."""
        return [self._scores_of_split(variant, split) for split in self._splits]

    def _scores_of_split(self, variant: Variant, split: Split) -> np.ndarray:
        """Return the scores of the test images, and those without their defects: (n, 2)."""
        of_parts = [
            standardised(self._distances(part, split.seed), split, variant.standardised)
            for part in variant.parts
        ]
        held_out = split.held_out.tolist()
        found = [[log_of_highest(own[i], variant.shares) for i in held_out] for own in of_parts]
        low, levels, high = np.quantile(found, [0.25, 0.5, 0.75], axis=1)
        weights = weights_of(high - low if variant.weighted else np.ones(len(found)))
        scores = []
        for i in split.test.tolist():
            maps = [own[i] for own in of_parts]
            far = functools.partial(self._far_from_defects, i)
            scores.append(
                [score_of_image(maps, weights, levels, variant, keep) for keep in (_all, far)]
            )
        return np.array(scores)

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def _distances(self, part: Part, seed: int) -> dict[str, Any]:
        (split,) = (split for split in self._splits if split.seed == seed)
        return self._cells.distances_of(part, split)

    @functools.cache  # noqa: B019
    def _far_from_defects(self, i: int, shape: tuple[int, int]) -> np.ndarray:
        """Return which cells (R, S) of an image the control of `control_score` keeps."""
        mask = self._surface.masks[i]
        if not mask.any():
            return np.ones(shape, dtype=bool)
        is_far = distance_transform_edt(~mask) > _SURROUNDINGS
        return resized(is_far.astype(np.float32), shape) > 0.99  # no pixel near a defect


def measure(surface: Surface, splits: Sequence[Split], folder: Path, threads: int) -> Any:
    """Return the facts of a surface."""
    cells = CellBench(surface, folder, threads)
    named = [
        (factor, title, variant)
        for factor, own in variants().items()
        for title, variant in own.items()
    ]
    parts = list(dict.fromkeys(part for _, _, variant in named for part in variant.parts))
    cells.distances(parts, splits)
    bench = FactorBench(cells, splits)
    rows = [bench.row(*each) for each in named]
    scores = {
        row["variant"] if row["factor"] == BASE else f"{row['factor']}: {row['variant']}": {
            kind: float(np.mean(values)) for kind, values in row["image_auroc"].items()
        }
        for row in rows
    }
    return {
        "surface": surface.name,
        "n_train": len(splits[0].train),
        "n_test": int((surface.kinds[splits[0].test] == FREE).sum()),
        "n_splits": len(splits),
        "rows": rows,
        "choices": choices_without_a_kind(scores),
        "origin": origin(threads, "defects/cells", "defects/factors"),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of images and masks; by default, mats")
    parser.add_argument("--good", default=FREE, help="class of the defect-free images")
    parser.add_argument("--train", type=int, help="images to learn from; 40, of mats 80")
    parser.add_argument("--test", type=int, default=40, help="defect-free images to test")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "defects")
    parser.add_argument("--out", type=Path, default=RESULTS / "defects")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    n_train = arguments.train or (N_TRAIN_TILES if arguments.data else N_TRAIN_MATS)
    surface = (
        read_surface(arguments.data, arguments.good)
        if arguments.data
        else mats_by_kind(n_train + arguments.test, N_MATS_OF_KIND)
    ).with_made_defects()
    splits = [
        Split(seed, *split_surface(surface, n_train, arguments.test, seed))
        for seed in range(arguments.splits)
    ]
    result = measure(surface, splits, arguments.checkpoints, arguments.threads)
    save_result(arguments.out / f"factors_{surface.name.replace(' ', '_')}.json", result)
    print(factors_section([result]))


if __name__ == "__main__":
    main()
