"""Are images reported that are unlike all training images? Scores compared on real images.

Each class of each set is left out once; a quarter of the groups, held out at random, is new as
well. A good score is high for the class that was left out, and for noise, photographs and images of
other sets, and low for new images of the known classes. Each score's limit is the one that 5 % of
images like the training images exceed, estimated on training images of other groups alone.

    python -m benchmarks.uncertainty.novelty --data ../shared/data
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from scipy.ndimage import gaussian_filter
from sklearn.metrics import pairwise_distances, roc_auc_score

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.data import DATA_SETS, DataSet, random_splits
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, origin, save_result
from benchmarks.uncertainty.tables import novelty_section
from hypervlad import default_encoder, make_fibre_images
from hypervlad.classify.training_images import TrainingImages, empty_vectors, project_vectors
from hypervlad.evaluation import group_folds
from hypervlad.images.pixels import ImageDigests
from hypervlad.statistics.conformal import weighted_limit

SEED = 2000
SHARE = 0.05  # of images like the training images, above the limit
N_NEAREST = 3
N_FOLDS = 5
NEW = ("known", "unseen", "outside")  # new images of known classes, of the class left out, of none
SIZE = 256  # pixels per side of the images that are made here
N_EACH = 12
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "coins", "page", "rocket", "text")
Vectors = Mapping[str, np.ndarray]
Split = tuple[np.ndarray, ...]  # of known, unseen and outside


def encoded(
    data: DataSet, left_out: Any, train: np.ndarray, test: np.ndarray, others: dict[str, DataSet]
) -> dict[str, np.ndarray]:
    """Return vectors of training images and new ones."""
    train, known = train[data.y[train] != left_out], test[data.y[test] != left_out]
    is_new = ~np.isin(data.groups, data.groups[train])
    unseen = np.flatnonzero((data.y == left_out) & is_new)
    outside, kinds = outside_images(others)
    encoder = default_encoder(random_state=SEED).fit(list(data.paths[train]))
    lists = {"train": list(data.paths[train]), "known": list(data.paths[known])}
    lists |= {"unseen": list(data.paths[unseen]), "outside": outside}
    return {
        "empty": empty_vectors(encoder),
        "labels": data.y[train].astype(str),
        "groups": np.unique(data.groups[train], return_inverse=True)[1],
        "kinds": kinds,
        **{name: encoder.transform(images) for name, images in lists.items()},
    }


# --- scores of the three kinds of new images, in units of their limit -----------------------------


def package(found: Vectors) -> Split:
    """Return the score of the package."""
    n, width = found["train"].shape
    labels, groups = found["labels"], found["groups"]
    points, empty = project_vectors(found["train"]), project_vectors(found["empty"])
    digests = ImageDigests(np.zeros((n, 32), dtype=np.uint8))
    training = TrainingImages(
        [""] * n, labels, groups, np.arange(n), digests, points, empty, width
    ).with_limits()
    return tuple(training.nearest(project_vectors(found[name]))[1] for name in NEW)


def nearest(found: Vectors) -> Split:
    """Return the mean distance to the nearest three (Sun, Ming, Zhu and Li 2022)."""
    train, labels, groups = found["train"].astype(float), found["labels"], found["groups"]
    held_out = np.full(len(train), np.nan)
    for fitted, tested in group_folds(labels, groups, n_splits=N_FOLDS, random_state=0):
        held_out[tested] = _nearest(train[fitted], train[tested])
    usable = np.isfinite(held_out)
    limit = weighted_limit(held_out[usable], groups[usable], SHARE)
    middle = float(np.median(held_out[usable]))
    scale = max(limit - middle, 1e-12)
    return tuple((_nearest(train, found[name]) - middle) / scale for name in NEW)


def _nearest(train: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.sort(pairwise_distances(new, train), axis=1)[:, :N_NEAREST].mean(axis=1)


METHODS: dict[str, Callable[[Vectors], Split]] = {"hypervlad": package, "nearest three": nearest}


def scores(found: Vectors) -> dict[str, dict[str, Any]]:
    """Return the scores of each method for one class that was left out."""
    rows = {}
    for name, method in METHODS.items():
        known, unseen, outside = method(found)
        truth = np.repeat([0, 1], [len(known), len(unseen)])
        rows[name] = {
            "auroc": float(roc_auc_score(truth, np.concatenate([known, unseen]))),
            "unseen_reported": float((unseen > 1).mean()),
            "known_reported": float((known > 1).mean()),
            "outside_reported": {
                str(kind): float((outside[found["kinds"] == kind] > 1).mean())
                for kind in dict.fromkeys(found["kinds"].tolist())
            },
        }
    return rows


# --- images of no class ---------------------------------------------------------------------------


def outside_images(others: Mapping[str, DataSet], seed: int = 0) -> tuple[list[Any], np.ndarray]:
    """Return images (paths and arrays) that belong to no class of a data set, and their kinds.

    A few images of each other data set, of as many groups as possible, are a kind.
    """
    rng = np.random.default_rng(seed)
    made: dict[str, list[Any]] = {
        "white noise": [white_noise(rng) for _ in range(N_EACH)],
        "constant": [np.full((SIZE, SIZE), grey, np.float32) for grey in (0, 0.2, 0.5, 0.8, 1)],
        "smooth noise": [smooth_noise(rng) for _ in range(N_EACH)],
        "blurred noise": [blurred_noise(rng) for _ in range(N_EACH)],
        "gradients": [gradient(rng) for _ in range(N_EACH)],
        "lattices": [lattice(rng) for _ in range(N_EACH)],
        "synthetic mats": list(
            make_fibre_images(N_EACH, cover=0.8, size=SIZE, random_state=seed)[0]
        ),
        "photographs": [getattr(skimage.data, name)() for name in PHOTOGRAPHS],
    }
    for name, data in others.items():
        order = rng.permutation(len(data.paths))
        _, first = np.unique(data.groups[order], return_index=True)
        made[name] = list(data.paths[rng.permutation(order[first])[:N_EACH]])
    images = [image for of_kind in made.values() for image in of_kind]
    return images, np.repeat(list(made), [len(of_kind) for of_kind in made.values()])


def white_noise(rng: np.random.Generator) -> np.ndarray:
    """Return independent pixels (256, 256) of random mean and contrast."""
    pixels = rng.normal(rng.uniform(0.3, 0.7), rng.uniform(0.05, 0.3), (SIZE, SIZE))
    return np.clip(pixels, 0, 1).astype(np.float32)


def smooth_noise(rng: np.random.Generator) -> np.ndarray:
    """Return noise with the spectrum of natural images (Ruderman, Network 5, 1994)."""
    rows, columns = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) / frequency ** rng.uniform(1, 2)
    return _scaled(np.fft.irfft2(spectrum, s=(SIZE, SIZE)))


def blurred_noise(rng: np.random.Generator) -> np.ndarray:
    return _scaled(gaussian_filter(rng.normal(size=(SIZE, SIZE)), rng.uniform(0.5, 12)))


def gradient(rng: np.random.Generator) -> np.ndarray:
    """Return a linear gradient with a little noise."""
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    slope = rng.uniform(-0.4, 0.4, size=2)
    pixels = 0.5 + slope[0] * (rows - 0.5) + slope[1] * (columns - 0.5)
    noisy = pixels + rng.normal(scale=rng.uniform(0, 0.02), size=pixels.shape)
    return np.clip(noisy, 0, 1).astype(np.float32)


def lattice(rng: np.random.Generator) -> np.ndarray:
    """Return two plane waves with periods of 6 to 20 pixels, with noise."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    turn, between = rng.uniform(0, np.pi), rng.uniform(np.pi / 3, np.pi / 2)
    pixels = np.zeros((SIZE, SIZE))
    for angle in (turn, turn + between):
        period = rng.uniform(6, 20)
        along = columns * np.cos(angle) + rows * np.sin(angle)
        pixels += np.cos(2 * np.pi * along / period + rng.uniform(0, 2 * np.pi))
    return _scaled(pixels + rng.normal(scale=rng.uniform(0.1, 0.8), size=pixels.shape))


def _scaled(pixels: np.ndarray) -> np.ndarray:
    return ((pixels - pixels.min()) / np.ptp(pixels)).astype(np.float32)


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "uncertainty" / "novelty.json"
    parser = new_parser(__doc__, out, checkpoints="novelty", threads=1)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--others", nargs="*", default=["magnetic_tile/images"])
    options = parse(parser, argv)
    sets = {name: DataSet.load(options.data / name) for name in options.sets}
    further = {Path(name).parts[0]: options.data / name for name in options.others}
    loaded = sets | {name: DataSet.load(folder) for name, folder in further.items()}
    settings = {"seed": SEED, "data": {name: data.digest for name, data in loaded.items()}}
    cells = []
    for name, data in sets.items():
        others = {other: each for other, each in loaded.items() if other != name}
        ((train, test),) = random_splits(data, 1, SEED)
        for label in data.classes.tolist():
            run = functools.partial(encoded, data, label, train, test, others)
            path = options.checkpoints / f"{name}-{label}.json"
            found = load_or_run(path, {**settings, "set": name, "left_out": label}, run)
            for method, row in scores(found).items():
                cells.append({"set": name, "left_out": label, "method": method, **row})
            print(f"{name}: without {label}", flush=True)
    facts = {"cells": cells, "origin": origin()}
    save_result(options.out, facts)
    print(novelty_section(facts))


if __name__ == "__main__":
    main()
