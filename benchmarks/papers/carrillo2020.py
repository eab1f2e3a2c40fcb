"""What does the network of the 2020 report give? On patches, and on whole images with masks.

    python -m benchmarks.papers.carrillo2020

On synthetic SEM images of nanofibre mats, with as many 29 px patches as in the report. *Leaking*,
as in the report: overlapping patches are distributed one by one over training, validation and test,
and count as normal even with a few defective pixels. *Honest*: split by image, without mixed
patches. Then whole images, tile by tile: training images and new ones; divided by 255 and, as in
the report, not divided.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.common.tables import mean_and_deviation
from benchmarks.defects.scores import best_patch_f1
from hypervlad import PatchDefectScorer, default_patch_encoder, make_nanofibre_images
from hypervlad.metrics import PatchConfusion, patch_confusion
from hypervlad.presets import carrillo2020
from hypervlad.windows import ANOMALOUS, NORMAL, PatchSet, cut_patches

CODE = ("papers/carrillo2020", "defects/scores")
PATCH, STRIDE = 29, 14
N_TRAIN = {ANOMALOUS: 4807, NORMAL: 5307}
N_FEW = 9  # per class, for validation and test as in the report
N_MANY = 500  # per class, for a second test: nine patches say little
N_GOOD = 40  # mats without defects, for the scorer that is trained on these alone
SHARES = (0.6, 0.2, 0.2)  # of the images: training, validation, test


@dataclass(frozen=True)
class Mats:
    """Images and masks for patches, new images and masks, and defect-free images."""

    images: list[np.ndarray]
    masks: list[np.ndarray]
    new_images: list[np.ndarray]
    new_masks: list[np.ndarray]
    good_images: list[np.ndarray]


def make_mats(n: int, n_new: int, size: tuple[int, int], seed: int) -> Mats:
    images, masks = make_nanofibre_images(
        n + n_new, defective=0.7, size=size, random_state=100 + seed
    )
    good, _ = make_nanofibre_images(N_GOOD, defective=0, size=size, random_state=200 + seed)
    return Mats(images[:n], masks[:n], images[n:], masks[n:], good)


def split_images(mats: Mats, seed: int) -> list[np.ndarray]:
    """Split images by index into training, validation and test."""
    order = np.random.default_rng(seed).permutation(len(mats.images))
    return np.split(order, np.round(np.cumsum(SHARES[:-1]) * len(order)).astype(int))


def cut(mats: Mats, images: np.ndarray, mixed: str) -> PatchSet:
    patches = cut_patches(mats.images, mats.masks, patch=PATCH, stride=STRIDE, mixed=mixed)
    return patches.take(np.isin(patches.image_index, images))


def sample_patches(
    patches: PatchSet, counts: dict[str, dict[str, int]], rng: np.random.Generator
) -> dict[str, PatchSet]:
    """Sample patches of each class for each part, none twice."""
    rows: dict[str, list[np.ndarray]] = {part: [] for part in counts}
    for kind in N_TRAIN:
        left = rng.permutation(np.flatnonzero(patches.labels == kind))
        wanted = sum(each[kind] for each in counts.values())
        if len(left) < wanted:
            sys.exit(f"{len(left)} {kind} patches, but {wanted} are needed: give more images")
        for part, each in counts.items():
            rows[part].append(left[: each[kind]])
            left = left[each[kind] :]
    return {part: patches.take(np.concatenate(chosen)) for part, chosen in rows.items()}


def leaking_parts(mats: Mats, seed: int) -> dict[str, PatchSet]:
    """Return patches distributed one by one, as in the report, from the training images."""
    patches = cut(mats, split_images(mats, seed)[0], "keep")
    few, many = (dict.fromkeys(N_TRAIN, n) for n in (N_FEW, N_MANY))
    counts = {"train": N_TRAIN, "validation": few, "few": few, "many": many}
    return sample_patches(patches, counts, np.random.default_rng(seed))


def honest_parts(mats: Mats, seed: int) -> dict[str, PatchSet]:
    """Return patches split by image, without mixed ones."""
    few, many = (dict.fromkeys(N_TRAIN, n) for n in (N_FEW, N_MANY))
    wanted = ({"train": N_TRAIN}, {"validation": few}, {"few": few, "many": many})
    rng, parts = np.random.default_rng(seed), dict[str, PatchSet]()
    for images, counts in zip(split_images(mats, seed), wanted, strict=True):
        parts |= sample_patches(cut(mats, images, "drop"), counts, rng)
    return parts


def measure_cnn(
    mats: Mats,
    parts: dict[str, PatchSet],
    elsewhere: PatchSet,
    learnt: np.ndarray,
    seed: int,
    max_epochs: int,
) -> Any:
    """Train the network of the report and test it on patches and on whole images."""
    train, stop = parts["train"], parts["validation"]
    model = carrillo2020(random_state=seed, max_epochs=max_epochs)
    began = time.perf_counter()
    model.fit(train.pixels, train.labels, validation=(stop.pixels, stop.labels))
    found: dict[str, Any] = {"fit_seconds": time.perf_counter() - began}
    found["epochs"] = len(model.curves_.loss)
    found["n_train"] = {kind: int((train.labels == kind).sum()) for kind in N_TRAIN}
    tested = {"few": parts["few"], "many": parts["many"], "elsewhere": elsewhere}
    found["n_tested"] = {name: len(patches) for name, patches in tested.items()}
    for name, patches in tested.items():
        found[name] = float(model.score(patches.pixels, patches.labels))
    found["learnt"] = confusion(
        model.predict_map, [mats.images[i] for i in learnt], [mats.masks[i] for i in learnt]
    )
    found["new"] = confusion(model.predict_map, mats.new_images, mats.new_masks)
    maps = [model.score_map(image) for image in mats.new_images]
    found["best_f1"] = best_patch_f1(maps, mats.new_masks)
    model.set_params(rescale_maps=False)
    found["undivided"] = confusion(model.predict_map, mats.new_images, mats.new_masks)
    return found


def measure_ours(mats: Mats, learnt: np.ndarray, weights: str, seed: int, with_masks: bool) -> Any:
    """Fit `PatchDefectScorer` on the images of the patches, or on defect-free images alone."""
    images, masks = mats.good_images, None
    if with_masks:
        images, masks = [mats.images[i] for i in learnt], [mats.masks[i] for i in learnt]
    scorer = PatchDefectScorer(
        default_patch_encoder(weights=weights),
        patch=PATCH,
        threshold="f1" if with_masks else "patch_fpr",
        fpr=0.01,
        random_state=seed,
    )
    began = time.perf_counter()
    scorer.fit(images, masks=masks)
    found: dict[str, Any] = {"fit_seconds": time.perf_counter() - began}
    found["n_images"] = len(images)
    if masks is not None:
        found["learnt"] = confusion(scorer.predict_map, images, masks)
    found["new"] = confusion(scorer.predict_map, mats.new_images, mats.new_masks)
    maps = [scorer.score_map(image) for image in mats.new_images]
    found["best_f1"] = best_patch_f1(maps, mats.new_masks)
    return found


def confusion(predict_map: Any, images: list[np.ndarray], masks: list[np.ndarray]) -> Any:
    """Return precision, recall and F1 of the patches of all images; None where undefined."""
    pairs = zip(images, masks, strict=True)
    total = PatchConfusion.total(patch_confusion(predict_map(i), m, PATCH) for i, m in pairs)
    scores = {"precision": total.precision, "recall": total.recall, "f1": total.f1}
    return {name: None if np.isnan(value) else value for name, value in scores.items()}


def result_table(result: dict[str, Any]) -> str:
    """Return patch accuracy and whole-image scores of each system."""
    height, width = result["size"]
    n_repeats = len(next(iter(result["runs"].values())))
    lines = [
        f"{result['images']} images of {width} x {height} pixels to cut patches from, "
        f"{result['new']} new ones; {n_repeats} repeat{'s' * (n_repeats != 1)}",
        "",
        "| system | trained on | 18 patches | 1,000 patches | 1,000 of other images "
        "| training images: F1 | new images: precision | recall | F1 | best F1 "
        "| not divided by 255: F1 |",
        f"|{'---|' * 11}",
    ]
    for name, runs in result["runs"].items():
        cells = [name, _learnt(runs[0])]
        cells += [mean_and_deviation(_present(runs, kind)) for kind in ("few", "many", "elsewhere")]
        cells.append(mean_and_deviation(_present(runs, "learnt", "f1")))
        cells += [
            mean_and_deviation(_present(runs, "new", kind))
            for kind in ("precision", "recall", "f1")
        ]
        cells.append(mean_and_deviation(_present(runs, "best_f1")))
        cells.append(mean_and_deviation(_present(runs, "undivided", "f1")))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _learnt(run: dict[str, Any]) -> str:
    if "n_train" not in run:
        return f"{run['n_images']} whole images"
    return " + ".join(f"{n:,} {kind}" for kind, n in run["n_train"].items())


def _present(runs: Sequence[dict[str, Any]], *keys: str) -> list[float] | None:
    """Return a figure of each run; None unless all have it."""
    values: list[Any] = []
    for run in runs:
        for key in keys:
            run = run.get(key) or {} if key != keys[-1] else run.get(key)
        values.append(run)
    return None if any(value is None for value in values) else values


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=int, default=60, help="number of images from which patches are cut"
    )
    parser.add_argument("--new", type=int, default=20, help="number of new images")
    parser.add_argument("--size", type=int, nargs=2, default=(696, 1024))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--max-epochs", type=int, default=200)
    parser.add_argument("--weights", default="imagenet", help="weights of our network")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "carrillo2020")
    parser.add_argument("--out", type=Path, default=RESULTS / "papers" / "carrillo2020.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    code_origin = origin(arguments.threads, *CODE)
    size = (arguments.size[0], arguments.size[1])
    runs: dict[str, list[Any]] = {}
    for seed in range(arguments.repeats):
        mats = make_mats(arguments.images, arguments.new, size, seed)
        digest = hashlib.sha256(np.concatenate([np.ravel(i) for i in mats.images])).hexdigest()
        learnt, honest = split_images(mats, seed)[0], honest_parts(mats, seed)
        elsewhere, n_epochs = honest["many"], arguments.max_epochs
        given = (elsewhere, learnt, seed, n_epochs)
        ours = (learnt, arguments.weights, seed)
        systems = {
            "CNN, leaking": lambda m=mats, g=given, s=seed: measure_cnn(m, leaking_parts(m, s), *g),
            "CNN, honest": lambda m=mats, p=honest, g=given: measure_cnn(m, p, *g),
            "hypervlad, masks": lambda m=mats, o=ours: measure_ours(m, *o, with_masks=True),
            "hypervlad, good images": lambda m=mats, o=ours: measure_ours(m, *o, with_masks=False),
        }
        for name, measure in systems.items():
            settings = {
                "name": name,
                "seed": seed,
                "size": list(size),
                "weights": arguments.weights,
                "digest": digest,
            }
            settings |= {"images": arguments.images, "new": arguments.new}
            settings |= {"max_epochs": arguments.max_epochs} | code_origin
            found = load_or_run(arguments.checkpoints / f"{seed}.json", settings, measure)
            runs.setdefault(name, []).append(found)
            print(f"{seed}: {name}: {found}", flush=True)
    result = {"images": arguments.images, "new": arguments.new, "size": list(size)}
    result |= {"runs": runs, "origin": code_origin}
    save_result(arguments.out, result)


if __name__ == "__main__":
    main()
