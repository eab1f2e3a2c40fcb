"""How long do the first commands take, and how much memory does one large image take?

Each command runs in a process of its own. First, in turns: training on 18 synthetic images,
describing, loading and using the model, beside the time that the libraries alone take to import.
The time of the processor is measured too: other programs change it less. Then one square synthetic
micrograph, as an 8-bit PNG, is classified, scored for defects, measured for alignment, and searched
for particles, with a model and without.

    python -m benchmarks.speed.commands
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

import hypervlad
from benchmarks.common.data import save_grey, write_tem_folder
from benchmarks.common.program import in_turns, new_parser, parse, run_python
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.speed.tables import REFERENCE, first_minutes_table, large_images_table
from hypervlad.data import make_particle_fields
from hypervlad.particles import write_outlines

N_IMAGES, SIDE = 18, 256  # of the first commands
SIZES = (512, 2048, 4096, 8192)
_TILE = 512  # of which large images consist
HYPERVLAD = ["-m", "hypervlad"]
TRAINING = (  # of the models for a large image
    ["train", "images", "-o", "model.hvlad"],
    ["defects", "fit", "mats", "-o", "mat.hvlad"],
    ["particles", "train", "fields", "outlines", "-o", "particles.hvlad", "--set", "n_epochs=1"],
)
OF_A_LARGE_IMAGE = {
    "classify": ["predict", "model.hvlad", "image.png", "-o", "predictions.csv"],
    "defect map": ["defects", "score", "mat.hvlad", "image.png", "-o", "found"],
    "alignment": ["align", "image.png", "-o", "aligned"],
    "particles": ["particles", "find", "particles.png", "-o", "outlined-{}"],
    "particles, with a model": [
        *("particles", "find", "particles.hvlad", "particles.png", "-o", "by-model-{}"),
    ],
}


def first_commands(folder: Path) -> dict[str, list[str]]:
    """Return the arguments of Python by what they do; training comes before what needs a model."""
    one = str(sorted(folder.glob("images/*/*.png"))[0])
    train = ["train", "images", "-o", "model.hvlad", "--quiet"]
    return {
        REFERENCE: ["-c", "import torch, torchvision"],
        "import torch": ["-c", "import torch"],
        "import torch, sklearn": ["-c", "import torch, sklearn.base"],
        f"train on {N_IMAGES} images": [*HYPERVLAD, *train],
        "describe the model": [*HYPERVLAD, "info", "model.hvlad"],
        "load the model": ["-c", "import hypervlad; hypervlad.load('model.hvlad')"],
        "classify an image": [*HYPERVLAD, "predict", "model.hvlad", one, "--quiet"],
    }


def run(folder: Path, arguments: Sequence[str]) -> dict[str, float]:
    """Run Python in a folder, without its warnings; return what it takes."""
    return run_python(["-W", "ignore", *arguments], folder)[1]


def measure_first(folder: Path, n_rounds: int) -> Facts:
    """Return the seconds of the first commands, and those of the processor, in every round."""
    write_tem_folder(folder / "images", N_IMAGES, size=SIDE)
    named = first_commands(folder)
    found = in_turns({what: partial(run, folder, each) for what, each in named.items()}, n_rounds)
    return {
        kind: {what: [each[kind] for each in own] for what, own in found.items()}
        for kind in ("seconds", "processor")
    }


def measure_large(folder: Path, sizes: Sequence[int]) -> list[Facts]:
    """Return the processor's seconds and the peak of memory of each command and size."""
    write_tem_folder(folder / "images", 24)
    mats, _ = hypervlad.make_fibre_images(20, cover=0.8, size=224, random_state=0)
    for number, mat in enumerate(mats):
        save_grey(folder / "mats" / f"{number:02d}.png", mat)
    fields, truths = make_particle_fields(2, touching=0, size=_TILE, random_state=0)
    save_grey(folder / "fields" / "0.png", fields[0])
    (folder / "outlines").mkdir()
    write_outlines(folder / "outlines" / "0.tif", truths[0].labels)
    # A process begins with the peak of the one that starts it, so this one trains nothing.
    for arguments in TRAINING:
        run(folder, [*HYPERVLAD, *arguments, "--quiet"])
    ((mat,), _) = hypervlad.make_fibre_images(1, cover=0.8, size=_TILE, random_state=1)
    rows = []
    for size in sizes:
        for name, tile in (("image.png", mat), ("particles.png", fields[1])):
            save_grey(folder / name, np.tile(tile, (-(-size // _TILE),) * 2)[:size, :size])
        for what, arguments in OF_A_LARGE_IMAGE.items():
            own = [each.format(size) for each in arguments]
            used = run(folder, [*HYPERVLAD, *own, "--quiet"])
            rows.append({"what": what, "size": size} | used)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "speed")
    parser.add_argument("--rounds", type=int, default=7, help="of the first commands")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of the large image")
    options = parse(parser, argv)
    with tempfile.TemporaryDirectory() as name:
        first = measure_first(Path(name), options.rounds) | origin()
    save_result(options.out / "first_minutes.json", first)
    with tempfile.TemporaryDirectory() as name:
        large: Facts = {"rows": measure_large(Path(name), options.sizes), **origin()}
    save_result(options.out / "large_images.json", large)
    print(first_minutes_table(first), large_images_table(large), sep="\n\n")


if __name__ == "__main__":
    main()
