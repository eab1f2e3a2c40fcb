"""What do faults of an image do to what is measured in it, and are they seen?

    python -m benchmarks.particles.faults

Drawn fields of discs and mats of fibres, each with one fault: `hypervlad.images.faults` looks for
it, `find_particles`, `fibre_diameters` and `find_pores` measure.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from benchmarks.particles.drawn import Looks, drawn_field
from benchmarks.particles.looks import PLAIN_DISCS
from hypervlad.data import FIBRE_LOOKS, make_fibre_images
from hypervlad.evaluation import OutlineTally
from hypervlad.fibres import fibre_diameters, find_pores
from hypervlad.images.faults import find_faults
from hypervlad.particles import find_particles

_SIZE = (512, 512)
_FIELDS = Looks(**PLAIN_DISCS | {"diameter": (10, 60), "cover": (0.1, 0.3), "apart": (1.1, 1.1)})
_MATS = {"diameter": (8, 24), "cover": (0.2, 0.6), "contrast_to_noise": 15, "size": _SIZE}
Fault = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def _range(image: np.ndarray) -> float:
    return float(np.ptp(np.quantile(image, [0.02, 0.98])))


def _saturated(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return image / np.quantile(image, 1 - share)


def _blurred(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(image, sigma)


def _uneven(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return image + share * _range(image) * rng.normal(size=(len(image), 1))


def _shifted(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    walk = np.cumsum(rng.normal(0, deviation, len(image)))
    walk -= ndimage.gaussian_filter1d(walk, 40)
    lines = [
        ndimage.shift(*each, order=1, mode="nearest") for each in zip(image, walk, strict=True)
    ]
    return np.array(lines)


def _low_dose(image: np.ndarray, electrons: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(image.clip(0) * electrons) / electrons


#: Each fault, its name and unit, how strong it is, and which of the found ones tells it.
FAULTS: dict[str, tuple[Fault, tuple[float, ...], str]] = {
    "none": (lambda image, _strength, _rng: image, (0,), "blur"),
    "saturated, share of pixels": (_saturated, (0.1, 0.2, 0.4), "saturated"),
    "blurred, pixels": (_blurred, (2, 3, 5), "blur"),
    "lines of uneven brightness, share of the range": (_uneven, (0.03, 0.1, 0.3), "uneven"),
    "lines shifted, pixels": (_shifted, (0.5, 1, 2), "shifted"),
    "low dose, electrons per white pixel": (_low_dose, (30, 10, 4), "saturated"),
}


def measure(n: int, fault: Fault, strength: float, seen_as: str) -> Facts:
    """Return the scores of particles, and errors of diameters and cover of fibres."""
    tally, mats, seen = OutlineTally(min_area=20), list[list[float]](), list[float]()

    def faulty(image: np.ndarray, seed: int) -> np.ndarray:
        changed = fault(image.astype(np.float64), strength, np.random.default_rng([seed, 7]))
        changed = changed.clip(0, 1).astype(np.float32)
        seen.append(getattr(find_faults(changed, np.ones(changed.shape, bool)), seen_as))
        return changed

    for seed in range(n):
        image, labels = drawn_field(np.random.default_rng([8, seed]), _SIZE, _FIELDS)
        tally.add(np.maximum(labels, 0), find_particles(faulty(image, seed)).label_image())
        look = FIBRE_LOOKS[seed % len(FIBRE_LOOKS)]
        (image,), (truth,) = make_fibre_images(1, look=look, random_state=seed, **_MATS)
        found = fibre_diameters(changed := faulty(image, seed))
        if found.reason is None:
            held = found.interval.low <= truth.median <= found.interval.high
            cover = find_pores(changed, found).cover - truth.cover
            mats.append([found.median / truth.median - 1, held, cover])
    scores = {name: tally.scores()[name] for name in ("f1", "number_ratio", "diameter_ratio")}
    error, _, cover = np.median(mats, axis=0).tolist() if mats else [None] * 3
    held = float(np.mean([row[1] for row in mats])) if mats else None
    fibres = {"answered": len(mats) / n, "error": error, "held": held, "cover": cover}
    return {"strength": strength, "seen": float(np.median(seen)), **scores, **fibres}


def faults_table(result: Facts) -> str:
    """Return what is measured, by fault and strength."""
    lines = []
    for name, rows in result["faults"].items():
        for row in rows:
            particles = (f"{row[k]:.2f}" for k in ("f1", "number_ratio", "diameter_ratio"))
            fibres = ["-"] * 3
            if row["error"] is not None:
                fibres = [f"{row['error']:+.1%}", f"{row['held']:.0%}", f"{row['cover']:+.3f}"]
            own = [f"{row['strength']:g}", f"{row['seen']:.3g}", *particles]
            lines.append([name, *own, f"{row['answered']:.0%}", *fibres])
    head = ["fault", "strength", "seen", "F1 of particles", "number", "diameter"]
    head += ["mats answered", "diameter", "interval holds", "cover"]
    return table(head, lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "particles" / "faults.json", threads=2)
    parser.add_argument("--images", type=int, default=8, help="fields, and mats, of each")
    options = parse(parser, argv)
    result: Facts = {"faults": {}}
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        for name, (fault, strengths, seen_as) in FAULTS.items():
            rows = [measure(options.images, fault, each, seen_as) for each in strengths]
            result["faults"][name] = rows
            print(faults_table({"faults": {name: rows}}), flush=True)
    save_result(options.out, result | {"origin": origin()})
    print(faults_table(result))


if __name__ == "__main__":
    main()
