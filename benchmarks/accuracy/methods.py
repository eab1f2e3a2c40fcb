"""The methods that are compared: each is trained on a fold and predicts probabilities.

Features that need no training are computed once per data set; their seconds count in fit and in
prediction. Everything else, scaling and projections included, is learnt on the training part.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.accuracy.tables import DEFAULT
from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.data import Fold
from benchmarks.common.logistic import TunedLogisticRegression
from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier, default_encoder
from hypervlad.features import WeightsNotFoundError, find_weights, get_backbone
from hypervlad.features.hypercolumns import feature_maps
from hypervlad.features.loading import Batch, ImageLoader
from hypervlad.features.network import build_network
from hypervlad.models.presets import luo2021

IMAGE_SIZE = 224
BATCH_SIZE = 8
LUO2021 = {"luo2021": {}, "luo2021_image": {"grid": "image"}}
NAMES = (
    "default",
    "default_logistic",
    "default_temperature",
    "pooled_last",
    "pooled_all",
    *LUO2021,
)
Result = dict[str, Any]


class Method(Protocol):
    """A method: `title` names it in tables, `settings` contains what its results depend on."""

    title: str
    settings: dict[str, Any]

    def __call__(self, fold: Fold) -> Result:
        """Return ``proba`` (n_test, n_classes), ``fit_seconds``, ``predict_seconds``."""


def run(method: Method, fold: Fold, folder: Path) -> Result:
    """Return a method's result on a fold, from its checkpoint if there is one."""
    settings = fold.settings | method.settings | {"title": method.title}
    return load_or_run(fold.checkpoint(folder, method.title), settings, lambda: method(fold))


def measure(model: Any, fold: Fold, train: Any, test: Any, image_seconds: float = 0.0) -> Result:
    """Fit and predict, and time both; the features of an image add ``image_seconds``."""
    started = time.perf_counter()
    model.fit(train, fold.y, groups=fold.groups)
    fitted = time.perf_counter()
    proba = model.predict_proba(test)
    predicted = time.perf_counter()
    if list(model.classes_) != list(fold.data.classes):
        raise RuntimeError(f"{fold.data.name}: a class is missing from a training part")
    return {
        "proba": np.asarray(proba, dtype=np.float64),
        "fit_seconds": fitted - started + image_seconds * len(fold.train),
        "predict_seconds": predicted - fitted + image_seconds * len(fold.test),
    }


class RecordingSoftmax(BoostedSoftmaxClassifier):
    """A boosted softmax that remembers the vectors it was given and its training time."""

    # With the signature: a classifier passes on only what the signature of fit names.
    @functools.wraps(BoostedSoftmaxClassifier.fit)
    def fit(self, X: np.ndarray, y: np.ndarray, **others: Any) -> RecordingSoftmax:
        self.learnt_from_ = np.array(X)
        started = time.perf_counter()
        super().fit(X, y, **others)
        self.seconds_ = time.perf_counter() - started
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        self.asked_about_ = np.array(X)
        return super().predict_proba(X)


class Default:
    """``MicrographClassifier()`` with its defaults, except network, seed and prediction sets."""

    title = DEFAULT

    def __init__(self, backbone: str, weights: str, digest: str) -> None:
        self.network = {"backbone": backbone, "weights": weights}
        self.settings = {"backbone": backbone, "weights": digest}

    def __call__(self, fold: Fold) -> Result:
        softmax = RecordingSoftmax(prior="sqrt")
        model = MicrographClassifier(
            default_encoder(**self.network),
            boosting=softmax,
            calibrate=False,
            random_state=fold.seed,
        )
        result = measure(model, fold, fold.train_paths, fold.test_paths)
        fitted = model.boosting_
        return result | {
            "train_vectors": fitted.learnt_from_,
            "test_vectors": fitted.asked_about_,
            "softmax_seconds": fitted.seconds_,
        }


class LinearOnDefault:
    """Logistic regression on the vectors that the default's boosted softmax receives."""

    def __init__(self, default: Default, folder: Path, temperature: bool) -> None:
        self.default, self.folder, self.temperature = default, folder, temperature
        kind = "temperature-scaled logistic regression" if temperature else "logistic regression"
        self.title, self.settings = f"default vectors + {kind}", default.settings

    def __call__(self, fold: Fold) -> Result:
        given = run(self.default, fold, self.folder)
        model = TunedLogisticRegression(
            ("length", "columns"), self.temperature, random_state=fold.seed
        )
        result = measure(model, fold, given["train_vectors"], given["test_vectors"])
        result["fit_seconds"] += given["fit_seconds"] - given["softmax_seconds"]
        result["predict_seconds"] += given["predict_seconds"]
        return result


class Taps:
    """Maps of a network for whole images, in the shapes that the baselines need."""

    def __init__(self, backbone: str, weights: str) -> None:
        self.network = build_network(backbone, weights)
        self._preprocessing = get_backbone(backbone).preprocessing
        size, n_channels = self._preprocessing.minimum_size, len(self._preprocessing.mean)
        nothing = torch.zeros(1, n_channels, size, size)
        self.widths = [m.shape[-1] for m in feature_maps(self.network, nothing)]

    def pooled(self, paths: list[str]) -> np.ndarray:
        """Return each channel's mean over the image, taps side by side: (n, sum of C_l)."""
        means = [
            torch.cat([layer.mean(dim=(1, 2)) for layer in maps], dim=1).cpu().numpy()
            for _, maps in self._maps(paths)
        ]
        return np.concatenate(means)

    def _maps(self, paths: list[str]) -> Iterator[tuple[Batch, list[torch.Tensor]]]:
        """Yield batches with their maps; all images are squares, so that their order is kept."""
        loader = ImageLoader(
            image_size=IMAGE_SIZE,
            preprocessing=self._preprocessing,
            batch_size=BATCH_SIZE,
        )
        for batch in loader.batches(enumerate(loader.load(path, path) for path in paths)):
            yield batch, feature_maps(self.network, batch.tensors)


class Pooled:
    """Taps averaged over the image, then logistic regression: ten lines without this package."""

    def __init__(self, taps: Taps, last_only: bool) -> None:
        self.taps, self.last_only = taps, last_only
        self.title = f"{'last layer' if last_only else 'all taps'} pooled + logistic regression"
        self.settings = {"weights": taps.network.digest}

    def __call__(self, fold: Fold) -> Result:
        vectors, seconds = fold.data.features("pooled", self.taps.pooled)
        if self.last_only:
            vectors = vectors[:, -self.taps.widths[-1] :]
        model = TunedLogisticRegression(random_state=fold.seed)
        return measure(model, fold, vectors[fold.train], vectors[fold.test], seconds)


class Luo2021:
    """The paper's system, always on VGG-16."""

    def __init__(self, name: str, weights: str) -> None:
        self.title = "luo2021" if name == "luo2021" else "luo2021, every pixel"
        self.weights, self.parameters = weights, LUO2021[name]
        self.settings = {"weights": hashlib.sha256(Path(weights).read_bytes()).hexdigest()}

    def __call__(self, fold: Fold) -> Result:
        model = luo2021(
            weights=self.weights,
            random_state=fold.seed,
            n_jobs=torch.get_num_threads(),
            **self.parameters,
        )
        return measure(model, fold, fold.train_paths, fold.test_paths)


def all_methods(
    backbone: str, weights: str, vgg16: str | None, folder: Path
) -> tuple[dict[str, Method], dict[str, str]]:
    """Return every method by its short name, and why others cannot run."""
    taps = Taps(backbone, weights)
    default = Default(backbone, weights, taps.network.digest)
    methods: dict[str, Method] = {
        "default": default,
        "default_logistic": LinearOnDefault(default, folder, temperature=False),
        "default_temperature": LinearOnDefault(default, folder, temperature=True),
        "pooled_last": Pooled(taps, last_only=True),
        "pooled_all": Pooled(taps, last_only=False),
    }
    try:
        vgg16 = vgg16 or str(find_weights("vgg16", download=False))
    except WeightsNotFoundError as error:
        return methods, dict.fromkeys(LUO2021, str(error))
    return methods | {name: Luo2021(name, vgg16) for name in LUO2021}, {}
