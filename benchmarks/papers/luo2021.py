"""What does the system of the 2021 paper give, compared with ours and with simple baselines?

The experiment of Luo, Holm and Wang 2021: 80 % of the images for training, 20 % for testing, split
at random as in the paper, over several seeds. Accuracy, confusion, a t-SNE mosaic, and times.

    python -m benchmarks.papers.luo2021 --data DIR --weights vgg16.pth --out DIR
    python -m benchmarks.papers.luo2021 --classes 8                          # synthetic

The paper's images are not public; without --data the images are synthetic and the results say so.
With groups, the split of the paper is optimistic: `benchmarks.accuracy` compares by group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
import torchvision
from sklearn.ensemble import GradientBoostingClassifier

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.data import DataSet, write_tem_folder
from benchmarks.common.logistic import TunedLogisticRegression
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, load_result, measured_now, origin, save_result
from benchmarks.common.tables import table
from benchmarks.papers.mosaic import write_confusion, write_mosaic
from hypervlad import MicrographClassifier
from hypervlad.evaluation import accuracy_interval
from hypervlad.features import Preprocessing
from hypervlad.features.hypercolumns import feature_maps
from hypervlad.features.loading import ImageLoader
from hypervlad.features.network import build_network
from hypervlad.features.weights import read_state_dict
from hypervlad.models.presets import luo2021

TEST_SIZE = 0.2
CLASSIFIERS = ("luo2021", "luo2021-sklearn", "luo2021-image", "default")
BASELINES = ("pooled-conv5_3", "fc2")
#: Luo, Holm and Wang 2021: accuracy by number of classes, the fc2 baseline, hours for 3,200 images
#: and seconds per image, on an RTX 2070.
PAPER_ACCURACY = {4: 0.909, 8: 0.845}
PAPER_BASELINE = 0.843
PAPER_FIT_HOURS, PAPER_FIT_IMAGES, PAPER_IMAGE_SECONDS = 3.99, 3200, 0.69
_N_SHOWN = 240  # thumbnails of a mosaic
_BATCH = 8


def random_split(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the split of the paper: a random fifth of the images, whatever their class or group.

    Examples
    --------
    >>> [len(part) for part in random_split(5323, seed=0)]
    [4259, 1064]
    """
    order = np.random.default_rng(seed).permutation(n)
    n_test = int(TEST_SIZE * n)
    return np.sort(order[n_test:]), np.sort(order[:n_test])


@dataclass
class Baseline:
    """Softmax regression on vectors of VGG-16, with C by inner cross-validation.

    ``fc2``: the second fully connected layer after its ReLU, as in the paper. ``pooled-conv5_3``:
    the mean over the image of the last convolutions after their ReLU.
    """

    method: str
    weights: str
    vgg16: str
    seed: int

    def fit(self, paths: Sequence[str], y: np.ndarray) -> Baseline:
        self.regression_ = TunedLogisticRegression(random_state=self.seed)
        self.classes_ = self.regression_.fit(self.vectors(paths), y).classes_
        return self

    def predict_proba(self, paths: Sequence[str]) -> np.ndarray:
        return self.regression_.predict_proba(self.vectors(paths))

    def vectors(self, paths: Sequence[str]) -> np.ndarray:
        forward = self._forward()
        loader = ImageLoader(image_size=224, preprocessing=Preprocessing(), batch_size=_BATCH)
        loaded = (loader.load(path, path) for path in paths)
        with torch.no_grad():
            vectors = [
                forward(batch.tensors).numpy() for batch in loader.batches(enumerate(loaded))
            ]
        return np.concatenate(vectors)

    def _forward(self) -> Callable[[torch.Tensor], torch.Tensor]:
        if self.method == "fc2":
            return full_vgg16(self.vgg16)
        tapped = build_network("vgg16", self.weights, ["features.29"])
        return lambda batch: feature_maps(tapped, batch)[0].mean(dim=(1, 2)).cpu()


def full_vgg16(path: str) -> torch.nn.Module:
    """Return torchvision's VGG-16 up to fc2 after its ReLU, 4,096 values per image."""
    state = {key: value.float() for key, value in read_state_dict(path).items()}
    with torch.device("meta"):
        network = torchvision.models.vgg16(weights=None)
    network.classifier = network.classifier[:5]  # linear, ReLU, dropout, fc2, ReLU
    wanted = network.state_dict()
    unfit = [k for k, v in wanted.items() if k not in state or state[k].shape != v.shape]
    if unfit:
        raise SystemExit(
            f"{path}: {unfit[0]!r} is missing or of another shape: fc2 needs torchvision's full "
            "state dict of VGG-16 (vgg16-397923af.pth, 528 MB)"
        )
    network.load_state_dict({key: state[key] for key in wanted}, assign=True)
    return network.eval().requires_grad_(False)


def build(method: str, weights: str, vgg16: str, seed: int) -> Any:
    """Return an unfitted classifier of paths."""
    if method in BASELINES:
        return Baseline(method, weights, vgg16, seed)
    if method == "default":
        return MicrographClassifier(calibrate=False, random_state=seed)
    given: dict[str, Any] = {"grid": "image"} if method == "luo2021-image" else {}
    given |= {"weights": weights, "random_state": seed, "n_jobs": torch.get_num_threads()}
    model = luo2021(**given)
    if method == "luo2021-sklearn":
        model.set_params(boosting=GradientBoostingClassifier())
    return model


def measure(data: DataSet, method: str, seed: int, make: Callable[[], Any]) -> Facts:
    """Fit on one split and test; the vectors of the test images are for a mosaic."""
    train, test = random_split(len(data.paths), seed)
    model = make()
    began = time.perf_counter()
    model.fit(list(data.paths[train]), data.y[train])
    fitted = time.perf_counter()
    proba = model.predict_proba(list(data.paths[test]))
    ended = time.perf_counter()
    found = {
        "predicted": np.asarray(model.classes_)[proba.argmax(axis=1)].astype(str),
        "fit_seconds": fitted - began,
        "image_seconds": (ended - fitted) / len(test),
    }
    if method == "luo2021" and seed == 0:
        shown = np.random.default_rng(0).permutation(len(data.paths))[:_N_SHOWN]
        found["shown"] = shown
        found["vectors"] = model.encoder_.transform(list(data.paths[shown]))
    return found


def row_of(
    data: DataSet, method: str, seeds: Sequence[int], found: Sequence[Mapping[str, Any]]
) -> Facts:
    """Summarise the seeds of one method."""
    confusion = np.zeros((len(data.classes), len(data.classes)), dtype=int)
    accuracies = []
    for seed, each in zip(seeds, found, strict=True):
        _, test = random_split(len(data.paths), seed)
        predicted = np.searchsorted(data.classes, each["predicted"])
        np.add.at(confusion, (data.codes[test], predicted), 1)
        accuracies.append(float((data.codes[test] == predicted).mean()))
    return {
        "method": method,
        "n_images": len(data.paths),
        "n_train": len(data.paths) - len(test),
        "seeds": list(seeds),
        "accuracy": float(np.mean(accuracies)),
        "interval": interval_of(accuracies, len(data.paths) - len(test), len(test)),
        "confusion": confusion.tolist(),
        "fit_seconds": float(np.mean([each["fit_seconds"] for each in found])),
        "image_seconds": float(np.mean([each["image_seconds"] for each in found])),
        "measured": measured_now(),
        "data_digest": data.digest[:16],
        "origin": origin(),
    }


def interval_of(accuracies: Sequence[float], n_train: int, n_test: int) -> list[float]:
    """Return the 95 % interval of the mean accuracy of random splits.

    Of one split Wilson's; of several Student's, corrected for the images that they share (Nadeau
    and Bengio, Machine Learning 52, 2003).
    """
    mean = float(np.mean(accuracies))
    if len(accuracies) == 1:
        right = np.arange(n_test) < round(mean * n_test)
        return list(accuracy_interval(right))
    share = 1 / len(accuracies) + n_test / n_train
    error = np.sqrt(share * np.var(accuracies, ddof=1))
    half = float(scipy.stats.t.ppf(0.975, len(accuracies) - 1) * error)
    return [max(0.0, mean - half), min(1.0, mean + half)]


def merge(path: Path, data: DataSet, synthetic: bool, row: Facts) -> None:
    """Add a row to a results file; it replaces the row of the same method and size."""
    rows = load_result(path)["rows"] if path.exists() else []
    new = (row["method"], row["n_images"])
    rows = [old for old in rows if (old["method"], old["n_images"]) != new] + [row]
    rows.sort(key=lambda each: -each["n_images"])
    facts = {"data": "synthetic TEM images" if synthetic else data.name, "synthetic": synthetic}
    save_result(path, facts | {"classes": data.classes.tolist(), "rows": rows})


def experiment_table(results: Sequence[Facts]) -> str:
    """Return one row per method and size, after the row of the paper."""
    heads = ["images", "classes", "method", "accuracy", "fit", "predict, per image"]
    lines = []
    for result in results:
        n_classes = len(result["classes"])
        baseline = f"; its fc2 baseline {100 * PAPER_BASELINE:.1f} %" if n_classes == 4 else ""
        lines.append(
            [
                "5,323, the paper's own",
                str(n_classes),
                "*the paper*",
                f"*{100 * PAPER_ACCURACY[n_classes]:.1f} %{baseline}*",
                f"*{PAPER_FIT_HOURS} h ({PAPER_FIT_IMAGES:,} images)*",
                f"*{PAPER_IMAGE_SECONDS} s*",
            ]
        )
        for row in result["rows"]:
            low, high = row["interval"]
            splits = f" ({len(row['seeds'])} splits)" if len(row["seeds"]) > 1 else ""
            lines.append(
                [
                    f"{row['n_images']:,} "
                    f"{'**synthetic**' if result['synthetic'] else result['data']}",
                    str(n_classes),
                    row["method"],
                    f"{100 * row['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]{splits}",
                    f"{duration(row['fit_seconds'])} ({row['n_train']:,} images)",
                    f"{row['image_seconds']:.3f} s",
                ]
            )
    return table(heads, lines)


def duration(seconds: float) -> str:
    """Return a duration with a suitable unit."""
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.2f} h"


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "papers", checkpoints="luo2021", threads=2)
    parser.add_argument("--data", type=Path, help="folder with one sub-folder per class")
    parser.add_argument("--classes", type=int, choices=(4, 8), default=4, help="of synthetic ones")
    parser.add_argument("--n-images", type=int, default=800, help="of synthetic ones")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=(*CLASSIFIERS, *BASELINES),
        default=["luo2021", "default", "pooled-conv5_3"],
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--weights", default="pretrained", help="convolutions of VGG-16")
    parser.add_argument("--vgg16", default="", help="torchvision's full VGG-16, for fc2")
    parser.add_argument("--figures", type=Path, help="folder for confusion matrices and mosaic")
    options = parse(parser, argv)
    if "fc2" in options.methods:
        full_vgg16(options.vgg16)  # before the long part of the run
    n, n_classes = options.n_images, options.classes
    folder = options.data or write_tem_folder(
        options.checkpoints / f"synthetic_{n_classes}_{n}", n, n_classes=n_classes, block=100
    )
    data = DataSet.load(folder, name=None if options.data else "synthetic")
    if len(data.classes) not in PAPER_ACCURACY:
        parser.error(f"{folder} has {len(data.classes)} class folders; the paper has 4 or 8")
    path = options.out / f"luo2021_{data.name}_{len(data.classes)}.json"
    for method in options.methods:
        found = []
        for seed in options.seeds:
            settings = {"data": data.digest, "method": method, "seed": seed}
            settings |= {"weights": options.weights, "vgg16": options.vgg16}
            make = partial(build, method, options.weights, options.vgg16, seed)
            run = partial(measure, data, method, seed, make)
            checkpoint = options.checkpoints / f"{data.name}-{method}-{seed}.json"
            found.append(load_or_run(checkpoint, settings, run))
        row = row_of(data, method, options.seeds, found)
        merge(path, data, options.data is None, row)  # after each row: an interruption costs little
        if options.figures:
            confusion = np.array(row["confusion"])
            write_confusion(options.figures / f"{method}_confusion.png", confusion, data.classes)
            if "vectors" in found[0]:
                shown = found[0]["shown"]
                mosaic = options.figures / f"{method}_mosaic.png"
                title = f"{method}: t-SNE of image vectors"
                write_mosaic(mosaic, data.paths[shown], data.y[shown], found[0]["vectors"], title)
    print(experiment_table([load_result(path)]))


if __name__ == "__main__":
    main()
