"""How many single fibres are found where they cross, and how accurate are their lengths?

    python -m benchmarks.fibres.singles

Synthetic deposits of fibres of finite length, in four looks, at a cover of 3 to 30 %. A fibre of at
least 40 px in the image, half of which is visible, is found if one outline holds 75 % of its
visible pixels, and 75 % of the outline are pixels of this fibre; pixels of fibres above it count
for neither. Where other fibres hide the middle of a fibre, the crossing is resolved if one outline
holds the larger half of the parts on both sides, and little else. Lengths and diameters are
compared for fibres that lie within the image.

Textures without fibres, as `benchmarks.fibres.train` draws them, show what is found there.

Two usual methods were written for this comparison, both with the right polarity: each region above
Otsu's threshold is a fibre, and each branch of its skeleton is one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import compress, pairwise
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from benchmarks.fibres import __main__ as mats
from benchmarks.fibres.__main__ import above_otsu, factor_lines
from benchmarks.fibres.train import TEXTURES, without_fibres
from hypervlad.data import FIBRE_LOOKS, FibreTruth, make_fibre_images
from hypervlad.fibres import find_fibres
from hypervlad.objects.particle import Outline
from hypervlad.particles import Outlines, Particle, cut_particles, measure

SEED = 48
N_IMAGES = 48
N_TEXTURES = 40  # of each kind
FIRST_TEXTURE = 7_000_000  # no training has so many images
CONFIDENCES = (0.5, 0.7, 0.8, 0.9, 0.95, 1)  # bounds of the rows of the table
SIZE = (384, 512)
SHORTEST, VISIBLE = 40, 0.5  # length in the image in pixels, and its visible share
SHARE = 0.75  # of a fibre in its outline, and of an outline in its fibre
FACTORS = {"cover": (0.03, 0.1, 0.2), "contrast_to_noise": (5, 10, 20), "diameter": (6, 9)}


def drawn(seed: int, index: int) -> dict[str, Any]:
    """Return the parameters of one image."""
    rng = np.random.default_rng([seed, index])
    return {
        "look": FIBRE_LOOKS[index % len(FIBRE_LOOKS)],
        "diameter": float(rng.uniform(6, 14)),
        "length": float(rng.uniform(60, 200)),
        "cover": float(rng.uniform(0.03, 0.3)),
        "curl": float(rng.choice([0, 0.4])),
        "blur": float(rng.uniform(0.5, 1.5)),
        "contrast_to_noise": float(np.exp(rng.uniform(np.log(5), np.log(30)))),
    }


def by_threshold(image: np.ndarray, dark: bool, branches: bool) -> list[Particle]:
    """Return the regions above Otsu's threshold, or what is next to each branch of a skeleton."""
    above = above_otsu(image, dark)
    labels, _ = ndimage.label(above, np.ones((3, 3)))
    if branches:
        skeleton = skeletonize(above)
        n_near = ndimage.convolve(skeleton.astype(int), np.ones((3, 3), int), mode="constant")
        lines, _ = ndimage.label(skeleton & (n_near <= 3), np.ones((3, 3)))
        nearest = ndimage.distance_transform_edt(lines == 0, return_indices=True)[1]
        labels = np.where(above, lines[tuple(nearest)], 0)
    areas = np.bincount(labels.ravel())
    labels[areas[labels] < SHORTEST] = 0
    return cut_particles(image, Outlines.of(labels))


def by_confidence(outlines: Sequence[Outline]) -> list[int]:
    return np.histogram([each.confidence for each in outlines], CONFIDENCES)[0].tolist()


def compared(particles: Sequence[Particle], truth: FibreTruth, length: float) -> Facts:
    """Return how many fibres are found, crossings resolved, and the errors of lengths."""
    n, fibres = len(truth.diameters), truth.fibres
    sizes = np.bincount(fibres[fibres >= 0], minlength=n)
    pixels = [fibres[each.window][each.mask] for each in particles]
    own = np.array([np.bincount(each[each >= 0], minlength=n) for each in pixels]).reshape(-1, n)
    beside = np.array([(each < 0).sum() for each in pixels])
    below = np.cumsum(own, axis=1) - own
    held = own / np.maximum(sizes, 1)
    pure = own / np.maximum(own + below + beside[:, None], 1)
    is_fibre = (held > SHARE) & (pure > SHARE)
    facts: Facts = {"fibres": 0, "found": 0, "crossings": 0, "resolved": 0}
    pairs = []
    for fibre in range(n):
        visible = truth.visible_lengths[fibre] / max(truth.lengths[fibre], 1e-9)
        if truth.lengths[fibre] < SHORTEST or visible < VISIBLE:
            continue
        facts["fibres"] += 1
        facts["found"] += bool(is_fibre[:, fibre].any())
        parts, _ = ndimage.label(fibres == fibre, np.ones((3, 3)))
        areas = np.bincount(parts.ravel())[1:]
        large = 1 + np.flatnonzero(areas > truth.diameters[fibre] ** 2 / 2)
        shares = [
            [(parts[p.window][p.mask] == part).sum() / areas[part - 1] for part in large]
            for p in particles
        ]
        joined = (np.array(shares).reshape(len(particles), len(large)) > 0.5).sum(axis=1)
        pure_enough = joined[pure[:, fibre] > SHARE]
        facts["crossings"] += max(len(large) - 1, 0)
        facts["resolved"] += max(int(pure_enough.max(initial=0)) - 1, 0)
        whole = truth.lengths[fibre] > length - 1.5
        if is_fibre[:, fibre].any() and whole:
            best = int((held[:, fibre] * is_fibre[:, fibre]).argmax())
            if not particles[best].touches_edge:
                pairs.append((best, fibre))
    is_right = pure[np.arange(len(own)), own.argmax(axis=1)] > SHARE
    measured = measure([particles[best] for best, _ in pairs])
    index = [fibre for _, fibre in pairs]
    true = truth.lengths[index] + truth.diameters[index]  # ends are round
    return facts | {
        "outlines": len(particles),
        "right": int(is_right.sum()),
        "by_confidence": by_confidence(particles),
        "right_by_confidence": by_confidence(list(compress(particles, is_right))),
        "length_errors": (measured["length_px"].to_numpy() / true - 1).tolist(),
        "diameter_errors": (measured["width_px"].to_numpy() / truth.diameters[index] - 1).tolist(),
    }


def measure_images(n_images: int, seed: int) -> list[Facts]:
    rows = []
    for index in range(n_images):
        asked = drawn(seed, index)
        made = seed * 1000 + index
        (image,), (truth,) = make_fibre_images(1, size=SIZE, random_state=made, **asked)
        dark = asked["look"] == "transmission"
        found = {
            "find_fibres": find_fibres(image).as_particles(),
            "regions": by_threshold(image, dark, branches=False),
            "branches": by_threshold(image, dark, branches=True),
        }
        rows.append(
            asked | {name: compared(own, truth, asked["length"]) for name, own in found.items()}
        )
    return rows


def measure_textures(n_each: int) -> list[Facts]:
    rows = []
    for index in range(n_each * len(TEXTURES)):
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of no fibres
            found = find_fibres(without_fibres(FIRST_TEXTURE + index))
        kind = TEXTURES[(FIRST_TEXTURE + index) % len(TEXTURES)]
        rows.append({"kind": kind, "by_confidence": by_confidence(list(found))})
    return rows


def textures_table(result: Facts) -> str:
    """Return what is found where there are no fibres."""
    lines = []
    for kind in TEXTURES:
        n_false = [sum(row["by_confidence"]) for row in result["textures"] if row["kind"] == kind]
        with_false = f"{np.count_nonzero(n_false)} of {len(n_false)}"
        lines.append([kind, with_false, f"{np.mean(n_false):.1f}", str(max(n_false))])
    return table(["texture", "images with an outline", "outlines per image", "most"], lines)


def measure_mats(n_mats: int, seed: int) -> list[Facts]:
    """Return what is found in mats of the benchmark of diameters, of which much is hidden."""
    rows = []
    for index in range(n_mats):
        asked = mats.drawn(seed, index)
        made = seed * 1000 + index
        (image,), (truth,) = make_fibre_images(1, size=SIZE, random_state=made, **asked)
        rows.append(compared(find_fibres(image).as_particles(), truth, np.inf))
    return rows


def confidence_table(result: Facts) -> str:
    """Return how many of the outlines of each confidence are right, half of the images textures."""
    deposits, in_mats = [row["find_fibres"] for row in result["images"]], result["mats"]
    textures = result["textures"][: len(deposits) + len(in_mats)]
    kinds = deposits, in_mats, textures
    numbers = np.array([np.sum([row["by_confidence"] for row in each], axis=0) for each in kinds])
    right = np.sum([row["right_by_confidence"] for row in (*deposits, *in_mats)], axis=0)
    lines = []
    for k, (low, high) in enumerate(pairwise(CONFIDENCES)):
        n = int(numbers[:, k].sum())
        share = f"{right[k] / n:.2f}" if n else "–"
        lines.append([f"{low:g} to {high:g}", *map(str, numbers[:, k]), share])
    return table(["confidence", "in deposits", "in mats", "in textures", "right"], lines)


def singles_table(result: Facts) -> str:
    """Return what is found by each factor."""
    lines = factor_lines(result["images"], FACTORS, _line)
    head = ["images", "fibres", "found", "outlines right", "crossings resolved", "length error"]
    head += ["within 5 %", "diameter error", "found: regions", "found: branches"]
    return table(head, [line for line in lines if line])


def _line(name: str, rows: Sequence[Facts]) -> list[str]:
    if not rows:
        return []

    def share(part: str, whole: str, method: str = "find_fibres") -> str:
        total = sum(row[method][whole] for row in rows)
        return f"{sum(row[method][part] for row in rows) / total:.0%}" if total else "–"

    def errors(kind: str) -> np.ndarray:
        return np.abs(np.concatenate([row["find_fibres"][kind] for row in rows]))

    lengths, diameters = errors("length_errors"), errors("diameter_errors")
    return [
        name,
        str(sum(row["find_fibres"]["fibres"] for row in rows)),
        share("found", "fibres"),
        share("right", "outlines"),
        share("resolved", "crossings"),
        f"{np.median(lengths):.1%}" if len(lengths) else "–",
        f"{np.mean(lengths <= 0.05):.0%}" if len(lengths) else "–",
        f"{np.median(diameters):.1%}" if len(diameters) else "–",
        share("found", "fibres", "regions"),
        share("found", "fibres", "branches"),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "fibres" / "singles.json")
    parser.add_argument("--images", type=int, default=N_IMAGES)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parse(parser, argv)
    result: Facts = {
        "images": measure_images(options.images, options.seed),
        "mats": measure_mats(options.images, options.seed),
        "textures": measure_textures(max(1, N_TEXTURES * options.images // N_IMAGES)),
        "origin": origin(),
    }
    save_result(options.out, result)
    for each in (singles_table, confidence_table, textures_table):
        print(each(result), end="\n\n")


if __name__ == "__main__":
    main()
