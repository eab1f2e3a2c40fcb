"""Are particles with soft edges as large as they are? Drawn thickness, absorption and blur.

    python -m benchmarks.particles.edges

Particles of one kind lie apart in each field; their true size is that of their thickness, or of
the disc before it was blurred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from hypervlad.particles import find_particles

SIDE = 480
Shape = Callable[[np.ndarray], np.ndarray]  # contrast by the distance over the radius


def _chord(distance: np.ndarray, radius: float = 1.0) -> np.ndarray:
    return np.sqrt(np.clip(radius**2 - distance**2, 0, None)) / radius


KINDS: dict[str, tuple[Shape, float, int]] = {  # the second is the blur in radii
    "sharp discs": (lambda at: 1.0 * (at < 1), 0, 16),
    "discs, blur of 0.1 radii": (lambda at: 1.0 * (at < 1), 0.1, 16),
    "discs, blur of 0.2 radii": (lambda at: 1.0 * (at < 1), 0.2, 16),
    "discs, blur of 0.35 radii": (lambda at: 1.0 * (at < 1), 0.35, 16),
    "spheres": (_chord, 0, 16),
    "spheres that absorb much": (lambda at: 1 - np.exp(-2.5 * _chord(at)), 0, 16),
    "a lone large sphere": (_chord, 0, 1),
    "lenses": (lambda at: _chord(at) ** 2, 0, 16),
    "bevels of 0.3 radii": (lambda at: np.clip((1 - at) / 0.3, 0, 1), 0, 16),
    "bevels of 0.15 radii": (lambda at: np.clip((1 - at) / 0.15, 0, 1), 0, 16),
    "spheres with denser cores": (lambda at: 0.4 * _chord(at) + 0.6 * _chord(at, 0.65), 0, 16),
}


def field(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image, and the radii of its particles, one in each square of a grid."""
    shape, blur, number = KINDS[kind]
    rng = np.random.default_rng([9, list(KINDS).index(kind), seed])
    n = round(number**0.5)
    pitch, typical = SIDE / n, SIDE / n * rng.uniform(0.2, 0.32)
    radii = typical * np.exp(np.clip(rng.normal(0, 0.12, number), -0.3, 0.3))
    y, x = (np.mgrid[: 2 * SIDE, : 2 * SIDE] + 0.5) / 2
    middles = (np.indices((n, n)).reshape(2, -1).T + rng.uniform(0.45, 0.55, (number, 2))) * pitch
    signal = np.zeros(y.shape)
    for (row, column), radius in zip(middles, radii, strict=True):
        signal = np.maximum(signal, shape(np.hypot(y - row, x - column) / radius))
    signal = signal.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3))
    signal = gaussian_filter(signal, blur * typical or rng.uniform(0.5, 1.2))
    image = 0.7 - rng.uniform(0.25, 0.55) * signal
    image += rng.normal(0, rng.uniform(0.01, 0.04), image.shape)
    return (1 - image if rng.random() < 0.4 else image).clip(0, 1).astype(np.float32), radii


def measure(kind: str, n_fields: int) -> Facts:
    """Return found over true D50 of each field, and in how many its range holds the true one."""
    ratios, held, n_found, n_true = list[float](), 0, 0, 0
    for seed in range(n_fields):
        image, radii = field(kind, seed)
        found = find_particles(image)
        n_found, n_true = n_found + len(found), n_true + len(radii)
        if found.finding_range is not None:
            areas = [np.count_nonzero(each.mask) for each in found]
            ratio = float(np.sqrt(np.median(areas) / np.pi) / np.median(radii))
            ratios.append(ratio)
            held += found.finding_range.size_low <= 1 / ratio <= found.finding_range.size_high
    return {"ratios": ratios, "held": held / n_fields, "number": n_found / n_true}


def edges_table(result: Facts) -> str:
    lines = [
        [kind, f"{own['number']:.2f}"]
        + [f"{value:.3f}" for value in np.quantile(own["ratios"], [0.5, 0, 1])]
        + [f"{own['held']:.0%}"]
        for kind, own in result["kinds"].items()
    ]
    heads = ["number, found by true", "D50, found by true", "least", "most", "range holds"]
    return table(["particles", *heads], lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "particles" / "edges.json", threads=2)
    parser.add_argument("--fields", type=int, default=8, help="of each kind")
    options = parse(parser, argv)
    kinds = {kind: measure(kind, options.fields) for kind in KINDS}
    save_result(options.out, {"kinds": kinds, "n_fields": options.fields, "origin": origin()})
    print(edges_table({"kinds": kinds}))


if __name__ == "__main__":
    main()
