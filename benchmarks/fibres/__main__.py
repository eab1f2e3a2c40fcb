"""How accurate are diameters of fibres? Compared with a skeleton and with edge distances.

    python -m benchmarks.fibres --data ../shared/data

Synthetic mats of exact diameters, varied in diameter, spread, blur, noise, cover and look. The
truth is the median over visible length. Images in which the blur is wider than the fibres
are listed apart: there, the right answer is none. Both other methods were written for this
comparison: threshold, skeleton and distance transform, as DiameterJ (Hotaling et al. 2015,
Biomaterials 61, 327-338), and the most frequent distance between opposite edges in rotated copies,
as GIFT (Götz et al. 2021, Measurement 177, 109265). Real mats have no truth: there, how the median
depends on the view is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import skeletonize

from benchmarks.common.data import log_uniform
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from hypervlad.data import FIBRE_LOOKS, make_fibre_images
from hypervlad.datasets.fibres import FibreTruth
from hypervlad.fibres import fibre_diameters
from hypervlad.images import read_micrograph

SEED = 21
N_MATS = 200
N_REAL = 10
SIZE = (512, 704)
RESOLVED = 2.355  # diameter over the blur's standard deviation
FACTORS: dict[str, tuple[float, ...]] = {  # lower bounds of the rows of the table
    "diameter": (3, 6, 12, 24),
    "blur": (0.5, 1, 2),
    "contrast_to_noise": (2, 5, 12),
    "cover": (0.05, 0.3, 0.6),
    "spread": (0.05, 0.2),
    "curl": (0, 0.4),
}


def drawn(seed: int, index: int) -> dict[str, Any]:
    """Return the parameters of one mat."""
    rng = np.random.default_rng([seed, index])
    return {
        "look": FIBRE_LOOKS[index % len(FIBRE_LOOKS)],
        "diameter": log_uniform(rng, 3, 40),
        "spread": float(rng.uniform(0.05, 0.4)),
        "blur": float(rng.uniform(0.5, 3)),
        "contrast_to_noise": log_uniform(rng, 2, 30),
        "cover": float(rng.uniform(0.05, 0.95)),
        "curl": float(rng.choice([0, 0.4])),
    }


def made(seed: int, index: int) -> tuple[dict[str, Any], np.ndarray, FibreTruth]:
    """Return the parameters of one mat, its image, and the truth."""
    asked = drawn(seed, index)
    random_state = int(np.random.default_rng([seed, index]).integers(2**31))
    (image,), (truth,) = make_fibre_images(1, size=SIZE, random_state=random_state, **asked)
    return asked, image, truth


def above_otsu(image: np.ndarray, dark: bool) -> np.ndarray:
    """Return where fibres are by a threshold: the usual method, given the right polarity."""
    smooth = ndimage.median_filter(-image if dark else image, 3)
    return smooth > threshold_otsu(smooth)


def skeleton_median(image: np.ndarray, dark: bool) -> float:
    """Return the median of twice the distance to the edge along the skeleton of fibres."""
    fibre = above_otsu(image, dark)
    distance = ndimage.distance_transform_edt(fibre)[skeletonize(fibre)]
    return float(2 * np.median(distance)) if distance.size else float("nan")


def edge_distance(image: np.ndarray, dark: bool) -> float:
    """Return the most frequent distance between opposite edges along the rows of rotated copies."""
    distances: list[np.ndarray] = []
    middle = min(image.shape) // 3
    for angle in range(0, 180, 15):
        turned = ndimage.rotate(-image if dark else image, angle, reshape=False, order=1)
        row, column = turned.shape[0] // 2, turned.shape[1] // 2
        part = turned[row - middle : row + middle, column - middle : column + middle]
        slope = ndimage.gaussian_filter(part, 1.5, order=(0, 1))
        level = 2 * np.std(slope)
        peak = np.abs(slope) == ndimage.maximum_filter1d(np.abs(slope), 3, axis=1)
        for line in np.where(peak & (np.abs(slope) > level), np.sign(slope), 0):
            edges = np.flatnonzero(line)
            pairs = (line[edges[:-1]] > 0) & (line[edges[1:]] < 0)
            distances.append(np.diff(edges)[pairs])
    counts = np.bincount(np.concatenate(distances).astype(int), minlength=4)
    smooth = ndimage.gaussian_filter1d(counts.astype(float), 1.0)
    return float(smooth[2:].argmax() + 2) if counts[2:].any() else float("nan")


def measure(n_mats: int, seed: int) -> list[Facts]:
    rows = []
    for index in range(n_mats):
        asked, image, truth = made(seed, index)
        dark = asked["look"] == "transmission"
        started = time.perf_counter()
        found = fibre_diameters(image)
        seconds = time.perf_counter() - started
        rows.append(
            asked
            | {
                "true": truth.median,
                "found": found.median,
                "interval": [found.interval.low, found.interval.high],
                "n_places": len(found.diameters),
                "profile": found.profile,
                "polarity": found.polarity,
                "seconds": seconds,
                "reason": found.reason,
                "skeleton": skeleton_median(image, dark),
                "edges": edge_distance(image, dark),
            }
        )
    return rows


def two_kinds(n_mats: int) -> list[Facts]:
    """Measure mats of fibres of 8 and of 20 px, 35 % of which are wide."""
    rows = []
    for index in range(n_mats):
        (image,), (truth,) = make_fibre_images(
            1,
            diameter=8,
            second=20,
            second_share=0.35,
            spread=0.08,
            cover=0.3,
            size=SIZE,
            random_state=index,
        )
        wide = truth.diameters > 12.6
        share = float(truth.visible_lengths[wide].sum() / truth.visible_lengths.sum())
        modes = fibre_diameters(image).modes
        rows.append({"modes": modes.tolist(), "share": share})
    return rows


def views(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return an image as it is, and as others might have taken it."""
    height, width = (side // 2 * 2 for side in image.shape)
    whole = image[:height, :width]
    rows, columns = height // 5, width // 5
    noise = 0.03 * np.ptp(image) * np.random.default_rng(0).standard_normal(image.shape)
    scaled = (image - image.min()) / np.ptp(image)
    return {
        "as it is": image,
        "turned by 17 degrees": ndimage.rotate(image, 17, reshape=False, order=3)[
            rows:-rows, columns:-columns
        ],
        "halved": whole.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)),
        "inverted": -image,
        "gamma 0.7": scaled**0.7,
        "gamma 1.4": scaled**1.4,
        "noise added": image + noise,
        "upper left quarter": image[: height // 2, : width // 2],
    }


def measure_views(paths: Sequence[Path]) -> list[Facts]:
    rows = []
    for path in paths:
        read = read_micrograph(path, banner="remove").pixels
        image = read if read.ndim == 2 else read.mean(axis=2)
        row: Facts = {}
        for name, view in views(image.astype(float)).items():
            scale = 2.0 if name == "halved" else 1.0
            found = fibre_diameters(view)
            row[name] = [scale * found.median, scale * skeleton_median(view, name == "inverted")]
        rows.append(row)
    return rows


def is_resolved(row: Facts) -> bool:
    return bool(row["true"] >= max(3.0, RESOLVED * row["blur"]))


def factor_lines(
    rows: Sequence[Facts],
    factors: Mapping[str, Sequence[float]],
    line: Callable[[str, Sequence[Facts]], list[str]],
) -> list[list[str]]:
    """Return a line of all rows, one of each look, and one of each range of each factor."""
    lines = [line("all", rows)]
    for look in FIBRE_LOOKS:
        lines.append(line(f"look: {look}", [row for row in rows if row["look"] == look]))
    for name, bounds in factors.items():
        for low, high in zip(bounds, (*bounds[1:], np.inf), strict=True):
            own = [row for row in rows if low <= row[name] < high]
            until = "and more" if high == np.inf else f"to {high:g}"
            lines.append(line(f"{name.replace('_', ' ')} {low:g} {until}", own))
    return [each for each in lines if each]


def factor_table(result: Facts) -> str:
    """Return errors by each factor."""
    rows = [row for row in result["mats"] if is_resolved(row)]
    lines = factor_lines(rows, FACTORS, _line)
    lines.insert(1, _line("diameter from 6", [r for r in rows if r["true"] >= 6]))
    head = ["mats", "number", "answered", "median error", "worst", "interval holds"]
    return table([*head, "skeleton", "edges"], [line for line in lines if line])


def _line(name: str, rows: Sequence[Facts]) -> list[str]:
    answered = [row for row in rows if np.isfinite(row["found"])]
    if not answered:
        return []
    errors = [abs(row["found"] / row["true"] - 1) for row in answered]
    others = [
        [abs(row[key] / row["true"] - 1) for row in rows if np.isfinite(row[key])]
        for key in ("skeleton", "edges")
    ]
    bounded = [row for row in answered if np.isfinite(row["interval"][0])]
    held = [row["interval"][0] <= row["true"] <= row["interval"][1] for row in bounded]
    return [
        name,
        str(len(rows)),
        str(len(answered)),
        f"{np.median(errors):.1%}",
        f"{max(errors):.0%}",
        f"{np.mean(held):.0%}" if held else "–",
        *(f"{np.median(own):.0%}" for own in others),
    ]


def unresolved_table(result: Facts) -> str:
    """Return how many images of unresolved fibres have no answer, and how many intervals hold."""
    rows = [row for row in result["mats"] if not is_resolved(row)]
    ends = [(*row["interval"], row["true"]) for row in rows if np.isfinite(row["found"])]
    held = f"{sum(low <= true <= high for low, high, true in ends)} of {len(ends)}"
    head = ["unresolved mats", "no answer", "intervals of the others hold"]
    return table(head, [[str(len(rows)), str(len(rows) - len(ends)), held]])


def kinds_table(result: Facts) -> str:
    """Return how often two kinds are found, and how well."""
    rows = result["kinds"]
    found = [row for row in rows if len(row["modes"]) == 2]
    errors = [
        max(abs(row["modes"][0][0] / 8 - 1), abs(row["modes"][1][0] / 20 - 1)) for row in found
    ]
    shares = [abs(row["modes"][1][2] - row["share"]) for row in found]
    head = ["mats", "two kinds found", "larger error of the two", "error of the share"]
    cells = [str(len(rows)), str(len(found))]
    cells += [f"{np.median(errors):.1%}", f"{np.median(shares):.2f}"] if found else ["–", "–"]
    return table(head, [cells])


def views_table(result: Facts) -> str:
    """Return how much medians of real mats change with the view."""
    rows = [row for row in result["views"] if np.isfinite(row["as it is"][0])]
    lines = []
    for name in list(rows[0])[1:] if rows else []:
        pairs = [
            [row[name][i] / row["as it is"][i] - 1 for i in range(2)]
            for row in rows
            if np.isfinite(row[name][0])
        ]
        changes = np.abs(np.asarray(pairs).reshape(-1, 2))
        cells = [name, f"{len(pairs)} of {len(rows)}"]
        cells += [f"{value:.1%}" for value in np.median(changes, axis=0)] if pairs else ["–", "–"]
        lines.append([*cells, f"{changes[:, 0].max():.0%}" if pairs else "–"])
    return table(["view", "answered", "median change", "that of a skeleton", "worst"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "fibres" / "fibres.json")
    parser.add_argument("--mats", type=int, default=N_MATS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--data", type=Path, help="folder of the real sets")
    options = parse(parser, argv)
    folder = options.data / "nanofibre" / "NonDefective" if options.data else None
    mats = sorted(folder.glob("*.jpg")) if folder else []
    chosen = mats[:: max(1, len(mats) // N_REAL)][:N_REAL]
    result: Facts = {
        **origin(),
        "mats": measure(options.mats, options.seed),
        "kinds": two_kinds(max(1, options.mats // 20)),
        "views": measure_views(chosen),
    }
    save_result(options.out, result)
    for each in (factor_table, unresolved_table, kinds_table, views_table):
        print(each(result), end="\n\n")


if __name__ == "__main__":
    main()
