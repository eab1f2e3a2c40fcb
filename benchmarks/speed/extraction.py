"""Does extraction scale in time and memory, over processes, and with a cache?

Features of 500 to 4,000 synthetic images, 224 px, PNG files: cold and from the cache, one process
with two threads, two with one each, and two workers of a dask cluster on this machine. Each runs in
a separate process, which reports its peak of memory. Then, in turns and in one process: the bare
loop *decode, resize, encoder.transform*, the network alone, and extraction, on the same images; and
a folder of 1,024 px images, cold and cached.

    python -m benchmarks.speed.extraction --out FOLDER        # about half an hour on two cores
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

import hypervlad
from benchmarks.common.results import BENCHMARKS, RESULTS, save_result
from benchmarks.common.sources import origin
from benchmarks.speed.tables import scale_section
from hypervlad.cache import CacheFolder

SIZES = (500, 1000, 2000, 4000)
SETUPS = ("1 job", "2 jobs", "dask")
ROUNDS = 3
N_BARE, N_LARGE = 192, 256
_ONE_THREAD = {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}


def write_images(folder: Path, n: int, size: int) -> Path:
    """Write different images, made from a few by shifts and noise; keep those that exist."""
    folder.mkdir(parents=True, exist_ok=True)
    base, _ = hypervlad.make_tem_images(24, size=size, random_state=0)
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / f"{i // 500:03d}" / f"{i:06d}.png"
        noisy = np.roll(base[i % len(base)], i, axis=1) + 0.02 * rng.standard_normal((size, size))
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            pixels = np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


def fitted(folder: Path) -> Path:
    """Return a model file of the classifier's default encoder."""
    path = folder / "encoder.hvlad"
    images, _ = hypervlad.make_tem_images(40, random_state=0)
    hypervlad.default_encoder(random_state=0).fit(images).save(path)
    return path


# --- one extraction in a separate process -------------------------------------------------------


def extract_once(arguments: argparse.Namespace) -> dict[str, Any]:
    """Extract a folder; return seconds, the steady rate and peaks of memory."""
    import joblib
    import torch

    from hypervlad.extraction.manifest import TaskFolder

    began = time.perf_counter()
    torch.set_num_threads(2 if arguments.way == "1 job" else 1)
    encoder = hypervlad.load(arguments.model).set_params(memory=arguments.memory)
    files = sorted(arguments.images.rglob("*.png"))[: arguments.n]
    kept: list[tuple[float, int]] = []
    original = TaskFolder.keep

    def noted(self: TaskFolder, task: Any, encoded: Any) -> None:
        original(self, task, encoded)
        kept.append((time.perf_counter(), len(task.items)))

    TaskFolder.keep = noted  # type: ignore[method-assign]
    with joblib.parallel_config(**_config(arguments.way)):
        ready = time.perf_counter()
        done = hypervlad.extract_features(
            files,
            encoder,
            out=arguments.out / "features.parquet",
            root=arguments.images,
        )
        ended = time.perf_counter()
        workers = [_peak(child.pid) for child in psutil.Process().children(recursive=True)]
    steady = sum(n for _, n in kept[1:]) / (kept[-1][0] - kept[0][0])
    return {
        "seconds": ended - ready,
        "before": ready - began,  # loading the model, starting a cluster
        "first": kept[0][0] - ready,
        "steady": steady,
        "merging": ended - kept[-1][0],
        "n_found": done.n_found,
        "peak_mb": _peak(os.getpid()),
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


def _peak(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return math.nan


def in_a_process(options: argparse.Namespace, model: Path, n: int, way: str, memory: Path) -> Any:
    command = [
        *(
            sys.executable,
            "-m",
            "benchmarks.speed.extraction",
            "--once",
            "--out",
            str(options.out),
            "--n",
            str(n),
        ),
        *("--images", str(options.out / "images"), "--model", str(model)),
        *("--way", way, "--memory", str(memory)),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=BENCHMARKS.parent
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


# --- compared with the bare loop ----------------------------------------------------------------


def against_the_bare_loop(options: argparse.Namespace, model: Path) -> dict[str, list[float]]:
    """Return the seconds of extraction, the bare loop and the network alone on the same images."""
    import torch

    torch.set_num_threads(2)
    encoder = hypervlad.load(model)
    files = sorted((options.out / "images").rglob("*.png"))[:N_BARE]
    size = encoder.loader().n_per_batch
    network = encoder.network()
    prepared = [encoder.loader().load_batch(file).tensors for file in files[:size]]
    batch = torch.cat(prepared)
    seconds: dict[str, list[float]] = {"extraction": [], "bare loop": [], "network": []}

    def bare() -> None:
        for start in range(0, len(files), size):
            images = [hypervlad.read_image(file) for file in files[start : start + size]]
            encoder.transform(images)

    def alone() -> None:
        for _ in range(0, len(files), size):
            for _ in range(encoder.fitted_params_.turns):
                network(batch)

    def extraction() -> None:
        hypervlad.extract_features(
            files, encoder, out=options.out / "bare.parquet", root=options.out
        )

    ways = {"extraction": extraction, "bare loop": bare, "network": alone}
    for way in ways.values():
        way()
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def of_large_images(options: argparse.Namespace, model: Path) -> dict[str, list[float]]:
    """Return the seconds for a folder of 1,024 px images, cold and from the cache."""
    folder = write_images(options.out / "large", N_LARGE, 1024)
    encoder = hypervlad.load(model).set_params(memory=options.out / "large cache")
    encoder.network()
    seconds: dict[str, list[float]] = {"cold": [], "cached": []}
    for _ in range(ROUNDS):
        shutil.rmtree(options.out / "large cache", ignore_errors=True)
        for name in seconds:
            began = time.perf_counter()
            hypervlad.extract_features(folder, encoder, out=options.out / "large.parquet")
            seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for images and files")
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS / "speed" / "extraction_cpu.json",
        help="JSON to write",
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    for hidden in ("once", "n", "images", "model", "way", "memory"):
        kind = {"n": int, "way": str}.get(hidden, Path)
        extra: dict[str, Any] = {"action": "store_true"} if hidden == "once" else {"type": kind}
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS, **extra)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(extract_once(options)))
        return
    write_images(options.out / "images", max(options.sizes), 224)
    model, rows = fitted(options.out), []
    for n in options.sizes:
        for way in SETUPS:
            memory = options.out / f"cache {n} {way}"
            shutil.rmtree(memory, ignore_errors=True)
            for state in ("cold", "cached"):
                os.sync()  # else this run waits for what an earlier one left in memory
                row = in_a_process(options, model, n, way, memory)
                rows.append({"n": n, "way": way, "state": state} | row)
                print(rows[-1], flush=True)
            cache_bytes = CacheFolder(memory).usage().n_bytes / n
            shutil.rmtree(memory)
    facts = {
        "rows": rows,
        "bare": against_the_bare_loop(options, model),
        "large": of_large_images(options, model),
        "n_bare": N_BARE,
        "n_large": N_LARGE,
        **origin(2),
        "features": hypervlad.load(model)._n_features_out,
        "cache_bytes": cache_bytes,
        "task_size": hypervlad.load(model).loader().n_per_batch,
        "bytes": (options.out / "features.parquet").stat().st_size / max(options.sizes),
    }
    save_result(options.results, facts)
    print(scale_section(facts))


if __name__ == "__main__":
    main()
