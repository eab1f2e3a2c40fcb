"""A backbone with a softmax head on its averaged last maps, and its fine-tuning."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from hypervlad._version import __version__
from hypervlad.backbones import Backbone
from hypervlad.backbones.tapped_network import run_up_to
from hypervlad.baselines.augmentation import MicrographAugmentation
from hypervlad.baselines.checkpoints import Checkpoint
from hypervlad.baselines.softmax_head import FittedHead, SoftmaxHead
from hypervlad.baselines.training import (
    FineTuningCurves,
    Samples,
    Schedule,
    SoftmaxCrossEntropy,
    Trainer,
    evaluate,
    trained_tensors,
)
from hypervlad.encoder.loading import normalised

Trainable = Literal["head", "last", "all"]

_TRUNK = "trunk."
_TRAINED_AT = {"inception_v3": 299}  # pixels
_USUALLY_TRAINED_AT = 224
# torchvision's DenseNets apply their last ReLU outside of all layers.
_RELU_AFTER = ("densenet121", "densenet201")


def imagenet_size(backbone: Backbone) -> int:
    """Return the side, in pixels, of the images on which a backbone was trained on ImageNet."""
    return _TRAINED_AT.get(backbone.torchvision_name or "", _USUALLY_TRAINED_AT)


def average_maps(maps: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Average the maps (B, C, h, w) of a backbone's last tap over the image: (B, C), float32."""
    maps = maps.float()
    if backbone.torchvision_name in _RELU_AFTER:
        maps = functional.relu(maps)
    return maps.mean(dim=(2, 3))


def normalised_images(images: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Normalise images (B, 1 or C, s, s) in [0, 1] for a backbone of C input channels."""
    n_channels = len(backbone.preprocessing.mean)
    return normalised(images.expand(-1, n_channels, -1, -1), backbone.preprocessing)


class TransferNetwork(nn.Module):
    """A backbone with a softmax head on its averaged last maps, ready to be fine-tuned.

    The backbone stays in evaluation mode: batch normalisation keeps the running statistics of
    ImageNet (its scale and shift are trained with their layer), and there is no stochastic depth.
    Statistics of a few augmented micrographs would be worse, and this way an image's answer does
    not depend on its batch. Dropout acts on the averaged features only.

    Parameters
    ----------
    trunk : nn.Module
        The backbone, without folded batch normalisations.
    backbone : Backbone
    head : SoftmaxHead
        The initial head. Its mean and scale stay, its temperature is left out.
    dropout : float
    mixed : bool
        Whether to run the trunk in bfloat16 during training, where that is safe (on a GPU only).
    """

    def __init__(
        self, trunk: nn.Module, backbone: Backbone, head: SoftmaxHead, dropout: float, mixed: bool
    ) -> None:
        super().__init__()
        self.trunk, self.backbone, self.mixed = trunk.eval(), backbone, mixed
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(*head.coef.shape)
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", torch.from_numpy(head.mean).float(), persistent=False)
        self.register_buffer("scale", torch.from_numpy(head.scale).float(), persistent=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.coef.T))
            self.head.bias.copy_(torch.from_numpy(head.intercept))

    def train(self, mode: bool = True) -> TransferNetwork:
        """Switch dropout on or off; the trunk stays in evaluation mode."""
        super().train(False)
        self.training = mode
        self.dropout.train(mode)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the margins (B, n_classes) of images (B, 1 or C, s, s) in [0, 1]."""
        images = normalised_images(images, self.backbone)
        mixed = self.mixed and self.training
        with torch.autocast(images.device.type, torch.bfloat16, enabled=mixed):
            images = images.contiguous(memory_format=torch.channels_last)
            maps = run_up_to(self.trunk, self.backbone.taps[-1], images)
        features = (average_maps(maps, self.backbone) - self.mean) / self.scale
        margins: torch.Tensor = self.head(self.dropout(features))
        return margins

    def unfreeze(self, trainable: Trainable) -> None:
        """Make the head trainable, and none, the last layers or all of the trunk.

        The last layers are those after the backbone's last tap but one; of a backbone with one
        tap, all. Layers after the last tap are never trained, because they are never run.
        """
        self.requires_grad_(False)
        self.head.requires_grad_(True)
        if trainable == "head":
            return
        taps = self.backbone.taps
        after = taps[-2] if trainable == "last" and len(taps) > 1 else None
        for module in self._layers_after(after):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)

    def current_head(self) -> SoftmaxHead:
        """Return the head in double precision and without a temperature."""
        tensors = (self.mean, self.scale, self.head.weight.detach().T, self.head.bias.detach())
        mean, scale, coef, intercept = (tensor.double().cpu().numpy() for tensor in tensors)
        return SoftmaxHead(mean, scale, coef, intercept)

    def trained_trunk_tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the tensors of the trunk that are trained, by the trunk's own names."""
        return {
            name.removeprefix(_TRUNK): value.cpu().contiguous().numpy().copy()
            for name, value in trained_tensors(self).items()
            if name.startswith(_TRUNK)
        }

    @torch.no_grad()
    def _layers_after(self, tap: str | None) -> list[nn.Module]:
        """Return the trunk's layers that start after a tap is done, in their order of execution."""
        started: list[nn.Module] = []
        layers = [m for m in self.trunk.modules() if any(True for _ in m.parameters(recurse=False))]
        handles = [
            layer.register_forward_pre_hook(lambda layer, _inputs: started.append(layer))
            for layer in layers
        ]
        if tap is not None:
            # A network of timm is a part of the trunk, which taps its maps only afterwards.
            network = self.trunk.network if self.backbone.is_of_timm else self.trunk
            try:
                tapped = cast(nn.Module, network).get_submodule(tap)
            except AttributeError as error:
                raise ValueError(
                    f"{self.backbone.name!r} has no layer of the name {tap!r}, after which the "
                    'last layers would begin: choose trainable="all" or "head"'
                ) from error
            handles.append(tapped.register_forward_hook(lambda *_: started.clear()))
        preprocessing = self.backbone.preprocessing
        side, device = preprocessing.minimum_size, self.mean.device
        try:
            self(torch.zeros(1, len(preprocessing.mean), side, side, device=device))
        finally:
            for handle in handles:
                handle.remove()
        return started


@dataclass(frozen=True)
class FineTuning:
    """How a network is fine-tuned: as the parameters of `TransferClassifier` of the same names.

    Attributes
    ----------
    augmentation : MicrographAugmentation
    schedule : Schedule
        Its learning rate is that of the trunk.
    """

    trainable: Trainable
    augmentation: MicrographAugmentation
    schedule: Schedule
    head_learning_rate: float
    dropout: float
    mixed_precision: bool

    def decisive_settings(self) -> dict[str, Any]:
        """Return what decides the result of each epoch; the number of epochs may always grow."""
        return {
            name: value
            for settings in (self, self.augmentation, self.schedule)
            for name, value in vars(settings).items()
            if name not in ("augmentation", "schedule", "max_epochs", "mixed_precision")
        }


@dataclass(frozen=True, eq=False)
class FineTuned:
    """The result of a fine-tuning.

    Attributes
    ----------
    head : SoftmaxHead
        With the temperature at which the validation images were evaluated.
    tensors : dict of ndarray
        Those tensors of the trunk that were trained, by the trunk's own names.
    curves : FineTuningCurves
    """

    head: SoftmaxHead
    tensors: dict[str, NDArray[np.float32]]
    curves: FineTuningCurves


def fine_tune(
    trunk: nn.Module,
    backbone: Backbone,
    start: FittedHead,
    training: Samples,
    validation: Samples,
    options: FineTuning,
    *,
    n_validation_groups: int,
    class_weights: NDArray[np.float64],
    seeds: tuple[int, int],
    checkpoint: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any],
    verbose: bool = False,
) -> FineTuned:
    """Train a head and a trunk further, until the loss of the validation images stops falling.

    Parameters
    ----------
    trunk : nn.Module
        Without folded batch normalisations, on its device; it is changed.
    backbone : Backbone
    start : FittedHead
        The initial head; its coefficients keep their L2 penalty.
    training, validation : Samples
    options : FineTuning
    n_validation_groups : int
    class_weights : ndarray of shape (n_classes,)
    seeds : pair of int
        Of the order and augmentation of images, and of dropout.
    checkpoint : path, optional
        File or folder where the training is saved after each epoch, and resumed from.
    settings : mapping
        What the training depends on besides ``options`` and ``seeds``.

    Raises
    ------
    ValueError
        If the loss is no longer finite; a `CheckpointError` if the checkpoint is unusable.
    """
    device = next(trunk.parameters()).device
    mixed = options.mixed_precision and _has_bfloat16(device)
    objective = SoftmaxCrossEntropy(
        torch.from_numpy(class_weights), start.head.temperature, n_validation_groups
    )
    curves = FineTuningCurves(n_validation=len(validation), n_validation_groups=n_validation_groups)
    settings = {
        **settings,
        **options.decisive_settings(),
        "seeds": list(seeds),
        "mixed": mixed,
        "hypervlad": __version__,
    }
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        network = TransferNetwork(trunk, backbone, start.head, options.dropout, mixed).to(device)
        network.unfreeze(options.trainable)
        torch.manual_seed(seeds[1])
        trainer = Trainer(
            network,
            objective,
            _optimiser(network, options, start.penalty),
            options.augmentation,
            options.schedule,
            seeds[0],
            curves=curves,
            checkpoint=None if checkpoint is None else Checkpoint.at(checkpoint, settings),
        )
        trainer.fit(training, validation, verbose=verbose)
    temperature = objective.temperature_for(*evaluate(network, validation))
    head = dataclasses.replace(network.current_head(), temperature=temperature)
    assert isinstance(trainer.curves, FineTuningCurves)
    return FineTuned(head, network.trained_trunk_tensors(), trainer.curves)


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _optimiser(
    network: TransferNetwork, options: FineTuning, penalty: float
) -> torch.optim.Optimizer:
    """Return Adam with one rate for the head and one for the trunk; the head keeps its penalty."""
    trunk = [p for p in network.trunk.parameters() if p.requires_grad]
    rate = options.head_learning_rate
    groups: list[dict[str, Any]] = [
        {"params": [network.head.weight], "lr": rate, "weight_decay": penalty},
        {"params": [network.head.bias], "lr": rate},
    ]
    groups += [{"params": trunk, "lr": options.schedule.learning_rate}] if trunk else []
    return torch.optim.Adam(groups)
