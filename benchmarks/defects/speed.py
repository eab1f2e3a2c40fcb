"""What does a defect map cost, compared with the network alone and with one pass per patch?

    python -m benchmarks.defects.speed

One synthetic SEM image of 1024 x 696 pixels. `score_map` runs in torch alone and, "fast", with
OpenVINO if it is installed. Patches are timed on a few batches and extrapolated.
"""

from __future__ import annotations

import argparse
import copy
import functools
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.common.program import in_turns, new_parser, parse, timed
from benchmarks.common.results import RESULTS, origin, save_result
from benchmarks.defects.tables import speed_table
from benchmarks.speed.encoding import unfolded
from hypervlad import PatchDefectScorer, default_patch_encoder, make_nanofibre_images
from hypervlad.features import get_backbone, patch_positions, patches_at
from hypervlad.features.hypercolumns import feature_maps
from hypervlad.features.network import build_network

SIZE, FIT_SIZE = (696, 1024), (174, 256)
PATCH, CELL, SIDE, BATCH = 29, 8, 224, 32
#: What runs the network, by what is added to the names of rows.
RUNTIMES = {"": "torch"} | ({", fast": "openvino"} if find_spec("openvino") else {})


def fit_scorers(weights: str, n_images: int) -> dict[str, PatchDefectScorer]:
    """Fit both kinds of scorers on a few mats."""
    images, masks = make_nanofibre_images(n_images, defective=0.5, size=FIT_SIZE, random_state=1)
    good = [image for image, mask in zip(images, masks, strict=True) if not mask.any()]

    def new() -> PatchDefectScorer:
        return PatchDefectScorer(default_patch_encoder(weights=weights), random_state=0)

    return {"good images": new().fit(good), "masks": new().fit(images, masks=masks)}


def ways(
    image: np.ndarray, scorers: dict[str, PatchDefectScorer], weights: str, n_batches: int
) -> dict[str, Callable[[], Any]]:
    """Return the timed functions by name; patches are limited to ``n_batches`` batches."""
    encoder = default_patch_encoder(weights=weights)
    network = build_network(encoder.backbone, weights, encoder.taps)
    plain = unfolded(network)
    preprocessing = get_backbone(encoder.backbone).preprocessing
    whole = preprocessing.prepare(image, image.shape[:2])[None]
    positions = patch_positions(image.shape[:2], PATCH)[: n_batches * BATCH]
    batch = torch.stack(
        [preprocessing.prepare(patch, (PATCH, PATCH)) for patch in patches_at(image, positions)]
    )

    def over_patches(side: int) -> None:
        for part in batch.split(BATCH):
            if side != PATCH:
                part = functional.interpolate(part, (side, side), mode="bilinear")
            feature_maps(network, part)

    maps: dict[str, Callable[[], Any]] = {}
    for name, scorer in scorers.items():
        for suffix, runtime in RUNTIMES.items():
            own = copy.deepcopy(scorer)
            own.encoder_.set_params(runtime=runtime)
            maps[f"map, {name}{suffix}"] = functools.partial(own.score_map, image)
    return {
        "network alone": lambda: feature_maps(plain, whole),
        "the same, folded": lambda: feature_maps(network, whole),
        **maps,
        f"patches at {SIDE} px": lambda: over_patches(SIDE),
        f"patches at {PATCH} px": lambda: over_patches(PATCH),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    (image,), _ = make_nanofibre_images(1, defective=1, size=SIZE, random_state=0)
    scorers = fit_scorers(options.weights, options.images)
    functions = ways(image, scorers, options.weights, options.batches)
    seconds = in_turns({name: timed(run) for name, run in functions.items()}, options.rounds)
    n_timed = min(options.batches * BATCH, len(patch_positions(SIZE, PATCH)))
    for name in seconds:
        if name.startswith("patches"):
            seconds[name] = [each / n_timed for each in seconds[name]]
    counts = {"side by side": len(patch_positions(SIZE, PATCH, edges="shift"))}
    counts["at the map's stride"] = len(patch_positions(SIZE, PATCH, CELL, edges="shift"))
    return {"size": list(SIZE), "stride": CELL, "seconds": seconds, "patches": counts}


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "defects" / "speed.json", threads=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--weights", default="pretrained")
    options = parse(parser, argv)
    result = measure(options) | {"origin": origin()}
    save_result(options.out, result)
    print(speed_table(result))


if __name__ == "__main__":
    main()
