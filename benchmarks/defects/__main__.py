"""Are defects found? Compared with PaDiM, PatchCore and texture, by image, pixel and patch.

    python -m benchmarks.defects --data ../shared/data/magnetic_tile

Each method is trained on half of the defect-free images (with masks, also of the defective ones)
and tested on those of other specimens; repeated with other halves. A folder has
images/good-class/*, images/other-class/* and masks/other-class/*.png; without a folder, synthetic
nanofibre mats are made.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.defects.methods import all_methods
from benchmarks.defects.scores import best_patch_f1, patch_f1
from benchmarks.defects.surfaces import FREE, Surface, mixed_mats, read_surface
from hypervlad.metrics import PixelTally

CODE = ("defects/__main__", "defects/methods", "defects/rivals", "defects/scores")
N_SYNTHETIC, SHARE_DEFECTIVE = 100, 0.4


def halves(surface: Surface, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose half of the defect-free and of the defective images, and the other specimens' images.

    A specimen of which only some images are in the first half is left out of the second.
    """
    rng, train, specimens = np.random.default_rng(seed), [], surface.specimens
    for kind in (False, True):
        rows = np.flatnonzero(surface.defective == kind)
        order = rng.permutation(np.unique(specimens[rows]))
        by_specimen = np.concatenate([rows[specimens[rows] == each] for each in order])
        train.append(by_specimen[: len(rows) // 2])
    chosen = np.concatenate(train)
    return chosen, np.flatnonzero(~np.isin(specimens, specimens[chosen]))


def measure(make: Any, surface: Surface, seed: int, with_masks: bool) -> dict[str, Any]:
    """Fit a method on one half and test it on the other."""
    train, test = halves(surface, seed)
    learnt = train if with_masks else train[~surface.defective[train]]
    method = make()
    method.fit(
        [surface.images[i] for i in learnt],
        [surface.masks[i] for i in learnt] if with_masks else None,
    )
    scored = [method.score(surface.images[i]) for i in test]
    maps, masks = [each.map for each in scored], [surface.masks[i] for i in test]
    pixels = PixelTally()
    for score_map, mask in zip(maps, masks, strict=True):
        pixels.add(score_map, mask)
    found = {
        "image_auroc": roc_auc_score(surface.defective[test], [each.score for each in scored]),
        "pixel_auroc": pixels.auroc(),
        "pixel_average_precision": pixels.average_precision(),
        "pro": pixels.per_region_overlap(),
        "best_patch_f1": best_patch_f1(maps, masks),
        "network_ms": 1000 * float(np.median([each.network_seconds for each in scored])),
        "other_ms": 1000 * float(np.median([each.other_seconds for each in scored])),
        "search_ms": 1000 * float(np.median([each.search_seconds for each in scored])),
        "bytes": method.n_bytes(),
    }
    if hasattr(method, "threshold"):
        found["patch_f1"] = patch_f1(maps, masks, method.threshold)
    return {name: float(value) for name, value in found.items()}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="folder of images and masks; by default, synthetic images"
    )
    parser.add_argument("--good", default=FREE, help="class of the defect-free images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", help="titles; all by default")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "defects")
    parser.add_argument("--out", type=Path, default=RESULTS / "defects")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    given = arguments.data
    surface = (
        mixed_mats(N_SYNTHETIC, SHARE_DEFECTIVE)
        if given is None
        else read_surface(given, arguments.good)
    )
    digest = surface.digest
    code_origin = origin(arguments.threads, *CODE)
    titles = arguments.methods or list(all_methods("", "", 0))
    rows = []
    for title in titles:
        runs = []
        for seed in range(arguments.repeats):
            make = all_methods(arguments.backbone, arguments.weights, seed)[title]
            settings = {"surface": surface.name, "digest": digest, "title": title, "seed": seed}
            settings |= {"backbone": arguments.backbone, "weights": arguments.weights} | code_origin
            path = arguments.checkpoints / f"{surface.name}-{seed}.json"
            with_masks = title.endswith("masks")
            runs.append(
                load_or_run(
                    path,
                    settings,
                    lambda make=make, seed=seed, masks=with_masks: measure(
                        make, surface, seed, masks
                    ),
                )
            )
        rows.append({"method": title} | {k: [run[k] for run in runs] for k in runs[0]})
        scores = ", ".join(f"{k} {np.mean(rows[-1][k]):.3f}" for k in runs[0] if k != "reused")
        print(f"{surface.name}: {title}: {scores}", flush=True)
    result = {"surface": surface.name, "n_images": len(surface.images), "rows": rows}
    result |= {"n_defective": int(surface.defective.sum()), "origin": code_origin}
    save_result(arguments.out / f"defects_{surface.name.replace(' ', '_')}.json", result)


if __name__ == "__main__":
    main()
