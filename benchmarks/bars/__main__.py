"""Are information bars found and cut at the right row, and nothing else?

Bars of many instruments are drawn on synthetic scans, which are stored in several ways; scans
without a bar should stay whole. With --data, bars are drawn on real images, too, and real images
are examined as they are.

    python -m benchmarks.bars --data ../shared/data
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.bars.layouts import LAYOUTS, WITHOUT
from benchmarks.common.data import as_jpeg
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from hypervlad import read_image
from hypervlad.data import make_fibre_images, make_particle_fields, make_tem_images
from hypervlad.images import find_banner, find_images
from hypervlad.images.reading import decode_stored

SEED = 4501
FRAME = (1160, 1536)  # as large as the largest image
MADE = (512, 768)  # scans are made at this size and enlarged
WHOLE = (768, 1024)  # size of scans without a bar
TOLERANCE = 2  # rows
N_REAL = 4  # images of each real set that bars are drawn on
REAL = {  # sets of real images, and those of them that have a bar by eye
    "micrographs": (
        "13635284_v1_fig_2_7",
        "2022_w0d5g_v3_fig_8_1",
        "2023_gzxl1_fig_3_2",
        "2023_mhb04_fig_2_1",
        "2023_mhb04_fig_2_2",
        "2024_s2kf2_fig_2_0",
        "2024_s2kf2_fig_2_2",
        "6998204_v2_fig_1_0",
    ),
    "nanofibre": (),
    "neu_steel": (),
    "magnetic_tile/images": (),
    "particles/sem/images": (),
    "particles/tsem/images": (),
    "scale_bars": ("c",),
}


def textures(seed: int) -> dict[str, np.ndarray]:
    """Return scans of [0, 1] without noise."""
    made = {
        "fibres": make_fibre_images(1, cover=0.9, size=MADE, random_state=seed)[0],
        "tubes": make_tem_images(1, size=MADE, random_state=seed)[0],
        "particles": make_particle_fields(1, size=MADE, random_state=seed)[0],
    }
    scale = [n / m for n, m in zip(FRAME, MADE, strict=True)]
    return {name: ndimage.zoom(np.asarray(im[0]), scale, order=1) for name, im in made.items()}


def scans(of: dict[str, np.ndarray], size: tuple[int, int], bar: int, seed: int) -> Facts:
    """Return named scans of 8 bits, whose lowest `bar` rows a bar will cover."""
    rng = np.random.default_rng(seed)
    fibres, tubes, particles = (im[-size[0] :, : size[1]] for im in of.values())
    rows = np.arange(size[0])[:, None] / (size[0] - bar)  # 1 at the bar
    layers = np.where(rows > 0.9, 60, np.where(rows > 0.8, 200, 120))
    levels_and_noise = {
        "fibres": (20 + 200 * fibres, 8),
        "dense fibres": (10 + 235 * np.tile(fibres[::3, ::3], (3, 3))[: size[0], : size[1]], 5),
        "bright field": (60 + 150 * tubes, 6),
        "dark field": (90 * (1 - tubes) - 20, 4),
        "particles": (10 + 220 * particles, 6),
        "dim": (6 + 24 * fibres, 2),
        "gradient": (np.broadcast_to(40 + 120 * rows, size), 2),
        "noise": (np.full(size, 128), 25),
        "smooth grey": (60 + 15 * tubes, 1.2),
        "layers": (layers + 20 * fibres, 6),
        "flat black below": (np.where(rows > 0.8, -60, 200 * fibres), 8),
        "flat white below": (np.where(rows > 0.8, 330, 40 + 180 * fibres), 8),
        "mostly black": (160 * particles - 60, 10),
    }
    return {
        name: rng.normal(levels, noise).clip(0, 255).round().astype(np.uint8)
        for name, (levels, noise) in levels_and_noise.items()
    }


def real_scans(data: Path, size: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield images of each real set, enlarged."""
    for name, with_bar in REAL.items():
        paths = [path for path in find_images(data / name) if not with_bar]
        for path in paths[:: max(1, len(paths) // N_REAL)][:N_REAL]:
            grey = np.atleast_3d(255 * read_image(path)).mean(axis=2)
            small = Image.fromarray(grey.round().astype(np.uint8))
            yield name, np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


def stored(
    image: np.ndarray, bar: int, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield an image as it may be stored, with the height of its bar."""
    coloured = bool(np.ptp(image.astype(int), axis=2).any())
    grey = image if coloured else image[:, :, 0]
    yield "8 bits", grey, bar
    scan = np.s_[: len(image) - bar]
    deep = image[:, :, 0].astype(np.uint16) * 257
    noise = rng.integers(0, 257, deep[scan].shape, dtype=np.uint16)
    deep[scan] = np.minimum(deep[scan], 65535 - 257) + noise
    yield "16 bits", deep.copy(), bar
    deep[scan] //= 16
    yield "scan of 12 in 16 bits", deep, bar
    yield "JPEG, quality 75", as_jpeg(grey, 75), bar
    scale = 400 / image.shape[1]
    size = (400, round(len(image) * scale))
    small = Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS)
    yield "400 px wide, JPEG, quality 90", as_jpeg(np.asarray(small), 90), bar * scale


def measure(seed: int, data: Path | None) -> list[Facts]:
    """Return the true and the found height of the bar of each image."""
    rng = np.random.default_rng(seed)
    of = textures(seed)
    bars: dict[str, tuple[Any, tuple[int, int], int]] = {
        name: (each.draw, each.size, each.rows) for name, each in LAYOUTS.items()
    } | {name: (draw, WHOLE, 0) for name, draw in WITHOUT.items()}
    found = []
    for layout, (draw, size, rows) in bars.items():
        made = list(scans(of, size, rows, seed).items())
        made += real_scans(data, size) if data else []
        for scan, pixels in made:
            for kind, image, bar in stored(draw(pixels, rng), rows, rng):
                case = {"layout": layout, "scan": scan, "stored": kind}
                found.append({**case, "bar": bar, "found": find_banner(image)})
        print(layout, flush=True)
    return found


def measure_real(data: Path) -> Iterator[Facts]:
    """Yield how many images of each real set have a bar, and in how many one is found."""
    for name, with_bar in REAL.items():
        paths = [Path(path) for path in find_images(data / name)]
        cut = [path.stem for path in paths if find_banner(decode_stored(path, str(path)).pixels)]
        right = [stem for stem in cut if stem.endswith(with_bar or ("/",))]
        yield {
            "data": name,
            "n_images": len(paths),
            "with_bar": len(with_bar),
            "found": len(right),
            "invented": len(cut) - len(right),
        }


def counts(found: Iterable[Facts], key: str) -> dict[str, Facts]:
    """Count outcomes by layout, scan or storage."""
    differences: dict[str, list[float | None]] = defaultdict(list)
    for case in found:
        is_found = case["found"] > 0
        differences[case[key]].append(case["found"] - case["bar"] if is_found else None)
    return {
        name: {
            "n": len(values),
            "missed": values.count(None),
            "too_many": sum(v is not None and v > TOLERANCE for v in values),
            "most_too_many": round(max((v for v in values if v is not None), default=0)),
            "left": sum(v is not None and v < -TOLERANCE for v in values),
            "most_left": round(max((-v for v in values if v is not None), default=0)),
        }
        for name, values in differences.items()
    }


def bars_table(result: Facts) -> str:
    """Return the outcomes of images with a bar, by layout, scan and storage."""
    rows = []
    for head in ("layout", "scan", "stored"):
        rows += [[f"**by {head}**", *[""] * 5]] if head != "layout" else []
        for name, n in result["with_bar"][head].items():
            right = n["n"] - n["missed"] - n["too_many"] - n["left"]
            rows.append(
                [
                    name,
                    str(n["n"]),
                    f"{100 * right / n['n']:.0f} %",
                    f"{n['missed']}",
                    f"{n['too_many']}" + (f" (by {n['most_too_many']})" if n["too_many"] else ""),
                    f"{n['left']}" + (f" (by {n['most_left']})" if n["left"] else ""),
                ]
            )
    return table(["bar", "images", "right", "missed", "rows too many", "rows left"], rows)


def whole_table(result: Facts) -> str:
    """Return how many images without a bar are cut, and how many bars real images have."""
    rows = [
        [name, f"{n['n']}", "–", "–", f"{n['n'] - n['missed']}"]
        for name, n in result["without"].items()
    ]
    rows += [
        [each["data"], *[str(each[key]) for key in ("n_images", "with_bar", "found", "invented")]]
        for each in result["real"]
    ]
    return table(["images", "number", "with a bar", "found", "cut without a bar"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "bars" / "bars.json")
    parser.add_argument("--data", type=Path, help="folder of the real sets")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parse(parser, argv)
    found = measure(options.seed, options.data)
    with_bar = [case for case in found if case["bar"]]
    result: Facts = {
        "with_bar": {key: counts(with_bar, key) for key in ("layout", "scan", "stored")},
        "without": counts([case for case in found if not case["bar"]], "layout"),
        "real": list(measure_real(options.data)) if options.data else [],
        "origin": origin(),
    }
    save_result(options.out, result)
    print(bars_table(result), whole_table(result), sep="\n\n")


if __name__ == "__main__":
    main()
