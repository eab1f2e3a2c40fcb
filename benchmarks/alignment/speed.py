"""What does the aligned fraction cost, compared with scikit-image's structure tensor?

    python -m benchmarks.alignment.speed

One synthetic image of nanowires, 2048 x 1536 pixels. The learned method runs in torch alone and,
"fast", with OpenVINO if it is installed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from skimage.feature import structure_tensor, structure_tensor_eigenvalues

from benchmarks.alignment.methods import LEARNED, SIGMA, Learned, all_methods
from benchmarks.alignment.tables import TITLES, speed_table
from benchmarks.common.program import in_turns, new_parser, parse, timed
from benchmarks.common.results import RESULTS, origin, save_result
from hypervlad import AlignmentClassifier
from hypervlad.data import make_nanowire_images
from hypervlad.fibres import aligned_fraction, local_orientation

TILE, TILES = (384, 512), (4, 4)
WINDOW = 32
BASELINE = "scikit-image's structure_tensor"


def large_image() -> np.ndarray:
    """Return one small image repeated: as much to compute as a large one, made much faster."""
    (tile,), _ = make_nanowire_images(1, density=0.5, size=TILE, random_state=1)
    return np.tile(tile, TILES)


def ways(image: np.ndarray, names: Sequence[str], n_training: int) -> dict[str, Callable[[], Any]]:
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


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "alignment" / "speed.json", threads=1)
    parser.add_argument("--methods", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--training", type=int, default=12, help="number of training images")
    options = parse(parser, argv)
    image = large_image()
    functions = ways(image, options.methods, options.training)
    seconds = in_turns({name: timed(run) for name, run in functions.items()}, options.rounds)
    result = {"size": list(image.shape), "baseline": BASELINE, "seconds": seconds}
    save_result(options.out, result | {"window": WINDOW, "origin": origin()})
    print(speed_table(result))


if __name__ == "__main__":
    main()
