"""How fast is a GPU, and what does it wait for?

Networks alone and whole encoders, in batches of one to 512 images; a fit of as many images as in
the paper; and maps of defects and outlines of particles, beside the CPU of the same machine. With
CUDA this takes about six minutes; with `--device cpu` it says how long the same takes without.

    python -m benchmarks.speed.gpu
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

import hypervlad
from benchmarks.common.data import save_grey
from benchmarks.common.program import in_fresh_process, in_turns, new_parser, parse, timed
from benchmarks.common.results import RESULTS, Facts, measured_now, origin, save_result
from benchmarks.common.tables import table
from benchmarks.speed.encoding import DEFAULT, Bench, fit_encoders
from benchmarks.speed.fitting import fit
from benchmarks.speed.tables import fitting_table
from hypervlad import HypercolumnSegmenter, PatchDefectScorer, default_patch_encoder
from hypervlad.features.hypercolumns import feature_maps
from hypervlad.features.network import TappedNetwork
from hypervlad.fibres import fibre_diameters

NETWORKS = ("mobilenet_v2", "vgg16", "resnet50", "densenet121", "convnext_tiny")
BATCHES = (1, 8, 32, 128, 512)
SIZE, CROPPED = 224, 320  # pixels
N_FIT = 4259  # images, as in the text of Luo, Holm and Wang 2021
LARGE = (704, 1024)  # pixels: the images of the tasks
PARTICLES = {"n_particles": (20, 40), "extent": (40, 120)}


def network_rows(
    backbone: str, batches: Sequence[int], size: int, device: str, n_rounds: int
) -> list[Facts]:
    """Time a network and the encoders on it; milliseconds per image in each round."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        fit_encoders(Path(name), backbone, size, DEFAULT, device)
        for batch in batches:
            bench = Bench(Path(name), size, batch, device)
            seconds = in_turns({k: timed(v) for k, v in calls_of(bench).items()}, n_rounds)
            ms = {k: [1000 * each / batch for each in v] for k, v in seconds.items()}
            rows.append({"backbone": backbone, "batch": batch, "ms": ms, "peak_mb": peak(bench)})
    return rows


def calls_of(bench: Bench) -> dict[str, Callable[[], object]]:
    """Return what is timed: the network, all that an encoder does, and parts of that."""
    own = bench.network
    half = TappedNetwork(copy.deepcopy(own.original).bfloat16(), own.taps, own.digest)
    there = bench.batch.tensors.to(own.device)
    maps = feature_maps(own, there)
    return {
        "network": lambda: feature_maps(bench.plain, there),
        "network, bfloat16": lambda: feature_maps(half, there.bfloat16()),
        "network, folded": lambda: feature_maps(own, there),
        "HypercolumnVLAD": partial(bench.run, "finest"),
        "every pixel": partial(bench.run, "image"),
        "classifier's encoder": partial(bench.run, "classifier"),
        "images prepared": bench.prepared,
        "copied to the device": lambda: bench.batch.tensors.to(own.device),
        "VLAD": partial(bench.vlad_part, maps, "finest"),
    }


def peak(bench: Bench) -> float | None:
    """Return the MB of the GPU that encoding a batch needs beyond what is in use."""
    if bench.network.device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    bench.run("finest")
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def write_crops(folder: Path, n: int, size: int) -> None:
    """Write turned crops of a few images: as many as are needed would take longer to draw."""
    images, labels = hypervlad.make_tem_images(48, size=size * CROPPED // SIZE, random_state=0)
    rng = np.random.default_rng(0)
    for number in range(n):
        image, name = images[number % len(images)], labels[number % len(images)]
        top, left = rng.integers(0, np.array(image.shape) - size + 1)
        crop = np.rot90(image[top : top + size, left : left + size], int(rng.integers(4)))
        save_grey(folder / str(name) / f"{number}.png", crop * rng.uniform(0.8, 1))


def task_rows(size: tuple[int, int], device: str, n_rounds: int) -> list[Facts]:
    """Time the use of the tasks on a large image, on the CPU in turns, and once their training."""
    mats, _ = hypervlad.make_fibre_images(4, cover=0.8, size=size, random_state=0)
    fields, truths = hypervlad.make_particle_fields(2, **PARTICLES, size=size, random_state=0)
    scorer = PatchDefectScorer(
        default_patch_encoder(weights="random", device=device), random_state=0
    )
    segmenter = HypercolumnSegmenter(weights="random", device=device, random_state=0)
    outlines = [truth.outlines for truth in truths]
    seconds = {
        f"defects, fit to 4, {device}": [timed(lambda: scorer.fit(mats))()],
        f"particles, fit to 2, {device}": [timed(lambda: segmenter.fit(fields, outlines))()],
    }
    calls: dict[str, Callable[[], object]] = {
        "fibre diameters, cpu": lambda: fibre_diameters(mats[0]),
    }
    for each in dict.fromkeys(["cpu", device]):
        own, outliner = copy.deepcopy(scorer), copy.deepcopy(segmenter).set_params(device=each)
        own.encoder_.set_params(device=each)
        calls[f"defects, map, {each}"] = partial(own.score_map, mats[0])
        calls[f"particles, outlines, {each}"] = partial(outliner.predict, fields[:1])
    seconds |= in_turns({name: timed(call) for name, call in calls.items()}, n_rounds)
    return [
        {"task": task, "device": on, "seconds": each}
        for (task, _, on), each in ((name.rpartition(", "), each) for name, each in seconds.items())
    ]


def networks_table(facts: Facts) -> str:
    """Return images per second, and milliseconds per image of the parts."""
    heads = ["network", "batch", "alone, images/s", "in bfloat16", "`HypercolumnVLAD()`"]
    heads += ["on every pixel", "classifier's encoder", "ms per image: preparing", "copying"]
    heads += ["network", "VLAD", "all", "memory of the GPU"]
    lines = []
    for row in facts["networks"]:
        ms = {name: median(each) for name, each in row["ms"].items()}
        rates = ("network", "network, bfloat16", "HypercolumnVLAD", "every pixel")
        parts = ("images prepared", "copied to the device", "network, folded", "VLAD")
        lines.append(
            [row["backbone"], f"{row['batch']}"]
            + [f"{1000 / ms[name]:,.0f}" for name in (*rates, "classifier's encoder")]
            + [f"{ms[name]:.2f}" for name in (*parts, "HypercolumnVLAD")]
            + ["–" if row["peak_mb"] is None else f"{row['peak_mb'] / 1000:.1f} GB"]
        )
    return table(heads, lines)


def tasks_table(facts: Facts) -> str:
    """Return the seconds of each task on each device."""
    rows, cells = facts["tasks"], dict[str, dict[str, str]]()
    for row in rows:
        cells.setdefault(row["task"], {})[row["device"]] = f"{median(row['seconds']):.2f} s"
    devices = list(dict.fromkeys(row["device"] for row in rows))
    lines = [[task, *(own.get(each, "–") for each in devices)] for task, own in cells.items()]
    return table(["", *devices], lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "speed" / "gpu.json", threads=8)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=N_FIT, help="of the fit")
    options = parse(parser, argv)
    on, n_rounds = options.device, options.rounds
    facts: Facts = {"device": on, **origin(), "networks": []}
    facts["tasks"] = task_rows(LARGE, on, max(1, n_rounds // 2))
    for backbone in options.networks:
        facts["networks"] += network_rows(backbone, options.batches, SIZE, on, n_rounds)
        save_result(options.out, facts)  # a run that is stopped keeps what it measured
    with tempfile.TemporaryDirectory() as name:
        write_crops(Path(name), options.images, SIZE)
        own = in_fresh_process(fit, name, options.images, options.threads)
        facts["fit"] = {"rows": [own | {"measured": measured_now()}]}
    save_result(options.out, facts)
    print(networks_table(facts), fitting_table(facts["fit"]), tasks_table(facts), sep="\n\n")


if __name__ == "__main__":
    main()
