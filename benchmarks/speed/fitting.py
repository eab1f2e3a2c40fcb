"""How long does a classifier take to learn, and how does that grow with the number of images?

Fits of the default classifier to synthetic images of four classes, read from files, each in a fresh
process. ``--images`` keeps the images, which take longer to make than to learn from.

    python -m benchmarks.speed.fitting --images FOLDER
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.data import write_tem_folder
from benchmarks.common.program import in_fresh_process, new_parser, parse, peak_memory_mb
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.speed.tables import fitting_table
from hypervlad import MicrographClassifier

# Those of the paper, too: 3,200 in the authors' released code, 4,259 in the text.
SIZES = (1000, 2000, 3200, 4259, 8000, 20_000)


def fit(folder: str, n_images: int, threads: int) -> dict[str, Any]:
    """Fit to the first images of a folder; return the seconds, also by stage."""
    torch.set_num_threads(threads)
    # By number, so that each class has its share of the images.
    files = sorted(Path(folder).glob("*/*.png"), key=lambda path: int(path.stem))[:n_images]
    model = MicrographClassifier(random_state=0)
    start = time.perf_counter()
    model.fit(files, [path.parent.name for path in files])
    return {
        "n": n_images,
        "seconds": time.perf_counter() - start,
        "stages": model.fit_seconds_,
        "peak_mb": peak_memory_mb(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "speed" / "fitting.json", threads=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--images", type=Path, help="folder that keeps the images")
    parser.add_argument("--image-size", type=int, default=224)
    options = parse(parser, argv)
    n, size = max(options.sizes), options.image_size
    with tempfile.TemporaryDirectory() as name:
        folder = write_tem_folder((options.images or Path(name)) / f"tem_{n}_{size}", n, size=size)
        facts: Facts = {"rows": [], **origin()}
        for n_images in options.sizes:
            facts["rows"].append(in_fresh_process(fit, folder, n_images, options.threads))
            save_result(options.out, facts)  # a long run that is stopped keeps what it measured
    print(fitting_table(facts))


if __name__ == "__main__":
    main()
