"""Train the network that says which parts of a field are one particle, on drawn fields.

    python -m benchmarks.particles.train_joining --out hypervlad/particles/joining.npz

In the first round, the finder joins parts of drawn fields by a rule: where they meet at 0.8 of the
lesser one's depth. A network learns from all pairs of parts that it compares which are mostly of
one particle. In each further round, the finder joins parts of new fields by the latest network, and
a new one learns from all pairs so far but those of the first round: so it learns what follows from
its own mistakes, too. The stored network is of 5 rounds of 650 fields, as this was at revision
`cd68a834`; since then, pairs that only may be one are compared and learnt from, too. --fields 10
--rounds 2 shows that it runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.common.program import new_parser, parse
from benchmarks.particles.drawn import Looks, drawn_field
from benchmarks.particles.train import HARD
from hypervlad.objects.windows import LabelMap
from hypervlad.particles.joining import CLIPPED, LIKELY, Doubt, Joined, Joiner, PartGraph
from hypervlad.particles.scales import Scales

SIDE = 320  # pixels
DECOYS = 0.1  # probability of others of the other polarity
STARS: dict[str, Any] = {"pile": 0, "lattice": 0, "clinging": (0, 0.5), "diameter": (10, 110)}
STARS |= {"contrast_to_noise": (2, 40)}
# Those that are easily taken for several particles, or several of them for one.
PIECES: list[tuple[float, dict[str, Any]]] = [
    (0.2, STARS | {"shapes": ("star",)}),
    (0.15, STARS | {"shapes": ("rough",)}),
    (0.25, STARS | {"shapes": ("arms",)}),
    (0.1, STARS | {"shapes": ("dumbbell",)}),
    (0.15, STARS | {"shapes": ("cube",), "rows": 1, "diameter": (10, 60)}),
    (0.15, STARS | {"shapes": ("rod",), "rows": 0.5, "diameter": (10, 60)}),
]
RULE = 0.8
MOSTLY = 0.6  # of the area of parts, which is of one particle
N_HIDDEN, BATCH, RATE, DECAY = 64, 512, 2e-3, 1e-3


def drawn(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32], bool]:
    """Return a field, the labels of its particles, -1 what is not judged, and whether it is dark.

    Of four, two have a look of `HARD` and one a look of `PIECES`.
    """
    rng = np.random.default_rng([9, seed])
    is_dark = rng.random() < 0.5
    looks = Looks(empty=0, decoys=DECOYS, dark=float(is_dark))
    if seed % 4:
        shares, hard = zip(*(HARD if seed % 2 else PIECES), strict=True)
        looks = replace(looks, **hard[rng.choice(len(hard), p=shares)] | {"empty": 0})
    image, labels = drawn_field(rng, (SIDE, SIDE), looks)
    return image.astype(np.float32), labels, is_dark


class Recorder(Joiner):
    """A joiner that goes by a rule, or by a network, and keeps what it looks at, and its truth."""

    def __init__(self, arrays: dict[str, Any] | None) -> None:
        super().__init__(arrays or {})
        self.truth = np.zeros((SIDE, SIDE), np.int32)
        self.features, self.is_one = list[NDArray[Any]](), list[NDArray[np.bool_]]()

    def join(
        self, labels: LabelMap, fields: NDArray[np.uint8], coarse: Joined | None
    ) -> tuple[Joined, Doubt]:
        rows, columns = (
            ((np.arange(n) + 0.5) * of / n).astype(int)
            for n, of in zip(labels.shape, self.truth.shape, strict=True)
        )
        truth = self.truth[np.ix_(rows, columns)]
        self._shares = np.zeros((int(labels.max()), max(1, int(self.truth.max())) + 2))
        is_part = labels > 0
        np.add.at(self._shares, (labels[is_part] - 1, truth[is_part] + 1), 1)
        return super().join(labels, fields, coarse)

    def probability(self, graph: PartGraph, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        features = graph.features(rows)
        shares = np.zeros((len(graph.parts), self._shares.shape[1]))
        np.add.at(shares, graph.numbers, self._shares)
        is_known = shares[:, 2:].max(axis=1) > MOSTLY * shares.sum(axis=1)
        particle = np.where(is_known, shares[:, 2:].argmax(axis=1), -1)
        a, b = particle[graph.pairs[rows].T]
        is_judged = (a >= 0) & (b >= 0)
        self.features.append(features[is_judged].astype(np.float32))
        self.is_one.append((a == b)[is_judged])
        if not self.weights:
            return features[:, 1] - RULE + LIKELY
        return super().probability(graph, rows)


def recorded(
    seeds: Sequence[int], arrays: dict[str, Any] | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Return the features of pairs in drawn fields, whether each is one, and its weight.

    A field with four times as many pairs counts twice as much.
    """
    found = []
    for seed in seeds:
        image, truth, is_dark = drawn(seed)
        recorder = Recorder(arrays)
        recorder.truth = truth
        Scales(image, 20, recorder).found("dark" if is_dark else "bright")
        if sum(map(len, recorder.is_one)):
            features, is_one = map(np.concatenate, (recorder.features, recorder.is_one))
            weight = np.full(len(is_one), len(is_one) ** -0.5)
            found.append((features.astype(float), is_one, weight))
        if seed % 100 == 0:
            print(seed, sum(len(weight) for *_, weight in found), flush=True)
    features, is_one, weights = map(np.concatenate, zip(*found, strict=True))
    return features, is_one, weights / weights.mean()


def learnt(
    features: NDArray[np.float64],
    is_one: NDArray[np.bool_],
    weights: NDArray[np.float64],
    n_epochs: int,
) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a network that says whether pairs are one."""
    torch.manual_seed(0)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    values = np.clip((features - mean) / deviation, -CLIPPED, CLIPPED)
    x, y, w = (torch.tensor(each, dtype=torch.float32) for each in (values, is_one, weights))
    sizes = (x.shape[1], N_HIDDEN, N_HIDDEN, 1)
    layers = [nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(sizes)]
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    optimiser = torch.optim.AdamW(network.parameters(), lr=2 * RATE, weight_decay=DECAY)
    n_steps = n_epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2 * RATE, total_steps=n_steps)
    for _ in range(n_epochs):
        for some in torch.randperm(len(x)).split(BATCH):
            logits = network(x[some])[:, 0]
            losses = nn.functional.binary_cross_entropy_with_logits(
                logits, y[some], reduction="none"
            )
            loss = (losses * w[some]).sum() / w[some].sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    arrays = {"mean": mean, "deviation": deviation}
    for name, layer in zip(("first", "second", "last"), layers, strict=True):
        arrays[f"{name}.weight"] = layer.weight.detach().numpy()
        arrays[f"{name}.bias"] = layer.bias.detach().numpy()
    return {name: each.astype(np.float32) for name, each in arrays.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, Path("joining.npz"), threads=2)
    parser.add_argument("--fields", type=int, default=700, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    options: Any = parse(parser, argv)
    if options.rounds < 2:
        parser.error("--rounds: the first only begins, so give at least 2")
    arrays, kept = None, list[Any]()
    for number in range(options.rounds):
        first = number * options.fields
        pairs = recorded(range(first, first + options.fields), arrays)
        kept = [*kept, pairs] if number > 1 else [pairs]
        joined = [np.concatenate(each) for each in zip(*kept, strict=True)]
        arrays = learnt(*joined, options.epochs)
        np.savez_compressed(options.out, **arrays)
        print(f"round {number + 1}: {len(joined[0])} pairs", flush=True)


if __name__ == "__main__":
    main()
