"""What does dense VLAD cost, compared with the network itself?

On the same images: the network alone, as torchvision builds it, in a process of its own, because
importing this package changes how torch's threads wait; with its batch normalisations folded; the
whole encoding on the grid of the finest tap and on every pixel; the naive dense form, which
upsamples every channel and assigns every pixel; the recipe of Luo, Holm and Wang 2021; and the
encoder of the classifier. What this package does is measured in torch alone, and with OpenVINO.

    python -m benchmarks.speed.encoding
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

import hypervlad
from benchmarks.common.program import in_fresh_process, in_turns, new_parser, parse, timed
from benchmarks.common.results import BENCHMARKS, RESULTS, measured_now, origin, save_result
from benchmarks.speed.tables import calls_table, fast_table, memory_table, speed_table
from hypervlad import HypercolumnVLAD
from hypervlad.features import vlad
from hypervlad.features.encoding import TorchCodebook
from hypervlad.features.hypercolumns import dense_hypercolumns, feature_maps
from hypervlad.features.loading import Batch
from hypervlad.features.network import TappedNetwork

METHODS = ("network", "folded", "finest", "image", "naive", "sampled", "classifier")
FAST = "fast "  # before the names of methods that run with OpenVINO
FAST_METHODS = tuple(f"{FAST}{method}" for method in ("folded", "finest", "image", "classifier"))
CODEBOOKS: dict[str, dict[str, Any]] = {
    "joint, K 64": {},  # the default of HypercolumnVLAD; the encoder of the classifier differs
    "per layer, K 64": {"blocks": "per_layer"},
}
PAPER: dict[str, Any] = {"n_codewords": 100, "sampling": "anyloc", "grid": 5000}
DEFAULT = next(iter(CODEBOOKS))
MAX_NAIVE_BYTES = 5e9
CALLS = (1, 8, 32, 128, 256)  # images in a call


def fit_encoders(
    folder: Path, backbone: str, size: int, codebook: str, device: str = "cpu"
) -> None:
    """Fit the encoders and save them, for the processes that measure peaks."""
    images, _ = hypervlad.make_tem_images(4, size=size, random_state=0)
    common = {"weights": "random", "image_size": size, "device": device, "random_state": 0}
    common |= {"backbone": backbone, "sampling": 4000}
    encoders = {
        "ours": HypercolumnVLAD(**common, **CODEBOOKS[codebook]),
        "paper": HypercolumnVLAD(**common | PAPER),
        "classifier": hypervlad.default_encoder(**common),
    }
    for name, encoder in encoders.items():
        encoder.fit(images).save(folder / f"{name}.hvlad")


def unfolded(network: TappedNetwork) -> TappedNetwork:
    """Return a network with its batch normalisations, as torchvision builds it."""
    return TappedNetwork(network.original, network.taps, network.digest)


class PlainNetwork:
    """The network alone in a process in which torch waits as it does without this package."""

    def __init__(self, folder: Path, size: int, batch: int, threads: int) -> None:
        code = "import sys, torch; from benchmarks.speed.encoding import serve_network; "
        code += "serve_network(sys.argv[1], *map(int, sys.argv[2:]))"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder), *map(str, (size, batch, threads))],
            cwd=BENCHMARKS.parent,
            env={k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self) -> float:
        """Run the network over the batch once, and return the seconds that it took there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def __enter__(self) -> PlainNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, at which it ends


def serve_network(folder: str, size: int, batch: int, threads: int) -> None:
    """Run the network alone for each line of the input, and print the seconds."""
    torch.set_num_threads(threads)
    run = timed(partial(Bench(Path(folder), size, batch).run, "network"))
    for _ in sys.stdin:
        print(run(), flush=True)


class Bench:
    """The saved encoders, a batch of images, and the methods that are compared on them."""

    def __init__(self, folder: Path, size: int, batch: int, device: str = "cpu") -> None:
        few, _ = hypervlad.make_tem_images(min(batch, 32), size=size, random_state=0)
        self.images = [few[number % len(few)] for number in range(batch)]
        self.encoder, self.paper, self.classifier = (
            hypervlad.load(folder / f"{name}.hvlad").set_params(device=device, runtime="torch")
            for name in ("ours", "paper", "classifier")
        )
        for encoder in (self.encoder, self.paper, self.classifier):
            encoder.batch_size = batch
        self.network = self.encoder.network()
        self.plain = unfolded(self.network)
        self.batch = self.prepared()
        self.words = TorchCodebook(self.encoder.codebook_, self.network.device)

    def prepared(self) -> Batch:
        """Read and resize the images, on the CPU."""
        loader = self.encoder.loader()
        (batch,) = loader.batches(
            (i, loader.load(image, "image")) for i, image in enumerate(self.images)
        )
        return batch

    def run(self, method: str) -> None:
        """Run one method over the batch once."""
        runtime = "openvino" if method.startswith(FAST) else "torch"
        method = method.removeprefix(FAST)
        self.encoder.runtime = self.paper.runtime = self.classifier.runtime = runtime
        network = self.encoder.network()
        if method == "network":
            feature_maps(self.plain, self.batch.tensors)
        elif method == "folded":
            feature_maps(network, self.batch.tensors)
        elif method == "naive":
            self.naive(feature_maps(network, self.batch.tensors))
        elif method == "sampled":
            self.paper.transform(self.images)
        elif method == "classifier":
            self.classifier.transform(self.images)
        else:
            self.encoder.fitted_params_ = replace(self.encoder.fitted_params_, grid=method)
            self.encoder.transform(self.images)

    def naive(self, maps: list[torch.Tensor]) -> None:
        """Enlarge every channel to every pixel, image by image, then project, assign and sum."""
        size = (self.batch.tensors.shape[2], self.batch.tensors.shape[3])
        for i in range(len(maps[0])):
            columns = dense_hypercolumns([layer[i : i + 1] for layer in maps], size)
            blocks = columns.split([layer.shape[-1] for layer in maps], dim=-1)
            projected = [block.flatten(0, 2) for block in self.words.project(list(blocks))]
            if len(self.words.codewords) == 1:
                projected = [torch.cat(projected, dim=1)]
            for part, words in zip(projected, self.words.codewords, strict=True):
                vlad.residual_sums(part, vlad.assign(part, words), words)

    def vlad_part(self, maps: list[torch.Tensor], grid: str) -> None:
        """Everything after the network: projection, assignment, sums, normalisation."""
        projected = self.words.project(maps)
        sums = self.words.dense_sums(projected, grid, self.batch.tensors.shape[2:])
        vlad.normalize(sums)

    def naive_bytes(self) -> float:
        """Size of one image's explicit hypercolumns and of their stacked copy."""
        n_channels = sum(len(p.mean) for p in self.encoder.codebook_.projections)
        return 2 * 4 * float(np.prod(self.batch.tensors.shape[2:])) * n_channels


def timings(bench: Bench, n_rounds: int, network: Callable[[], float]) -> dict[str, list[float]]:
    """Return the milliseconds per image of each method, and of the VLAD part, in every round.

    ``network`` returns the seconds of the network alone, measured elsewhere.
    """
    with torch.no_grad():
        maps = feature_maps(bench.network, bench.batch.tensors)
    calls: dict[str, Callable[[], float]] = {
        m: timed(partial(bench.run, m)) for m in METHODS + FAST_METHODS
    }
    for grid in ("finest", "image"):
        calls[f"VLAD part, {grid}"] = timed(partial(bench.vlad_part, maps, grid))
    calls["VLAD part, naive"] = timed(partial(bench.naive, maps))
    if bench.naive_bytes() > MAX_NAIVE_BYTES:
        del calls["naive"], calls["VLAD part, naive"]
    calls["network"] = network
    seconds = in_turns(calls, n_rounds)
    return {name: [1e3 * t / len(bench.images) for t in each] for name, each in seconds.items()}


def measure_peak(folder: str, size: int, method: str, threads: int) -> float:
    """Run one method on one image in this process and return its peak of memory in MB."""
    torch.set_num_threads(threads)
    return _peak_resident(partial(Bench(Path(folder), size, 1).run, method))


def _peak_resident(function: Callable[[], object]) -> float:
    """Measure the resident memory every half millisecond while a function runs."""
    process, peak, done = psutil.Process(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.0005)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    function()
    done.set()
    watcher.join()
    return (peak - before) / 1e6


def call_timings(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Return the milliseconds per image of calls with few and many images, in every round.

    A later call of the same process, of both encoders and runtimes; the network alone has eight.
    """
    bench = Bench(folder, 224, max(CALLS))
    found = {}
    with PlainNetwork(folder, 224, 8, options.threads) as plain:
        for n in CALLS:
            calls: dict[str, Callable[[], float]] = {"network": plain.seconds}
            for name, encoder in (("vlad", bench.encoder), ("classifier", bench.classifier)):
                for runtime in ("torch", "auto"):
                    own = encoder.portable_copy().set_params(runtime=runtime, batch_size=None)
                    calls[f"{name}, {runtime}"] = timed(partial(own.transform, bench.images[:n]))
            seconds = in_turns(calls, 5)
            each = {name: 8 if name == "network" else n for name in calls}
            found[str(n)] = {
                name: [1e3 * s / each[name] for s in own] for name, own in seconds.items()
            }
    return found


def measure(backbone: str, size: int, codebook: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return one row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fit_encoders(folder, backbone, size, codebook)
        batch = max(1, 8 * 224**2 // size**2)  # about as many pixels as eight of 224 px
        n_rounds = max(3, round(options.rounds * (224 / size)))
        bench = Bench(folder, size, batch)
        with PlainNetwork(folder, size, batch, options.threads) as plain:
            ms = timings(bench, n_rounds, plain.seconds)
        peaks = {
            method: in_fresh_process(measure_peak, folder, size, method, options.threads)
            for method in (*METHODS, *FAST_METHODS)
            if method in ms
        }
    facts = {"backbone": backbone, "size": size, "codebook": codebook, "batch": batch}
    facts |= {"label": f"{backbone}, {size} px", "data": codebook, "measured": measured_now()}
    return facts | {"ms": ms, "peak_mb": peaks}


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "speed" / "encoding_cpu.json", threads=2)
    parser.add_argument("--backbones", nargs="+", default=["mobilenet_v2", "vgg16"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 448, 1024])
    parser.add_argument("--rounds", type=int, default=15)
    options = parse(parser, argv)
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"rows": rows, "device": "cpu", "origin": origin()}
    for backbone in options.backbones:
        for size in options.sizes:
            # For larger images both kinds of codebook cost the same: one is enough.
            for codebook in list(CODEBOOKS) if size == min(options.sizes) else [DEFAULT]:
                rows.append(measure(backbone, size, codebook, options))
                save_result(options.out, facts)  # a long run that is stopped keeps what it measured
    with tempfile.TemporaryDirectory() as name:
        fit_encoders(Path(name), "mobilenet_v2", 224, DEFAULT)
        facts["calls"] = {"measured": measured_now(), "ms": call_timings(Path(name), options)}
    save_result(options.out, facts)
    print(speed_table(rows), fast_table(rows), calls_table(facts["calls"]["ms"]), sep="\n\n")
    print(memory_table(rows))


if __name__ == "__main__":
    main()
