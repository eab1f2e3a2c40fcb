"""How many passes of the network does it take to find the particles of a field?

    python -m benchmarks.particles.cost

In turns, over each drawn field, in one thread: the network as torchvision builds it, and what finds
particles. The seconds are those of the processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.models import mobilenet_v2

from benchmarks.common.program import in_turns, new_parser, parse, timed
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from benchmarks.particles.drawn import Looks, drawn_field
from benchmarks.particles.looks import PLAIN_DISCS
from hypervlad import HypercolumnSegmenter
from hypervlad.particles import find_particles

SIZE = (704, 1024)
_DISCS = PLAIN_DISCS | {"apart": (1.1, 1.1), "dark": 1}
FIELDS = {
    "30 discs": Looks(**_DISCS | {"diameter": (45, 45), "cover": (0.06, 0.06)}),
    "500 discs": Looks(**_DISCS | {"diameter": (15, 15), "cover": (0.12, 0.12)}),
    "dense discs": Looks(**PLAIN_DISCS | {"diameter": (30, 30), "lattice": 1, "dark": 1}),
}
NETWORK = "network"


def measure(title: str, n_rounds: int) -> Facts:
    """Return the number of true particles, and the seconds of each method in every round."""
    image, labels = drawn_field(np.random.default_rng(3), SIZE, FIELDS[title])
    network, pixels = mobilenet_v2(weights=None).eval(), torch.zeros(1, 3, *SIZE)
    segmenter = HypercolumnSegmenter(n_epochs=1, random_state=0).fit([image], [labels.clip(0)])
    with torch.no_grad():
        methods: dict[str, Callable[[], object]] = {
            NETWORK: lambda: network(pixels),
            "find_particles": lambda: find_particles(image),
            "polarity given": lambda: find_particles(image, polarity="dark"),
            "HypercolumnSegmenter": lambda: segmenter.find_particles(image),
        }
        turns = {name: timed(method, time.process_time) for name, method in methods.items()}
        return {
            "field": title,
            "n_particles": int(labels.max()),
            "seconds": in_turns(turns, n_rounds),
        }


def cost_table(result: Facts) -> str:
    """Return the passes of the network that each method takes, with the least and the most."""

    def passes(row: dict[str, Any], name: str) -> str:
        ratios = np.divide(row["seconds"][name], row["seconds"][NETWORK])
        return f"{np.median(ratios):.1f} ({ratios.min():.1f} to {ratios.max():.1f})"

    methods = [name for name in result["rows"][0]["seconds"] if name != NETWORK]
    lines = [[row["field"], *(passes(row, name) for name in methods)] for row in result["rows"]]
    return table(["passes over", *methods], lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "particles" / "cost.json", threads=1)
    parser.add_argument("--rounds", type=int, default=9)
    options = parse(parser, argv)
    rows = [measure(title, options.rounds) for title in FIELDS]
    save_result(options.out, result := {"rows": rows, "origin": origin()})
    print(cost_table(result))


if __name__ == "__main__":
    main()
