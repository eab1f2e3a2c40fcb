"""Train the decoder that finds particles without examples, on drawn fields.

    python -m benchmarks.particles.train --out hypervlad/particles/finder.npz

Draws fields of bright particles of random looks, sizes, noise and clutter, dark ones inverted, and
empty ones, and trains the decoder of `HypercolumnSegmenter` on them, as that trains it on fields
outlined by hand. The stored one was trained on 9,100 fields while both polarities were to be found,
and went on with --start for 4 epochs each on 5,000 fields and, with --first 100000, on 4,000, of
which more were empty. Since then it went on with fields of which half have the looks of `HARD`:
1,600 for 5 epochs and 4,000 for 2, as that was at revision `74ef9839`; and, with long particles,
cores in shells and stars, three times 4,000, for 3, 3 and 2 epochs, the last with today's shares:

    --start hypervlad/particles/finder.npz --first 308000 --fields 4000 --epochs 2 --out next.npz

A new run gives one like it, not the same. --fields 40 --epochs 1 shows that it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.program import new_parser, parse
from benchmarks.fibres import train as mats
from benchmarks.particles.drawn import Looks, drawn_field
from hypervlad.common.dense import stored_arrays
from hypervlad.features import get_backbone
from hypervlad.features.network import build_network
from hypervlad.objects.particle import Outlines
from hypervlad.particles.decoder import (
    CROP,
    IGNORED,
    MAX_RATE,
    MIN_CONTRAST,
    PRETRAINED,
    Crops,
    Targets,
    TopDownDecoder,
    decoder_of,
    network_input,
    standardised,
    train,
)

EMPTY, DECOYS = 0.25, 0.25  # probabilities of empty fields, of others of the other polarity
MATS = 0.05  # probability of fibres, in which no particle is to be found
# Every second field from this number on has a look of those that came out worst, or is empty.
FIRST_HARD = 200_000
_CLINGING: dict[str, Any] = {"pile": 0, "lattice": 0, "contrast_to_noise": (3, 40)}
_LONE: dict[str, Any] = {
    "pile": 0,
    "lattice": 0,
    "clinging": (0, 0.4),
    "contrast_to_noise": (3, 40),
}
HARD: list[tuple[float, dict[str, Any]]] = [  # shares of these, and their looks
    (0.10, {"pile": 0, "diameter": (12, 110), "grain": (0.8, 2.2), "contrast_to_noise": (1.2, 4)}),
    (0.20, _CLINGING | {"clinging": (0.4, 0.9), "apart": (0.5, 0.75), "cover": (0.05, 0.5)}),
    (0.25, _CLINGING | {"clinging": (0.5, 0.9), "diameter": (5, 50)}),
    (0.05, {"pile": 0, "lattice": 1, "diameter": (8, 80)}),
    (0.05, {"pile": 1, "diameter": (12, 80)}),
    (0.10, {"empty": 1, "clutter": 1}),
    (0.09, _LONE | {"shapes": ("rod", "ellipse"), "aspects": (10, 12), "diameter": (8, 80)}),
    (0.11, _LONE | {"profiles": ("core",), "diameter": (10, 110)}),
    (0.05, _LONE | {"shapes": ("star",), "diameter": (20, 110)}),
]
MIN_LENGTH = 12  # diameters, of the median fibre
N_TO_STANDARDISE = 500  # crops, by whose maps channels are scaled


def drawn(seed: int) -> tuple[np.ndarray, Targets]:
    """Return a standardised field of bright particles and what is to be learnt of it."""
    rng = np.random.default_rng([7, seed])
    if rng.random() < MATS:
        image = _mat(rng)
        labels = np.zeros(image.shape, np.int32)
    else:
        is_dark = rng.random() < 0.5
        looks = Looks(dark=float(is_dark), decoys=DECOYS, empty=EMPTY)
        if seed >= FIRST_HARD and seed % 2:
            shares, hard = zip(*HARD, strict=True)
            looks = replace(looks, **{"empty": 0} | hard[rng.choice(len(hard), p=shares)])
        image, labels = drawn_field(rng, (CROP, CROP), looks)
        image = 1 - image if is_dark else image
    targets = Targets.of_outlines(Outlines.of_labels(np.maximum(labels, 0)))
    targets.kind[labels < 0] = IGNORED
    return standardised(image, MIN_CONTRAST), targets


def _mat(rng: np.random.Generator) -> np.ndarray:
    """Return fibres that are too long for particles."""
    while True:
        image, truth, _ = mats.drawn(int(rng.integers(1 << 30)))
        if np.median(truth.lengths / truth.diameters) > MIN_LENGTH:
            return image.astype(np.float32)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, Path("finder.npz"), threads=2)
    parser.add_argument("--fields", type=int, default=4500)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--start", type=Path, help="decoder to go on from, with new fields")
    parser.add_argument("--first", type=int, default=0, help="number of the first field")
    parser.add_argument("--processes", type=int, default=2, help="that draw")
    options: Any = parse(parser, argv)
    known = get_backbone(PRETRAINED)
    network = build_network(PRETRAINED, "pretrained", known.taps[:-1])
    with Pool(options.processes) as pool:
        crops = Crops.cut(
            pool.imap(drawn, range(options.first, options.first + options.fields), chunksize=8),
            options.fields,
            lambda grey: network(network_input(grey, known.preprocessing)),
            seed=0,
        )
    print(f"{options.fields} fields drawn", flush=True)
    if options.start:
        decoder, rate = decoder_of(stored_arrays(options.start)), MAX_RATE / 3
    else:
        decoder, rate = TopDownDecoder([layer.shape[1] for layer in crops.maps]), MAX_RATE
        decoder.initialise(seed=0)
        decoder.standardise_by([layer[:N_TO_STANDARDISE] for layer in crops.maps])
    decoder = decoder.to(memory_format=torch.channels_last)
    losses = train(decoder, crops, torch.arange(options.fields), options.epochs, 0, True, rate)
    print("mean loss of each epoch:", *(f"{loss:.3f}" for loss in losses))
    arrays = {name: each.numpy() for name, each in decoder.state_dict().items()}
    np.savez_compressed(options.out, **{k: each.astype(np.float16) for k, each in arrays.items()})


if __name__ == "__main__":
    main()
