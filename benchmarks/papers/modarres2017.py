"""Is a fine-tuned ImageNet network better? The two approaches of the 2017 paper and ours.

    python -m benchmarks.papers.modarres2017 --data SEM_dataset --backbones inception_v3 resnet50
    python -m benchmarks.papers.modarres2017          # ten synthetic categories

The folder has one sub-folder per category; the NFFA-EUROPE SEM data set can be used as it is. All
methods use the same grouped, stratified folds. Each fold is kept in a checkpoint, and each epoch of
a fine-tuning, so that an interrupted run resumes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.data import DataSet, Fold, folds_of, save_grey, write_tem_folder
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, load_result, measured_now, origin, save_result
from benchmarks.common.scores import GroupDraws, OutOfFold
from benchmarks.common.tables import table
from hypervlad import MicrographClassifier, default_encoder, make_nanofibre_images
from hypervlad.evaluation import expected_calibration_error
from hypervlad.features import WeightsNotFoundError
from hypervlad.features.network import build_network
from hypervlad.models.presets import modarres2017

SEED = 1000  # the folds of `benchmarks.accuracy`
MATS = {"mat-beaded": 1.0, "mat-plain": 0.0}  # share of mats with beads
HOW = {"features": "features", "head": "head only", "last": "last layers", "all": "all layers"}
OURS = "ours"


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes
    ----------
    kind : {"features", "head", "last", "all", "ours"}
        Fixed features, the layers that are fine-tuned, or our default.
    backbone, weights : str
    digest : str
        Of the weights.
    max_epochs : int
    """

    kind: str
    backbone: str
    weights: str
    digest: str
    max_epochs: int

    @property
    def title(self) -> str:
        if self.kind == OURS:
            return f"hypervlad, default, {self.backbone}"
        return f"{self.backbone}, {HOW[self.kind]}"

    def model(self, seed: int, checkpoint: Path) -> Any:
        """Return the classifier, unfitted."""
        network = {"backbone": self.backbone, "weights": self.weights}
        if self.kind == OURS:
            encoder = default_encoder(**network)
            return MicrographClassifier(encoder, calibrate=False, random_state=seed)
        if self.kind == "features":
            return modarres2017("features", **network, random_state=seed)
        own = {"trainable": self.kind, "max_epochs": self.max_epochs, "checkpoint": checkpoint}
        return modarres2017("finetune", **network, random_state=seed, **own)


def all_methods(
    backbones: Sequence[str], weights: Mapping[str, str], kinds: Sequence[str], max_epochs: int
) -> list[Method]:
    """Return the methods that can run; says why other backbones cannot."""
    methods: list[Method] = []
    for backbone in backbones:
        where = weights.get(backbone, "pretrained")
        try:
            digest = build_network(backbone, where).digest
        except WeightsNotFoundError as error:
            print(f"left out: {backbone}: {error}", flush=True)
            continue
        methods += [Method(kind, backbone, where, digest, max_epochs) for kind in kinds]
    return methods


def measure(method: Method, fold: Fold, folder: Path) -> dict[str, Any]:
    """Fit on a fold; an interrupted fine-tuning resumes after its last epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    model = method.model(fold.seed, folder)
    started = time.perf_counter()
    model.fit(fold.train_paths, fold.y, groups=fold.groups)
    fitted = time.perf_counter()
    proba = np.asarray(model.predict_proba(fold.test_paths), dtype=np.float64)
    predicted = time.perf_counter()
    if list(model.classes_) != list(fold.data.classes):
        raise RuntimeError(f"{fold.data.name}: a class is missing from a training part")
    for unfinished in folder.glob("training-*.checkpoint"):
        unfinished.unlink()  # the result of the fold replaces it
    return {
        "proba": proba,
        "fit_seconds": fitted - started,
        "ms": 1000 * (predicted - fitted) / len(fold.test),
        "epochs": len(getattr(model, "history_", None) or ()),
    }


def cross_validate(method: Method, folds: Sequence[Fold], checkpoints: Path) -> dict[str, Any]:
    """Return the out-of-fold scores of a method."""
    data = folds[0].data
    n_repeats = 1 + max(fold.repeat for fold in folds)
    proba = np.full((n_repeats, len(data.y), len(data.classes)), np.nan)
    others: dict[str, list[float]] = {"fit_seconds": [], "ms": [], "epochs": []}
    for fold in folds:
        path = fold.checkpoint(checkpoints, method.title)
        settings = fold.settings | {"title": method.title, "weights": method.digest}
        settings |= {"max_epochs": method.max_epochs}
        result = load_or_run(path, settings, partial(measure, method, fold, path.parent))
        proba[fold.repeat, fold.test] = result["proba"] / result["proba"].sum(1, keepdims=True)
        for name, values in others.items():
            values.append(result[name])
        print(f"{data.name}: {method.title}: fold {fold.repeat}.{fold.number} done", flush=True)
    row = scores(OutOfFold.of(data, proba))
    return row | {name: float(np.mean(values)) for name, values in others.items()}


def scores(found: OutOfFold) -> dict[str, Any]:
    """Return accuracy, top-2 accuracy, log-loss, calibration error, and the confusion matrix."""
    proba, codes = found.proba, found.codes
    n_classes = proba.shape[2]
    best_two = np.argsort(-proba, axis=2, kind="stable")[:, :, :2]
    confusion = np.zeros((n_classes, n_classes))
    for answers in proba.argmax(axis=2):
        np.add.at(confusion, (codes, answers), 1 / len(proba))
    return {
        "accuracy": float(found.right.mean()),
        "accuracy_interval": GroupDraws(found.groups).interval(found.right),
        "top2": float((best_two == codes[:, None]).any(axis=2).mean()),
        "balanced_accuracy": found.balanced_accuracy,
        "log_loss": float(found.losses.mean()),
        "ece": float(np.mean([expected_calibration_error(codes, each) for each in proba])),
        "confusion": confusion.tolist(),
    }


def synthetic_folder(place: Path, n_of_each: int, size: int) -> Path:
    """Write eight kinds of TEM images, and SEM images of mats with beads and without."""
    folder = place / f"synthetic_{n_of_each}_{size}px"
    for seed, (name, share) in enumerate(MATS.items(), start=1):
        mats, _ = make_nanofibre_images(
            n_of_each, defective=share, defects="bead", size=size, random_state=seed
        )
        for number, mat in enumerate(mats):
            save_grey(folder / name / f"{number:05d}.png", mat)
    return write_tem_folder(folder, 8 * n_of_each, size=size, n_classes=8)


def comparison(results: Sequence[Facts]) -> str:
    """Return, for each set of images, a table of the methods and one of the best by class."""
    return "\n\n".join(_section(result) for result in results)


def _section(result: Facts) -> str:
    kind = "**synthetic**; " if result["is_synthetic"] else ""
    best = max(result["rows"], key=lambda row: row["accuracy"])
    head = (
        f"**{result['data']}** ({kind}{result['n']} images, {result['n_groups']} groups, "
        f"{len(result['classes'])} categories; {result['repeats']} x {result['folds']} grouped "
        "folds)"
    )
    by_category = f"By category, for {best['method']}, the most accurate method:"
    classes = _classes(result["classes"], np.array(best["confusion"]))
    return "\n\n".join([head, _methods(result["rows"], best), by_category, classes])


def _methods(rows: Sequence[Facts], best: Facts) -> str:
    heads = ["method", "accuracy", "top-2", "balanced", "log-loss", "ECE", "epochs", "fit"]
    lines = []
    for row in rows:
        low, high = row["accuracy_interval"]
        accuracy = f"{row['accuracy']:.3f}"
        accuracy = f"**{accuracy}**" if row["accuracy"] == best["accuracy"] else accuracy
        cells = [row["method"], f"{accuracy} [{low:.3f}, {high:.3f}]"]
        cells += [f"{row[name]:.3f}" for name in ("top2", "balanced_accuracy", "log_loss", "ece")]
        cut = "\\*" if row["epochs"] == row["max_epochs"] else ""
        cells.append(f"{row['epochs']:.1f} of {row['max_epochs']}{cut}" if row["epochs"] else "–")
        lines.append([*cells, f"{row['fit_seconds']:.0f} s", f"{row['ms']:.0f} ms"])
    return table([*heads, "per image"], lines)


def _classes(names: Sequence[str], confusion: np.ndarray) -> str:
    """Return precision, recall, F1 and the confusion matrix as shares of the true category."""
    lines = []
    for code, (name, counts) in enumerate(zip(names, confusion, strict=True)):
        right, true, predicted = counts[code], counts.sum(), confusion[:, code].sum()
        pairs = ((right, predicted), (right, true), (2 * right, true + predicted))
        cells = [name, f"{true:.0f}", *(f"{a / b:.2f}" if b else "–" for a, b in pairs)]
        lines.append(cells + [f"{each / max(true, 1):.2f}" if each else "" for each in counts])
    heads = ["category", "images", "precision", "recall", "F1", *(f"→ {name}" for name in names)]
    return table(heads, lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "papers", checkpoints="modarres2017", threads=2)
    parser.add_argument("--data", type=Path, help="folder with one sub-folder per category")
    parser.add_argument("--groups", type=Path, help="CSV table: path,group")
    parser.add_argument("--backbones", nargs="+", default=["mobilenet_v2"])
    parser.add_argument("--weights", nargs="+", default=[], metavar="BACKBONE=FILE")
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=["features", "all", OURS],
        choices=[*HOW, OURS],
        help="fixed features, fine-tuned layers, or our default",
    )
    parser.add_argument("--max-epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folds", type=int, default=5, help="maximum number of folds")
    parser.add_argument("--synthetic", type=int, default=20, help="images of each category")
    parser.add_argument("--size", type=int, default=224, help="of synthetic images, pixels")
    options = parse(parser, argv)
    if any("=" not in given for given in options.weights):
        parser.error("--weights BACKBONE=FILE, such as vgg16=vgg16.pth")
    weights = dict(given.split("=", 1) for given in options.weights)
    methods = all_methods(options.backbones, weights, options.kinds, options.max_epochs)
    if not methods:
        raise SystemExit("none of the networks has weights here")
    folder = options.data or synthetic_folder(options.checkpoints, options.synthetic, options.size)
    data = DataSet.load(folder, options.groups)
    folds = folds_of(data, options.repeats, SEED, options.folds)
    facts: Facts = {
        "data": data.name,
        "is_synthetic": options.data is None,
        "n": len(data.y),
        "n_groups": len(np.unique(data.groups)),
        "classes": data.classes.tolist(),
        "digest": data.digest,
        "folds": 1 + max(fold.number for fold in folds),
        "repeats": options.repeats,
    }
    out = options.out / f"modarres2017_{data.name}.json"
    for method in methods:
        row = {"method": method.title, "max_epochs": method.max_epochs, "origin": origin()}
        row |= {"measured": measured_now()} | cross_validate(method, folds, options.checkpoints)
        earlier = load_result(out) if out.exists() else {}
        same = all(earlier.get(name) == value for name, value in facts.items())
        rows = [each for each in earlier["rows"] if each["method"] != method.title] if same else []
        save_result(out, facts | {"rows": [*rows, row]})
    print(comparison([load_result(out)]))


if __name__ == "__main__":
    main()
