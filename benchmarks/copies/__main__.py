"""Are near copies found, and nothing else?

Every second image of a set gets a copy: cropped, shifted, recompressed, mirrored, turned, and so
on. The folder is then checked as a user would, with `check_image_folder`.

    python -m benchmarks.copies --data ../shared/data
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.data import save_grey
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table, with_interval
from benchmarks.copies.changes import CHANGES
from benchmarks.uncertainty.novelty import lattice
from hypervlad import check_image_folder, load_image_folder, read_image
from hypervlad.data import make_fibre_images, make_tem_images
from hypervlad.evaluation import wilson_interval

SEED = 4200
MIN_SIDE = 64  # pixels of an image that is copied
SYNTHETIC = {
    "lattices": lambda: lattices(96),
    "tubes in TEM": lambda: make_tem_images(80, size=200, random_state=SEED)[0],
    "fibre mats": lambda: make_fibre_images(40, cover=0.9, size=256, random_state=SEED)[0],
}
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


def lattices(n: int) -> list[np.ndarray]:
    """Return images of lattices that are alike, but for their noise."""
    rng = np.random.default_rng(SEED)
    return [lattice(rng) for _ in range(n)]


def with_copies(images: list[np.ndarray], origins: list[str], seed: int) -> Folder:
    """Plant a copy of every second image, each change as often as any other."""
    rng = np.random.default_rng(seed)
    folder = Folder({}, {}, {})
    changes = itertools.cycle(CHANGES)
    for i, (image, source) in enumerate(zip(images, origins, strict=True)):
        name = f"{i:04d}.png"
        if i % 2 == 0 and min(image.shape) >= MIN_SIDE:
            change = next(changes)
            copied = f"{i:04d}_copy.png"
            image, folder.images[copied] = CHANGES[change](image, rng)
            folder.origin[copied] = source
            folder.planted[name, copied] = change
        folder.images[name], folder.origin[name] = image, source
    return folder


def real_images(data: Path, name: str) -> tuple[list[np.ndarray], list[str]]:
    """Read a set in grey, with the paper, sample or class of each image."""
    table = data / name / "groups.csv"
    found = load_image_folder(data / name, groups=table if table.exists() else None)
    origins = found.target if found.groups is None else found.groups
    images = [np.atleast_3d(read_image(path)).mean(axis=2) for path in found.images]
    return images, list(map(str, origins))


def measure(folder: Folder) -> dict[str, Any]:
    """Check a folder, and count which pairs of files came into one set."""
    with tempfile.TemporaryDirectory() as root:
        for name, image in folder.images.items():
            save_grey(Path(root, name), image)
        report = check_image_folder(root)
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
    }


def found_table(result: Facts) -> str:
    """Return recall and precision of each set with Wilson's intervals."""
    rows = []
    for name, found in result["sets"].items():
        hits, planted = sum(found["found"].values()), sum(found["planted"].values())
        correct = hits + found["other"]
        rows.append(
            [
                name,
                f"{found['n_images']}",
                f"{hits} of {planted}",
                share_of(hits, planted),
                f"{found['wrong']:,}",
                share_of(correct, correct + found["wrong"]),
                f"{found['other']}",
                f"{found['largest_set']}",
            ]
        )
    heads = ["set", "images", "copies found", "recall", "wrong pairs", "precision"]
    return table([*heads, "other pairs", "largest set"], rows)


def share_of(n: int, total: int) -> str:
    """Return a share with its 95 % interval, or a dash if there is nothing to share.

    Examples
    --------
    >>> share_of(46, 48), share_of(0, 0)
    ('0.958 [0.860, 0.988]', '–')
    """
    return with_interval(n / total, wilson_interval(n / total, total)) if total else "–"


def changes_table(result: Facts) -> str:
    """Return the recall of each change over all sets with its interval."""
    sets = list(result["sets"].values())
    rows = []
    for change in sets[0]["found"]:
        hits = sum(found["found"][change] for found in sets)
        planted = sum(found["planted"].get(change, 0) for found in sets)
        rows.append([change, f"{hits} of {planted}: {share_of(hits, planted)}"])
    return table(["change", "found"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "copies")
    parser.add_argument("--data", type=Path, help="folder of the real sets")
    options = parse(parser, argv)
    sets = {}
    for name in (*SYNTHETIC, *(REAL if options.data else ())):
        if name in SYNTHETIC:
            images = SYNTHETIC[name]()
            origins = [f"{i}" for i in range(len(images))]
        else:
            images, origins = real_images(options.data, name)
        sets[name] = measure(with_copies(images, origins, SEED))
        print(name, sets[name], flush=True)
    result: Facts = {"sets": sets, "origin": origin()}
    save_result(options.out / "found.json", result)
    print(found_table(result), changes_table(result), sep="\n\n")


if __name__ == "__main__":
    main()
