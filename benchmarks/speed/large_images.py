"""How much memory and time does one large image take?

One square synthetic micrograph as an 8-bit PNG is classified, scored for defects, and measured for
alignment, each by a command in a process of its own.

    python -m benchmarks.speed.large_images
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import hypervlad
from benchmarks.common.data import save_grey, write_tem_folder
from benchmarks.common.program import maxrss_mb, new_parser, parse
from benchmarks.common.results import BENCHMARKS, RESULTS, origin, save_result
from benchmarks.speed.tables import large_images_table

SIZES = (512, 2048, 4096, 8192)
TRAINING = (
    ["train", "images", "-o", "model.hvlad"],
    ["defects", "fit", "mats", "-o", "mat.hvlad"],
)
COMMANDS = {
    "classify": ["predict", "model.hvlad", "image.png", "-o", "predictions.csv"],
    "defect map": ["defects", "score", "mat.hvlad", "image.png", "-o", "found"],
    "alignment": ["align", "image.png", "-o", "aligned"],
}


def write_training_images(folder: Path) -> None:
    """Write the images that the classifier and the defect scorer are trained on: few and small."""
    write_tem_folder(folder / "images", 24)
    mats, _ = hypervlad.make_fibre_images(20, cover=0.8, size=224, random_state=0)
    for number, mat in enumerate(mats):
        save_grey(folder / "mats" / f"{number:02d}.png", mat)


def write_image(path: Path, size: int) -> None:
    """Write one fibre mat, repeated until it fills a square of so many pixels."""
    ((mat,), _) = hypervlad.make_fibre_images(1, cover=0.8, size=512, random_state=1)
    save_grey(path, np.tile(mat, (-(-size // 512),) * 2)[:size, :size])


def run_measured(arguments: list[str], folder: Path) -> dict[str, float]:
    """Run a command, and return its peak of memory in MB and the seconds of all its threads."""
    command = [sys.executable, "-W", "ignore", "-m", "hypervlad", *arguments, "--quiet"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)}: exit code {process.returncode}")
    return {"peak_mb": maxrss_mb(used.ru_maxrss), "processor": used.ru_utime + used.ru_stime}


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "speed" / "large_images.json")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parse(parser, argv)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_training_images(folder)
        # A process begins with the peak of the one that starts it, so this one trains nothing.
        for arguments in TRAINING:
            run_measured(arguments, folder)
        for size in options.sizes:
            write_image(folder / "image.png", size)
            for what, arguments in COMMANDS.items():
                rows.append({"what": what, "size": size, **run_measured(arguments, folder)})
    facts = {"rows": rows, **origin()}
    save_result(options.out, facts)
    print(large_images_table(facts))


if __name__ == "__main__":
    main()
