"""How accurate are the cover of mats and the pores between fibres? Compared with Otsu's threshold.

    python -m benchmarks.fibres.pores

The mats are drawn as those of `benchmarks.fibres`, and each once more in uneven light: multiplied
by a plane from 0.75 to 1.25. Otsu's threshold on a median of 3 x 3 pixels is given the right
polarity. Pores are connected regions of at least 30 px; the truth is what no fibre covers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from benchmarks.fibres import __main__ as fibres
from hypervlad.data import make_fibre_images
from hypervlad.fibres import fibre_diameters, find_pores

SEED = 77
N_MATS = 100
MIN_AREA = 30
LIGHT = 0.25  # of the brightness, more or less at the corners
FACTORS: dict[str, tuple[float, ...]] = {  # lower bounds of the rows of the table
    "cover": (0.05, 0.3, 0.6, 0.8),
    "contrast_to_noise": (2, 5, 12),
    "diameter": (3, 6, 12, 24),
}


def uneven(image: np.ndarray, angle: float) -> np.ndarray:
    """Return an image in light that changes in one direction."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, side) for side in image.shape), indexing="ij")
    sine, cosine = np.sin(angle), np.cos(angle)
    plane = (sine * rows + cosine * columns) / (abs(sine) + abs(cosine))
    return np.asarray(image * (1 + LIGHT * plane), dtype=np.float32)


def areas(is_open: np.ndarray) -> np.ndarray:
    """Return the areas of pores."""
    sizes = np.bincount(ndimage.label(is_open, np.ones((3, 3)))[0].ravel())[1:]
    return sizes[sizes >= MIN_AREA]


def facts_of(cover: float, sizes: Sequence[float] | np.ndarray) -> list[float]:
    return [float(cover), len(sizes), float(np.median(sizes)) if len(sizes) else 0.0]


def by_otsu(image: np.ndarray, dark: bool) -> list[float]:
    is_open = ~fibres.above_otsu(image, dark)
    return facts_of(1 - is_open.mean(), areas(is_open))


def measure(n_mats: int, seed: int) -> list[Facts]:
    rows = []
    for index in range(n_mats):
        asked, rng = fibres.drawn(seed, index), np.random.default_rng([seed, index])
        made = int(rng.integers(2**31))
        (drawn,), (truth,) = make_fibre_images(1, size=fibres.SIZE, random_state=made, **asked)
        dark, angle = asked["look"] == "transmission", float(rng.uniform(0, 2 * np.pi))
        for light, image in (("even", drawn), ("uneven", uneven(drawn, angle))):
            row = asked | {"light": light, "found": None, "otsu": by_otsu(image, dark)}
            row["true"] = facts_of(truth.cover, areas(truth.fibres < 0))
            found = fibre_diameters(image)
            if found.reason is None:
                pores = find_pores(image, found, min_area=MIN_AREA)
                sizes = [each.mask.sum() for each in pores]
                row["found"] = facts_of(pores.cover, sizes)
                row["interval"] = [pores.cover_interval.low, pores.cover_interval.high]
            rows.append(row)
    return rows


def pores_table(result: Facts) -> str:
    """Return the errors of covers, and of numbers and median areas of pores."""
    even = [row for row in result["mats"] if row["light"] == "even"]
    lines = fibres.factor_lines(even, FACTORS, _line)
    lines.append(_line("uneven light", [row for row in result["mats"] if row["light"] != "even"]))
    head = ["mats", "number", "answered", "error of the cover", "worst", "Otsu", "worst of Otsu"]
    head += ["interval of the cover holds", "its median width"]
    head += ["error of the number", "Otsu", "error of the median area", "Otsu"]
    return table(head, [line for line in lines if line])


def _line(name: str, rows: Sequence[Facts]) -> list[str]:
    answered = [row for row in rows if row["found"]]
    if not answered:
        return []

    def errors(which: int, method: str) -> np.ndarray:
        pairs = [(row[method][which], row["true"][which]) for row in answered]
        if which == 0:
            return np.array([abs(found - true) for found, true in pairs])
        return np.array([abs(found / true - 1) for found, true in pairs if true])

    def both(which: int, statistic: Callable[[np.ndarray], float]) -> list[float]:
        return [statistic(errors(which, method)) for method in ("found", "otsu")]

    medians, worst = both(0, np.median), both(0, np.max)
    low, high = np.transpose([row["interval"] for row in answered])
    covers = np.array([row["true"][0] for row in answered])
    holds = np.mean((low <= covers) & (covers <= high))
    cells = [f"{value:.3f}" for pair in zip(medians, worst, strict=True) for value in pair]
    cells += [f"{holds:.0%}", f"{np.median(high - low):.2f}"]
    cells += [f"{value:.0%}" for which in (1, 2) for value in both(which, np.median)]
    return [name, str(len(rows)), str(len(answered)), *cells]


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "fibres" / "pores.json")
    parser.add_argument("--mats", type=int, default=N_MATS)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parse(parser, argv)
    result: Facts = {"mats": measure(options.mats, options.seed), "origin": origin()}
    save_result(options.out, result)
    print(pores_table(result))


if __name__ == "__main__":
    main()
