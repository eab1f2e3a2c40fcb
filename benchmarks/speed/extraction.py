"""Does extraction scale in time and memory, over processes, and with a cache?

Features of 500 to 4,000 synthetic images, cold and from the cache, in one process with two threads,
in two with one each, and in two workers of a dask cluster on this machine. Then, in turns: the bare
loop *decode, resize, encoder.transform*, the network alone, and extraction, on the same images; and
a folder of 1,024 px images, cold and cached.

    python -m benchmarks.speed.extraction --folder FOLDER     # about half an hour on two cores
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
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
from benchmarks.common.results import RESULTS, origin, save_result
from benchmarks.speed.tables import scale_section
from hypervlad.extraction.manifest import TaskFolder
from hypervlad.features.cache import CacheFolder

SIZES = (500, 1000, 2000, 4000)
SETUPS = ("1 job", "2 jobs", "dask")
ROUNDS = 3
N_BARE, N_LARGE = 192, 256
_ONE_THREAD = {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}


def write_images(folder: Path, n: int, size: int) -> Path:
    """Write different images, made from a few by shifts and noise; keep those that exist."""
    base, _ = hypervlad.make_tem_images(24, size=size, random_state=0)
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / f"{i // 500:03d}" / f"{i:06d}.png"
        noise = 0.02 * rng.standard_normal((size, size))
        if not path.exists():
            save_grey(path, np.roll(base[i % len(base)], i, axis=1) + noise)
    return folder


def extract_once(images: str, out: str, model: str, n: int, way: str, memory: str) -> Any:
    """Extract a folder in this process; return seconds, the steady rate and peaks of memory."""
    began = time.perf_counter()
    torch.set_num_threads(2 if way == "1 job" else 1)
    encoder = hypervlad.load(model).set_params(memory=memory)
    files = sorted(Path(images).rglob("*.png"))[:n]
    kept: list[tuple[float, int]] = []
    original = TaskFolder.keep

    def noted(self: TaskFolder, task: Any, encoded: Any) -> None:
        original(self, task, encoded)
        kept.append((time.perf_counter(), len(task.items)))

    TaskFolder.keep = noted  # type: ignore[method-assign]
    with joblib.parallel_config(**_config(way)):
        ready = time.perf_counter()
        done = hypervlad.extract_features(files, encoder, out=out, root=images)
        ended = time.perf_counter()
        children = psutil.Process().children(recursive=True)
        workers = [peak_memory_mb(child.pid) for child in children]
    return {
        "seconds": ended - ready,
        "before": ready - began,  # loading the model, starting a cluster
        "first": kept[0][0] - ready,
        "steady": sum(n for _, n in kept[1:]) / (kept[-1][0] - kept[0][0]),
        "n_found": done.n_found,
        "peak_mb": peak_memory_mb(),
        "peak_workers_mb": max(workers, default=0.0),
    }


def _config(way: str) -> dict[str, Any]:
    if way == "dask":
        import dask
        from dask.distributed import Client, LocalCluster

        # As docs/benchmarks/scaling.md advises: dask's own allocator setting halves the rate.
        allocator = {"MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**25}
        dask.config.set({"distributed.nanny.pre-spawn-environ": allocator | _ONE_THREAD})
        Client(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))
        return {"backend": "dask"}
    return {"n_jobs": 2 if way == "2 jobs" else 1}


def against_the_bare_loop(folder: Path, model: Path) -> dict[str, list[float]]:
    """Return the seconds of extraction, the bare loop and the network alone on the same images."""
    encoder = hypervlad.load(model)
    files = sorted((folder / "images").rglob("*.png"))[:N_BARE]
    size = encoder.loader().n_per_batch
    network = encoder.network()
    batch = torch.cat([encoder.loader().load_batch(file).tensors for file in files[:size]])

    def bare() -> None:
        for start in range(0, len(files), size):
            images = [hypervlad.read_image(file) for file in files[start : start + size]]
            encoder.transform(images)

    def alone() -> None:
        for _ in range(0, len(files), size):
            for _ in range(encoder.fitted_params_.turns):
                network(batch)

    def extraction() -> None:
        hypervlad.extract_features(files, encoder, out=folder / "bare.parquet", root=folder)

    ways: dict[str, Callable[[], None]] = {"extraction": extraction}
    ways |= {"bare loop": bare, "network": alone}
    return in_turns({name: timed(way) for name, way in ways.items()}, ROUNDS)


def of_large_images(folder: Path, model: Path) -> dict[str, list[float]]:
    """Return the seconds for a folder of 1,024 px images, cold and from the cache."""
    images = write_images(folder / "large", N_LARGE, 1024)
    cache = folder / "large cache"
    encoder = hypervlad.load(model).set_params(memory=cache)
    encoder.network()
    run = timed(lambda: hypervlad.extract_features(images, encoder, out=folder / "large.parquet"))
    seconds: dict[str, list[float]] = {"cold": [], "cached": []}
    for _ in range(ROUNDS):
        shutil.rmtree(cache, ignore_errors=True)
        for name in seconds:
            seconds[name].append(run())
    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "speed" / "extraction_cpu.json", threads=2)
    parser.add_argument("--folder", type=Path, required=True, help="for images and features")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    options = parse(parser, argv)
    folder, model, rows = options.folder, options.folder / "encoder.hvlad", []
    images = write_images(folder / "images", max(options.sizes), 224)
    training, _ = hypervlad.make_tem_images(40, random_state=0)
    encoder = hypervlad.default_encoder(random_state=0).fit(training)
    encoder.save(model)
    features = folder / "features.parquet"
    for n in options.sizes:
        for way in SETUPS:
            memory = folder / f"cache {n} {way}"
            shutil.rmtree(memory, ignore_errors=True)
            for state in ("cold", "cached"):
                os.sync()  # else this run waits for what an earlier one left in memory
                row = in_fresh_process(extract_once, images, features, model, n, way, memory)
                rows.append({"n": n, "way": way, "state": state} | row)
                print(rows[-1], flush=True)
            cache_bytes = CacheFolder(memory).usage().n_bytes / n
            shutil.rmtree(memory)
    facts = {
        "rows": rows,
        "bare": against_the_bare_loop(folder, model),
        "large": of_large_images(folder, model),
        "n_bare": N_BARE,
        "n_large": N_LARGE,
        **origin(),
        "features": encoder.n_features_out_,
        "cache_bytes": cache_bytes,
        "task_size": encoder.loader().n_per_batch,
        "bytes": features.stat().st_size / max(options.sizes),
    }
    save_result(options.out, facts)
    print(scale_section(facts))


if __name__ == "__main__":
    main()
