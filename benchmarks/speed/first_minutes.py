"""How long do the first commands take?

Training on 18 synthetic images, describing, loading and using the model, each in a fresh process;
beside them, the time that the libraries alone take to import. All take turns, so that a noisy
machine is noisy for all. The time of the processor is measured too: other programs change it less.

    python -m benchmarks.speed.first_minutes
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import hypervlad
from benchmarks.common.results import BENCHMARKS, RESULTS, save_result
from benchmarks.common.sources import machine, versions
from benchmarks.speed.tables import REFERENCE, first_minutes_table

N_IMAGES, SIZE = 18, 256
ROUNDS = 7
_AT_ONCE = 1000  # images in memory
TRAIN = f"train on {N_IMAGES} images"

Clock = Callable[[list[str]], tuple[float, float]]


def write_folder(folder: Path, n_images: int, size: int) -> Path:
    """Write labelled synthetic images, one sub-folder per class, some at a time."""
    for first in range(0, n_images, _AT_ONCE):
        n = min(_AT_ONCE, n_images - first)
        images, labels = hypervlad.make_tem_images(n, size=size, random_state=first)
        for number, (image, label) in enumerate(zip(images, labels, strict=True), first):
            path = folder / str(label) / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)).save(path)
    return folder


def commands(folder: Path, weights: str) -> dict[str, list[str]]:
    """Return the arguments of Python by what they do; training comes before what needs a model."""
    images, model = folder / "images", str(folder / "model.hvlad")
    one = str(sorted(images.glob("*/*.png"))[0])
    hypervlad_ = ["-m", "hypervlad"]
    chosen = [] if weights == "imagenet" else ["--weights", weights]
    return {
        REFERENCE: ["-c", "import torch, torchvision"],
        "import torch": ["-c", "import torch"],
        "import torch, sklearn": ["-c", "import torch, sklearn.base"],
        TRAIN: [*hypervlad_, "train", str(images), "-o", model, "--quiet", *chosen],
        "describe the model": [*hypervlad_, "info", model],
        "load the model": ["-c", f"import hypervlad; hypervlad.load({model!r})"],
        "classify an image": [*hypervlad_, "predict", model, one, "--quiet"],
    }


def run(arguments: list[str]) -> tuple[float, float]:
    """Run Python; return the seconds that it took and those of the processor."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=BENCHMARKS.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds, after = time.perf_counter() - started, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}:\n{done.stderr}")
    spent = after.children_user + after.children_system
    return seconds, spent - before.children_user - before.children_system


def measure(named: dict[str, list[str]], n_rounds: int, clock: Clock = run) -> dict[str, Any]:
    """Return the seconds of each command in every round, and those of the processor."""
    seconds: dict[str, list[float]] = {name: [] for name in named}
    processor: dict[str, list[float]] = {name: [] for name in named}
    for turn in range(n_rounds + 1):
        for name, arguments in named.items():
            took, spent = clock(arguments)
            if turn:  # the first round reads the libraries from the disk
                seconds[name].append(took)
                processor[name].append(spent)
    return {"seconds": seconds, "processor": processor}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--images", type=int, default=N_IMAGES, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=SIZE, help=argparse.SUPPRESS)
    parser.add_argument("--weights", default="imagenet", help="'imagenet', 'random' or a file")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed" / "first_minutes.json")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder / "images", arguments.images, arguments.size)
        facts = measure(commands(folder, arguments.weights), arguments.rounds)
    facts |= {"versions": versions(), "machine": machine(os.cpu_count() or 1)}
    save_result(arguments.out, facts)
    print(first_minutes_table(facts))


if __name__ == "__main__":
    main()
