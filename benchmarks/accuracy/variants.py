"""Which default is best? Variants of the image vectors and of the classifier on them.

Grouped cross-validation of many variants, all from the same passes of the network. The classifier
is the default one without trees, unless a variant says otherwise. With ``--border``, the default
is compared with variants that leave out the image's border, or pad it otherwise.

    python -m benchmarks.accuracy.variants --data ../shared/data
    python -m benchmarks.accuracy.variants --data ../shared/data --border
"""

from __future__ import annotations

import argparse
import functools
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline

from benchmarks.accuracy.blocks import BLOCKS, DEFAULT_BLOCKS, MARGINS, Extraction, Input
from benchmarks.common.checkpoints import load_or_run, settings_digest
from benchmarks.common.folds import DataSet, Fold, folds_of
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.scores import GroupDraws, OutOfFold, mean_rows, set_rows
from benchmarks.common.sources import code_digest, machine, versions
from hypervlad import BoostedSoftmaxClassifier
from hypervlad.backbones import build_network, get_backbone
from hypervlad.splits import group_folds

SEED = 0
REPEATS = 2
SETS = ("micrographs", "neu_steel", "nanofibre", "magnetic_tile/images")
SIZES = {"224 px": Input(), "own aspect": Input(aspect="own")}
SIZES |= {f"{size} px": Input(size) for size in (320, 448, 512)}
INPUTS = SIZES | {"reflection padding": Input(padding="reflect")}
CODE = ("accuracy/blocks", "common/folds", "accuracy/variants")
N_COMPONENTS = 64


@dataclass(frozen=True)
class Variant:
    """Feature blocks, turned copies, input, and how a classifier is trained on them.

    `more` are blocks of another input. With "blocks", each block has its own regression and
    their margins are averaged; with "stacked", the weights of the average are learnt.
    """

    names: tuple[str, ...] = DEFAULT_BLOCKS
    turns: int = 2
    size: str = "224 px"
    more: tuple[tuple[str, str], ...] = ()
    join: Literal["blocks", "one vector", "stacked"] = "blocks"
    reduction: Literal["", "PCA", "whitened"] = ""
    learner: Literal["softmax", "discriminants"] = "softmax"
    softmax: tuple[tuple[str, Any], ...] = (("n_estimators", 0),)


def _of_blocks() -> dict[str, Variant]:
    pairs = [("pooled", "joint"), ("pooled", "per layer"), ("joint", "per layer")]
    chosen = {" + ".join(pair): Variant(pair) for pair in pairs}
    chosen |= {name: Variant((name,)) for name in BLOCKS}
    chosen["the default and covariance"] = Variant((*DEFAULT_BLOCKS, "covariance"))
    soft = ("joint", "per layer, soft", "pooled")
    plain = ("joint", "per layer", "pooled, not of unit length")
    chosen["the default, pooled channels not of unit length"] = Variant(plain)
    return chosen | {"the default, per layer soft": Variant(soft)}


POOLED_448 = (("pooled", "448 px"),)
DEFAULT = "joint + per layer + pooled, 2 turns: the default"
VARIANTS = {
    DEFAULT: Variant(),
    **{f"the default, {n} turn{'s' * (n > 1)}": Variant(turns=n) for n in (1, 4, 8)},
    **{f"the default, {size}": Variant(size=size) for size in SIZES if size != "224 px"},
    "the default and pooled of 448 px": Variant(more=POOLED_448),
    "pooled of 224 and 448 px": Variant(("pooled",), more=POOLED_448),
    "the default in one vector, one penalty": Variant(join="one vector"),
    "the default, blocks weighted by stacking": Variant(join="stacked"),
    "the default, each block on 64 principal components": Variant(reduction="PCA"),
    "the default, each block on 64 whitened components": Variant(reduction="whitened"),
    "the default's blocks, linear discriminants of 64 whitened components, stacked": Variant(
        join="stacked", reduction="whitened", learner="discriminants"
    ),
    "the default with trees where they help (as shipped)": Variant(softmax=()),
    "the default, trees alone": Variant(softmax=(("init", None),)),
    **_of_blocks(),
}
BORDER = {
    DEFAULT: Variant(),
    **{
        f"the default, margin of {m} px left out": Variant(
            tuple(f"{name}, margin {m}" for name in DEFAULT_BLOCKS)
        )
        for m in MARGINS
    },
    "the default, reflection padding": Variant(size="reflection padding"),
}


class Blocks:
    """The feature blocks of a data set, from the disk if they were computed before."""

    def __init__(self, data: DataSet, arguments: argparse.Namespace) -> None:
        self.data, self.arguments = data, arguments
        self.variants = compared(arguments)
        self.network = build_network(arguments.backbone, arguments.weights)

    def of(self, variant: Variant) -> list[np.ndarray]:
        named = [(name, variant.size) for name in variant.names] + list(variant.more)
        return [
            np.load(self._folder(size) / f"{name} @{variant.turns}.npy", mmap_mode="r")
            for name, size in named
        ]

    def settings(self, size_name: str) -> dict[str, Any]:
        """Everything on which the blocks at an input depend."""
        return {
            "data": self.data.digest,
            "weights": self.network.digest,
            "taps": list(self.network.taps),
            "blocks": {name: repr(BLOCKS[name]) for name in self._names(size_name)},
            "input": asdict(INPUTS[size_name]),
            "turns": self._turns(size_name),
            "code": code_digest("accuracy/blocks", "common/folds"),
            "versions": versions(),
            "machine": machine(self.arguments.threads),
        }

    def _names(self, size_name: str) -> tuple[str, ...]:
        """Return the blocks that the variants compared need at an input."""
        needed = {
            name
            for variant in self.variants.values()
            for name, size in [*((name, variant.size) for name in variant.names), *variant.more]
            if size == size_name
        }
        return tuple(name for name in BLOCKS if name in needed)

    def _turns(self, size_name: str) -> int:
        """Return the number of turned copies that the variants compared need at an input."""
        return max(
            variant.turns
            for variant in self.variants.values()
            if size_name in (variant.size, *(size for _, size in variant.more))
        )

    @functools.cache  # noqa: B019 - lives as long as the run
    def _folder(self, size_name: str) -> Path:
        """Return the folder of the blocks at an input; write them first if necessary."""
        settings = self.settings(size_name)
        name = f"blocks {size_name}".replace(" ", "_")
        path = self.arguments.checkpoints / self.data.name / f"{name}.json"
        folder = path.with_name(f"{name}-{settings_digest(settings)[:12]}")
        preprocessing = get_backbone(self.arguments.backbone).preprocessing

        def extract() -> dict[str, Any]:
            names, given = self._names(size_name), INPUTS[size_name]
            turns = self._turns(size_name)
            Extraction(self.network, preprocessing, names, given, turns)(self.data, folder)
            return {}

        load_or_run(path, settings, extract)
        return folder


def probabilities(blocks: list[np.ndarray], fold: Fold, variant: Variant) -> np.ndarray:
    """Train on a fold's training part and predict its test part."""
    pairs = [(block[fold.train], block[fold.test]) for block in blocks]
    if variant.join == "stacked":
        return _stacked(pairs, fold, variant)
    if variant.reduction:
        pairs = [_reduced(train, test, variant.reduction) for train, test in pairs]
    widths = [train.shape[1] for train, _ in pairs] if variant.join == "blocks" else None
    train, test = (np.concatenate(side, axis=1) for side in zip(*pairs, strict=True))
    model = BoostedSoftmaxClassifier(prior="sqrt", random_state=fold.seed, **dict(variant.softmax))
    return model.fit(train, fold.y, groups=fold.groups, blocks=widths).predict_proba(test)


def _pca(train: np.ndarray, how: str) -> PCA:
    n_components = min(N_COMPONENTS, len(train) - 1, train.shape[1])
    return PCA(n_components, whiten=how == "whitened", random_state=0)


def _reduced(train: np.ndarray, test: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
    pca = _pca(train, how).fit(train)
    return pca.transform(train), pca.transform(test)


def _stacked(
    pairs: list[tuple[np.ndarray, np.ndarray]], fold: Fold, variant: Variant
) -> np.ndarray:
    """Average one model per block, with weights of at least zero learnt from cross-fitted margins.

    Projections and discriminants are learnt again in each inner fold, so that no model predicts a
    row it was trained on (Wolpert, "Stacked generalization", Neural Networks 5, 1992).
    """
    folds = group_folds(fold.y, fold.groups, random_state=fold.seed)
    rows = np.concatenate([test for _, test in folds]) if folds else np.array([], dtype=int)
    codes = np.searchsorted(fold.data.classes, fold.y)[rows]
    everything = np.arange(len(fold.train))
    inner, outer = [], []
    for train, test in pairs:
        outer.append(_margins(train, test, fold, everything, variant))
        held_out = [_margins(train, train[test], fold, rest, variant) for rest, test in folds]
        inner.append(np.concatenate(held_out) if held_out else outer[-1][:0])
    weights = stacking_weights(np.array(inner), codes)
    return softmax(np.tensordot(weights, np.array(outer), 1), axis=1)


def _margins(
    X: np.ndarray, asked: np.ndarray, fold: Fold, rows: np.ndarray, variant: Variant
) -> np.ndarray:
    """Train on some rows of a fold's training part; return log-probabilities of others."""
    model: BaseEstimator
    if variant.learner == "discriminants":
        lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
        model = make_pipeline(_pca(X[rows], variant.reduction), lda)
        model.fit(X[rows], fold.y[rows])
    else:
        model = BoostedSoftmaxClassifier(
            prior="sqrt", random_state=fold.seed, **dict(variant.softmax)
        )
        model.fit(X[rows], fold.y[rows], groups=fold.groups[rows])
    return np.log(np.maximum(model.predict_proba(asked), 1e-12))


def stacking_weights(margins: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the weights, at least zero, of margins (n_blocks, n, n_classes) with the lowest loss.

    The weights are equal if there are no rows.
    """
    n_blocks, n_rows = margins.shape[:2]
    equal = np.full(n_blocks, 1 / n_blocks)
    if not n_rows:
        return equal

    def loss(weights: np.ndarray) -> float:
        logs = log_softmax(np.tensordot(weights, margins, 1), axis=1)
        return float(-logs[np.arange(n_rows), codes].mean())

    return np.asarray(minimize(loss, equal, bounds=[(0, None)] * n_blocks, method="L-BFGS-B").x)


def compared(arguments: argparse.Namespace) -> dict[str, Variant]:
    """Return the variants to compare, by title."""
    return BORDER if arguments.border else VARIANTS


def cross_validate(blocks: Blocks, variant: Variant) -> dict[str, np.ndarray]:
    """Return out-of-fold probabilities (n_repeats, n, n_classes), NaN where never tested."""
    data, arrays = blocks.data, blocks.of(variant)
    proba = np.full((blocks.arguments.repeats, len(data.y), len(data.classes)), np.nan)
    for fold in folds_of(data, blocks.arguments.repeats, SEED):
        found = probabilities(arrays, fold, variant)
        proba[fold.repeat, fold.test] = found / found.sum(axis=1, keepdims=True)
    return {"proba": proba}


def compare_on(name: str, arguments: argparse.Namespace) -> tuple[dict[str, OutOfFold], GroupDraws]:
    """Return the predictions of all variants on a data set; print each score at once."""
    data = DataSet.load(arguments.data / name)
    blocks = Blocks(data, arguments)
    results = {}
    for title, variant in compared(arguments).items():
        sizes = sorted({variant.size, *(size for _, size in variant.more)})
        settings = {
            "variant": repr(variant),
            "blocks": [blocks.settings(size) for size in sizes],
            "run": [arguments.repeats, SEED],
            "code": code_digest(*CODE),
        }
        path = arguments.checkpoints / data.name / "variants.json"
        found = load_or_run(path, settings, functools.partial(cross_validate, blocks, variant))
        oof = results[title] = OutOfFold.of(data, found["proba"])
        scores = f"{oof.right.mean():.3f} {oof.losses.mean():.3f}"
        print(f"{name:22s} {title:60s} {scores}", flush=True)
    return results, GroupDraws(next(iter(results.values())).groups, name)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled folders")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--border", action="store_true", help="compare variants of the border")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "variants")
    parser.add_argument(
        "--out", type=Path, help="JSON file; required unless the whole standard run is made"
    )
    arguments = parser.parse_args(argv)
    is_standard = arguments.weights == "imagenet" and arguments.repeats == REPEATS
    if arguments.out is None:
        if set(arguments.sets) != set(SETS) or not is_standard:
            parser.error("give --out FILE: the project's own results need the whole standard run")
        name = "border" if arguments.border else "variants"
        arguments.out = RESULTS / "accuracy" / f"{name}_{arguments.backbone}.json"
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    by_set, all_draws, rows = [], [], []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes with one or two groups
        for name in arguments.sets:
            results, draws = compare_on(name, arguments)
            by_set.append(results)
            all_draws.append(draws)
            scores = set_rows(results, DEFAULT, draws)
            rows += [{"data": name, "variant": title} | row for title, row in scores.items()]
    means = mean_rows(by_set, DEFAULT, all_draws)
    facts = {
        "rows": rows,
        "means": [{"variant": title} | row for title, row in means.items()],
        "default": DEFAULT,
        "backbone": arguments.backbone,
        "repeats": arguments.repeats,
        "seed": SEED,
        "versions": versions(),
        "machine": machine(arguments.threads),
    }
    save_result(arguments.out, facts)


if __name__ == "__main__":
    main()
