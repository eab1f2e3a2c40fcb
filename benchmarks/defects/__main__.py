"""Are defects found? Compared with PaDiM, PatchCore and a small network, by image, pixel and patch.

    python -m benchmarks.defects --data ../shared/data/magnetic_tile

Each method is trained on half of the defect-free images (with masks, also of the defective ones)
and tested on those of other specimens; repeated with other halves. A folder has
images/good-class/*, images/other-class/* and masks/other-class/*.png.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.program import add_network, new_parser, parse, timed
from benchmarks.common.results import RESULTS, origin, save_result
from benchmarks.defects.methods import Method, all_methods
from benchmarks.defects.scores import best_patch_f1, patch_f1
from benchmarks.defects.surfaces import FREE, Surface, read_surface
from benchmarks.defects.tables import defects_section
from hypervlad.evaluation import PixelTally


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


def measure(
    make: Callable[[], Method], surface: Surface, seed: int, with_masks: bool
) -> dict[str, float]:
    """Fit a method on one half and test it on the other."""
    train, test = halves(surface, seed)
    learnt = train if with_masks else train[~surface.defective[train]]
    method = make()
    method.fit(
        [surface.images[i] for i in learnt],
        [surface.masks[i] for i in learnt] if with_masks else None,
    )
    scored: list[tuple[np.ndarray, float]] = []
    seconds = [timed(lambda i=i: scored.append(method.score(surface.images[i])))() for i in test]
    maps, masks = [each for each, _ in scored], [surface.masks[i] for i in test]
    pixels = PixelTally()
    for score_map, mask in zip(maps, masks, strict=True):
        pixels.add(score_map, mask)
    found = {
        "image_auroc": roc_auc_score(surface.defective[test], [score for _, score in scored]),
        "pixel_auroc": pixels.auroc(),
        "pixel_average_precision": pixels.average_precision(),
        "pro": pixels.per_region_overlap(),
        "best_patch_f1": best_patch_f1(maps, masks),
        "ms": 1000 * np.median(seconds),
        "bytes": method.n_bytes(),
    }
    if hasattr(method, "threshold"):
        found["patch_f1"] = patch_f1(maps, masks, method.threshold)
    return {name: float(value) for name, value in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "defects", checkpoints="defects", threads=2)
    parser.add_argument("--data", type=Path, required=True, help="folder of images and masks")
    parser.add_argument("--good", default=FREE, help="class of the defect-free images")
    parser.add_argument("--repeats", type=int, default=3)
    titles = list(all_methods("", "", 0))
    parser.add_argument("--methods", nargs="+", choices=titles, default=titles, metavar="TITLE")
    add_network(parser)
    options = parse(parser, argv)
    surface = read_surface(options.data, options.good)
    network = {"backbone": options.backbone, "weights": options.weights}
    rows = []
    for title in options.methods:
        runs = []
        for seed in range(options.repeats):
            make = all_methods(**network, seed=seed)[title]
            settings = {"digest": surface.digest, "title": title, "seed": seed} | network
            path = options.checkpoints / f"{surface.name}-{seed}.json"
            run = partial(measure, make, surface, seed, title.endswith("masks"))
            runs.append(load_or_run(path, settings, run))
        rows.append({"method": title} | {k: [run[k] for run in runs] for k in runs[0]})
        print(f"{surface.name}: {title}: {np.mean(rows[-1]['image_auroc']):.3f}", flush=True)
    result = {"surface": surface.name, "n_images": len(surface.images), "rows": rows}
    result |= {"n_defective": int(surface.defective.sum()), "origin": origin()}
    save_result(options.out / f"defects_{surface.name.replace(' ', '_')}.json", result)
    print(defects_section([result]))


if __name__ == "__main__":
    main()
