"""How much do features depend on where in the image they are, and what does ``turns=`` do to that?

A homogeneous material looks the same everywhere, so that features should, too. Transformers have
position embeddings, and convolutions pad with zeros: both tell positions apart. On crops of
stationary textures, this measures

- the share of the variance of a tap's channels that the position alone explains, over all crops;
- how far the vector of an image moves when its texture is shifted or turned by 180 degrees, as a
  share of the distance between the vectors of different textures, for each ``turns``.

    python -m benchmarks.networks.positions
    python -m benchmarks.networks.positions --networks timm/vit_base_patch14_dinov2=dinov2.pth
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.tables import table
from hypervlad import HypercolumnVLAD
from hypervlad.hypercolumns import feature_maps

SIDE, SHIFT = 224, 56  # pixels; the shift is a multiple of patches of 14, but not of 16 or 32
N_IMAGES = 12
TURNS = (1, 2, 4, 8)
NETWORKS = (
    *("mobilenet_v2", "timm/resnet50=random", "timm/convnext_tiny=random"),
    *("timm/swin_tiny_patch4_window7_224=random", "timm/vit_small_patch16_224=random"),
    *("timm/vit_small_patch14_dinov2=random", "timm/vit_small_patch16_dinov3=random"),
)


def textures(n: int, side: int) -> list[np.ndarray]:
    """Return stationary textures in [0, 1], of other grain sizes and directions each."""
    found = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        sigma = 2 ** rng.uniform(0, 3.5) * rng.permutation([1.0, rng.uniform(1, 3)])
        waves = gaussian_filter(rng.standard_normal((side, side)), sigma, mode="wrap")
        found.append((0.5 + 0.15 * waves / waves.std()).clip(0, 1).astype(np.float32))
    return found


def position_share(maps: np.ndarray) -> float:
    """Return the share of the variance of maps (n, h, w, C) that the position explains.

    It is corrected for the n images of each position: 0 on average for independent positions.
    """
    n = len(maps)
    total = maps.var(axis=(0, 1, 2)).sum()
    within = maps.var(axis=0, ddof=1).mean(axis=(0, 1)).sum() / n
    between = maps.mean(axis=0).var(axis=(0, 1)).sum()
    return float(max(0.0, between - within) / total)


def moved(vectors: np.ndarray, others: np.ndarray) -> float:
    """Return the mean distance of pairs of rows as a share of that of different rows."""
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    n = len(vectors)
    pairs = np.linalg.norm(vectors - others, axis=1).mean()
    return float(pairs / (distances.sum() / (n * (n - 1))))


def measure(backbone: str, weights: str) -> dict[str, Any]:
    """Return the shares of each tap, and how far vectors move for each number of turns."""
    wide = textures(N_IMAGES, SIDE + SHIFT)
    crops = [image[:SIDE, :SIDE] for image in wide]
    copies = {
        "shifted": [image[SHIFT:, SHIFT:] for image in wide],
        "turned": [np.ascontiguousarray(image[::-1, ::-1]) for image in crops],
    }
    found: dict[str, Any] = {"backbone": backbone, "weights": Path(weights).name, "moved": {}}
    for turns in TURNS:
        encoder = HypercolumnVLAD(backbone, weights=weights, turns=turns, random_state=0)
        vectors = encoder.fit_transform(crops)
        found["moved"][turns] = {
            kind: moved(vectors, encoder.transform(images)) for kind, images in copies.items()
        }
    tensors = [encoder.loader().load_batch(image).tensors for image in crops]
    layers = zip(*(feature_maps(encoder.network(), each) for each in tensors), strict=True)
    found["taps"] = {
        tap: position_share(torch.cat(maps).cpu().numpy())
        for tap, maps in zip(encoder.taps_, layers, strict=True)
    }
    return found


def positions_table(facts: dict[str, Any]) -> str:
    """Return the shares of the first and last tap, and how far vectors move."""
    rows = []
    for row in facts["rows"]:
        shares = list(row["taps"].values())
        ways = [
            " / ".join(f"{100 * each[kind]:.0f}" for each in row["moved"].values())
            for kind in ("shifted", "turned")
        ]
        name = f"{row['backbone']}, {row['weights']}"
        rows.append([name, f"{100 * shares[0]:.0f} %", f"{100 * shares[-1]:.0f} %", *ways])
    turns = " / ".join(map(str, TURNS))
    head = ["network, weights", "first tap", "last tap"]
    head += [f"shifted by {SHIFT} px, %: turns {turns}", f"turned by 180°, %: turns {turns}"]
    return table(head, rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME=WEIGHTS")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "networks" / "positions.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    rows = []
    for given in arguments.networks:
        name, _, weights = given.partition("=")
        rows.append(measure(name, weights or "pretrained"))
        print(positions_table({"rows": rows[-1:]}).splitlines()[-1], flush=True)
    save_result(arguments.out, {"rows": rows})


if __name__ == "__main__":
    main()
