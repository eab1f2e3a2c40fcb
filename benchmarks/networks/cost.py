"""Time and memory per image: networks alone, and with the encoding.

As in `benchmarks.speed.encoding`, with two of its methods and random weights.

    python -m benchmarks.networks.cost
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common.program import in_turns, new_parser, parse, timed
from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.tables import table, times
from benchmarks.speed.encoding import Bench, fit_encoders, peak_memory, usual_batch

DEFAULT = "mobilenet_v2"
NETWORKS = (
    *(DEFAULT, "timm/resnet50", "timm/convnext_tiny", "timm/swin_tiny_patch4_window7_224"),
    *("timm/vit_small_patch16_224", "timm/vit_small_patch14_dinov2"),
    "timm/vit_small_patch16_dinov3",
)
METHODS = ("network", "finest")


def measure(
    networks: Sequence[str], size: int, n_rounds: int, threads: int
) -> list[dict[str, Any]]:
    """Return milliseconds per image in each round, and MB beyond those in use before."""
    batch = usual_batch(size)
    rows, functions = [], {}
    with tempfile.TemporaryDirectory() as name:
        for number, network in enumerate(networks):
            folder = Path(name) / str(number)
            folder.mkdir()
            fit_encoders(folder, network, size, "joint, K 64")
            bench = Bench(folder, size, batch)
            peaks = {each: peak_memory(folder, size, each, threads) for each in METHODS}
            rows.append({"backbone": network, "size": size, "batch": batch, "peak_mb": peaks})
            for method in METHODS:
                functions[f"{network} {method}"] = timed(partial(bench.run, method))
        seconds = in_turns(functions, n_rounds)
    for row in rows:
        row["ms"] = {
            each: [1000 * s / batch for s in seconds[f"{row['backbone']} {each}"]]
            for each in METHODS
        }
    return rows


def cost_table(facts: Mapping[str, Any]) -> str:
    """Return times relative to the network alone and to the default network, and memory."""
    base = {
        row["size"]: row["ms"]["network"] for row in facts["rows"] if row["backbone"] == DEFAULT
    }
    rows = []
    for row in facts["rows"]:
        ms = row["ms"] | {"base": base[row["size"]]}
        pairs = (("network", "base"), ("finest", "base"), ("finest", "network"))
        peaks = ["" if row["peak_mb"][m] is None else f"{row['peak_mb'][m]:.0f}" for m in METHODS]
        rows.append(
            [row["backbone"], str(row["size"]), f"{median(ms['network']):.0f}"]
            + [times(ms, *pair).removesuffix(" x") for pair in pairs]
            + peaks
        )
    head = ["network", "px", "alone, ms", "alone / mobilenet_v2", "encoding / mobilenet_v2"]
    return table([*head, "encoding / alone", "alone, MB", "encoding, MB"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "networks" / "cost.json", threads=1)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 448])
    parser.add_argument("--rounds", type=int, default=5)
    options = parse(parser, argv)
    rows = []
    for size in options.sizes:
        rows += measure(options.networks, size, options.rounds, options.threads)
    facts = {"rows": rows, "threads": options.threads}
    save_result(options.out, facts)
    print(cost_table(facts))


if __name__ == "__main__":
    main()
