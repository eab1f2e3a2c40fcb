"""Time and memory per image: networks alone, and with the encoding.

As in `benchmarks.speed.encoding`, with two of its methods and random weights; networks take turns,
so that a noisy machine is noisy for all.

    python -m benchmarks.networks.cost
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.tables import median, table
from benchmarks.speed.encoding import Bench, best_batch, clock, fit_encoders, peak_memory

NETWORKS = (
    *("mobilenet_v2", "timm/resnet50", "timm/convnext_tiny", "timm/swin_tiny_patch4_window7_224"),
    *("timm/vit_small_patch16_224", "timm/vit_small_patch14_dinov2"),
    "timm/vit_small_patch16_dinov3",
)
METHODS = ("network", "finest")


def measure(networks: Sequence[str], size: int, rounds: int, threads: int) -> list[dict[str, Any]]:
    """Return milliseconds per image in each round, and MB beyond those in use before."""
    batch = best_batch(Path(), size, "cpu")
    rows, benches = [], {}
    with tempfile.TemporaryDirectory() as name:
        for number, network in enumerate(networks):
            folder = Path(name) / str(number)
            folder.mkdir()
            fit_encoders(folder, network, size, "joint, K 64", "cpu")
            benches[network] = Bench(folder, size, batch, "cpu")
            peaks = {each: peak_memory(folder, size, each, "cpu", threads) for each in METHODS}
            row: dict[str, Any] = {"backbone": network, "size": size, "batch": batch}
            rows.append(row | {"ms": {each: [] for each in METHODS}, "peak_mb": peaks})
        for turn in range(rounds + 1):
            for row in rows:
                bench = benches[row["backbone"]]
                for method in METHODS:
                    took = clock(lambda b=bench, m=method: b.run(m), bench.network.device)
                    if turn:  # the first round warms up
                        row["ms"][method].append(1000 * took / batch)
    return rows


def cost_table(facts: Mapping[str, Any]) -> str:
    """Return times relative to the network alone and to the default network, and memory."""
    rows = []
    for row in facts["rows"]:
        (default,) = (
            each
            for each in facts["rows"]
            if (each["backbone"], each["size"]) == ("mobilenet_v2", row["size"])
        )
        alone, ours = row["ms"]["network"], row["ms"]["finest"]
        base = default["ms"]["network"]
        ratios = [
            median([one / other for one, other in zip(first, second, strict=True)])
            for first, second in ((alone, base), (ours, base), (ours, alone))
        ]
        peaks = ["" if row["peak_mb"][m] is None else f"{row['peak_mb'][m]:.0f}" for m in METHODS]
        rows.append(
            [row["backbone"], str(row["size"]), f"{median(alone):.0f}"]
            + [f"{ratio:.2f}" for ratio in ratios]
            + peaks
        )
    head = ["network", "px", "alone, ms", "alone / mobilenet_v2", "encoding / mobilenet_v2"]
    return table([*head, "encoding / alone", "alone, MB", "encoding, MB"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 448])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "networks" / "cost.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    rows = []
    for size in arguments.sizes:
        rows += measure(arguments.networks, size, arguments.rounds, arguments.threads)
        print(cost_table({"rows": rows}), flush=True)
    save_result(arguments.out, {"rows": rows, "threads": arguments.threads})


if __name__ == "__main__":
    main()
