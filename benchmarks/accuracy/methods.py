"""The methods that are compared: each is trained on a fold and predicts probabilities.

Features that need no training (a network's pooled taps, texture) are computed once per data set;
their seconds per image still count in fit and in prediction. Everything else, scaling and
projections included, is learnt on the training part alone.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.accuracy.encodings import FisherVectors, LayerPCA, WordHistograms
from benchmarks.accuracy.features import Taps, texture
from benchmarks.accuracy.tables import DEFAULT, LUO2021
from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.folds import Fold
from benchmarks.common.logistic import TunedLogisticRegression
from benchmarks.common.sources import code_digest, machine, versions
from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier, default_encoder
from hypervlad.backbones import WeightsNotFoundError, find_weights
from hypervlad.presets import anyloc, luo2021

N_SAMPLED = 1000  # hypercolumns per image
# The files on which a result depends: a change makes its checkpoints void.
CODE = (
    "accuracy/methods",
    "accuracy/features",
    "accuracy/encodings",
    "common/logistic",
    "common/folds",
)

Result = dict[str, Any]


class Method(Protocol):
    """A method: `title` names it in tables, `settings` contains all that its results depend on."""

    title: str

    @property
    def settings(self) -> dict[str, Any]:
        """Besides what `run` adds for every method: code, libraries, machine."""
        ...

    def __call__(self, fold: Fold) -> Result:
        """Return ``proba`` (n_test, n_classes), ``fit_seconds``, ``predict_seconds``."""


def run(method: Method, fold: Fold, folder: Path) -> Result:
    """Return a method's result on a fold, from its checkpoint if there is one."""
    name = "".join(c if c.isalnum() else "_" for c in method.title)
    path = folder / fold.data.name / name / f"repeat{fold.repeat}_fold{fold.number}.json"
    settings = fold.settings | method.settings | {"title": method.title, "versions": versions()}
    settings |= {"code": code_digest(*CODE), "machine": machine(torch.get_num_threads())}
    return load_or_run(path, settings, lambda: method(fold))


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

    def __init__(self, backbone: str, weights: str, weights_digest: str) -> None:
        self.backbone, self.weights, self.weights_digest = backbone, weights, weights_digest

    def model(self, seed: int) -> MicrographClassifier:
        """Return the default with this network; everything else is left to the package."""
        model = MicrographClassifier(calibration_size=0, random_state=seed)
        encoder = default_encoder() if model.encoder is None else model.encoder
        encoder.set_params(backbone=self.backbone, weights=self.weights)
        return model.set_params(encoder=encoder, boosting=RecordingSoftmax(prior="sqrt"))

    @property
    def settings(self) -> dict[str, Any]:
        parameters = self.model(0).get_params()
        del parameters["encoder__weights"]  # a path; the digest says what it holds
        plain = {k: repr(v) for k, v in parameters.items() if not hasattr(v, "get_params")}
        return {"parameters": plain, "weights": self.weights_digest}

    def __call__(self, fold: Fold) -> Result:
        model = self.model(fold.seed)
        result = measure(model, fold, fold.train_paths, fold.test_paths)
        softmax = model.boosting_
        return result | {
            "train_vectors": softmax.learnt_from_,
            "test_vectors": softmax.asked_about_,
            "softmax_seconds": softmax.seconds_,
        }


class LinearOnDefault:
    """Logistic regression on the vectors that the default's boosted softmax receives."""

    def __init__(self, default: Default, folder: Path, temperature: bool) -> None:
        self.default, self.folder, self.temperature = default, folder, temperature
        kind = "temperature-scaled logistic regression" if temperature else "logistic regression"
        self.title = f"default vectors + {kind}"

    @property
    def settings(self) -> dict[str, Any]:
        return {"default": self.default.settings, "temperature": self.temperature}

    def __call__(self, fold: Fold) -> Result:
        given = run(self.default, fold, self.folder)
        model = TunedLogisticRegression(
            ("length", "columns"), self.temperature, random_state=fold.seed
        )
        result = measure(model, fold, given["train_vectors"], given["test_vectors"])
        result["fit_seconds"] += given["fit_seconds"] - given["softmax_seconds"]
        result["predict_seconds"] += given["predict_seconds"]
        return result


class Pooled:
    """Taps averaged over the image, then logistic regression: ten lines without this package."""

    def __init__(self, taps: Taps, last_only: bool) -> None:
        self.taps, self.last_only = taps, last_only
        self.title = f"{'last layer' if last_only else 'all taps'} pooled + logistic regression"

    @property
    def settings(self) -> dict[str, Any]:
        return _of_taps(self.taps, last_only=self.last_only)

    def __call__(self, fold: Fold) -> Result:
        vectors, seconds = fold.data.features("pooled", self.taps.pooled)
        if self.last_only:
            vectors = vectors[:, -self.taps.widths[-1] :]
        model = TunedLogisticRegression(random_state=fold.seed)
        return measure(model, fold, vectors[fold.train], vectors[fold.test], seconds)


class Tokens:
    """Class token and mean token of a transformer, then a plain classifier."""

    def __init__(self, taps: Taps, neighbours: bool) -> None:
        self.taps, self.neighbours = taps, neighbours
        kind = "nearest neighbours" if neighbours else "logistic regression"
        self.title = f"class and mean token + {kind}"

    @property
    def settings(self) -> dict[str, Any]:
        return _of_taps(self.taps, neighbours=self.neighbours)

    def __call__(self, fold: Fold) -> Result:
        vectors, seconds = fold.data.features("tokens", self.taps.tokens)
        model = (
            SmoothedNeighbours()
            if self.neighbours
            else TunedLogisticRegression(random_state=fold.seed)
        )
        return measure(model, fold, vectors[fold.train], vectors[fold.test], seconds)


class SmoothedNeighbours(KNeighborsClassifier):
    """The classes of the 10 nearest training images by cosine, and one vote spread over all."""

    def __init__(self) -> None:
        super().__init__(n_neighbors=10, metric="cosine")

    def fit(self, X: np.ndarray, y: np.ndarray, groups: object = None) -> SmoothedNeighbours:
        self.n_neighbors = min(10, len(X))
        return super().fit(X, y)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        votes = self.n_neighbors * super().predict_proba(X) + 1 / len(self.classes_)
        return np.asarray(votes / votes.sum(axis=1, keepdims=True))


class AnyLoc:
    """`hypervlad.presets.anyloc` on a transformer of timm."""

    def __init__(self, taps: Taps, backbone: str, weights: str) -> None:
        self.taps, self.backbone, self.weights = taps, backbone, weights
        self.title = "AnyLoc"

    @property
    def settings(self) -> dict[str, Any]:
        return _of_taps(self.taps)

    def __call__(self, fold: Fold) -> Result:
        model = anyloc(self.backbone, weights=self.weights, random_state=fold.seed)
        model.set_params(calibration_size=0)
        return measure(model, fold, fold.train_paths, fold.test_paths)


class OnHypercolumns:
    """Sampled hypercolumns, reduced and encoded, then logistic regression."""

    def __init__(
        self, taps: Taps, title: str, encoder: Callable[[int], FisherVectors | WordHistograms]
    ) -> None:
        self.taps, self.title, self.encoder = taps, f"{title} + logistic regression", encoder

    @property
    def settings(self) -> dict[str, Any]:
        encoder = {name: repr(value) for name, value in vars(self.encoder(0)).items()}
        return _of_taps(self.taps, n_sampled=N_SAMPLED, encoder=encoder)

    def __call__(self, fold: Fold) -> Result:
        samples, seconds = fold.data.features(
            "hypercolumns", lambda paths: self.taps.sampled(paths, N_SAMPLED)
        )
        model = _Encoded(
            LayerPCA(self.taps.widths, seed=fold.seed),
            self.encoder(fold.seed),
            TunedLogisticRegression(("length",), random_state=fold.seed),
        )
        return measure(model, fold, samples[fold.train], samples[fold.test], seconds)


class _Encoded:
    """Projection, encoding and classifier, fitted one after the other."""

    def __init__(self, pca: LayerPCA, encoder: FisherVectors | WordHistograms, linear: Any) -> None:
        self.pca, self.encoder, self.linear = pca, encoder, linear

    def fit(self, samples: np.ndarray, y: np.ndarray, groups: np.ndarray) -> _Encoded:
        local = self.pca.fit_transform(samples)
        self.linear.fit(self.encoder.fit(local).transform(local), y, groups)
        self.classes_ = self.linear.classes_
        return self

    def predict_proba(self, samples: np.ndarray) -> np.ndarray:
        local = self.pca.transform(samples)
        return np.asarray(self.linear.predict_proba(self.encoder.transform(local)))


class Texture:
    """Local binary patterns and co-occurrence, then xgboost stopped early by whole groups."""

    title = "LBP and GLCM + xgboost"

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def __call__(self, fold: Fold) -> Result:
        vectors, seconds = fold.data.features("texture", texture)
        # Without a linear part this is xgboost itself, with early stopping.
        model = BoostedSoftmaxClassifier(init=None, random_state=fold.seed)
        return measure(model, fold, vectors[fold.train], vectors[fold.test], seconds)


def _of_taps(taps: Taps, **others: Any) -> dict[str, Any]:
    return {**others, "taps": list(taps.network.taps), "weights": taps.network.digest}


class Luo2021:
    """The paper's system, always on VGG-16."""

    def __init__(self, title: str, weights: str, **parameters: Any) -> None:
        self.title, self.weights, self.parameters = title, weights, parameters

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "parameters": {name: repr(value) for name, value in self.parameters.items()},
            "weights": hashlib.sha256(Path(self.weights).read_bytes()).hexdigest(),
        }

    def __call__(self, fold: Fold) -> Result:
        n_jobs = torch.get_num_threads()
        model = luo2021(
            weights=self.weights, random_state=fold.seed, n_jobs=n_jobs, **self.parameters
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
        "words": OnHypercolumns(taps, "bag of visual words", WordHistograms),
        "fisher": OnHypercolumns(taps, "Fisher vectors", FisherVectors),
        "texture": Texture(),
    }
    if taps.has_class_token:
        methods["tokens_logistic"] = Tokens(taps, neighbours=False)
        methods["tokens_neighbours"] = Tokens(taps, neighbours=True)
        methods["anyloc"] = AnyLoc(taps, backbone, weights)
    if vgg16 is None and backbone == "vgg16" and weights != "imagenet":
        vgg16 = weights
    try:
        vgg16 = vgg16 or str(find_weights("vgg16", download=False))
    except WeightsNotFoundError as error:
        return methods, dict.fromkeys(("luo2021", "luo2021_image"), str(error))
    methods["luo2021"] = Luo2021(LUO2021[0], vgg16)
    methods["luo2021_image"] = Luo2021(LUO2021[1], vgg16, grid="image")
    return methods, {}
