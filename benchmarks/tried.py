"""What makes a better default? Variants of the image vectors and of what learns from them.

Grouped cross-validation of many variants, all from the same passes of the network. The learner is
the shipped one without trees, unless a variant says otherwise.

    python benchmarks/tried.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import functools
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from blocks import BLOCKS, DEFAULT_BLOCKS, Extraction
from checkpoints import load_or_run
from folds import DataSet, Fold, folds_of
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sources import code_digest, versions

from hypervlad import BoostedSoftmaxClassifier

HERE = Path(__file__).resolve().parent
SEED = 0
SETS = ("micrographs", "neu_steel", "nanofibre", "magnetic_tile/images")
SIZES = {"224 px": (224, "square", 8), "own aspect": (224, "own", 2), "320 px": (320, "square", 2)}
SIZES["448 px"] = (448, "square", 2)
ROOMS = ("images", "splits", "backbones", "hypercolumns", "codebook", "vlad", "encoder", "boosting")


@dataclass(frozen=True)
class Variant:
    """Parts side by side, turned copies, input size, and how they are learnt from."""

    parts: tuple[str, ...] = DEFAULT_BLOCKS
    turns: int = 2
    size: str = "224 px"
    views: bool = True
    reduction: Literal["", "PCA", "whitened", "discriminants"] = ""
    softmax: tuple[tuple[str, Any], ...] = (("n_estimators", 0),)


def _of_parts() -> dict[str, Variant]:
    pairs = [("pooled", "joint"), ("pooled", "per layer"), ("joint", "per layer")]
    chosen = {" + ".join(pair): Variant(pair) for pair in pairs}
    chosen |= {name: Variant((name,)) for name in BLOCKS}
    chosen["the default and covariance"] = Variant((*DEFAULT_BLOCKS, "covariance"))
    soft = ("joint", "per layer, soft", "pooled")
    return chosen | {"the default, per layer soft": Variant(soft)}


VARIANTS = {
    "joint + per layer + pooled, 2 turns: the default": Variant(),
    **{f"the default, {n} turn{'s' * (n > 1)}": Variant(turns=n) for n in (1, 4, 8)},
    **{f"the default, {size}": Variant(size=size) for size in SIZES if size != "224 px"},
    "the default in one vector, one penalty": Variant(views=False),
    "the default, each part on 64 principal components": Variant(reduction="PCA"),
    "the default, each part on 64 whitened components": Variant(reduction="whitened"),
    "the default, each part on linear discriminants": Variant(reduction="discriminants"),
    "the default with trees where they help (as shipped)": Variant(softmax=()),
    "the default, trees alone": Variant(softmax=(("init", None),)),
    **_of_parts(),
}


class Blocks:
    """The parts of a data set's vectors, from the disk if they were computed before."""

    def __init__(self, data: DataSet, arguments: argparse.Namespace) -> None:
        self.data, self.arguments = data, arguments
        self._known: dict[str, dict[str, np.ndarray]] = {}

    def of(self, variant: Variant) -> list[np.ndarray]:
        if variant.size not in self._known:
            self._known[variant.size] = self._at(variant.size)
        found = self._known[variant.size]
        return [found[f"{part} @{variant.turns}"] for part in variant.parts]

    def _at(self, size_name: str) -> dict[str, Any]:
        size, aspect, turns = SIZES[size_name]
        names = tuple(BLOCKS) if size_name == "224 px" else DEFAULT_BLOCKS
        backbone, weights = self.arguments.backbone, self.arguments.weights
        extraction = Extraction(backbone, weights, names, size, aspect, turns)
        settings = {
            "data": self.data.digest,
            "weights": extraction.network.digest,
            "blocks": {name: repr(BLOCKS[name]) for name in names},
            "input": [size, aspect, turns],
            "code": code_digest(ROOMS[:-1], ["blocks"]),
            "versions": versions(),
        }
        file = f"blocks {size_name}.json".replace(" ", "_")
        path = self.arguments.checkpoints / self.data.name / file
        return load_or_run(path, settings, lambda: extraction(self.data))


def probabilities(parts: list[np.ndarray], fold: Fold, variant: Variant) -> np.ndarray:
    """Learn from a fold's training part; return what is said of its test part."""
    if variant.reduction:
        pairs = [_reduced(part, fold, variant.reduction) for part in parts]
    else:
        pairs = [(part[fold.train], part[fold.test]) for part in parts]
    widths = [train.shape[1] for train, _ in pairs] if variant.views else None
    train, test = (np.concatenate(side, axis=1) for side in zip(*pairs, strict=True))
    softmax = BoostedSoftmaxClassifier(random_state=fold.seed, **dict(variant.softmax))
    return softmax.fit(train, fold.y, groups=fold.groups, views=widths).predict_proba(test)


def _reduced(part: np.ndarray, fold: Fold, how: str) -> tuple[np.ndarray, np.ndarray]:
    n_components = min(64, len(fold.train) - 1, part.shape[1])
    pca = PCA(n_components, whiten=how != "PCA", random_state=0).fit(part[fold.train])
    train, test = pca.transform(part[fold.train]), pca.transform(part[fold.test])
    if how != "discriminants":
        return train, test
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(train, fold.y)
    return model.transform(train), model.transform(test)


def score(blocks: Blocks, variant: Variant) -> dict[str, float]:
    """Return accuracy and log-loss of the pooled out-of-fold probabilities."""
    data, parts = blocks.data, blocks.of(variant)
    codes = np.searchsorted(data.classes, data.y)
    right, losses = [], []
    for fold in folds_of(data, blocks.arguments.repeats, SEED):
        proba = probabilities(parts, fold, variant)
        truth = codes[fold.test]
        right.append(proba.argmax(axis=1) == truth)
        losses.append(-np.log(np.maximum(proba[np.arange(len(truth)), truth], 1e-15)))
    return {
        "accuracy": float(np.concatenate(right).mean()),
        "log_loss": float(np.concatenate(losses).mean()),
    }


def tried_on(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the scores of all variants on a data set, each printed as it comes."""
    data = DataSet.load(arguments.data / name)
    blocks = Blocks(data, arguments)
    rows = []
    for title, variant in VARIANTS.items():
        settings = {
            "data": data.digest,
            "variant": repr(variant),
            "blocks": [repr(BLOCKS[part]) for part in variant.parts],
            "run": [arguments.backbone, str(arguments.weights), arguments.repeats],
            "code": code_digest(ROOMS, ["blocks", "tried"]),
            "versions": versions(),
        }
        path = arguments.checkpoints / data.name / "tried.json"
        found = load_or_run(path, settings, functools.partial(score, blocks, variant))
        accuracy, log_loss = found["accuracy"], found["log_loss"]
        print(f"{name:22s} {title:60s} {accuracy:.3f} {log_loss:.3f}", flush=True)
        rows.append({"data": name, "variant": title, "accuracy": accuracy, "log_loss": log_loss})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled folders")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, default=HERE / ".checkpoints")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore", UserWarning)  # of classes with one or two groups
    rows = [row for name in arguments.sets for row in tried_on(name, arguments)]
    facts = {
        "rows": rows,
        "backbone": arguments.backbone,
        "repeats": arguments.repeats,
        "seed": SEED,
        "versions": versions(),
    }
    out = arguments.out or HERE / "results" / f"tried_{arguments.backbone}.json"
    out.write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
