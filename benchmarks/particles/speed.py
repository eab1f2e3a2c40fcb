"""What do outlines and classes of particles cost, compared with passes of the network?

    python -m benchmarks.particles.speed

Synthetic SEM fields of 1024 x 704 pixels, and particles of them. Peaks of memory are those of
processes that read one large image.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hypervlad
from benchmarks.common.data import save_grey
from benchmarks.common.program import (
    in_fresh_process,
    in_turns,
    new_parser,
    parse,
    peak_memory_mb,
    timed,
)
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table, times
from benchmarks.speed.encoding import unfolded
from hypervlad import (
    HypercolumnSegmenter,
    MicrographClassifier,
    make_particle_fields,
    make_tem_images,
)
from hypervlad.features import get_backbone
from hypervlad.features.hypercolumns import feature_maps
from hypervlad.particles import cut_particles, find_particles

SIZE, EXTENT, N_EACH, LARGE = (704, 1024), (40, 120), (20, 40), 8192  # pixels, particles
N_PARTICLES = 100
FIELD, IMAGE = "network, the field", "network, 224 px"


def measure(n_images: int, n_rounds: int, weights: str) -> dict[str, Any]:
    """Train a segmenter and classifiers, and time them in turns with passes of the network."""
    images, truths = make_particle_fields(
        n_images, kind="sem", classes=("sphere", "rod", "cube"), n_particles=N_EACH,
        extent=EXTENT, size=SIZE, random_state=0,
    )  # fmt: skip
    segmenter = HypercolumnSegmenter(weights=weights, random_state=0)
    outlines = [truth.outlines for truth in truths]
    fit = timed(lambda: segmenter.fit(images, outlines))()
    pairs = zip(images, outlines, strict=True)
    particles = [each for pair in pairs for each in cut_particles(*pair)][:N_PARTICLES]
    classes = np.concatenate([truth.classes for truth in truths])[:N_PARTICLES]
    wholes, labels = make_tem_images(32, size=224, random_state=0)
    own, whole = (
        MicrographClassifier(
            hypervlad.default_encoder(weights=weights, particles=of_particles),
            calibrate=False,
            random_state=0,
        ).fit(given, y)
        for of_particles, given, y in ((True, particles, classes), (False, wholes, labels))
    )
    network = unfolded(whole.encoder_.network())
    preprocessing = get_backbone("mobilenet_v2").preprocessing
    batch = torch.stack([preprocessing.prepare(each, (224, 224)) for each in wholes])
    field = preprocessing.prepare(images[0], SIZE)[None]
    calls: dict[str, tuple[Callable[[], object], int]] = {
        FIELD: (lambda: feature_maps(network, field), 1),
        "HypercolumnSegmenter": (lambda: segmenter.predict(images[:1]), 1),
        "find_particles": (lambda: find_particles(images[0]), 1),
        IMAGE: (lambda: [feature_maps(network, some) for some in batch.split(8)], len(batch)),
        f"a particle of {len(particles)}": (lambda: own.predict(particles), len(particles)),
        "a whole image": (lambda: whole.predict(wholes), len(wholes)),
    }
    seconds = in_turns({name: timed(call) for name, (call, _) in calls.items()}, n_rounds)
    per_item = {name: [each / calls[name][1] for each in own] for name, own in seconds.items()}
    with tempfile.TemporaryDirectory() as folder:
        model, image = Path(folder, "model.hvlad"), Path(folder, "image.png")
        segmenter.save(model)
        repeats = [-(-LARGE // extent) for extent in SIZE]
        save_grey(image, np.tile(images[0], repeats)[:LARGE, :LARGE])
        memory = {
            name: in_fresh_process(run_large, name, str(model), str(image))
            for name in ("HypercolumnSegmenter", "find_particles")
        }
    return {"fit_seconds": fit, "n_images": n_images, "seconds": per_item, "memory": memory}


def run_large(name: str, model: str, image: str) -> dict[str, Any]:
    """Outline the particles of a large image; return the peak of memory in MB and seconds."""
    torch.set_num_threads(1)
    outline = hypervlad.load(model).predict if name == "HypercolumnSegmenter" else find_particles
    before, began = peak_memory_mb(), time.perf_counter()
    outline(image)
    return {"before": before, "peak": peak_memory_mb(), "seconds": time.perf_counter() - began}


def speed_table(result: Facts) -> str:
    """Return times relative to passes of the network, and peaks of memory."""
    seconds = result["seconds"]
    lines = [
        [name, f"{1000 * statistics.median(own):.1f} ms", times(seconds, name, base)]
        for base, of_base in ((FIELD, list(seconds)[:3]), (IMAGE, list(seconds)[3:]))
        for name, own in ((name, seconds[name]) for name in of_base)
    ]
    threads = result["origin"]["machine"]["threads"]
    head = f"{threads} thread{'s' * (threads > 1)}. Training on {result['n_images']} fields takes "
    head += f"{result['fit_seconds']:.0f} s, as long as "
    head += f"{result['fit_seconds'] / statistics.median(seconds[FIELD]):.0f} passes over a field."
    peaks = [
        [name, f"{own['peak']:,.0f} MB", f"{own['before']:,.0f} MB", f"{own['seconds']:.0f} s"]
        for name, own in result["memory"].items()
    ]
    heads = [f"{LARGE:,} px squared", "peak of memory", "before the image was read", "time"]
    passes = table(["", "time", "in passes of the network"], lines)
    return f"{head}\n\n{passes}\n\n{table(heads, peaks)}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "particles" / "speed.json", threads=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=15, help="fields to train on")
    parser.add_argument("--weights", default="pretrained")
    options = parse(parser, argv)
    result = measure(options.images, options.rounds, options.weights) | {"origin": origin()}
    save_result(options.out, result)
    print(speed_table(result))


if __name__ == "__main__":
    main()
