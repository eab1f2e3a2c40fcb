"""A softmax head on the averaged last maps of a backbone, and the fine-tuning of both."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from hypervlad.classify.boosting.linear import TrainingRows, fit_linear_margins
from hypervlad.classify.boosting.logistic import with_exact_ties
from hypervlad.common.constraints import Number
from hypervlad.common.stored import Array, StoredPart, Value
from hypervlad.features.hypercolumns import turned
from hypervlad.features.lazy_torch import seeded_torch
from hypervlad.features.network import TappedNetwork, run_up_to
from hypervlad.features.registry import Backbone
from hypervlad.papers.training import (
    FineTuningCurves,
    Samples,
    Schedule,
    SoftmaxCrossEntropy,
    Trainer,
    evaluate,
    warped,
)
from hypervlad.statistics.splits import group_folds

FloatArray = NDArray[np.float64]

_TRAINED_AT = {"inception_v3": 299}  # pixels
_USUALLY_TRAINED_AT = 224
# torchvision's DenseNets apply their last ReLU outside of all layers.
_RELU_AFTER = ("densenet121", "densenet201")
_DROPOUT = 0.2  # of the averaged features
_HEAD_LEARNING_RATE = 1e-3
# Of augmentation. A micrograph has no upper side, so that mirror images and quarter turns are as
# valid as the image itself.
_ROTATION = 10.0  # degrees, in either direction
_CROP = 0.7  # smallest share of the area that is shown
_BRIGHTNESS = 0.1  # largest shift of all grey values, where white is 1
_CONTRAST = 0.2  # largest fraction by which they move away from their mean, or towards it
_FOLDS = 5
_CS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # inverse strengths of the L2 penalty
_SMALLEST = 1e-30  # scale and temperature in a file


@dataclass(frozen=True, eq=False)
class SoftmaxHead(StoredPart):
    """Softmax regression on features that are centred by a mean and divided by a scale."""

    mean: Annotated[FloatArray, Array("float64", 1)]  # (p,)
    scale: Annotated[FloatArray, Array("float64", 1, at_least=_SMALLEST)]  # (p,)
    coef: Annotated[FloatArray, Array("float64", 2)]  # (p, n_classes)
    intercept: Annotated[FloatArray, Array("float64", 1)]  # (n_classes,)
    temperature: Annotated[
        float, Value(float, Number(at_least=_SMALLEST, at_most=1 / _SMALLEST))
    ] = 1.0

    def __post_init__(self) -> None:
        n_features, n_classes = self.coef.shape
        shapes = (self.mean.shape, self.scale.shape, self.intercept.shape)
        if shapes != ((n_features,), (n_features,), (n_classes,)):
            raise ValueError(f"the head's arrays do not fit: {self.coef.shape} and {shapes}")

    def margins(self, features: NDArray[np.floating]) -> FloatArray:
        """Return the margins (n, n_classes) of features (n, p)."""
        standardised = (features.astype(np.float64) - self.mean) / self.scale
        return with_exact_ties((standardised @ self.coef + self.intercept) / self.temperature)


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head whose coefficients minimise the mean loss + penalty / 2 x their squared norm."""

    head: SoftmaxHead
    C: float
    penalty: float


def fit_head(
    features: NDArray[np.floating],
    codes: NDArray[np.intp],
    groups: NDArray[np.intp],
    n_classes: int,
    seed: int,
) -> FittedHead:
    """Fit a head by logistic regression on features (n, p).

    C and the temperature have the lowest log-loss on the test rows of grouped inner folds. If no
    group can be held out, C is 10 and the temperature 1.
    """
    exact = features.astype(np.float64)
    rows = TrainingRows(exact, np.arange(len(codes)), codes, np.ones(len(codes)), groups)
    folds = group_folds(codes, groups, n_splits=_FOLDS, random_state=seed)
    found = fit_linear_margins(rows, n_classes, folds, list(_CS), ratio=np.ones(n_classes))
    mean = exact.mean(axis=0)
    # One number, so that a C means the same for any network; some channels hardly ever respond.
    scale = float(np.sqrt(((exact - mean) ** 2).sum(axis=1).mean())) or 1.0
    coef, intercept = found.coef * found.temperature, found.intercept * found.temperature
    intercept = intercept + mean @ coef
    coef = coef * scale
    penalty = 1 / (found.C * len(codes))
    if n_classes == 2:  # the log-odds of the second class become the difference of two margins
        coef, intercept = np.hstack([-coef, coef]) / 2, np.append(-intercept, intercept) / 2
        penalty *= 2  # the squared norm is half that of the log-odds' coefficients
    head = SoftmaxHead(mean, np.full_like(mean, scale), coef, intercept, found.temperature)
    return FittedHead(head, found.C, penalty)


def imagenet_size(backbone: Backbone) -> int:
    """Return the side in pixels of the images that a backbone was trained on."""
    return _TRAINED_AT.get(backbone.torchvision_name or "", _USUALLY_TRAINED_AT)


def average_maps(maps: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Average the maps (B, C, h, w) of a backbone's last tap over the image: (B, C), float32."""
    maps = maps.float()
    if backbone.torchvision_name in _RELU_AFTER:
        maps = functional.relu(maps)
    return maps.mean(dim=(2, 3))


@torch.inference_mode()
def averaged_features(
    network: TappedNetwork, backbone: Backbone, images: torch.Tensor
) -> NDArray[np.float32]:
    """Return the averaged last maps (B, C) of normalised images (B, C, s, s)."""
    (maps,) = network(images)
    return np.asarray(average_maps(maps, backbone).cpu().numpy())


def normalised_images(images: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Normalise images (B, 1 or C, s, s) in [0, 1] for a backbone of C input channels."""
    n_channels = len(backbone.preprocessing.mean)
    return backbone.preprocessing.normalised(images.expand(-1, n_channels, -1, -1))


class TransferNetwork(nn.Module):
    """A backbone with a softmax head on its averaged last maps, ready to be fine-tuned.

    The trunk stays in evaluation mode, so that an image's answer does not depend on its batch. The
    temperature of the initial head is left out. ``mixed``: run the trunk in bfloat16 in training.
    """

    def __init__(
        self, trunk: nn.Module, backbone: Backbone, head: SoftmaxHead, mixed: bool
    ) -> None:
        super().__init__()
        self.trunk, self.backbone, self.mixed = trunk.eval(), backbone, mixed
        self.dropout = nn.Dropout(_DROPOUT)
        self.head = nn.utils.skip_init(nn.Linear, *head.coef.shape)
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", torch.from_numpy(head.mean).float(), persistent=False)
        self.register_buffer("scale", torch.from_numpy(head.scale).float(), persistent=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.coef.T))
            self.head.bias.copy_(torch.from_numpy(head.intercept))

    def train(self, mode: bool = True) -> TransferNetwork:
        """Switch dropout on or off."""
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

    def unfreeze(self) -> None:
        """Make the head trainable, and the layers of the trunk that run up to the last tap."""
        self.requires_grad_(False)
        self.head.requires_grad_(True)
        for module in self._layers_that_run():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)

    def current_head(self) -> SoftmaxHead:
        """Return the head in double precision and without a temperature."""
        tensors = (self.mean, self.scale, self.head.weight.detach().T, self.head.bias.detach())
        mean, scale, coef, intercept = (tensor.double().cpu().numpy() for tensor in tensors)
        return SoftmaxHead(mean, scale, coef, intercept)

    @torch.no_grad()
    def _layers_that_run(self) -> list[nn.Module]:
        started: list[nn.Module] = []
        layers = [m for m in self.trunk.modules() if any(True for _ in m.parameters(recurse=False))]
        preprocessing = self.backbone.preprocessing
        side, device = preprocessing.minimum_size, self.mean.device
        with contextlib.ExitStack() as hooks:
            for layer in layers:
                hook = layer.register_forward_pre_hook(lambda layer, _x: started.append(layer))
                hooks.enter_context(hook)
            self(torch.zeros(1, len(preprocessing.mean), side, side, device=device))
        return started


def fine_tune(
    trunk: nn.Module,
    backbone: Backbone,
    start: FittedHead,
    training: Samples,
    validation: Samples,
    schedule: Schedule,
    *,
    n_validation_groups: int,
    seeds: tuple[int, int],
    verbose: bool,
) -> tuple[SoftmaxHead, FineTuningCurves]:
    """Train a head and a trunk further, until the loss of the validation images stops falling.

    The trunk is changed in place. ``seeds``: of order and augmentation of images, and of dropout.
    """
    device = next(trunk.parameters()).device
    mixed = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    objective = SoftmaxCrossEntropy(start.head.temperature, n_validation_groups)
    curves = FineTuningCurves(n_validation=len(validation), n_validation_groups=n_validation_groups)
    with seeded_torch(seeds[1], device):
        network = TransferNetwork(trunk, backbone, start.head, mixed).to(device)
        network.unfreeze()
        trainer = Trainer(
            network,
            objective,
            _optimiser(network, schedule.learning_rate, start.penalty),
            augment_micrographs,
            schedule,
            seeds[0],
            curves,
        )
        trainer.fit(training, validation, verbose=verbose)
    temperature = objective.temperature_for(*evaluate(network, validation))
    return dataclasses.replace(network.current_head(), temperature=temperature), curves


def _optimiser(
    network: TransferNetwork, learning_rate: float, penalty: float
) -> torch.optim.Optimizer:
    trunk = [p for p in network.trunk.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [network.head.weight], "lr": _HEAD_LEARNING_RATE, "weight_decay": penalty},
        {"params": [network.head.bias], "lr": _HEAD_LEARNING_RATE},
    ]
    groups += [{"params": trunk, "lr": learning_rate}] if trunk else []
    return torch.optim.Adam(groups)


def augment_micrographs(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn, crop and change the grey values of each image (n, C, s, s) in [0, 1] at random."""
    images = turn_randomly(images, generator)
    return change_greys_randomly(crop_randomly(images, generator), generator)


def turn_randomly(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror images in both directions and turn them by quarter turns, exactly."""
    mirrored, upside_down, quarters = torch.rand(3, len(images), generator=generator)
    # As `turned` numbers them; mirrored top to bottom: left to right, then half a turn.
    mirrors = 4 * (mirrored < 0.5) + 2 * (upside_down < 0.5)
    turns = mirrors // 4 * 4 + (mirrors + (4 * quarters).long()) % 4
    changed = torch.empty_like(images)
    for turn in turns.unique().tolist():
        rows = (turns == turn).nonzero()[:, 0].to(images.device)
        changed[rows] = turned(images[rows], turn)
    return changed


def crop_randomly(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotate images and enlarge a part of each; they are mirrored beyond their edges."""
    maps = random_affine_maps(len(images), generator)
    return warped(images, maps, "reflection", corners=False).clamp(0, 1)  # rounding


def random_affine_maps(n: int, generator: torch.Generator) -> torch.Tensor:
    """Return n maps (2, 3) from coordinates (x, y), -1 to 1, in the new image to the old's."""
    angle, fraction, across, down = torch.rand(4, n, generator=generator)
    angle = math.radians(_ROTATION) * (2 * angle - 1)
    side = torch.sqrt(_CROP + (1 - _CROP) * fraction)
    cos, sin = side * torch.cos(angle), side * torch.sin(angle)
    shift = (1 - side) * (2 * torch.stack([across, down]) - 1)
    return torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], dim=1).reshape(n, 2, 3)


def change_greys_randomly(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    shift, factor = 2 * torch.rand(2, len(images), 1, 1, 1, generator=generator) - 1
    shift, factor = _BRIGHTNESS * shift, 1 + _CONTRAST * factor
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    shift, factor = shift.to(images.device), factor.to(images.device)
    return torch.clamp((images - mean) * factor + mean + shift, 0, 1)
