"""What does reading a large micrograph cost, and does encoding hide it?

The stages of reading synthetic images of 2,048 px from files of six kinds. Then a folder of 16-bit
TIFFs: reading it alone, encoding arrays of the network's size alone, and extracting its features
with the encoder of the classifier. All take turns in one process, so that a noisy machine is noisy
for all. The time of the processor gives the bound: cores that are busy reading encode nothing.

    python -m benchmarks.speed.reading
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

import hypervlad
from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.sources import machine, versions
from benchmarks.speed.tables import hidden_table, stages_table
from hypervlad import HypercolumnVLAD
from hypervlad.images import ReadOptions
from hypervlad.images.pixels import (
    is_blank,
    percentile_limits,
    pixel_digest,
    scale_pixels,
    scaling_rule,
)
from hypervlad.images.reading import read_in_order, read_stored

SIZE, N_IMAGES = 2048, 96
ROUNDS = 9
N_THREADS = 2

Values = dict[str, list[float]]


def synthetic(size: int) -> np.ndarray:
    """Return one image in [0, 1] of four synthetic ones, with noise, which compresses badly."""
    images, _ = hypervlad.make_tem_images(4, size=size // 2, random_state=0)
    tiled = np.block([images[:2], images[2:]])
    return np.clip(tiled + 0.02 * np.random.default_rng(0).standard_normal(tiled.shape), 0, 1)


def write_formats(folder: Path, size: int) -> dict[str, Path]:
    """Write one image in each format."""
    image = synthetic(size)
    deep, flat = to_integers(image, np.uint16), to_integers(image, np.uint8)
    packed = {"16-bit TIFF": None, "16-bit TIFF, LZW": "lzw", "16-bit TIFF, deflate": "zlib"}
    paths = {name: folder / f"{name}.tif" for name in (*packed, "8-bit TIFF")}
    for name, compression in packed.items():
        predictor = None if compression is None else True
        tifffile.imwrite(paths[name], deep, compression=compression, predictor=predictor)
    tifffile.imwrite(paths["8-bit TIFF"], flat)
    for name in ("PNG", "JPEG"):
        paths[name] = folder / f"image.{name.lower()}"
        Image.fromarray(flat).save(paths[name])
    return paths


def write_folder(folder: Path, n_images: int, size: int) -> list[Path]:
    """Write different 16-bit TIFFs."""
    image = to_integers(synthetic(size), np.uint16)
    files = [folder / f"{number:03d}.tif" for number in range(n_images)]
    for number, file in enumerate(files):
        tifffile.imwrite(file, np.roll(image, 7 * number, axis=1))
    return files


def to_integers(image: np.ndarray, dtype: type[np.unsignedinteger[Any]]) -> np.ndarray:
    """Return an image in [0, 1] as integers; deep ones fill a part of their range, as usual."""
    top = 255 if dtype is np.uint8 else 20_000
    return np.round(top * image).astype(dtype)


def stages(path: Path, encoder: HypercolumnVLAD) -> dict[str, Callable[[], object]]:
    """Return what is done with a file, step by step, and all of it."""
    name = path.name
    stored = read_stored(path, name)
    rule = scaling_rule(stored, ReadOptions(), name)
    limits = percentile_limits(stored, rule[1:]) if rule[0] == "percentile" else rule[1:]
    loader = encoder.loader()
    read = hypervlad.images.read_micrograph(path)
    found: dict[str, Callable[[], object]] = {
        "decode": lambda: read_stored(path, name),
        "digest": lambda: pixel_digest(stored, rule),
        "scale": lambda: scale_pixels(stored, ("limits", *limits)),
        "blank": lambda: is_blank(read.pixels),
        "resize": lambda: loader.prepare(read, name),
        "all": lambda: loader.load(path, name),
    }
    if rule[0] == "percentile":
        found["percentiles"] = lambda: percentile_limits(stored, rule[1:])
    return found


def of_stages(paths: dict[str, Path], encoder: HypercolumnVLAD, n_rounds: int) -> Any:
    """Return the seconds of each stage in each round, for each format."""
    steps = {name: stages(path, encoder) for name, path in paths.items()}
    seconds = {name: {step: [] for step in of_one} for name, of_one in steps.items()}
    for counted in [False] + [True] * n_rounds:
        for name, of_one in steps.items():
            for step, do in of_one.items():
                spent, _ = clock(do)
                if counted:
                    seconds[name][step].append(spent)
    return seconds


def of_a_folder(files: list[Path], encoder: HypercolumnVLAD, n_rounds: int) -> dict[str, Values]:
    """Return the seconds, and those of the processor, per image in each round."""
    loader = encoder.loader()
    loaded = [(i, loader.load(file, file.name)) for i, file in enumerate(files)]
    batches, encode = list(loader.batches(loaded)), encoder.batch_encoder()

    def reading() -> None:
        for _ in read_in_order(enumerate(files), loader.load, loader.n_threads):
            pass

    ways: dict[str, Callable[[], object]] = {
        "reading": reading,
        "encoding": lambda: [encode(batch) for batch in batches],
        "extraction": lambda: hypervlad.extract_features(files, encoder, root=files[0].parent),
    }
    seconds: Values = {name: [] for name in ways}
    processor: Values = {name: [] for name in ways}
    for counted in [False] + [True] * n_rounds:
        for name, way in ways.items():
            spent, busy = clock(way)
            if counted:
                seconds[name].append(spent / len(files))
                processor[name].append(busy / len(files))
    return {"seconds": seconds, "processor": processor}


def clock(do: Callable[[], object]) -> tuple[float, float]:
    """Return seconds, and those of the processor, all threads together."""
    started, before = time.perf_counter(), time.process_time()
    do()
    return time.perf_counter() - started, time.process_time() - before


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--images", type=int, default=N_IMAGES)
    parser.add_argument("--size", type=int, default=SIZE, help="side of the images, pixels")
    parser.add_argument("--threads", type=int, default=N_THREADS)
    parser.add_argument("--encoder", default="{}", help="parameters of default_encoder, as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed" / "reading.json")
    arguments = parser.parse_args(argv)
    import torch  # after hypervlad, which decides how its threads wait

    torch.set_num_threads(arguments.threads)
    encoder = hypervlad.default_encoder(random_state=0, **json.loads(arguments.encoder))
    encoder.fit(hypervlad.make_tem_images(40, random_state=0)[0])
    # What runs the network in large folders; a small one would not be worth converting it.
    if encoder.runtime == "auto" and find_spec("openvino") and find_spec("numba"):
        encoder.set_params(runtime="openvino")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_formats(folder, arguments.size)
        files = write_folder(folder, arguments.images, arguments.size)
        facts = {
            "stages": of_stages(paths, encoder, arguments.rounds),
            **of_a_folder(files, encoder, arguments.rounds),
        }
    facts |= {"cores": os.cpu_count(), "size": arguments.size, "runtime": encoder.runtime}
    facts |= {"versions": versions(), "machine": machine(arguments.threads)}
    save_result(arguments.out, facts)
    print(stages_table(facts), hidden_table(facts), sep="\n\n")


if __name__ == "__main__":
    main()
