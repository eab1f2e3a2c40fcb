"""What does the aligned fraction cost, compared with scikit-image's structure tensor?

    python -m benchmarks.alignment.speed

One synthetic image of nanowires, 2048 x 1536 pixels; the methods take turns in every round. The
learned one runs in torch alone and, "fast", with OpenVINO if it is installed.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from skimage.feature import structure_tensor, structure_tensor_eigenvalues

from benchmarks.alignment.methods import LEARNED, SIGMA, Learned, all_methods
from benchmarks.alignment.tables import TITLES, speed_table
from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.sources import origin
from hypervlad import AlignmentClassifier
from hypervlad.datasets import make_nanowire_images
from hypervlad.fibres import aligned_fraction, local_orientation

CODE = ("alignment/speed", "alignment/methods", "alignment/published")
TILE, TILES = (384, 512), (4, 4)
WINDOW = 32
BASELINE = "scikit-image's structure_tensor"


def large_image() -> np.ndarray:
    """Return one small image repeated: as much to compute as a large one, made much faster."""
    (tile,), _ = make_nanowire_images(1, density=0.5, size=TILE, random_state=1)
    return np.tile(tile, TILES)


def timed(image: np.ndarray, names: Sequence[str], n_training: int) -> dict[str, Callable[[], Any]]:
    """Return the timed functions by name."""
    methods = {name: method for name, method in all_methods(n_training).items() if name in names}
    fractions = {TITLES[name]: partial(method, image, WINDOW) for name, method in methods.items()}
    if isinstance(learned := methods.get(LEARNED), Learned):
        fractions |= by_runtime(learned.model(WINDOW), image)
    runs: dict[str, Callable[[], Any]] = {
        BASELINE: partial(structure_tensor, image, sigma=SIGMA),
        "the same, and its eigenvalues": lambda: structure_tensor_eigenvalues(
            structure_tensor(image, sigma=SIGMA)
        ),
        "local_orientation, structure tensor": partial(local_orientation, image, SIGMA),
        "local_orientation, lgo": partial(local_orientation, image, SIGMA, method="lgo"),
    }
    return runs | {f"aligned fraction, {title}": run for title, run in fractions.items()}


def by_runtime(model: AlignmentClassifier, image: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return the learned method in torch and, if it is installed, OpenVINO."""
    runtimes = {TITLES[LEARNED]: "torch"}
    if find_spec("openvino"):
        runtimes[f"{TITLES[LEARNED]}, fast"] = "openvino"
    runs: dict[str, Callable[[], Any]] = {}
    for title, runtime in runtimes.items():
        own = copy.deepcopy(model)
        own.encoder_.set_params(runtime=runtime)
        runs[title] = partial(aligned_fraction, image, own, window=WINDOW)
    return runs


def measure(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return seconds by name, one value per round, after a warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(round(time.perf_counter() - began, 5))
    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = list(all_methods(0))
    parser.add_argument("--methods", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--training", type=int, default=12, help="number of training images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "alignment" / "speed.json")
    arguments = parser.parse_args(argv)
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    image = large_image()
    seconds = measure(timed(image, arguments.methods, arguments.training), arguments.rounds)
    result = {"size": list(image.shape), "baseline": BASELINE, "seconds": seconds}
    result |= {"window": WINDOW, "origin": origin(arguments.threads, *CODE)}
    print(speed_table(result))
    save_result(arguments.out, result)


if __name__ == "__main__":
    main()
