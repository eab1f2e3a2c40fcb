"""Is a kind of defect found that no mask showed? Masks, defect-free images, and both combined.

    python -m benchmarks.defects.unseen_kinds --data ../shared/data/magnetic_tile

Each kind is left out in turn. One `hypervlad.PatchDefectScorer` learns from defect-free images and
from masks of the other kinds, another one from the same defect-free images alone. Both score other
defect-free images, all images of the kind that was left out, and the remaining ones of the other
kinds. Their scores, standardised by those of held-out defect-free images, are also combined.

All images of a tile are either learnt from or tested. With ``--made``, all this is done again with
made defects as two more kinds. ``--backbone`` and ``--weights`` name another network.
"""

from __future__ import annotations

import argparse
import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.defects.comparisons import (
    Resampling,
    SplitScores,
    differences_of_unseen_kinds,
    image_auroc,
)
from benchmarks.defects.surfaces import FREE, Surface, read_surface
from benchmarks.defects.tables import unseen_section
from hypervlad import PatchDefectScorer, default_patch_encoder
from hypervlad.defects.thresholds import image_score
from hypervlad.metrics import PixelTally

MASKS, NO_MASKS = "masks", "defect-free images"
MADE = {"scratch, pits": ("scratch", "pits"), "faint areas": ("stain", "band", "blur", "gradient")}
RULES = {"mean": lambda a, b: (a + b) / 2, "maximum": np.maximum}
BY_PLACES, BY_IMAGES = "of maps, by places", "of maps, by images"
MAPS = (MASKS, NO_MASKS, *(f"{rule} {scale}" for scale in (BY_PLACES, BY_IMAGES) for rule in RULES))
METHODS = (*MAPS, *(f"{rule} of image scores" for rule in RULES))
_QUANTILES = (0.5, 0.9)  # 0 and 1 after standardisation
Runs = dict[str, list[dict[str, Any]]]  # of the seeds, by the kind that was left out


class UnseenSplit(NamedTuple):
    """Images to learn from and to test.

    Attributes
    ----------
    free : ndarray of int
        Defect-free images to learn from.
    masked : ndarray of int
        Images with masks to learn from, of all kinds but one.
    test : ndarray of int
        Images of other tiles, of all kinds.
    """

    free: np.ndarray
    masked: np.ndarray
    test: np.ndarray


def split_without(
    surface: Surface,
    left_out: str,
    n_train: int,
    n_masked: int,
    n_test: int,
    seed: int,
) -> UnseenSplit:
    """Choose images at random, of which at most ``n_masked`` of each kind have masks.

    The images with masks depend on the seed, but not on the kind that is left out. Defect-free
    images are not learnt from if their tile is tested.
    """
    tiles = surface.specimens
    rng = np.random.default_rng(seed)

    def by_random_tile(chosen: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(chosen)
        return rows[np.argsort(rng.permutation(len(tiles))[tiles[rows]], kind="stable")]

    every = by_random_tile(surface.kinds == FREE)
    tested, free = every[-n_test:], every[:n_train]
    free = free[~np.isin(tiles[free], tiles[tested])]
    is_own = surface.defective & (surface.sources == np.arange(len(surface.sources)))
    usable = (is_own | np.isin(surface.sources, free)) & ~np.isin(tiles, tiles[tested])
    masked = {
        kind: by_random_tile(usable & (surface.kinds == kind))[:n_masked]
        for kind in surface.kinds_of_defects()
    }
    shown = np.concatenate([rows for kind, rows in masked.items() if kind != left_out])
    learnt = np.isin(tiles, tiles[np.concatenate([free, shown])])
    test = np.flatnonzero((is_own | np.isin(surface.sources, tested)) & ~learnt)
    return UnseenSplit(free, shown, test)


class Scored(NamedTuple):
    """What a scorer says about an image, or a combination of scorers.

    Attributes
    ----------
    map : ndarray of shape (H, W)
        Relative to the scores of held-out defect-free images.
    by_places : ndarray of shape (H, W)
        The same map, relative to the scores of their places.
    score : float
        Of the image.
    """

    map: np.ndarray
    by_places: np.ndarray
    score: float


@dataclass(frozen=True)
class StandardScorer:
    """A scorer whose scores are relative to those of held-out defect-free images.

    Attributes
    ----------
    scorer : PatchDefectScorer
        Fitted.
    of_images, of_places : tuple of two floats
        Median and 90 % quantile of the scores of held-out images, and of defect-free places.
    """

    scorer: PatchDefectScorer
    of_images: tuple[float, float]
    of_places: tuple[float, float]

    @classmethod
    def fit(
        cls, scorer: PatchDefectScorer, surface: Surface, free: np.ndarray, masked: np.ndarray
    ) -> StandardScorer:
        """Fit a scorer to defect-free images, and to masks if there are any."""
        rows = np.concatenate([free, masked])
        masks = [surface.masks[i] if surface.defective[i] else None for i in rows]
        scorer = scorer.fit(
            [surface.images[i] for i in rows],
            masks=masks if len(masked) else None,
            groups=surface.specimens[rows].astype(str),
        )
        held_out = scorer.held_out_
        of_free = held_out.scores[held_out.images < len(free)]
        quantiles = (np.quantile(a, _QUANTILES) for a in (of_free, held_out.place_quantiles))
        return cls(scorer, *((float(low), float(high)) for low, high in quantiles))

    def score(self, image: np.ndarray) -> Scored:
        """Score an image."""
        found = self.scorer.find(image)
        maps = (
            ((found.map - middle) / (high - middle)).astype(np.float32)
            for middle, high in (self.of_images, self.of_places)
        )
        middle, high = self.of_images
        return Scored(*maps, (found.score - middle) / (high - middle))


def combinations(with_masks: Scored, without: Scored) -> dict[str, tuple[np.ndarray, float]]:
    """Return the map and the score of an image by each method.

    Combinations of the scores of images have no map of their own: theirs is empty.
    """
    found = {MASKS: (with_masks.map, with_masks.score), NO_MASKS: (without.map, without.score)}
    for name, rule in RULES.items():
        for scale, field in ((BY_PLACES, "by_places"), (BY_IMAGES, "map")):
            combined = rule(getattr(with_masks, field), getattr(without, field))
            found[f"{name} {scale}"] = combined, image_score(combined)
        score = float(rule(with_masks.score, without.score))
        found[f"{name} of image scores"] = np.zeros((0, 0)), score
    return found


@dataclass(frozen=True, eq=False)
class Bench:
    """A surface, how it is split, a scorer, and what the checkpoints of its runs depend on."""

    surface: Surface
    scorer: PatchDefectScorer
    settings: dict[str, Any]
    folder: Path
    n_train: int = 40
    n_masked: int = 20
    n_test: int = 40

    def run(self, left_out: str, seed: int) -> dict[str, Any]:
        """Return the scores of all methods, from their checkpoint if there is one."""
        split = self._split(left_out, seed)
        own = {"left_out": left_out, "seed": seed}
        own |= {name: rows.tolist() for name, rows in split._asdict().items()}
        path = self.folder / f"unseen-{self.surface.name}-{seed}.json"
        run = load_or_run(path, self.settings | own, lambda: self._scores(split, seed))
        return run | {
            "kinds": self.surface.kinds[split.test],
            "specimens": self.surface.specimens[split.test],
        }

    def _split(self, left_out: str, seed: int) -> UnseenSplit:
        sizes = (self.n_train, self.n_masked, self.n_test)
        return split_without(self.surface, left_out, *sizes, seed)

    def _scores(self, split: UnseenSplit, seed: int) -> dict[str, Any]:
        """Return the scores of the test images by each method, and ``pixel_auroc`` by kind."""
        without_masks = self._without_masks(seed)
        fitted = self._fitted(split.free, split.masked, seed)
        scores = {method: np.full(len(split.test), np.nan) for method in METHODS}

        def score_kind(kind: str, tallies: dict[str, PixelTally]) -> dict[str, PixelTally]:
            for at in np.flatnonzero(self.surface.kinds[split.test] == kind):
                i = int(split.test[at])
                with_masks = fitted.score(self.surface.images[i])
                found = combinations(with_masks, without_masks[i])
                for method, (score_map, score) in found.items():
                    scores[method][at] = score
                    if method in MAPS:
                        tallies[method].add(score_map, self.surface.masks[i])
            return tallies

        defect_free = score_kind(FREE, {method: PixelTally() for method in MAPS})
        pixels: dict[str, dict[str, float]] = {method: {} for method in MAPS}
        for kind in self.surface.kinds_of_defects():
            for method, tally in score_kind(kind, copy.deepcopy(defect_free)).items():
                pixels[method][kind] = tally.auroc()
        return scores | {"pixel_auroc": pixels}

    def _fitted(self, free: np.ndarray, masked: np.ndarray, seed: int) -> StandardScorer:
        scorer = clone(self.scorer).set_params(random_state=seed)
        return StandardScorer.fit(scorer, self.surface, free, masked)

    @functools.lru_cache(maxsize=1)  # noqa: B019 (one bench per surface)
    def _without_masks(self, seed: int) -> dict[int, Scored]:
        """Return the scores of all images but those it learns from, by the scorer without masks."""
        free = self._split("", seed).free  # the same whatever is left out
        nothing = np.array([], dtype=int)
        fitted = self._fitted(free, nothing, seed)
        others = np.flatnonzero(~np.isin(self.surface.sources, free))
        return {i: fitted.score(self.surface.images[i]) for i in others.tolist()}


def rows_of(surface: Surface, runs: Runs) -> list[dict[str, Any]]:
    """Return the scores of each method by kind, one for each seed, unseen and seen.

    The seen ones are means over the runs in which another kind was left out.
    """
    splits = {
        left_out: [SplitScores(run["kinds"], run["specimens"], run) for run in own]
        for left_out, own in runs.items()
    }
    resamplings = {
        left_out: Resampling(surface.kinds, surface.specimens, own)
        for left_out, own in splits.items()
    }
    rows = []
    for method in METHODS:
        row: dict[str, Any] = {"method": method}
        aurocs = {
            left_out: [
                {kind: image_auroc(run[method], run["kinds"], kind) for kind in runs} for run in own
            ]
            for left_out, own in runs.items()
        }
        row["image_auroc"] = _unseen_and_seen(aurocs)
        if method in MAPS:
            pixels = {k: [run["pixel_auroc"][method] for run in own] for k, own in runs.items()}
            row["pixel_auroc"] = _unseen_and_seen(pixels)
        row["differences"] = {
            rival: differences_of_unseen_kinds(splits, method, rival, resamplings)
            for rival in (MASKS, NO_MASKS)
            if rival != method
        }
        rows.append(row)
    return rows


def _unseen_and_seen(
    scores: Mapping[str, Sequence[Mapping[str, float]]],
) -> dict[str, dict[str, list[float]]]:
    """Sort scores, by the kind left out, seed and kind, into unseen and seen ones by kind."""
    unseen = {kind: [each[kind] for each in own] for kind, own in scores.items()}
    seen = {
        kind: [
            float(np.mean([each[kind] for each in of_seed]))
            for of_seed in zip(*(own for k, own in scores.items() if k != kind), strict=True)
        ]
        for kind in scores
    }
    return {"unseen": unseen, "seen": seen}


def measure(bench: Bench, n_splits: int) -> dict[str, Any]:
    """Return the facts of a surface."""
    kinds = bench.surface.kinds_of_defects()
    runs: Runs = {kind: [] for kind in kinds}
    for seed in range(n_splits):
        for kind in kinds:
            run = bench.run(kind, seed)
            runs[kind].append(run)
            found = {m: image_auroc(run[m], run["kinds"], kind) for m in METHODS}
            text = ", ".join(f"{method} {score:.3f}" for method, score in found.items())
            print(f"{bench.surface.name}, {kind} left out: {text}", flush=True)
    sizes = {"n_train": bench.n_train, "n_masked": bench.n_masked, "n_test": bench.n_test}
    return sizes | {"n_splits": n_splits, "rows": rows_of(bench.surface, runs)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of images and masks")
    parser.add_argument("--good", default=FREE, help="class of the defect-free images")
    parser.add_argument("--train", type=int, default=40, help="defect-free images to learn from")
    parser.add_argument("--masks", type=int, default=20, help="of each kind, to learn from")
    parser.add_argument("--test", type=int, default=40, help="defect-free images to test")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--made", action="store_true", help="also with made defects as kinds")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="pretrained", help="as in HypercolumnVLAD")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "defects")
    parser.add_argument("--out", type=Path, default=RESULTS / "defects")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    code = origin(arguments.threads, "defects/unseen_kinds")
    plain = read_surface(arguments.data, arguments.good)
    surfaces = {"own": plain}
    if arguments.made:
        surfaces["own and made"] = plain.with_made_defects(MADE)
    sizes = (arguments.train, arguments.masks, arguments.test)
    network = {"backbone": arguments.backbone, "weights": arguments.weights}
    scorer = PatchDefectScorer(default_patch_encoder(**network))
    measured = {}
    for name, surface in surfaces.items():
        specimens = surface.specimens.tolist()
        settings = {"digest": surface.digest, "specimens": specimens} | network | code
        bench = Bench(surface, scorer, settings, arguments.checkpoints, *sizes)
        measured[name] = measure(bench, arguments.splits)
    result = {"surface": plain.name, "measured_kinds": measured, "origin": code}
    save_result(arguments.out / f"unseen_{plain.name.replace(' ', '_')}.json", result)
    print(unseen_section([result]))


if __name__ == "__main__":
    main()
