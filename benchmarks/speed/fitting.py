"""How long does a classifier take to learn, and how does that grow with the number of images?

Fits of the default classifier to synthetic images of four classes, read from files, each in a fresh
process, whose peak of memory is measured too. Making 20,000 images takes longer than to learn from
them: ``--images`` keeps them.

    python -m benchmarks.speed.fitting --images FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.results import BENCHMARKS, RESULTS, save_result
from benchmarks.common.sources import machine, peak_memory_mb, versions
from benchmarks.speed.first_minutes import write_folder
from benchmarks.speed.tables import fitting_table

# Those of the paper, too: 3,200 in the authors' released code, 4,259 in the text.
SIZES = (1000, 2000, 3200, 4259, 8000, 20_000)
N_THREADS = 2


def fit(folder: Path, n_images: int) -> dict[str, Any]:
    """Fit to the first images of a folder; return the seconds, also by stage."""
    import torch

    from hypervlad import MicrographClassifier

    torch.set_num_threads(N_THREADS)
    # By number, so that each class has its share of the images.
    files = sorted(folder.glob("*/*.png"), key=lambda path: int(path.stem))[:n_images]
    model = MicrographClassifier(random_state=0)
    start = time.perf_counter()
    model.fit(files, [path.parent.name for path in files])
    return {
        "n": n_images,
        "seconds": time.perf_counter() - start,
        "stages": model.fit_seconds_,
        "peak_mb": peak_memory_mb(),
    }


def fit_in_process(*arguments: object) -> dict[str, Any]:
    """Do the same in a fresh process."""
    code = "import json, sys; from pathlib import Path; from benchmarks.speed.fitting import fit; "
    code += "print(json.dumps(fit(Path(sys.argv[1]), int(sys.argv[2]))))"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=BENCHMARKS.parent, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--images", type=Path, help="folder that keeps the images")
    parser.add_argument("--image-size", type=int, default=224, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed" / "fitting.json")
    arguments = parser.parse_args(argv)
    n_images = max(arguments.sizes)
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.images or Path(name)
        if len(list(folder.glob("*/*.png"))) < n_images:
            write_folder(folder, n_images, arguments.image_size)
        facts: dict[str, Any] = {"rows": [], "versions": versions()}
        facts["machine"] = machine(os.cpu_count() or 1)
        for n in arguments.sizes:
            facts["rows"].append(fit_in_process(folder, n))
            save_result(arguments.out, facts)  # a long run that is stopped keeps what it measured
    print(fitting_table(facts))


if __name__ == "__main__":
    main()
