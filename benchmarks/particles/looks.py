"""Are particles of every look found without training? Drawn fields, beside ten lines of Otsu.

    python -m benchmarks.particles.looks

Each row is a look that people photograph; the fields are drawn as those that the finder was trained
on, from other seeds. Empty fields hold noise, light, stripes, dirt or edges, and no particle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from benchmarks.particles.drawn import Looks, drawn_field
from hypervlad.evaluation import OutlineTally
from hypervlad.particles import find_particles

SIDE = 512
_ALONE: dict[str, Any] = {"pile": 0, "empty": 0, "stains": 0, "clutter": 0, "grain": (0, 0)}
_PLAIN = _ALONE | {"lattice": 0, "clinging": (0, 0), "contrast_to_noise": (5, 20)}
PLAIN_DISCS = _PLAIN | {"shapes": ("disc",), "profiles": ("flat",), "spread": (0.02, 0.2)}
_PAIRS = PLAIN_DISCS | {"diameter": (24, 60), "cover": (0.1, 0.3), "clinging": (0.5, 0.5)}


def _overlapping(share: float) -> Looks:
    """Return discs of which a share is placed upon another, at 1.2 to 1.8 radii."""
    apart = (0.6, 0.9) if share else (1.02, 1.02)
    return Looks(**_PAIRS | {"cover": (0.05, 0.15), "clinging": (share, share), "apart": apart})


LOOKS = {
    "discs apart": Looks(**PLAIN_DISCS | {"cover": (0.05, 0.2), "apart": (1.1, 1.1)}),
    "dense discs, dark": Looks(**PLAIN_DISCS | {"lattice": 1, "diameter": (12, 60), "dark": 1}),
    "dense discs, bright": Looks(**PLAIN_DISCS | {"lattice": 1, "diameter": (12, 60), "dark": 0}),
    "grain of 1.5 px, half the contrast": Looks(
        **PLAIN_DISCS
        | {"diameter": (20, 50), "cover": (0.05, 0.2), "apart": (1.1, 1.1)}
        | {"grain": (1.5, 1.5), "contrast_to_noise": (2, 2)}
    ),
    "bright rims": Looks(
        **PLAIN_DISCS | {"profiles": ("rim",), "apart": (1, 1.1), "cover": (0.1, 0.3)}
    ),
    "hollow shells": Looks(
        **PLAIN_DISCS | {"profiles": ("shell",), "apart": (1, 1.1), "cover": (0.1, 0.3)}
    ),
    "overlap, 1.4 radii apart": Looks(**_PAIRS | {"apart": (0.7, 0.7)}),
    "overlap, 1.1 radii apart": Looks(**_PAIRS | {"apart": (0.55, 0.55)}),
    **{f"overlap, {share:.0%} of discs": _overlapping(share) for share in (0, 0.1, 0.2, 0.3, 0.4)},
    "any shapes, touching": Looks(**_PLAIN | {"clinging": (0.5, 0.9)}),
    "rods side by side": Looks(
        **_PLAIN | {"shapes": ("rod",), "rows": 1, "diameter": (16, 60), "spread": (0.02, 0.2)}
    ),
    "cores in shells": Looks(
        **PLAIN_DISCS | {"profiles": ("core",), "apart": (1, 1.1), "cover": (0.1, 0.3)}
    ),
    "half of them faint": Looks(**_PLAIN | {"faint": 1, "cover": (0.05, 0.3)}),
    "half of them small": Looks(**_PLAIN | {"two_sizes": 1, "diameter": (24, 80)}),
    "dots of 4 to 6 px": Looks(
        **PLAIN_DISCS | {"diameter": (4, 6), "cover": (0.03, 0.2), "apart": (1.3, 1.3)}
    ),
    "piles": Looks(**_PLAIN | {"pile": 1, "diameter": (20, 80)}),
    "dirt and edges beside": Looks(**_PLAIN | {"stains": 1, "clutter": 1, "cover": (0.05, 0.3)}),
    "on films with holes, and nets": Looks(
        **_PLAIN | {"support": 1, "diameter": (8, 60), "cover": (0.03, 0.2)}
    ),
}
EMPTY = Looks(empty=1)


def ten_lines(image: np.ndarray) -> np.ndarray:
    """Return what a person tries first: Otsu, the rarer side, and peaks of the distance."""
    smooth = gaussian_filter(image, 2)
    mask = smooth > threshold_otsu(smooth)
    mask = ~mask if mask.mean() > 0.5 else mask
    distance = gaussian_filter(distance_transform_edt(mask), 1)
    peaks = peak_local_max(distance, min_distance=4, labels=label(mask)[0])
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=mask)


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "find_particles": lambda image: find_particles(image).label_image(),
    "ten lines": ten_lines,
}


def field(looks: Looks, seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, labels = drawn_field(np.random.default_rng([8, seed]), (SIDE, SIDE), looks)
    return image, labels


def measure(looks: Looks, n: int, method: Callable[[np.ndarray], np.ndarray]) -> Facts:
    """Return the scores of a method over fields of a look; hidden particles count for nothing."""
    tally = OutlineTally(min_area=20)
    for seed in range(n):
        image, labels = field(looks, seed)
        found = method(image)
        hidden = np.unique(found[labels < 0])
        mostly = [k for k in hidden[hidden > 0] if (labels[found == k] < 0).mean() > 0.5]
        tally.add(np.maximum(labels, 0), np.where(np.isin(found, mostly), 0, found))
    return tally.scores()


def looks_table(result: Facts) -> str:
    """Return F1, the ratio of numbers and that of median diameters, of each look."""
    lines = []
    for title, own in result["looks"].items():
        cells = [
            f"{s['f1']:.2f} / {s['number_ratio']:.2f} / {s['diameter_ratio']:.2f}"
            for s in own.values()
        ]
        lines.append([title, *cells])
    lines.append(
        ["empty: fields with a false one", *map("{:.1%}".format, result["empty"].values())]
    )
    return table(["look", *(f"{m}: F1 / number / diameter" for m in METHODS)], lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "particles" / "looks.json", threads=2)
    parser.add_argument("--fields", type=int, default=40, help="of each look")
    parser.add_argument("--empty", type=int, default=400)
    options = parse(parser, argv)
    looks: dict[str, Facts] = {}
    for title, own in LOOKS.items():
        looks[title] = {m: measure(own, options.fields, method) for m, method in METHODS.items()}
        print(title, *(f"{m} F1 {s['f1']:.2f}" for m, s in looks[title].items()), flush=True)
    images = [field(EMPTY, seed)[0] for seed in range(options.empty)]
    empty = {m: float(np.mean([f(i).any() for i in images])) for m, f in METHODS.items()}
    result = {"looks": looks, "empty": empty, "n_fields": options.fields, "n_empty": options.empty}
    save_result(options.out, result | {"origin": origin()})
    print(looks_table(result))


if __name__ == "__main__":
    main()
