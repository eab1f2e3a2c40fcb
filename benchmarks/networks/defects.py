"""Label-free scoring of defects with several networks, as variants of `benchmarks.defects.kinds`.

    NETWORKS="timm/tf_efficientnet_lite0=efficientnet-lite0-57934424.pth" \\
        python -m benchmarks.defects.kinds --data ../shared/data/magnetic_tile --train 20 \\
        --splits 3 --variants benchmarks/networks/defects.py --out benchmarks/results/networks --fpr
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common.tables import table
from benchmarks.defects.methods import Ours
from benchmarks.defects.tables import mean_and_worst
from hypervlad.defects import default_patch_encoder


def variants(seed: int) -> dict[str, Callable[[], Ours]]:
    """Return what makes the scorers: of the default network, then of those in ``NETWORKS``."""
    given = ["mobilenet_v2=pretrained", *os.environ.get("NETWORKS", "").split()]

    def make(name: str, weights: str) -> Ours:
        encoder = default_patch_encoder(backbone=name, weights=weights)
        return Ours({"encoder": encoder, "random_state": seed})

    pairs = [each.split("=", 1) for each in given]
    return {name: lambda n=name, w=weights: make(n, w) for name, weights in pairs}


def networks_defects_table(results: Sequence[dict[str, Any]]) -> str:
    """Return mean and worst image AUROC over the kinds of defects, by surface and network."""
    names = [row["method"] for row in results[0]["rows"]]
    rows = []
    for name in names:
        scores = [
            mean_and_worst(row["image_auroc"])
            for result in results
            for row in result["rows"]
            if row["method"] == name
        ]
        means = sum(mean for mean, _ in scores) / len(scores)
        rows.append([name, *(f"{m:.3f}, {w:.3f}" for m, w in scores), f"{means:.3f}"])
    return table(["network", *(result["surface"] for result in results), "mean"], rows)
