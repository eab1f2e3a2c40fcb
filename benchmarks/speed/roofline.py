"""How near to the machine's limits are the network and VLAD?

The limits: the rate at which threads copy memory, and that of products of matrices in single
precision. What must be done: the bytes of maps, codewords and sums, each moved once, and the
operations of the method. The longer of the two times is the bound; the share reached is the bound
divided by the measured time. Limits, network and VLAD take turns.

    python -m benchmarks.speed.roofline
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import hypervlad  # before torch: its threads then sleep while they wait

# isort: split
import torch

from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.sources import machine, versions
from benchmarks.speed.tables import roofline_table
from hypervlad.encoder.encoding import TorchCodebook
from hypervlad.hypercolumns import feature_maps

_COPIED = 1 << 26  # bytes: more than caches hold
_SIDE = 1024  # of the matrices
_LERP = 3  # operations of a + w (b - a)


def copy_memory(threads: ThreadPoolExecutor, arrays: list[np.ndarray]) -> float:
    """Copy arrays, one per thread; return the bytes read and written."""
    list(threads.map(lambda array: np.copyto(array[0], array[1]), arrays))
    return float(sum(array.nbytes for array in arrays))


def multiply(matrix: torch.Tensor) -> float:
    """Multiply a matrix by itself; return the operations."""
    torch.mm(matrix, matrix)
    return 2.0 * len(matrix) ** 3


def convolution_operations(network: Any, batch: torch.Tensor) -> float:
    """Return the operations of all convolutions for a batch: two per weight and output."""
    counted = 0.0

    def count(layer: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += 2.0 * output.numel() * layer.weight[0].numel()

    layers = [m for m in network.module.modules() if isinstance(m, torch.nn.Conv2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    network.in_torch(batch)
    for handle in handles:
        handle.remove()
    return counted


def vlad_work(maps: Sequence[torch.Tensor], K: int, grid: tuple[int, int]) -> tuple[float, float]:
    """Return the bytes and the operations of VLAD over projected maps (B, h_l, w_l, d_l).

    Scores of the cells; scores and features enlarged, first across, then down; the highest score
    of each position; its features added to the sums.
    """
    n_images, n_positions = len(maps[0]), grid[0] * grid[1]
    D = sum(layer.shape[-1] for layer in maps)
    n_bytes = 4 * (sum(layer.numel() for layer in maps) + K * D + n_images * K * D)
    operations = n_positions * (K + 2.0 * D)  # the highest, and the sums of two rows' features
    for layer in maps:
        _, height, width, d = layer.shape
        operations += 2.0 * height * width * d * K
        if width < grid[1]:
            operations += _LERP * height * grid[1] * (K + d)
        operations += (_LERP * (height < grid[0]) + 1) * n_positions * K
    return float(n_bytes), n_images * operations


def measure(size: int, n_rounds: int) -> list[dict[str, Any]]:
    """Return a row each for the network and for VLAD over two grids, of images of one size."""
    n_images = max(1, 8 * 224**2 // size**2)
    images, _ = hypervlad.make_tem_images(n_images, size=size, random_state=0)
    encoder = hypervlad.HypercolumnVLAD(
        weights="random", image_size=size, n_samples=4000, random_state=0, runtime="openvino"
    ).fit(images)
    network, loader = encoder.network(), encoder.loader()
    (batch,) = loader.batches((i, loader.load(image, "image")) for i, image in enumerate(images))
    codebook = TorchCodebook(encoder.codebook_, network.device, fused=True)
    with torch.no_grad():
        maps = feature_maps(network, batch.tensors)
    projected = codebook.project(maps)
    weights = 4.0 * sum(p.numel() for p in network.module.parameters())
    n_bytes = 4.0 * (batch.tensors.numel() + sum(layer.numel() for layer in maps)) + weights
    works = {"network": (n_bytes, convolution_operations(network, batch.tensors))}
    calls: dict[str, Callable[[], object]] = {
        "network": lambda: feature_maps(network, batch.tensors)
    }
    for grid in ("finest", "image"):
        positions = codebook.grid_size(projected, grid, batch.tensors.shape[2:])
        name = f"VLAD, {'finest grid' if grid == 'finest' else 'every pixel'}"
        works[name] = vlad_work(projected, encoder.n_codewords, positions)
        calls[name] = lambda g=grid: codebook.dense_sums(projected, g, batch.tensors.shape[2:])
    n_threads = torch.get_num_threads()
    arrays = [np.zeros((2, _COPIED // 4), np.float32) for _ in range(n_threads)]
    matrix = torch.randn(_SIDE, _SIDE)
    rates: dict[str, list[float]] = {"bytes": [], "operations": []}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with ThreadPoolExecutor(n_threads) as threads:
        for turn in range(n_rounds + 1):
            for kind, limit in (
                ("bytes", lambda: copy_memory(threads, arrays)),
                ("operations", lambda: multiply(matrix)),
            ):
                started = time.perf_counter()
                n = limit()
                rates[kind] += [n / (time.perf_counter() - started)] if turn else []
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                seconds[name] += [time.perf_counter() - started] if turn else []
    limits = {kind: float(np.median(found)) for kind, found in rates.items()}
    return [
        {"what": name, "size": size, "bytes": work[0] / n_images, "operations": work[1] / n_images}
        | {"limits": limits, "seconds": float(np.median(seconds[name])) / n_images}
        for name, work in works.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 1024])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "speed" / "roofline.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    rows = [row for size in arguments.sizes for row in measure(size, arguments.rounds)]
    facts = {"rows": rows, "versions": versions(), "machine": machine(os.cpu_count() or 1)}
    save_result(arguments.out, facts)
    print(roofline_table(facts))


if __name__ == "__main__":
    main()
