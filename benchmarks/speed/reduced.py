"""What do reduced copies of JPEGs and pyramid TIFFs save, and what do they cost in accuracy?

Synthetic TEM images of four classes, 1,024 px, as JPEGs of quality 90 and as 16-bit TIFFs with
levels of 1/2, 1/4 and 1/8. Each is encoded by the classifier's encoder as stored and with
``read_options={"reduced": True}``; the vectors are classified by the classifier's learner in
cross-validation, with the same folds. The seconds of the processor for reading are measured in
turns.

    python -m benchmarks.speed.reduced
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict

import hypervlad
from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.sources import machine, versions
from benchmarks.speed.reading import N_THREADS, clock
from benchmarks.speed.tables import reduced_table
from hypervlad import BoostedSoftmaxClassifier

N_IMAGES, SIZE, N_FOLDS, ROUNDS = 320, 1024, 5, 5


def write_jpeg(path: Path, image: np.ndarray) -> Path:
    """Write an image in [0, 1]."""
    path = path.with_suffix(".jpg")
    Image.fromarray(np.round(255 * image).astype(np.uint8)).save(path, quality=90)
    return path


def write_pyramid(path: Path, image: np.ndarray) -> Path:
    """Write an image in [0, 1] and its copies, averages of 2 x 2 pixels of the one before."""
    path = path.with_suffix(".tif")
    with tifffile.TiffWriter(path) as tiff:
        for number in range(4):
            pixels = np.round(20_000 * image).astype(np.uint16)
            tiff.write(pixels, subifds=0 if number else 3, subfiletype=int(number > 0))
            height, width = image.shape[0] // 2, image.shape[1] // 2
            image = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3))
    return path


FORMATS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "JPEG": write_jpeg,
    "pyramid TIFF": write_pyramid,
}


def of_a_format(
    files: list[Path], y: np.ndarray, encoder_options: dict[str, Any], n_rounds: int
) -> list[dict[str, Any]]:
    """Return scores and seconds of the processor per image, without and with the option."""
    encoders = [
        hypervlad.default_encoder(
            random_state=0, read_options={"reduced": reduced}, **encoder_options
        )
        for reduced in (False, True)
    ]
    rows: list[dict[str, Any]] = []
    for encoder in encoders:
        vectors, folds = encoder.fit_transform(files), StratifiedKFold(N_FOLDS, shuffle=True)
        folds.random_state = 0
        learner = BoostedSoftmaxClassifier(prior="sqrt", random_state=0)
        proba = cross_val_predict(learner, vectors, y, cv=folds, method="predict_proba")
        classes = np.unique(y)
        scores = {"accuracy": accuracy_score(y, classes[proba.argmax(axis=1)])}
        scores["log_loss"] = log_loss(y, proba, labels=classes)
        rows.append({"reduced": encoder.read_options["reduced"], **scores, "seconds": []})
    for _ in range(n_rounds):
        for encoder, row in zip(encoders, rows, strict=True):
            load = encoder.loader().load
            _, busy = clock(lambda load=load: [load(file, file.name) for file in files])
            row["seconds"].append(busy / len(files))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=N_IMAGES)
    parser.add_argument("--size", type=int, default=SIZE, help="side of the images, pixels")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--encoder", default="{}", help="parameters of default_encoder, as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed" / "reduced.json")
    arguments = parser.parse_args(argv)
    images, labels = hypervlad.make_tem_images(
        arguments.images, size=arguments.size, random_state=0
    )
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for kind, write in FORMATS.items():
            files = [write(Path(name) / f"{i:04d}", np.clip(x, 0, 1)) for i, x in enumerate(images)]
            found = of_a_format(
                files, np.asarray(labels), json.loads(arguments.encoder), arguments.rounds
            )
            rows += [{"format": kind, **row} for row in found]
    facts = {"rows": rows, "n": len(images), "size": arguments.size, "cores": os.cpu_count()}
    save_result(arguments.out, facts | {"versions": versions(), "machine": machine(N_THREADS)})
    print(reduced_table(facts))


if __name__ == "__main__":
    main()
