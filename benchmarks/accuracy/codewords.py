"""Should there be fewer codewords where images are few? Learning curves with several numbers.

The draws are those of `benchmarks.accuracy.curve`: some images of each class are learnt from, and
images of other groups are tested. Encoders with different numbers of codewords learn from the same
images, and encode the same passes of the network; the classifier is the default one.

    python -m benchmarks.accuracy.codewords --data ../shared/data
"""

from __future__ import annotations

import argparse
import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.curve import draw
from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.folds import DataSet
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.scores import mean_of_sets
from benchmarks.common.sources import origin
from benchmarks.common.synthetic import tem_set
from benchmarks.common.tables import table, with_interval
from hypervlad import BoostedSoftmaxClassifier, default_encoder
from hypervlad.backbones import build_network, get_backbone
from hypervlad.encoder import ImageLoader
from hypervlad.hypercolumns import feature_maps, turned

SETS = ("neu_steel", "magnetic_tile/images")
SIZES = (2, 3, 5, 10)
N_CODEWORDS = (16, 32, 64)
DEFAULT = 64
N_DRAWS = 5
N_TEM = 300
BATCH_SIZE = 8
CODE = ("accuracy/codewords", "accuracy/curve", "common/folds", "common/synthetic")
Rows = Sequence[Mapping[str, Any]]


def accuracies(
    data: DataSet, size: int, seed: int, arguments: argparse.Namespace
) -> dict[str, float]:
    """Return the mean recall of the classes by number of codewords; empty if there is no draw."""
    rows = draw(data, size, seed)
    if rows is None:
        return {}
    train, test = rows
    given = {"backbone": arguments.backbone, "weights": arguments.weights, "random_state": seed}
    encoders = {
        k: default_encoder(n_codewords=k, **given).fit(list(data.paths[train])) for k in N_CODEWORDS
    }
    vectors = encoded_together(data.paths[np.concatenate(rows)], encoders, arguments)
    truth, found = data.y[test], {}
    for k, encoder in encoders.items():
        learner = BoostedSoftmaxClassifier(prior="sqrt", random_state=seed)
        blocks = list(encoder.feature_blocks.values())
        learner.fit(
            vectors[k][: len(train)], data.y[train], groups=data.groups[train], blocks=blocks
        )
        predicted = learner.predict(vectors[k][len(train) :])
        recalls = [(predicted[truth == c] == c).mean() for c in data.classes]
        found[str(k)] = float(np.mean(recalls))
    return found


def encoded_together(
    paths: np.ndarray, encoders: Mapping[int, Any], arguments: argparse.Namespace
) -> dict[int, np.ndarray]:
    """Return the vectors of images by encoders that differ in their codebook only."""
    first = next(iter(encoders.values()))
    network = build_network(arguments.backbone, arguments.weights)
    loader = ImageLoader(
        image_size=first.image_size,
        aspect=first.aspect,
        preprocessing=get_backbone(arguments.backbone).preprocessing,
        batch_size=BATCH_SIZE,
    )
    parts: dict[int, list[np.ndarray]] = {k: [] for k in encoders}
    # All images are squares of one size, so that batches keep their order.
    for batch in loader.batches(enumerate(loader.load(path, path) for path in paths)):
        copies = [turned(batch.tensors, turn) for turn in range(first.turns)]
        maps = [(feature_maps(network, images), images.shape[2:]) for images in copies]
        for k, encoder in encoders.items():
            parts[k].append(encoder.batch_encoder().of_maps(maps, batch.keys))
    return {k: np.concatenate(of_k) for k, of_k in parts.items()}


def measure(data: DataSet, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the accuracies of all draws on one set: ``size``, ``draw`` and one per number."""
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        for seed in range(arguments.draws):
            settings = {"data": data.digest, "size": size, "draw": seed, "numbers": N_CODEWORDS}
            settings |= origin(arguments.threads, *CODE)
            path = arguments.checkpoints / data.name.replace("/", "_") / f"{size}_{seed}.json"
            run = functools.partial(accuracies, data, size, seed, arguments)
            found = load_or_run(path, settings, run)
            if str(DEFAULT) not in found:
                return rows  # the set is too small for this size and larger ones
            rows.append({"size": size, "draw": seed} | {str(k): found[str(k)] for k in N_CODEWORDS})
        of_size = [row for row in rows if row["size"] == size]
        means = [np.mean([row[str(k)] for row in of_size]) for k in N_CODEWORDS]
        print(data.name, size, np.round(means, 3), flush=True)
    return rows


def codewords_table(facts: Mapping[str, Any]) -> str:
    """Return the accuracy of each number of codewords, and its difference from the default."""
    by_set: dict[str, list[Rows]] = {name: [rows] for name, rows in facts["rows"].items()}
    everything = {"mean of the sets": list(facts["rows"].values())} | by_set
    lines = [
        [name, str(k), *(_cell(sets, k, sizes) for sizes in [*((n,) for n in SIZES), SIZES])]
        for name, sets in everything.items()
        for k in N_CODEWORDS
    ]
    return table(["set", "codewords", *map(str, SIZES), "all sizes"], lines)


def _cell(sets: Sequence[Rows], k: int, sizes: Sequence[int]) -> str:
    """Return the mean over sets and sizes, each pair of which is a sample of draws."""
    cells = [
        [row for row in rows if row["size"] == size]
        for rows in sets
        for size in sizes
        if any(row["size"] == size for row in rows)
    ]
    if not cells:
        return "–"
    values = [np.array([row[str(k)] for row in cell]) for cell in cells]
    if k == DEFAULT:
        return f"{mean_of_sets(values)[0]:.3f}"
    gains = [np.array([row[str(k)] - row[str(DEFAULT)] for row in cell]) for cell in cells]
    return f"{mean_of_sets(values)[0]:.3f} ({with_interval(*mean_of_sets(gains), '+.3f')})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled folders")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--draws", type=int, default=N_DRAWS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "codewords")
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy" / "codewords.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    sets = [replace(DataSet.load(arguments.data / name), name=name) for name in arguments.sets]
    sets.append(tem_set(arguments.checkpoints / "images", N_TEM))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes of one or two groups
        by_set = {data.name: measure(data, arguments) for data in sets}
    facts = {"rows": by_set, "backbone": arguments.backbone}
    save_result(arguments.out, facts | {"origin": origin(arguments.threads, *CODE)})
    print(codewords_table(facts))


if __name__ == "__main__":
    main()
