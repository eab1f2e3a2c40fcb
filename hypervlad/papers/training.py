"""Training of a network epoch by epoch: images, schedule, objectives, curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn import functional

from hypervlad.common.constraints import Alternatives, Integer, Number
from hypervlad.common.progress import ProgressBar
from hypervlad.common.wording import counted, warn_user
from hypervlad.features.loading import ImageLoader
from hypervlad.statistics.splits import holdout_split

_LOG_TEMPERATURE_STD = 0.5  # of the prior around the initial temperature; see `temperature_for`
_EVALUATION_BATCH = 32
_VALIDATION_FRACTION = 0.2
_MIN_GROUPS = 5  # held out; with fewer, their loss says little

Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
#: Of a model that is trained by a `Schedule`.
SCHEDULED: Mapping[str, Alternatives] = {
    "learning_rate": [Number(above=0)],
    **{name: [Integer()] for name in ("batch_size", "max_epochs", "patience")},
}


@dataclass(frozen=True)
class Schedule:
    """Learning rate, batches and epochs of a training."""

    learning_rate: float
    batch_size: int
    max_epochs: int
    patience: int  # epochs without a lower validation loss after which the training stops
    # Steps over which all rates rise linearly from 0: Adam's first steps are of full length.
    warm_up: int = 0
    # Nearly equal batches, without a small remainder: Adam's step is as long for one sample.
    even_batches: bool = False

    @classmethod
    def of(cls, model: Any, **others: Any) -> Schedule:
        return cls(**{name: getattr(model, name) for name in SCHEDULED}, **others)

    def batches(self, order: torch.Tensor) -> Sequence[torch.Tensor]:
        """Cut an epoch's samples into batches."""
        if self.even_batches:
            return order.tensor_split(math.ceil(len(order) / self.batch_size))
        batches: Sequence[torch.Tensor] = order.split(self.batch_size)
        return batches


@dataclass(frozen=True, eq=False)
class Samples:
    """Images and their targets; batches of them are moved to a network's device."""

    pixels: NDArray[np.float32]  # (m, C, h, w), of these samples and of others
    rows: NDArray[np.intp]  # where in the pixels each sample is
    targets: NDArray[Any]  # class numbers; 0.0 and 1.0 for a network with one output
    device: torch.device
    evaluation_batch: int  # images per batch when the network does not learn

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = numbers.numpy()
        targets = torch.from_numpy(self.targets[chosen])
        return self._images(chosen), targets.to(self.device)

    def image_batches(self) -> Iterator[torch.Tensor]:
        for start in range(0, len(self), self.evaluation_batch):
            yield self._images(slice(start, start + self.evaluation_batch))

    def _images(self, chosen: NDArray[np.intp] | slice) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(self.pixels[self.rows[chosen]]))
        return pixels.to(self.device)


class BinaryCrossEntropy:
    """The cross-entropy of one log-odds per sample, (n, 1), with targets of 0.0 and 1.0."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], targets)

    def validation_loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return float(self.loss(outputs, targets))

    def is_correct(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs[:, 0] > 0) == (targets > 0)


@dataclass(frozen=True, eq=False)
class SoftmaxCrossEntropy:
    """The cross-entropy of one margin per class, (n, n_classes), with class numbers as targets.

    The validation loss is that of the probabilities at the temperature of `temperature_for`.
    """

    temperature: float  # of the initial head
    n_groups: int  # among the held-out samples

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs, targets, reduction="none").mean()

    def validation_loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        if not torch.isfinite(outputs).all():
            return math.nan
        return float(self.loss(outputs / self.temperature_for(outputs, targets), targets))

    def temperature_for(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Return the most probable temperature for finite margins of held-out samples.

        Each group counts as one observation; the prior is log-normal around the initial value.
        """
        centre = math.log(self.temperature)

        def penalised_loss(log_temperature: float) -> float:
            loss = float(self.loss(outputs / math.exp(log_temperature), targets))
            deviation = (log_temperature - centre) / _LOG_TEMPERATURE_STD
            return self.n_groups * loss + 0.5 * deviation**2

        # So few groups never move it by more than four standard deviations.
        reach = 4 * _LOG_TEMPERATURE_STD
        bounds = (centre - reach, centre + reach)
        return math.exp(minimize_scalar(penalised_loss, bounds=bounds, method="bounded").x)

    def is_correct(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.argmax(dim=1) == targets


@dataclass
class Curves:
    """Loss (cross-entropy) and accuracy of each epoch, on training and on validation samples."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = ("loss", "accuracy", "validation_loss", "validation_accuracy")
        curves = [list(getattr(self, name)) for name in names]
        if len({len(curve) for curve in curves}) > 1:
            raise ValueError("the training curves differ in length")
        if not all(isinstance(value, int | float) for curve in curves for value in curve):
            raise TypeError("the training curves contain values that are not numbers")
        for name, curve in zip(names, curves, strict=True):
            setattr(self, name, curve)

    def __len__(self) -> int:
        return len(self.validation_loss)

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest validation loss, counted from 0."""
        return int(np.argmin(self.validation_loss))


@dataclass
class FineTuningCurves(Curves):
    """Curves of a fine-tuning; the start is the loss and accuracy of the validation samples."""

    start_loss: float = math.inf
    start_accuracy: float = 0.0
    n_validation: int = 0
    n_validation_groups: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        start = self.start_loss, self.start_accuracy
        if not all(isinstance(each, int | float) for each in start):
            raise TypeError("the loss and accuracy of the start are not numbers")

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest validation loss, from 0; -1 if the start was better."""
        return int(np.argmin([self.start_loss, *self.validation_loss])) - 1


@dataclass(eq=False)
class Trainer:
    """Trains the parameters of a network that require gradients."""

    network: nn.Module
    objective: BinaryCrossEntropy | SoftmaxCrossEntropy
    optimiser: torch.optim.Optimizer
    augmentation: Augmentation
    schedule: Schedule
    seed: int  # of order and augmentation; dropout uses torch's global generator
    curves: Curves = field(default_factory=Curves)

    @torch.enable_grad()
    def fit(self, training: Samples, validation: Samples, *, verbose: bool = False) -> Curves:
        """Train to the end, and leave the network with the weights of its best epoch."""
        generator = torch.Generator().manual_seed(self.seed)
        rates = [group["lr"] for group in self.optimiser.param_groups]
        curves, best = self.curves, dict[str, torch.Tensor]()
        if isinstance(curves, FineTuningCurves):
            curves.start_loss, curves.start_accuracy = self._evaluate(validation)
            best = self._weights()
        epochs = range(self.schedule.max_epochs)
        for epoch in (bar := ProgressBar(epochs, unit="epoch", shown=verbose)):
            loss, accuracy = self._learn(training, epoch, generator, rates)
            curves.loss.append(loss)
            curves.accuracy.append(accuracy)
            validation_loss, accuracy = self._evaluate(validation)
            if not math.isfinite(validation_loss):
                raise ValueError(
                    f"the network's loss is {validation_loss} after {epoch + 1} epochs at "
                    f"learning_rate={self.schedule.learning_rate}; use a smaller one"
                )
            curves.validation_loss.append(validation_loss)
            curves.validation_accuracy.append(accuracy)
            if curves.best_epoch == epoch:
                best = self._weights()
            bar.set_postfix({"loss": f"{loss:.3f}", "validation": f"{validation_loss:.3f}"})
            if epoch - curves.best_epoch >= self.schedule.patience:
                break
        self.network.load_state_dict(best, strict=False)
        return curves

    def _weights(self) -> dict[str, torch.Tensor]:
        named = self.network.named_parameters()
        return {name: value.detach().clone() for name, value in named if value.requires_grad}

    def _learn(
        self, training: Samples, epoch: int, generator: torch.Generator, rates: list[float]
    ) -> tuple[float, float]:
        """Run once over all samples; return the mean loss and accuracy."""
        self.network.train()
        total = n_correct = 0.0
        batches = self.schedule.batches(torch.randperm(len(training), generator=generator))
        for step, numbers in enumerate(batches, start=len(batches) * epoch):
            factor = min(1.0, (step + 1) / max(1, self.schedule.warm_up))
            for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
                group["lr"] = factor * rate
            images, targets = training.batch(numbers)
            outputs = self.network(self.augmentation(images, generator))
            loss = self.objective.loss(outputs, targets)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            total += float(loss.detach()) * len(numbers)
            n_correct += float(self.objective.is_correct(outputs, targets).sum())
        return total / len(training), n_correct / len(training)

    def _evaluate(self, samples: Samples) -> tuple[float, float]:
        outputs, targets = evaluate(self.network, samples)
        loss = self.objective.validation_loss(outputs, targets)
        return loss, float(self.objective.is_correct(outputs, targets).double().mean())


def warped(images: torch.Tensor, maps: torch.Tensor, beyond: str, *, corners: bool) -> torch.Tensor:
    """Return images (n, C, h, w) by maps (n, 2, 3) from new coordinates to old ones."""
    grid = functional.affine_grid(maps.to(images.device), list(images.shape), align_corners=corners)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode=beyond, align_corners=corners
    )


@torch.inference_mode()
def outputs_of(network: nn.Module, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return a network's outputs for batches of images, in evaluation mode, as float64."""
    network.eval()
    return torch.cat([network(images).double().cpu() for images in batches])


def evaluate(network: nn.Module, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a network's outputs for all samples, and the targets; floats are float64."""
    targets = torch.from_numpy(samples.targets)
    outputs = outputs_of(network, samples.image_batches())
    return outputs, targets.double() if targets.is_floating_point() else targets


# --- training images -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Prepared images, sorted by digest so that the order of the list has no effect."""

    pixels: NDArray[np.float32]  # (m, 1 or C, s, s) in [0, 1], in any order
    rows: NDArray[np.intp]  # where in the pixels each image is
    positions: NDArray[np.intp]  # in the user's list; skipped images are missing

    def __len__(self) -> int:
        return len(self.rows)

    def samples(
        self, codes: NDArray[np.intp], device: torch.device, chosen: NDArray[np.intp] | None = None
    ) -> Samples:
        """Return all or some images, with their class numbers from those of all (n,)."""
        chosen = np.arange(len(self)) if chosen is None else chosen
        return Samples(self.pixels, self.rows[chosen], codes[chosen], device, _EVALUATION_BATCH)


def load_training_images(images: list[Any], loader: ImageLoader) -> TrainingImages:
    """Read and prepare square images, except for the normalisation, which follows augmentation."""
    side = loader.image_size
    assert side is not None
    n_channels = len(loader.preprocessing.mean)
    identity = replace(loader.preprocessing, mean=(0.0,) * n_channels, std=(1.0,) * n_channels)
    loader = replace(loader, preprocessing=identity)
    pixels = np.empty((len(images), 1, side, side), np.float32)
    positions: list[int] = []
    digests: list[str] = []
    for batch in loader.batches(loader.stream(images, "reading", loader.load)):
        prepared = batch.tensors.numpy()
        if pixels.shape[1] == 1 and (prepared != prepared[:, :1]).any():
            pixels = pixels.repeat(n_channels, axis=1)
        pixels[len(digests) :][: len(prepared)] = prepared[:, : pixels.shape[1]]
        positions += batch.positions
        digests += batch.keys
    order = np.array(sorted(range(len(digests)), key=lambda row: (digests[row], positions[row])))
    return TrainingImages(pixels, order, np.array(positions)[order])


def hold_out(
    codes: NDArray[Any], groups: NDArray[np.intp], seed: int, remedy: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to train on, and a fifth in whole groups, to decide when to stop."""
    rows, held_out = holdout_split(codes, groups, test_size=_VALIDATION_FRACTION, random_state=seed)
    if not len(held_out):
        raise ValueError(
            "no group can be held out to decide when to stop, because each class has only one "
            f"group; add images, or {remedy}"
        )
    return rows, held_out


def warn_of_few_groups(held_out: NDArray[np.intp], groups: NDArray[np.intp]) -> None:
    n_groups = len(np.unique(groups[held_out]))
    if n_groups < _MIN_GROUPS:
        warn_user(
            f"fine-tuning is validated on {counted(len(held_out), 'image')} of "
            f"{counted(n_groups, 'group')} only, so "
            "the epoch at which it stops and the calibration of the probabilities are largely "
            'a matter of chance. Add images of more specimens, or use mode="features"'
        )
