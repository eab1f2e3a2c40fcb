"""Do comparisons of groups hold their level, and which differences of diameters do they show?

    python -m benchmarks.fibres.groups

Synthetic mats whose median diameters differ by 0, 5, 10 and 20 % are measured. Two groups of five
images each are drawn from them many times, and compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from hypervlad.data import make_fibre_images
from hypervlad.fibres import FibreDiameters, compare_groups, fibre_diameters

SEED = 5
N_IMAGES, N_PER_GROUP, N_DRAWS = 40, 5, 400
SIZE = (384, 512)
DIAMETER, DIFFERENCES = 10.0, (0.0, 0.05, 0.1, 0.2)


def mats(n: int, diameter: float, seed: int) -> list[FibreDiameters]:
    images, _ = make_fibre_images(
        n,
        diameter=diameter,
        cover=(0.2, 0.6),
        contrast_to_noise=(10, 30),
        size=SIZE,
        random_state=seed,
    )
    return [fibre_diameters(image) for image in images]


def measure(n_images: int, n_draws: int, seed: int) -> list[Facts]:
    rng = np.random.default_rng(seed)
    pools = [
        mats(n_images, DIAMETER * (1 + difference), seed + index)
        for index, difference in enumerate(DIFFERENCES)
    ]
    rows = []
    for difference, pool in zip(DIFFERENCES, pools, strict=True):
        ratios, shown, held = [], 0, 0
        for _ in range(n_draws):
            own = rng.permutation(n_images)
            pair = [pools[0][i] for i in own[:N_PER_GROUP]]
            pair += [pool[i] for i in own[N_PER_GROUP : 2 * N_PER_GROUP]]
            names = ["a"] * N_PER_GROUP + ["b"] * N_PER_GROUP
            ratio, interval = compare_groups(pair, names).ratio("b", "a")
            ratios.append(ratio)
            shown += not interval.low <= 1 <= interval.high
            held += interval.low <= 1 + difference <= interval.high
        rows.append(
            {
                "difference": difference,
                "ratio": float(np.median(ratios)),
                "shown": shown / n_draws,
                "held": held / n_draws,
            }
        )
    return rows


def power_table(result: Facts) -> str:
    """Return how often a difference is shown."""
    head = ["true difference", "median ratio", "difference shown", "interval holds"]
    lines = [
        [
            f"{row['difference']:.0%}",
            f"{row['ratio']:.3f}",
            f"{row['shown']:.0%}",
            f"{row['held']:.0%}",
        ]
        for row in result["groups"]
    ]
    return table(head, lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "fibres" / "groups.json")
    parser.add_argument("--images", type=int, default=N_IMAGES)
    parser.add_argument("--draws", type=int, default=N_DRAWS)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parse(parser, argv)
    result: Facts = {
        "groups": measure(options.images, options.draws, options.seed),
        "origin": origin(),
    }
    save_result(options.out, result)
    print(power_table(result))


if __name__ == "__main__":
    main()
