"""What does the network of the 2020 report give? On patches, and on whole images with masks.

    python -m benchmarks.papers.carrillo2020

On synthetic SEM images of nanofibre mats, with as many 29 px patches as in the report. *Leaking*,
as in the report: overlapping patches are distributed one by one, and count as normal even with a
few defective pixels. *Honest*: split by image, without mixed patches. Then whole images, divided by
255 and, as in the report, not divided.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import mean_and_deviation, table
from benchmarks.defects.scores import best_patch_f1
from hypervlad import PatchDefectScorer, default_patch_encoder, make_nanofibre_images
from hypervlad.evaluation import PatchConfusion, patch_confusion
from hypervlad.features import PatchSet, cut_patches
from hypervlad.features.patches import ANOMALOUS, NORMAL
from hypervlad.models.presets import carrillo2020

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
        threshold="f1" if with_masks else "fpr",
        n_planted=0,
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


def result_table(result: Facts) -> str:
    """Return patch accuracy and whole-image scores of each system."""
    height, width = result["size"]
    n_repeats = len(next(iter(result["runs"].values())))
    columns = {
        "18 patches": ("few",),
        "1,000 patches": ("many",),
        "1,000 of other images": ("elsewhere",),
        "training images: F1": ("learnt", "f1"),
        "new images: precision": ("new", "precision"),
        "recall": ("new", "recall"),
        "F1": ("new", "f1"),
        "best F1": ("best_f1",),
        "not divided by 255: F1": ("undivided", "f1"),
    }
    lines = [
        [
            name,
            _learnt(runs[0]),
            *(mean_and_deviation(_present(runs, *keys)) for keys in columns.values()),
        ]
        for name, runs in result["runs"].items()
    ]
    head = (
        f"{result['images']} images of {width} x {height} pixels to cut patches from, "
        f"{result['new']} new ones; {n_repeats} repeat{'s' * (n_repeats != 1)}"
    )
    return f"{head}\n\n{table(['system', 'trained on', *columns], lines)}"


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


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "papers" / "carrillo2020.json"
    parser = new_parser(__doc__, out, checkpoints="carrillo2020", threads=2)
    parser.add_argument("--images", type=int, default=60, help="to cut patches from")
    parser.add_argument("--new", type=int, default=20, help="number of new images")
    parser.add_argument("--size", type=int, nargs=2, default=(696, 1024))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--max-epochs", type=int, default=200)
    parser.add_argument("--weights", default="pretrained", help="weights of our network")
    options = parse(parser, argv)
    size = (options.size[0], options.size[1])
    runs: dict[str, list[Any]] = {}
    for seed in range(options.repeats):
        mats = make_mats(options.images, options.new, size, seed)
        digest = hashlib.sha256(np.concatenate([np.ravel(i) for i in mats.images])).hexdigest()
        learnt, honest = split_images(mats, seed)[0], honest_parts(mats, seed)
        given = (honest["many"], learnt, seed, options.max_epochs)
        ours = (mats, learnt, options.weights, seed)
        leaking = leaking_parts(mats, seed)
        systems = {
            "CNN, leaking": partial(measure_cnn, mats, leaking, *given),
            "CNN, honest": partial(measure_cnn, mats, honest, *given),
            "hypervlad, masks": partial(measure_ours, *ours, with_masks=True),
            "hypervlad, good images": partial(measure_ours, *ours, with_masks=False),
        }
        for name, measure in systems.items():
            settings = {"name": name, "seed": seed, "weights": options.weights, "digest": digest}
            settings |= {"new": options.new, "max_epochs": options.max_epochs}
            found = load_or_run(options.checkpoints / f"{seed}.json", settings, measure)
            runs.setdefault(name, []).append(found)
            print(f"{seed}: {name}: {found}", flush=True)
    result = {"images": options.images, "new": options.new, "size": list(size)}
    result |= {"runs": runs, "origin": origin()}
    save_result(options.out, result)
    print(result_table(result))


if __name__ == "__main__":
    main()
