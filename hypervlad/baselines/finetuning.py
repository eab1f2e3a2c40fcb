"""Fine-tuning: a network whose last layers, or all, go on learning from micrographs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hypervlad._version import __version__
from hypervlad.backbones import Backbone
from hypervlad.baselines.checkpoints import Checkpoint
from hypervlad.baselines.micrograph_augmentation import MicrographAugmentation
from hypervlad.baselines.pooled_network import (
    Trainable,
    TransferNetwork,
    choose_what_learns,
)
from hypervlad.baselines.softmax_head import SoftmaxHead
from hypervlad.baselines.stored_images import StoredSide
from hypervlad.baselines.training import (
    Course,
    Curves,
    CurvesFromStart,
    Schedule,
    SoftmaxCrossEntropy,
    answers_to,
    learnable,
)

_TRUNK = "trunk."


@dataclass(frozen=True)
class FineTuning:
    """How a network is fine-tuned: as the parameters of `TransferClassifier` of the same names.

    Attributes
    ----------
    augmentation : MicrographAugmentation
    schedule : Schedule
        Its learning rate is the trunk's.
    """

    trainable: Trainable
    augmentation: MicrographAugmentation
    schedule: Schedule
    head_learning_rate: float
    dropout: float
    mixed_precision: bool


@dataclass(frozen=True, eq=False)
class FineTuned:
    """What came of it.

    Attributes
    ----------
    head : SoftmaxHead
        With the temperature by which the validation side was judged.
    changed : dict of ndarray
        Those tensors of the trunk that learnt, by the trunk's own names.
    curves : Curves
    """

    head: SoftmaxHead
    changed: dict[str, NDArray[np.float32]]
    curves: Curves


def fine_tune(
    trunk: nn.Module,
    backbone: Backbone,
    head: SoftmaxHead,
    penalty: float,
    sides: tuple[StoredSide, StoredSide],
    n_groups: int,
    class_weights: NDArray[np.float64],
    how: FineTuning,
    seeds: tuple[int, int],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any],
    verbose: bool = False,
) -> FineTuned:
    """Go on learning from a head and a trunk, until the validation side says that it is enough.

    Parameters
    ----------
    trunk : nn.Module
        Unfolded, on its device; it is changed.
    backbone : Backbone
    head : SoftmaxHead
        Where the head starts.
    penalty : float
        Of its coefficients, as in `fit_head`.
    sides : pair of StoredSide
        To learn from, and to be judged by.
    n_groups : int
        Of the side to be judged by.
    class_weights : ndarray of shape (n_classes,)
    how : FineTuning
    seeds : pair of int
        Of the order and changes of images, and of dropout.
    checkpoint : path, optional
        A file or folder where the training is kept after each epoch, and taken up from.
    settings : mapping
        What the course depends on beside ``how``.

    Raises
    ------
    ValueError
        If the loss is no longer a number; a `CheckpointError` if there is a checkpoint of another
        training.
    """
    device = next(trunk.parameters()).device
    objective = SoftmaxCrossEntropy(torch.from_numpy(class_weights), head.temperature, n_groups)
    mixed = how.mixed_precision and _has_bfloat16(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        network = TransferNetwork(trunk, backbone, head, how.dropout, mixed).to(device)
        choose_what_learns(network, how.trainable)
        torch.manual_seed(seeds[1])
        course = Course(
            network,
            objective,
            _optimiser(network, how, penalty),
            how.augmentation,
            how.schedule,
            seeds[0],
            CurvesFromStart(n_validation=len(sides[1]), n_validation_groups=n_groups),
        )
        kept = None
        if checkpoint is not None:
            kept = Checkpoint.at(checkpoint, {**settings, **_settings(how, seeds, mixed)})
            kept.take_up(course)
        after_epoch = None if kept is None else kept.keep
        curves = course.run(*sides, after_epoch=after_epoch, verbose=verbose)
    return FineTuned(_calibrated(network, sides[1], objective), _changed(network), curves)


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _optimiser(network: TransferNetwork, how: FineTuning, penalty: float) -> torch.optim.Optimizer:
    """Adam, head and trunk at their own rates; the head keeps the L2 penalty it was fitted with."""
    trunk = [p for p in network.trunk.parameters() if p.requires_grad]
    rate = how.head_learning_rate
    groups: list[dict[str, Any]] = [
        {"params": [network.head.weight], "lr": rate, "weight_decay": penalty},
        {"params": [network.head.bias], "lr": rate},
    ]
    groups += [{"params": trunk, "lr": how.schedule.learning_rate}] if trunk else []
    return torch.optim.Adam(groups)


def _settings(how: FineTuning, seeds: tuple[int, int], mixed: bool) -> dict[str, Any]:
    """What the course of a training depends on; it may always go on for more epochs."""
    parameters = {
        name: value
        for part in (how, how.augmentation, how.schedule)
        for name, value in vars(part).items()
        if name not in ("augmentation", "schedule", "max_epochs", "mixed_precision")
    }
    return parameters | {"seeds": list(seeds), "mixed": mixed, "hypervlad": __version__}


def _calibrated(
    network: TransferNetwork, validation: StoredSide, objective: SoftmaxCrossEntropy
) -> SoftmaxHead:
    temperature = objective.temperature_for(*answers_to(network, validation))
    head = network.learnt_head()
    return SoftmaxHead(head.mean, head.scale, head.coef, head.intercept, temperature)


def _changed(network: TransferNetwork) -> dict[str, NDArray[np.float32]]:
    return {
        name.removeprefix(_TRUNK): value.cpu().contiguous().numpy().copy()
        for name, value in learnable(network).items()
        if name.startswith(_TRUNK)
    }
