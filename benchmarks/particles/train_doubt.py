"""Learn by how much numbers and sizes of found particles may be wrong, from drawn fields.

    python -m benchmarks.particles.train_doubt

Prints, for one particle (for n of them, it is divided by the root of n) and for each fact of
`hypervlad.particles.doubt`, by how much it widens the interval of the logarithm of true over found
numbers and sizes: the sums of 0 or more that have the least pinball loss, so that 2.5 % of fields
lie beyond each end. Of three fields, one has any look, one a look of those that come out worst, and
one that of a row of the table of looks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import eye_array, hstack

from benchmarks.common.program import new_parser, parse
from benchmarks.particles.drawn import Looks, drawn_field
from benchmarks.particles.looks import LOOKS
from benchmarks.particles.train import HARD
from benchmarks.particles.train_joining import PIECES
from hypervlad.objects.detection import MIN_AREA
from hypervlad.particles import find_particles
from hypervlad.particles.doubt import FACTS
from hypervlad.statistics.groups import weighted_quantiles

SIDES = 320, 512  # pixels
BEYOND = 0.025  # of the fields, beyond each end
SHARES = 0.1, 0.5, 0.9
_ANY = [{}, {"support": 1.0}, {"rows": 1.0, "pile": 0.0, "lattice": 0.0}]


def drawn(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return a field with particles, and their labels, -1 what is not judged."""
    rng = np.random.default_rng([10, seed])
    kind = seed % 3
    own: Any = {}
    if kind == 0:
        own = _ANY[rng.integers(len(_ANY))]
    elif kind == 1:
        hard = [each for _, each in (*HARD, *PIECES)]
        own = hard[rng.integers(len(hard))]
    looks = [*LOOKS.values()][rng.integers(len(LOOKS))] if kind == 2 else Looks(**own)
    size = (int(rng.integers(*SIDES, endpoint=True)),) * 2
    image, labels = drawn_field(rng, size, replace(looks, empty=0))
    return image.astype(np.float32), labels


def compared(
    image: NDArray[np.float32], labels: NDArray[np.int32]
) -> tuple[list[float], list[float]] | None:
    """Return the facts, and the logarithms of true over found numbers and sizes."""
    with warnings.catch_warnings(action="ignore"):
        found = find_particles(image)
    if not len(found):
        return None
    own, true = (np.bincount(each[each > 0])[1:] for each in (found.label_image(), labels))
    both = [each[each >= MIN_AREA].astype(np.float64) for each in (own, true)]
    if not len(both[1]):
        return None
    ratios = [np.log((len(both[1]) + 0.5) / (len(found) + 0.5))]
    for power in (0, 1):  # by number and by area
        sizes = [weighted_quantiles(np.sqrt(each), each**power, SHARES) for each in both]
        ratios += np.log(sizes[1] / sizes[0]).tolist()
    return [len(found) ** -0.5, *(found.doubts[name] for name in FACTS)], ratios


def _of_seed(seed: int) -> tuple[list[float], list[float]] | None:
    return compared(*drawn(seed))


def widths(
    facts: NDArray[np.float64], beyond: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Return the sums of facts (n, k) of which that share of values (n,), at least 0, is above."""
    n, k = facts.shape
    equal = hstack([facts, eye_array(n), -eye_array(n)])
    loss = np.repeat([0.0, 1 - share, share], [k, n, n])
    found = linprog(loss, A_eq=equal, b_eq=np.maximum(beyond, 0), method="highs")
    return np.asarray(found.x[:k])


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, Path("doubt.npz"), threads=1)
    parser.add_argument("--fields", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=2)
    options: Any = parse(parser, argv)
    # Not forked: threads of torch would hang.
    found = Parallel(options.processes)(map(delayed(_of_seed), range(options.fields)))
    facts, ratios = map(np.array, zip(*filter(None, found), strict=True))
    np.savez_compressed(options.out, facts=facts, ratios=ratios)
    own, sizes = ratios[:, 0], ratios[:, 1:]
    repeated = np.repeat(facts, sizes.shape[1], axis=0)
    every = [
        widths(of, sign * values, BEYOND)
        for of, values in ((facts, own), (repeated, sizes.ravel()))
        for sign in (-1, 1)
    ]
    for name, *each in zip(("of one", *FACTS), *every, strict=True):
        print(f'"{name}": ({", ".join(f"{width:.3g}" for width in each)}),')


if __name__ == "__main__":
    main()
