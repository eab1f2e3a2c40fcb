"""The methods that are compared: features, fine-tuning, and our own classifier."""

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
# The files on which a result depends: a change makes its checkpoints void.
CODE = ("papers/modarres2017/methods", "common/folds")


@dataclass(frozen=True)
class Method:
    """A method; ``parameters`` are those of its classifier.

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
        """Everything on which its results depend, besides the fold."""
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
    """Return the methods that can run, and why other backbones cannot."""
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
    """Return the predictions of a method for the test images of a fold and a second test set.

    From its checkpoint, if there is one. An interrupted fine-tuning resumes after its last epoch.
    """
    name = "".join(c if c.isalnum() else "_" for c in method.title)
    fold_folder = folder / fold.data.name / name
    path = fold_folder / f"repeat{fold.repeat}_fold{fold.number}.json"
    settings = fold.settings | method.settings | {"second": list(map(str, second))}
    settings |= {"code": code_digest(*CODE), "versions": versions()}
    settings |= {"machine": machine(torch.get_num_threads())}
    return load_or_run(path, settings, lambda: _measured(method, fold, second, fold_folder))


def _measured(
    method: Method, fold: Fold, second: Sequence[str], folder: Path
) -> dict[str, np.ndarray | float | int]:
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
