"""What do faults of an image do to what is measured in it, and are they seen?

    python -m benchmarks.particles.faults
    python -m benchmarks.particles.faults --data ../shared/data --out FILE

Drawn fields of discs and mats of fibres, each with one fault: `hypervlad.images.faults` looks for
it, `find_particles`, `fibre_diameters` and `find_pores` measure. With ``--data``, models learn from
real images as they are, and classify held-out ones with faults, or look for defects there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score

from benchmarks.common.data import DataSet, folds_of
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from benchmarks.defects.surfaces import read_surface, split_surface
from benchmarks.particles.drawn import Looks, drawn_field
from benchmarks.particles.looks import PLAIN_DISCS
from hypervlad import MicrographClassifier, PatchDefectScorer, read_image
from hypervlad.data import FIBRE_LOOKS, make_fibre_images
from hypervlad.evaluation import OutlineTally
from hypervlad.features.windows import WindowReader
from hypervlad.fibres import fibre_diameters, find_pores
from hypervlad.images.faults import (
    ON_CLASSES,
    ON_DEFECTS,
    Effects,
    Faults,
    UsualFaults,
    find_faults,
)
from hypervlad.particles import find_particles

_SIZE = (512, 512)
_FIELDS = Looks(**PLAIN_DISCS | {"diameter": (10, 60), "cover": (0.1, 0.3), "apart": (1.1, 1.1)})
CLASSES, SURFACE = ("neu_steel", "micrographs"), "magnetic_tile"  # of the real images
SPLIT = 50, 30  # defect-free ones to learn from, and others
_MATS = {"diameter": (8, 24), "cover": (0.2, 0.6), "contrast_to_noise": 15, "size": _SIZE}
Fault = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
Scores = Callable[[Fault, float], list[float]]


def _range(image: np.ndarray) -> float:
    return float(np.ptp(np.quantile(image, [0.02, 0.98])))


def _saturated(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return image / max(np.quantile(image, 1 - share), 1e-3)


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


def _banded(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    level = ndimage.gaussian_filter1d(rng.normal(size=(len(image), 1)), 4, axis=0)
    return image + share * _range(image) * level / level.std()


def _low_dose(image: np.ndarray, electrons: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(image.clip(0) * electrons) / electrons


#: Each fault, its name and unit, how strong it is, and which of the found ones tells it.
FAULTS: dict[str, tuple[Fault, tuple[float, ...], str]] = {
    "none": (lambda image, _strength, _rng: image, (0,), "blur"),
    "saturated, share of pixels": (_saturated, (0.1, 0.2, 0.4), "saturated"),
    "blurred, pixels": (_blurred, (1, 2, 3, 5), "blur"),
    "lines of uneven brightness, share of the range": (_uneven, (0.03, 0.1, 0.3), "uneven"),
    "lines shifted, pixels": (_shifted, (0.5, 1, 2), "shifted"),
    "bands of lines, share of the range": (_banded, (0.05, 0.1, 0.2), "bands"),
    "low dose, electrons per white pixel": (_low_dose, (100, 30, 10), "noise"),
}


def with_fault(image: np.ndarray, fault: Fault, strength: float, seed: int) -> np.ndarray:
    changed = fault(image.astype(np.float64), strength, np.random.default_rng([seed, 7]))
    return changed.clip(0, 1).astype(np.float32)


def _grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else image.mean(axis=2)


def measure(n: int, fault: Fault, strength: float, seen_as: str) -> Facts:
    """Return the scores of particles, and errors of diameters and cover of fibres."""
    tally, mats, seen = OutlineTally(min_area=20), list[list[float]](), list[float]()

    def faulty(image: np.ndarray, seed: int) -> np.ndarray:
        changed = with_fault(image, fault, strength, seed)
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


def classified(folder: Path, n: int) -> Scores:
    """Return what trains on a set of images, and scores the model on others with a fault."""
    data = DataSet.load(folder)
    fold = folds_of(data, 1, 0)[0]
    test = np.random.default_rng(0).permutation(fold.test)[:n].tolist()
    images = [_grey(read_image(path)) for path in data.paths]
    model = MicrographClassifier(random_state=0)
    model.fit([images[i] for i in fold.train], fold.y, groups=fold.groups)

    def scores(fault: Fault, strength: float) -> list[float]:
        found = model.classify([with_fault(images[i], fault, strength, i) for i in test])
        right = model.classes_[found.proba.argmax(axis=1)] == data.y[test]
        seen = [each.faults for each in found.images.info]
        unlike = found.unlike_training.mean()
        return [
            right.mean(),
            found.proba.max(axis=1).mean(),
            unlike,
            warned_of(seen, ON_CLASSES, model.formats_),
        ]

    return scores


def searched(folder: Path, n: int) -> Scores:
    """Likewise, of defects, on half as many images without and with one."""
    surface, rng = read_surface(folder), np.random.default_rng(0)
    train, test = split_surface(surface, *SPLIT, 0)
    kinds = [test[surface.defective[test] == each] for each in (False, True)]
    test = np.concatenate([rng.permutation(kind)[: n // 2] for kind in kinds])
    images = [_grey(image) for image in surface.images]
    scorer = PatchDefectScorer(n_planted=0, random_state=0)
    scorer.fit([images[i] for i in train])
    reader = WindowReader(scorer.encoder_.loader(), 1)

    def scores(fault: Fault, strength: float) -> list[float]:
        changed = [with_fault(images[i], fault, strength, i) for i in test.tolist()]
        found = np.array(scorer.score_samples(changed))
        called, is_defective = found >= scorer.threshold_, surface.defective[test]
        precision = average_precision_score(is_defective, found)
        seen = [reader.read(image, "").info.faults for image in changed]
        return [
            called[~is_defective].mean(),
            called[is_defective].mean(),
            precision,
            warned_of(seen, ON_DEFECTS, scorer.formats_),
        ]

    return scores


def warned_of(seen: Sequence[Faults | None], effects: Effects, usual: UsualFaults) -> float:
    return float(np.mean([any(usual.effects(each or Faults(), effects)) for each in seen]))


def learnt_table(result: Facts) -> str:
    """Return what faults do to classes and defects, by fault and strength."""
    lines = [
        [name, f"{strength:g}", *(f"{value:.0%}" for value in values)]
        for name, rows in result["faults"].items()
        for strength, *values in rows
    ]
    of_classes = ["accuracy", "confidence", "unlike training", "warned of"]
    head = [f"steel: {of_classes[0]}", *of_classes[1:], f"micrographs: {of_classes[0]}"]
    head += [*of_classes[1:], "tiles: false alarms", "found", "average precision", "warned of"]
    return table(["fault", "strength", *head], lines)


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
    parser.add_argument("--images", type=int, default=8, help="fields and mats, of each fault")
    parser.add_argument("--data", type=Path, help="folder of real images, to classify and search")
    parser.add_argument("--test", type=int, default=40, help="real images of each set")
    options = parse(parser, argv)
    result: Facts = {}
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        sets = []
        if options.data is not None:
            sets = [classified(options.data / each, options.test) for each in CLASSES]
            sets.append(searched(options.data / SURFACE, options.test))
        for name, (fault, strengths, seen_as) in FAULTS.items():
            rows: list[Any]
            if sets:
                used = strengths[::2]
                rows = [[each, *chain(*(of(fault, each) for of in sets))] for each in used]
            else:
                rows = [measure(options.images, fault, each, seen_as) for each in strengths]
            result[name] = rows
            print((learnt_table if sets else faults_table)({"faults": {name: rows}}), flush=True)
    save_result(options.out, {"faults": result, "origin": origin()})


if __name__ == "__main__":
    main()
