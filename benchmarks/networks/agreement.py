"""Are our maps those of timm, and our vectors those of float64?

    python -m benchmarks.networks.agreement

With random weights, by the functions of the tests.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.tables import table
from hypervlad import make_tem_images
from hypervlad.features.network import build_network
from tests.support.networks import LARGE, check_network, timm_maps, timms_own

SIZES = ((224, 224), (224, 448), (150, 201))
CODEBOOKS = ("joint", "per_layer")


def measure(network: str, image_size: int) -> dict[str, Any]:
    """Return the largest differences of a network by size of image, and by codebook."""
    images, _ = make_tem_images(4, size=(180, 260), random_state=0)
    options = {"image_size": image_size, "n_codewords": 16}
    return {
        "network": network,
        "maps": {f"{h} x {w}": difference_from_timm(network, h, w) for h, w in SIZES},
        "vectors": {
            codebook: check_network(images, f"timm/{network}", codebook, **options)
            for codebook in CODEBOOKS
        },
    }


def difference_from_timm(name: str, height: int, width: int) -> float:
    """Return the largest difference of our maps of noise from timm's, relative to their maximum.

    Of all blocks that have maps, not only of those that are tapped by default.
    """
    module = timms_own(name)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        torch.save(module.state_dict(), weights)
        blocks = build_network(f"timm/{name}", weights).module.taps
        network = build_network(f"timm/{name}", weights, list(blocks))
    noise = np.random.default_rng(0).standard_normal((1, 3, height, width), dtype=np.float32)
    images = torch.from_numpy(noise)
    differences = []
    for found, theirs in zip(
        network(images), timm_maps(name, module)(images, network.taps), strict=True
    ):
        own = found[0].permute(1, 2, 0).numpy()
        differences.append(float(np.abs(own - theirs).max() / np.abs(theirs).max()))
    return max(differences)


def agreement_table(facts: Mapping[str, Any]) -> str:
    """Return the largest differences, one line per network."""
    rows = []
    for row in facts["rows"]:
        differences = (*row["maps"].values(), *row["vectors"].values())
        rows.append([row["network"], *(f"{each:.0e}" if each else "0" for each in differences)])
    first = facts["rows"][0]
    head = [f"maps, {size} px" for size in first["maps"]]
    head += [f"vector, {codebook.replace('_', ' ')}" for codebook in first["vectors"]]
    return table(["network", *head], rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "networks" / "agreement.json", threads=1)
    parser.add_argument("--networks", nargs="+", default=list(LARGE), help="of timm")
    parser.add_argument("--image-size", type=int, default=224, help="for vectors")
    options = parse(parser, argv)
    rows = [measure(network, options.image_size) for network in options.networks]
    facts = {"rows": rows, "image_size": options.image_size}
    save_result(options.out, facts)
    print(agreement_table(facts))


if __name__ == "__main__":
    main()
