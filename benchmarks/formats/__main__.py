"""Are pixels and sizes of all formats right, and is reading as fast as it was?

With --data, all files of a folder are read and compared with RosettaSciIO, if it is installed, and
Pillow. With --old, another checkout of the project reads the same files in turns.

    python -m benchmarks.formats --data FOLDER
    python -m benchmarks.formats --old ../earlier
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import statistics
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats

from benchmarks.common.program import in_turns, new_parser, parse
from benchmarks.common.results import BENCHMARKS, RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table, with_interval
from benchmarks.compare.__main__ import Worker
from hypervlad import (
    ImageReadError,
    make_fibre_images,
    read_micrograph,
)
from hypervlad.images.metadata import length_in_nm
from hypervlad.images.reading import read_stored

SEED = 4502
N_TIMED = 20
READERS = {  # modules of RosettaSciIO, by suffix
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".emd": "emd",
    ".mrc": "mrc",
    ".ser": "tia",
    ".tif": "tiff",
    ".tiff": "tiff",
}
SPEED: dict[str, tuple[str, int, str, dict[str, str]]] = {  # type, crop, suffix, options
    "8-bit PNG of 1280 x 1024 px": ("uint8", 1280, ".png", {}),
    "8-bit PNG of 256 x 256 px": ("uint8", 256, ".png", {}),
    "16-bit TIFF of 1280 x 1024 px": ("uint16", 1280, ".tif", {}),
    "the same, LZW": ("uint16", 1280, ".tif", {"compression": "tiff_lzw"}),
}


def scans(n: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Return synthetic images of 16 bits."""
    images = make_fibre_images(n, cover=0.9, size=size, random_state=SEED)[0]
    return [np.round(65535 * image).astype(np.uint16) for image in images]


def measure_found(data: Path) -> Facts:
    """Compare the first image of every file of a folder with what other readers find."""
    read: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    refused: dict[str, Counter[str]] = defaultdict(Counter)
    for path in sorted(path for path in data.rglob("*") if path.is_file()):
        suffix = path.suffix.lower()
        try:
            micrograph, pixels = read_micrograph(path), read_stored(path, str(path))
        except ImageReadError as error:
            reason = re.split(r"[;(]", str(error).removeprefix(f"{path}: "))[0].strip()
            refused[re.sub(r"\d+", "…", reason)][suffix] += 1
            continue
        makers = [name for name, value in micrograph.metadata.items() if isinstance(value, dict)]
        counts = read[micrograph.metadata["format"], (makers or ["–"])[0]]
        others = independent(path, suffix)
        equal = [size for image, size in others if _agree(pixels, image)]
        own = micrograph.pixel_size
        other = next((s for s in [*equal, *(size for _, size in others)] if s), None)
        is_equal = None not in (own, other) and bool(np.isclose(own, other, rtol=1e-3))
        counts["files"] += 1
        counts["compared"] += bool(others)
        counts["pixels"] += bool(equal)
        counts["sizes"] += other is not None
        counts["size"] += is_equal
        counts["more"] += bool(others) and own is not None and other is None
        if others and not (equal and (is_equal or other is None)):
            print(f"{path}: {pixels.shape}, {own} nm; of {len(others)} others {other} nm")
    return {
        "read": [{"format": key[0], "maker": key[1], **read[key]} for key in sorted(read)],
        "refused": {reason: dict(refused[reason]) for reason in sorted(refused)},
    }


def independent(path: Path, suffix: str) -> list[tuple[np.ndarray, float | None]]:
    """Return the images of a file by RosettaSciIO and Pillow, with their pixel sizes."""
    found: list[tuple[np.ndarray, float | None]] = []
    with contextlib.suppress(OSError, ValueError), Image.open(path) as image:
        pixels = image.convert("RGB") if image.mode == "P" else image
        found.append((np.asarray(pixels), None))
    try:
        module = importlib.import_module(f"rsciio.{READERS[suffix]}")
        signals = module.file_reader(str(path))
    except Exception as error:  # readers raise anything
        print(f"{path}: not compared with RosettaSciIO ({type(error).__name__}: {error})")
        return found
    for signal in signals:
        data, axis = np.asarray(signal["data"]), signal["axes"][-1]
        if data.dtype.names:
            data = np.stack([data[name] for name in data.dtype.names], axis=-1)
        if data.ndim > 1:
            found.append((data, length_in_nm(axis.get("scale"), axis.get("units"))))
    return found


def _agree(pixels: np.ndarray, other: np.ndarray) -> bool:
    """Return whether an image is the first of a stack, upside down or not, with alpha or not."""
    if pixels.ndim == 3:
        other = other[..., :3]
    frames = other.reshape(-1, *other.shape[-pixels.ndim :])
    candidates = [frames[0], other[..., 0]]  # energies are the last axis
    return any(np.array_equal(pixels, c) or np.array_equal(pixels, c[::-1]) for c in candidates)


def measure_speed(old: Path, n_rounds: int, folder: Path) -> Facts:
    """Return the processor time of each round in which both checkouts read the same files."""
    images = scans(N_TIMED, (1024, 1280))
    plan: dict[str, Any] = {"reading": {}}
    for name, (dtype, side, suffix, options) in SPEED.items():
        plan["reading"][name] = []
        for i, image in enumerate(images):
            path = folder / f"{len(plan['reading'])}-{i}{suffix}"
            pixels = (image[:side, :side] // (257 if dtype == "uint8" else 1)).astype(dtype)
            Image.fromarray(pixels).save(path, **options)
            plan["reading"][name].append(str(path))
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    checkouts = {"old": old, "new": BENCHMARKS.parent}
    sides = {name: Worker(path, folder / "plan.json", 1) for name, path in checkouts.items()}

    def read(side: Worker, name: str) -> float:
        return float(side.ask("read", name=name)["seconds"])

    try:
        return {
            name: in_turns(
                {key: partial(read, side, name) for key, side in sides.items()}, n_rounds
            )
            for name in SPEED
        }
    finally:
        for side in sides.values():
            side.stop()


def found_table(result: Facts) -> str:
    """Return how many found files agree with other readers."""
    rows = [
        [
            row["format"],
            row["maker"],
            str(row["files"]),
            f"{row['pixels']} of {row['compared']}",
            f"{row['size']} of {row['sizes']}",
            str(row["more"]),
        ]
        for row in result["read"]
    ]
    heads = ["format", "metadata of", "files", "pixels equal", "size equal", "size only here"]
    return table(heads, rows)


def refused_table(result: Facts) -> str:
    """Return which found files are refused, with the reasons."""
    rows = [
        [reason, ", ".join(f"{n} `{suffix}`" for suffix, n in sorted(suffixes.items()))]
        for reason, suffixes in result["refused"].items()
    ]
    return table(["refused as", "files"], rows)


def speed_table(result: Facts) -> str:
    """Return the ratios of reading times, with the interval of their median."""
    rows = []
    for name, seconds in result["seconds"].items():
        ratios = np.divide(seconds["new"], seconds["old"])
        interval = stats.quantile_test(ratios, p=0.5).confidence_interval()
        ms = 1000 * statistics.median(seconds["new"]) / N_TIMED
        rows.append([name, f"{ms:.1f} ms", with_interval(float(np.median(ratios)), interval)])
    return table(["file", "per image", "times the earlier state"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "formats", threads=2)
    parser.add_argument("--data", type=Path, help="folder of files of instruments")
    parser.add_argument("--old", type=Path, help="earlier checkout, for the speed, instead")
    parser.add_argument("--rounds", type=int, default=31, help="of the speed")
    options = parse(parser, argv)
    state = {"origin": origin()}
    warnings.simplefilter("ignore")  # of several pages, and of other readers
    if options.data:
        name, result = "found", measure_found(options.data)
        tables = [found_table(result), refused_table(result)]
    elif options.old:
        with tempfile.TemporaryDirectory() as folder:
            seconds = measure_speed(options.old, options.rounds, Path(folder))
        name, result = "speed", {"seconds": seconds}
        tables = [speed_table(result)]
    else:
        parser.error("give --data FOLDER or --old CHECKOUT")
    save_result(options.out / f"{name}.json", result | state)
    print(*tables, sep="\n\n")


if __name__ == "__main__":
    main()
