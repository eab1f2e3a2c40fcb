"""How long do the first commands take?

Training on 18 synthetic images, describing, loading and using the model, each in a fresh process;
beside them, the time that the libraries alone take to import. The time of the processor is measured
too: other programs change it less.

    python -m benchmarks.speed.first_minutes
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.common.data import write_tem_folder
from benchmarks.common.program import in_turns, new_parser, parse
from benchmarks.common.results import BENCHMARKS, RESULTS, origin, save_result
from benchmarks.speed.tables import REFERENCE, first_minutes_table

N_IMAGES, SIZE = 18, 256


def commands(folder: Path, weights: str) -> dict[str, list[str]]:
    """Return the arguments of Python by what they do; training comes before what needs a model."""
    images, model = folder / "images", str(folder / "model.hvlad")
    one = str(sorted(images.glob("*/*.png"))[0])
    hypervlad_ = ["-m", "hypervlad"]
    train = [*hypervlad_, "train", str(images), "-o", model, "--quiet", "--weights", weights]
    return {
        REFERENCE: ["-c", "import torch, torchvision"],
        "import torch": ["-c", "import torch"],
        "import torch, sklearn": ["-c", "import torch, sklearn.base"],
        f"train on {N_IMAGES} images": train,
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


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "speed" / "first_minutes.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--weights", default="pretrained", help="'pretrained', 'random' or a file")
    options = parse(parser, argv)
    with tempfile.TemporaryDirectory() as name:
        write_tem_folder(Path(name) / "images", N_IMAGES, size=SIZE)
        named = commands(Path(name), options.weights)
        found = in_turns({what: partial(run, each) for what, each in named.items()}, options.rounds)
    facts = {
        "seconds": {name: [wall for wall, _ in pairs] for name, pairs in found.items()},
        "processor": {name: [spent for _, spent in pairs] for name, pairs in found.items()},
        **origin(),
    }
    save_result(options.out, facts)
    print(first_minutes_table(facts))


if __name__ == "__main__":
    main()
