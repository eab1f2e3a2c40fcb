"""How much memory and time does one large image take?

One square synthetic micrograph as an 8-bit PNG is classified, scored for defects, and measured for
alignment, each by a command in a process of its own.

    python -m benchmarks.speed.large_images
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import hypervlad
from benchmarks.common.results import BENCHMARKS, RESULTS, save_result
from benchmarks.common.sources import machine, maxrss_mb, versions
from benchmarks.speed.first_minutes import write_folder
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
    write_folder(folder / "images", 24, 224)
    (folder / "mats").mkdir()
    mats, _ = hypervlad.make_nanofibre_images(20, defective=0, size=224, random_state=0)
    for number, mat in enumerate(mats):
        Image.fromarray(_grey(mat)).save(folder / "mats" / f"{number:02d}.png")


def _grey(image: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def write_image(path: Path, size: int) -> None:
    """Write one fibre mat, repeated until it fills a square of so many pixels."""
    ((mat,), _) = hypervlad.make_nanofibre_images(1, defective=0, size=512, random_state=1)
    Image.fromarray(np.tile(_grey(mat), (-(-size // 512),) * 2)[:size, :size]).save(path)


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


def measure(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each command and size."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_training_images(folder)
        # A process begins with the peak of the one that starts it, so this one trains nothing.
        for arguments in TRAINING:
            run_measured(arguments, folder)
        for size in sizes:
            write_image(folder / "image.png", size)
            for what, arguments in COMMANDS.items():
                rows.append({"what": what, "size": size, **run_measured(arguments, folder)})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed" / "large_images.json")
    arguments = parser.parse_args(argv)
    facts = {
        "versions": versions(),
        "machine": machine(os.cpu_count() or 1),
        "rows": measure(arguments.sizes),
    }
    save_result(arguments.out, facts)
    print(large_images_table(facts))


if __name__ == "__main__":
    main()
