"""Do the regions of wide, soft defects have their areas? And are these in their intervals?

    python -m benchmarks.defects.wide --data ../shared/data/neu_steel/inclusion

A scorer learns from defect-free images. Others get one defect each: of `hypervlad.data.add_defect`,
or a wide one that is drawn here, which ends where it has half of its strength; or a scale bar with
a label, which is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, Facts, load_result, origin, save_result
from benchmarks.common.tables import table
from benchmarks.defects.methods import Ours
from benchmarks.defects.surfaces import FREE, Surface, read_surface, split_surface
from benchmarks.scale_bars.layouts import Layout
from hypervlad.data import IMAGE_DEFECTS, add_defect

WIDE = ("glow", "cloud", "blurred area", "wide band", "frayed edge")
BAR, BAR_KEPT = "scale bar", "scale bar, kept"  # kinds of defect-free images
_BAR = Layout(label="above", heights=(3, 6))
CHOSEN_ON = ("magnetic_tile", "neu_steel pitted_surface")  # outlines and intervals
MIN_AREA = 32**2  # of 4 x 4 cells, pixels: smaller defects are smaller than the map shows
_MAX_SHARE = 0.5  # of the image: a larger defect has no outline to find
_MIN_CONTRAST = 0.04


def _waves(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> np.ndarray:
    waves = gaussian_filter(rng.standard_normal(shape), width, mode="reflect")
    return np.asarray(waves / waves.std())


def add_wide(
    image: np.ndarray, kind: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a wide defect into an image (H, W); return that and the mask of the defect."""
    shape, side = image.shape, min(image.shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    contrast = max(float(image.std()), _MIN_CONTRAST)
    change: Any = rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(0.7), np.log(3))) * contrast
    down, across = (
        rows - rng.uniform(0.15, 0.85) * shape[0],
        columns - rng.uniform(0.15, 0.85) * shape[1],
    )
    distance, radius = np.hypot(down, across), rng.uniform(0.12, 0.32) * side
    if kind == "glow":
        strength = np.exp(-np.log(2) * (distance / radius) ** 2)
    elif kind == "cloud":
        ragged = distance / radius - 0.35 * _waves(rng, shape, radius / 2.5)
        strength = np.clip((1 - ragged) / 0.5 + 0.5, 0, 1)
        change = change * (1 + 0.3 * _waves(rng, shape, max(radius / 6, 2)))
    elif kind == "blurred area":
        ragged = distance / radius - 0.25 * _waves(rng, shape, radius / 2)
        strength = np.clip((1 - ragged) / 0.3 + 0.5, 0, 1)
        width = np.exp(rng.uniform(np.log(1.5), np.log(5))) * max(side / 300, 0.7)
        change = gaussian_filter(image, width) - image
    elif kind == "wide band":
        angle, width = rng.uniform(0, np.pi), rng.uniform(0.08, 0.25) * side
        beside = np.abs(down * np.sin(angle) + across * np.cos(angle))
        strength = np.clip((width / 2 - beside) / (0.25 * width) + 0.5, 0, 1)
    else:
        edges = [rows, shape[0] - 1 - rows, columns, shape[1] - 1 - columns]
        depth = rng.uniform(0.08, 0.25) * side * (1 + 0.35 * _waves(rng, shape, 0.05 * side))
        strength = np.clip((depth - edges[rng.integers(4)]) / 2 + 0.5, 0, 1)
        level = np.quantile(image, float(rng.choice([0.02, 0.98])))
        change = level + 0.3 * contrast * _waves(rng, shape, 3) - image
    return np.clip(image + change * strength, 0, 1).astype(np.float32), strength >= 0.5


def tested(surface: Surface, test: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the defect-free test images, and each with a defect of each kind, and its mask."""
    for at in test[surface.kinds[test] == FREE].tolist():
        image = surface.images[at]
        grey = np.asarray(image if image.ndim == 2 else image.mean(axis=2), np.float32)
        with_bar, *_ = _BAR.draw(
            np.uint8(np.round(255 * grey)), np.random.default_rng(at), grey.shape[1] // 4
        )
        for kind, own in ((FREE, grey), (BAR, with_bar / 255), (BAR_KEPT, with_bar / 255)):
            yield kind, own.astype(np.float32), np.zeros(grey.shape, bool)
        for number, kind in enumerate(IMAGE_DEFECTS):
            yield kind, *add_defect(grey, kind, random_state=len(IMAGE_DEFECTS) * at + number)
        for number, kind in enumerate(WIDE):
            yield kind, *add_wide(grey, kind, np.random.default_rng([at, number]))


def measure(method: Ours, surface: Surface, n_train: int, n_test: int) -> list[dict[str, Any]]:
    """Return a row for each test image that is called defective, and each defect-free one."""
    train, test = split_surface(surface, n_train, n_test, 0)
    method.fit([surface.images[i] for i in train], None)
    rows = []
    for kind, image, mask in tested(surface, test):
        method.scorer.set_params(annotations="keep" if kind == BAR_KEPT else "leave_out")
        found = method.scorer.find(image)
        if (not found.is_defective and mask.any()) or mask.mean() > _MAX_SHARE:
            continue
        row: dict[str, Any] = {"kind": kind, "area": int(mask.sum()), "n": len(found.regions)}
        on = [each for each in found.regions if mask[each.window][each.mask].any()]
        if on:
            largest = max(on, key=lambda each: each.area)
            row |= {"region": largest.area, "interval": largest.area_interval}
        rows.append(row)
    return rows


def wide_table(results: Sequence[Facts]) -> str:
    """Return the figures of each surface; first those on which something was chosen."""
    lines = []
    for result in sorted(results, key=lambda each: each["surface"] not in CHOSEN_ON):
        rows, name = result["rows"], result["surface"].replace("_", " ")
        n_false = [
            sum(row["n"] for row in rows if row["kind"] == kind) for kind in (FREE, BAR, BAR_KEPT)
        ]
        n_free = sum(row["kind"] == FREE for row in rows)
        defects = [row for row in rows if row["area"]]
        large = [row for row in defects if row["area"] >= MIN_AREA]
        small = [row for row in defects if row["area"] < MIN_AREA]
        lines.append(
            [
                f"{name}, large",
                *_cells(large),
                f"{n_false[0]} in {n_free}; {n_false[1]}; {n_false[2]}",
            ]
        )
        lines.append([f"{name}, small", *_cells(small), ""])
    heads = [
        "surface, defects",
        "called defective",
        "no region on the defect",
        "area / true area",
        "half to twice the true area",
        "true area in the interval",
        "false regions in defect-free images; with a scale bar; with it kept",
    ]
    return table(heads, lines)


def _cells(rows: Sequence[Facts]) -> list[str]:
    if not rows:
        return ["0", *"––––"]
    ratios = np.array([row.get("region", 0) / row["area"] for row in rows])
    known = [row for row in rows if row.get("interval")]
    inside = [row["interval"][0] <= row["area"] <= row["interval"][1] for row in known]
    with_region = ratios[ratios > 0] if ratios.any() else [np.nan]
    low, middle, high = np.quantile(with_region, [0.1, 0.5, 0.9])
    return [
        str(len(rows)),
        f"{np.mean(ratios == 0):.0%}",
        f"{middle:.2f} ({low:.2f} to {high:.2f})",
        f"{np.mean((ratios >= 0.5) & (ratios <= 2)):.0%}",
        f"{np.mean(inside):.0%} of {len(inside)}" if inside else "–",
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "defects", threads=2)
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--train", type=int, default=25, help="images to learn from")
    parser.add_argument("--test", type=int, default=10, help="defect-free images to test")
    parser.add_argument("--planted", type=int, default=120, help="synthetic defects of the fit")
    add_network(parser)
    options = parse(parser, argv)
    surface = read_surface(options.data)
    network = options.backbone, options.weights
    method = Ours(*network, n_planted=options.planted, random_state=0)
    rows = measure(method, surface, options.train, options.test)
    path = options.out / f"wide_{surface.name.replace(' ', '_')}.json"
    result = {"surface": surface.name, "rows": rows, "n_train": options.train, "origin": origin()}
    save_result(path, result, indent=None)
    print(wide_table([load_result(path)]))


if __name__ == "__main__":
    main()
