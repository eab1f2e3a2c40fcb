"""The methods of the 2021 experiment, divided into pieces with checkpoints.

A `MicrographClassifier` has two pieces: *encode* (codebook and vectors, with an empty cache) and
*learn* (``fit`` and ``predict_proba`` with the cache of the first piece, as in a second run). A
baseline has *vectors* (of all images, shared by all splits) and *softmax*.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.logistic import TunedLogisticRegression
from benchmarks.common.sources import peak_memory_mb
from benchmarks.papers.luo2021.stages import (
    BOOSTER,
    NETWORK,
    SOFTMAX,
    Clock,
    watched,
)

CLASSIFIERS = ("luo2021", "luo2021-sklearn", "luo2021-image", "default", "default-vgg16")
BASELINES = ("pooled-conv5_3", "fc2")
_MAX_SHOWN = 1200
_BATCH = 8


@dataclass(frozen=True)
class Job:
    """One method on one split: everything that a piece needs, ready for another process.

    Attributes
    ----------
    method : str
        Of `CLASSIFIERS` or `BASELINES`.
    changed : mapping
        Changed parameters, in scikit-learn's ``part__name`` form.
    weights, vgg16 : str
        Convolutions for the presets on VGG-16, and a full state dict (or "").
    paths : list of n str
    labels : ndarray of n str
    groups : ndarray of n str, or None
        Passed to ``fit``.
    train, test : ndarray of int
    seed : int
    cache : Path
        Folder of image vectors until the split is finished.
    threads : int
    shown : bool
        Whether *encode* also returns the coordinates for a mosaic.
    """

    method: str
    changed: Mapping[str, Any]
    weights: str
    vgg16: str
    paths: list[str]
    labels: np.ndarray
    groups: np.ndarray | None
    train: np.ndarray
    test: np.ndarray
    seed: int
    cache: Path
    threads: int
    shown: bool

    @property
    def network_weights(self) -> str:
        """File or name of the weights of the network."""
        own = {"fc2": self.vgg16, "default": "imagenet"}.get(self.method, self.weights)
        if self.method in BASELINES:
            return own
        return str(self.changed.get("encoder__weights", own))

    def of(self, rows: np.ndarray) -> list[str]:
        """Return the paths of these rows."""
        return [self.paths[row] for row in rows]


def build_classifier(job: Job) -> Any:
    """Return the unfitted classifier of a preset, with explicit parts and seeds."""
    from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier, default_encoder

    if job.method.startswith("luo2021"):
        from hypervlad.presets import luo2021

        options: dict[str, Any] = {
            "luo2021-image": {"grid": "image"},
            "luo2021-sklearn": {"booster": "sklearn"},
        }.get(job.method, {})
        model = luo2021(weights=job.weights, random_state=job.seed, **options)
    else:
        model = MicrographClassifier(calibration_size=0, random_state=job.seed)
    encoder = default_encoder() if model.encoder is None else model.encoder
    boosting = BoostedSoftmaxClassifier(prior="sqrt") if model.boosting is None else model.boosting
    for part in (encoder, boosting):
        if part.random_state is None:
            part.set_params(random_state=job.seed)
        if "n_jobs" in part.get_params():
            part.set_params(n_jobs=job.threads)
    model.set_params(encoder=encoder, boosting=boosting)
    if job.method == "default-vgg16":
        model.set_params(encoder__backbone="vgg16", encoder__weights=job.weights)
    return model.set_params(**job.changed)


def check_changed(method: str, changed: Mapping[str, Any], weights: str) -> None:
    """Raise ValueError if a method cannot use one of the changed parameters."""
    from hypervlad.constraints import Integer, check_value

    if method in BASELINES:
        unknown = [name for name in changed if name != "encoder__image_size"]
        if unknown:
            raise ValueError(
                f"--set {unknown[0]}: {method} has encoder__image_size only; leave it out of "
                "--preset, or change its weights by --weights or --vgg16"
            )
        size = changed.get("encoder__image_size", 224)
        check_value("encoder__image_size", size, [Integer(32)])
        return
    none = np.array([], dtype=int)
    job = Job(method, changed, weights, "", [], none, None, none, none, 0, Path(), 1, False)
    try:
        _check_values(build_classifier(job))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{method} cannot use --set: {error}") from error


def _check_values(model: Any) -> None:
    """Raise the error that ``fit`` would raise hours later."""
    from hypervlad import BoostedSoftmaxClassifier
    from hypervlad.encoder.parameters import EncoderParams

    encoder, softmax = model.encoder, model.boosting
    encoder.check_parameters()
    EncoderParams.of(encoder.get_params(deep=False))
    if isinstance(softmax, BoostedSoftmaxClassifier):
        softmax.check_parameters()
    else:
        softmax._validate_params()


def encode(job: Job) -> dict[str, Any]:
    """Learn the codebook and encode every image; the vectors stay in the cache."""
    use_threads(job.threads)
    shutil.rmtree(
        job.cache, ignore_errors=True
    )  # a cache of an interrupted run would make it too fast
    encoder = build_classifier(job).set_params(encoder__memory=str(job.cache)).encoder
    fit, predict = Clock(), Clock()
    with watched(fit):
        train = encoder.fit(job.of(job.train)).transform(job.of(job.train))
    with watched(predict):
        test = encoder.transform(job.of(job.test))
    result = {
        "fit_seconds": fit.seconds,
        "predict_seconds": predict.seconds,
        "peak_mb": peak_memory_mb(),
        "n_features": int(train.shape[1]),
    }
    return result | (_coordinates(job, train, test) if job.shown else {})


def learn(job: Job) -> dict[str, Any]:
    """Fit and predict as a user does, with the vectors of the images in the cache."""
    from hypervlad.classifier.novelty import empty_images

    use_threads(job.threads)
    model = build_classifier(job).set_params(encoder__memory=str(job.cache))
    groups = None if job.groups is None else job.groups[job.train]
    fit, predict = Clock(), Clock()
    with watched(fit), fit.stage(BOOSTER):
        model.fit(job.of(job.train), job.labels[job.train], groups=groups)
    with watched(predict), predict.stage(BOOSTER):
        proba = model.predict_proba(job.of(job.test))
    return {
        "classes": np.asarray(model.classes_, dtype=str),
        "proba": np.asarray(proba, dtype=np.float32),
        "fit_seconds": fit.seconds,
        "predict_seconds": predict.seconds,
        # Besides the images without content that every fit encodes, for novelty.
        "n_encoded_again": fit.n_encoded + predict.n_encoded - len(empty_images()),
        "peak_mb": peak_memory_mb(),
    }


def pooled_vectors(job: Job) -> dict[str, Any]:
    """Return the vectors of a baseline for all images; one pass serves every split."""
    import torch

    from hypervlad.backbones import Preprocessing
    from hypervlad.encoder import ImageLoader
    from hypervlad.images import read_micrographs

    use_threads(job.threads)
    forward = _forward_of(job)
    size = int(job.changed.get("encoder__image_size", 224))
    loader = ImageLoader(image_size=size, preprocessing=Preprocessing(), batch_size=_BATCH)
    clock = Clock()
    with clock.stage(NETWORK), torch.no_grad():
        read = clock.timed_reading(read_micrographs)
        loaded = ((i, loader.prepare(image, job.paths[i])) for i, image in read(job.paths))
        vectors = [forward(batch.tensors).numpy() for batch in loader.batches(loaded)]
    return {
        "vectors": np.concatenate(vectors).astype(np.float32),
        "seconds": clock.seconds,
        "peak_mb": peak_memory_mb(),
    }


def softmax(job: Job, vectors: np.ndarray) -> dict[str, Any]:
    """Fit softmax regression on the vectors of a baseline, with C by inner cross-validation."""
    use_threads(job.threads)
    groups = None if job.groups is None else job.groups[job.train]
    model = TunedLogisticRegression(random_state=job.seed)
    fit, predict = Clock(), Clock()
    with fit.stage(SOFTMAX):
        model.fit(vectors[job.train], job.labels[job.train], groups)
    with predict.stage(SOFTMAX):
        proba = model.predict_proba(vectors[job.test])
    return {
        "classes": np.asarray(model.classes_, dtype=str),
        "proba": proba.astype(np.float32),
        "fit_seconds": fit.seconds,
        "predict_seconds": predict.seconds,
        "C": model.C_,
        "peak_mb": peak_memory_mb(),
    }


def full_vgg16(path: str) -> Any:
    """Return torchvision's VGG-16 up to fc2 after its ReLU, 4,096 values per image.

    Raises
    ------
    SystemExit
        If the file is not a state dict of VGG-16, or contains its convolutions only.
    """
    import torch
    import torchvision

    from hypervlad.backbones.weights import read_state_dict

    state = {key: value.float() for key, value in read_state_dict(path).items()}
    missing = [key for key in ("classifier.0.weight", "classifier.3.weight") if key not in state]
    if missing:
        raise SystemExit(
            f"{path}: {len(state)} tensors, but no {missing[0]!r}: this file contains convolutions "
            "only, and fc2 is a fully connected layer. Give --vgg16 torchvision's full state dict "
            "(vgg16-397923af.pth, 528 MB); with convolutions alone, use "
            "--preset pooled-conv5_3"
        )
    with torch.device("meta"):
        network = torchvision.models.vgg16(weights=None)
    network.classifier = network.classifier[:5]  # linear, ReLU, dropout, fc2, ReLU
    wanted = network.state_dict()
    unfit = [k for k, v in wanted.items() if k not in state or state[k].shape != v.shape]
    if unfit:
        raise SystemExit(
            f"{path}: not a state dict of torchvision's vgg16: {len(unfit)} tensors are missing or "
            f"of another shape, such as {unfit[0]!r}"
        )
    network.load_state_dict({key: state[key] for key in wanted}, assign=True)
    return network.eval().requires_grad_(False)


def _forward_of(job: Job) -> Callable[[Any], Any]:
    from hypervlad.backbones import build_network
    from hypervlad.backbones.network import check_device
    from hypervlad.vlad import feature_maps

    device = check_device("auto")
    if job.method == "fc2":
        network = full_vgg16(job.vgg16).to(device)
        return lambda batch: network(batch.to(device)).cpu()
    tapped = build_network("vgg16", job.network_weights, ["features.29"], device)
    return lambda batch: feature_maps(tapped, batch)[0].mean(dim=(1, 2)).cpu()


def _coordinates(job: Job, train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Return 50 principal components of the vectors of at most `_MAX_SHOWN` images."""
    from sklearn.decomposition import PCA

    rows = np.concatenate([job.train, job.test])
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(rows))[:_MAX_SHOWN]  # so that the first images are a random sample
    n_train = len(train)
    vectors = np.stack([train[k] if k < n_train else test[k - n_train] for k in chosen])
    n_components = min(50, len(vectors) - 1)
    pca = PCA(n_components, svd_solver="randomized", random_state=0)
    return {"shown": rows[chosen], "coordinates": pca.fit_transform(vectors).astype(np.float32)}


def use_threads(n: int) -> None:
    """Set the number of threads of torch."""
    import torch

    torch.set_num_threads(n)


def file_digest(path: str) -> str:
    """Return the start of the SHA-256 of a file; names such as "imagenet" are returned unchanged.

    The path of the file does not matter, only its content.
    """
    if not Path(path).is_file():
        return path
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
