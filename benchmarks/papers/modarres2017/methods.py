"""What is compared with the 2017 paper's system: features, fine-tuning, and our own classifier."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.folds import Fold
from benchmarks.common.sources import code_digest, machine, versions
from hypervlad import MicrographClassifier, default_encoder
from hypervlad.backbones import WeightsNotFoundError, build_network
from hypervlad.presets import modarres2017

OURS = "hypervlad, default"
# The modules of this folder on which a result depends: a change makes its checkpoints void.
CODE = ("papers/modarres2017/methods", "common/folds")


@dataclass(frozen=True)
class Method:
    """One way to classify; ``parameters`` are those of its classifier.

    Attributes
    ----------
    kind : {"features", "finetune", "ours"}
    backbone, weights : str
    digest : str
        Of the weights.
    parameters : tuple of (str, value)
    """

    kind: str
    backbone: str
    weights: str
    digest: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def title(self) -> str:
        if self.kind == "ours":
            return f"{OURS}, {self.backbone}"
        learnt = dict(self.parameters).get("trainable")
        how = {None: "features", "head": "head only", "last": "last layers", "all": "all layers"}
        return f"{self.backbone}, {how[learnt]}"

    @property
    def settings(self) -> dict[str, Any]:
        """All that its results depend on, beside the fold."""
        parameters = {name: repr(value) for name, value in self.parameters}
        return {"kind": self.kind, "backbone": self.backbone, "weights": self.digest} | parameters

    def model(self, seed: int, checkpoint: Path | None) -> Any:
        """Return the classifier, unfitted."""
        if self.kind == "ours":
            encoder = default_encoder(backbone=self.backbone, weights=self.weights)
            return MicrographClassifier(encoder, calibration_size=0, random_state=seed)
        own = dict(self.parameters)
        own |= {"checkpoint": checkpoint} if self.kind == "finetune" else {}
        return modarres2017(
            self.kind,  # type: ignore[arg-type]
            backbone=self.backbone,
            weights=self.weights,
            random_state=seed,
            **own,
        )


def all_methods(
    backbones: Sequence[str], weights: dict[str, str], trainable: Sequence[str], max_epochs: int
) -> tuple[list[Method], dict[str, str]]:
    """Return the methods that can run, and of the backbones that cannot, why."""
    methods: list[Method] = []
    missing: dict[str, str] = {}
    for backbone in backbones:
        where = weights.get(backbone, "imagenet")
        try:
            digest = build_network(backbone, where).digest
        except WeightsNotFoundError as error:
            missing[backbone] = str(error)
            continue
        methods.append(Method("features", backbone, where, digest))
        for layers in trainable:
            own = (("max_epochs", max_epochs), ("trainable", layers))
            methods.append(Method("finetune", backbone, where, digest, own))
        methods.append(Method("ours", backbone, where, digest))
    return methods, missing


def run(method: Method, fold: Fold, second: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return what a method says of a fold's test images and of a second test set.

    From its checkpoint, if there is one; a fine-tuning that was cut off goes on after its last
    epoch.
    """
    name = "".join(c if c.isalnum() else "_" for c in method.title)
    place = folder / fold.data.name / name
    path = place / f"repeat{fold.repeat}_fold{fold.number}.json"
    settings = fold.settings | method.settings | {"second": list(map(str, second))}
    settings |= {"code": code_digest(*CODE), "versions": versions()}
    settings |= {"machine": machine(torch.get_num_threads())}
    return load_or_run(path, settings, lambda: _measured(method, fold, second, place))


def _measured(
    method: Method, fold: Fold, second: Sequence[str], place: Path
) -> dict[str, np.ndarray | float | int]:
    place.mkdir(parents=True, exist_ok=True)
    model = method.model(fold.seed, place)
    started = time.perf_counter()
    model.fit(fold.train_paths, fold.y, groups=fold.groups)
    fitted = time.perf_counter()
    proba = np.asarray(model.predict_proba(fold.test_paths), dtype=np.float64)
    predicted = time.perf_counter()
    if list(model.classes_) != list(fold.data.classes):
        raise RuntimeError(f"{fold.data.name}: a training part without some class")
    for unfinished in place.glob("training-*.checkpoint"):
        unfinished.unlink()  # the fold's result takes its place
    history = getattr(model, "history_", None)
    found: dict[str, np.ndarray | float | int] = {
        "proba": proba,
        "fit_seconds": fitted - started,
        "ms": 1000 * (predicted - fitted) / len(fold.test),
        "epochs": 0 if history is None else len(history),
    }
    if len(second):
        found["second"] = np.asarray(model.predict_proba(list(second)), dtype=np.float64)
    return found
