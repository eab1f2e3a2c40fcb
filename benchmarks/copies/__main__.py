"""Are near copies found, and nothing else?

Every second image of a set gets a copy: cropped, shifted, recompressed, mirrored, turned, and so
on. The folder is then checked as a user would, with `check_image_folder`.

    python -m benchmarks.copies --data ../shared/data
    python -m benchmarks.copies --cost
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common.results import RESULTS, save_result
from benchmarks.copies.changes import CHANGES
from hypervlad import check_image_folder, load_image_folder, read_image
from hypervlad.datasets import make_lattice_images, make_nanofibre_images, make_tem_images

SEED = 4200
MIN_SIDE = 64  # pixels of an image that is copied
SYNTHETIC = {
    "24 lattices": lambda: make_lattice_images(96, images_per_sample=4, random_state=SEED)[0],
    "one lattice": lambda: make_lattice_images(56, images_per_sample=56, random_state=SEED)[0],
    "tubes in TEM": lambda: make_tem_images(80, size=200, random_state=SEED)[0],
    "fibre mats": lambda: make_nanofibre_images(40, size=256, random_state=SEED)[0],
}
COSTS = (("tubes in TEM", 500), ("lattices", 500), ("tubes in TEM", 2000))
REAL = ("neu_steel", "nanofibre", "micrographs")


@dataclass
class Folder:
    """Images with planted copies.

    Attributes
    ----------
    images : dict of str to array
        By file name.
    origin : dict of str to str
        What may share a set: the image itself, or its paper, sample or class.
    planted : dict of (str, str) to str
        Original and copy, with the name of the change.
    """

    images: dict[str, np.ndarray]
    origin: dict[str, str]
    planted: dict[tuple[str, str], str]


def with_copies(images: list[np.ndarray], origins: list[str], seed: int) -> Folder:
    """Plant a copy of every second image, each change as often as any other."""
    rng = np.random.default_rng(seed)
    folder = Folder({}, {}, {})
    changes = itertools.cycle(CHANGES)
    for i, (image, origin) in enumerate(zip(images, origins, strict=True)):
        name = f"{i:04d}.png"
        if i % 2 == 0 and min(image.shape) >= MIN_SIDE:
            change = next(changes)
            copied = f"{i:04d}_copy.png"
            image, folder.images[copied] = CHANGES[change](image, rng)
            folder.origin[copied] = origin
            folder.planted[name, copied] = change
        folder.images[name], folder.origin[name] = image, origin
    return folder


def real_images(data: Path, name: str) -> tuple[list[np.ndarray], list[str]]:
    """Read a set in grey, with the paper, sample or class of each image."""
    table = data / name / "groups.csv"
    found = load_image_folder(data / name, groups=table if table.exists() else None)
    origins = found.target if found.groups is None else found.groups
    images = [np.atleast_3d(read_image(path)).mean(axis=2) for path in found.images]
    return images, [str(origin) for origin in origins]


def measure(folder: Folder) -> dict[str, Any]:
    """Check a folder, and count which pairs of files came into one set."""
    with tempfile.TemporaryDirectory() as root:
        for name, image in folder.images.items():
            pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
            Image.fromarray(pixels).save(Path(root, name))
        started = time.process_time()
        report = check_image_folder(root)
        seconds = time.process_time() - started
    sets = [copies.files for copies in report.exact_copies + report.near_copies]
    pairs = {pair for files in sets for pair in itertools.combinations(sorted(files), 2)}
    found = {tuple(sorted(pair)): change for pair, change in folder.planted.items()}
    wrong = [(a, b) for a, b in pairs - set(found) if folder.origin.get(a) != folder.origin.get(b)]
    hits = Counter(change for pair, change in found.items() if pair in pairs)
    return {
        "n_images": len(folder.images),
        "planted": dict(Counter(folder.planted.values())),
        "found": {change: hits[change] for change in CHANGES},
        "wrong": len(wrong),
        "other": len(pairs - set(found)) - len(wrong),
        "largest_set": max(map(len, sets), default=0),
        "seconds": round(seconds, 1),
    }


def measure_cost(name: str, n_images: int) -> dict[str, Any]:
    """Time the check of images without copies."""
    if name == "lattices":
        images = make_lattice_images(n_images, size=128, random_state=SEED)[0]
    else:
        images = make_tem_images(n_images, size=128, random_state=SEED)[0]
    row = measure(Folder({f"{i:05d}.png": image for i, image in enumerate(images)}, {}, {}))
    return {"data": name, "n_images": n_images, "seconds": row["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the real sets")
    parser.add_argument("--cost", action="store_true", help="time the search instead")
    parser.add_argument("--search", default="keypoints", help="name of this state of the search")
    options = parser.parse_args()
    facts = {"search": options.search}
    if options.cost:
        rows = []
        for name, n_images in COSTS:
            rows.append(measure_cost(name, n_images))
            print(rows[-1], flush=True)
            path = RESULTS / "copies" / f"cost_{options.search}.json"
            save_result(path, facts | {"costs": rows})
        return
    sets = {}
    for name in (*SYNTHETIC, *(REAL if options.data else ())):
        if name in SYNTHETIC:
            images = SYNTHETIC[name]()
            origins = [f"{i}" for i in range(len(images))]
        else:
            images, origins = real_images(options.data, name)
        sets[name] = measure(with_copies(images, origins, SEED))
        print(name, sets[name], flush=True)
    save_result(RESULTS / "copies" / f"found_{options.search}.json", facts | {"sets": sets})


if __name__ == "__main__":
    main()
