"""A network fitted epoch by epoch, stopped where it no longer gets better on others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import nn
from torch.nn import functional
from tqdm.auto import tqdm

_KERAS_EPSILON = 1e-7  # of Adam; torch's own is a tenth of it
_AT_ONCE = 4096  # patches that are judged, which bounds the memory
_LOG_TEMPERATURE_SPREAD = 0.5  # how far a few held-out groups may move it; see `temperature_for`

Change = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network learns.

    Attributes
    ----------
    learning_rate : float
    batch_size, max_epochs, patience : int
    warm_up : int, default=0
        Steps over which all rates rise evenly from 0. Adam knows nothing of a gradient's usual size
        at first: its first steps are as long as any and lead nowhere in particular.
    even_batches : bool, default=False
        Whether an epoch is cut into nearly equal batches, rather than full ones and a rest: a step
        of Adam is as long for one sample as for a whole batch.
    """

    learning_rate: float
    batch_size: int
    max_epochs: int
    patience: int
    warm_up: int = 0
    even_batches: bool = False

    def batches(self, order: torch.Tensor) -> Sequence[torch.Tensor]:
        """Cut an epoch's rows into batches."""
        if self.even_batches:
            return order.tensor_split(math.ceil(len(order) / self.batch_size))
        return order.split(self.batch_size)

    def share_of_rate(self, step: int) -> float:
        """Return what share of its rates a step takes, counted from 0 over all epochs."""
        return min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0


class Samples(Protocol):
    """What is learnt from, or judged by, on the network's device when it is asked for."""

    def __len__(self) -> int: ...

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs and targets of some rows."""
        ...

    def parts(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all inputs and targets, in their order."""
        ...


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches as a network takes them.

    Attributes
    ----------
    pixels : Tensor of shape (n, C, p, p)
    targets : Tensor of shape (n,)
        1.0 for the second class, 0.0 for the first.
    """

    pixels: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Patches:
        return Patches(self.pixels.to(device), self.targets.to(device))

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the patches and targets of some rows."""
        rows = rows.to(self.targets.device)
        return self.pixels[rows], self.targets[rows]

    def parts(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all patches and targets, in their order."""
        return zip(self.pixels.split(_AT_ONCE), self.targets.split(_AT_ONCE), strict=True)


class Objective(Protocol):
    """What a network's answers are judged by."""

    def loss(self, answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss."""
        ...

    def held_out_loss(self, answers: torch.Tensor, targets: torch.Tensor) -> float:
        """Return the loss of samples that were not learnt from, which decides when to stop."""
        ...

    def right(self, answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Say of each answer (n,) whether it is right."""
        ...


class BinaryCrossEntropy:
    """Of one log-odds a sample, (n, 1); targets are 0.0 and 1.0."""

    def loss(self, answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(answers[:, 0], targets)

    def held_out_loss(self, answers: torch.Tensor, targets: torch.Tensor) -> float:
        return float(self.loss(answers, targets))

    def right(self, answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (answers[:, 0] > 0) == (targets > 0)


@dataclass(frozen=True, eq=False)
class SoftmaxCrossEntropy:
    """Of a margin for each class, (n, n_classes); targets are class numbers.

    Held-out samples are judged by the probabilities that a model would give which ended here, at
    its temperature: see `temperature_for`. No scale of the margins is then better than another.

    Attributes
    ----------
    class_weights : Tensor of shape (n_classes,), float64
        What a sample of each class counts.
    temperature : float
        What was right for the start, cross-fitted on the samples that are learnt from.
    n_groups : int
        Of the held-out samples.
    """

    class_weights: torch.Tensor
    temperature: float = 1.0
    n_groups: int = 1

    def loss(self, answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = functional.cross_entropy(answers, targets, reduction="none")
        return (losses * self.class_weights.to(losses)[targets]).mean()

    def held_out_loss(self, answers: torch.Tensor, targets: torch.Tensor) -> float:
        if not torch.isfinite(answers).all():
            return math.nan
        return float(self.loss(answers / self.temperature_for(answers, targets), targets))

    def temperature_for(self, answers: torch.Tensor, targets: torch.Tensor) -> float:
        """Return the temperature for finite held-out answers, drawn towards that of the start.

        The most likely one, where each held-out group is as much evidence as one sample, and its
        logarithm was normally distributed around that of the start beforehand.
        """
        centre = math.log(self.temperature)

        def penalised(log_temperature: float) -> float:
            loss = float(self.loss(answers / math.exp(log_temperature), targets))
            away = (log_temperature - centre) / _LOG_TEMPERATURE_SPREAD
            return self.n_groups * loss + 0.5 * away**2

        # Beyond four spreads on either side no evidence of so few groups leads.
        reach = 4 * _LOG_TEMPERATURE_SPREAD
        bounds = (centre - reach, centre + reach)
        return math.exp(minimize_scalar(penalised, bounds=bounds, method="bounded").x)

    def right(self, answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return answers.argmax(dim=1) == targets


@dataclass
class Curves:
    """Loss (cross-entropy) and accuracy of each epoch, the first one first.

    ``loss`` and ``accuracy`` are of the changed samples and with dropout, while learning went on;
    the others of the unchanged validation samples after it. A network that is given a temperature
    learns without it; its ``validation_loss`` is of the probabilities that it would give had it
    ended there, with the temperature that it would have then.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.validation_loss)

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest validation loss, counted from 0."""
        return int(np.argmin(self.validation_loss))


@dataclass
class CurvesFromStart(Curves):
    """Curves of a network that knew something before: its start counts as well.

    Attributes
    ----------
    start_loss, start_accuracy : float
        Of the validation samples, before the first epoch.
    n_validation, n_validation_groups : int
        How many samples that are, and of how many groups.
    """

    start_loss: float = math.inf
    start_accuracy: float = 0.0
    n_validation: int = 0
    n_validation_groups: int = 0

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest validation loss, counted from 0; -1 if the start was better."""
        return int(np.argmin([self.start_loss, *self.validation_loss])) - 1


class Course:
    """A network's way through its epochs, which can be left after any of them and taken up again.

    Parameters
    ----------
    network : nn.Module
        What of it requires gradients is learnt; nothing else may change.
    objective : Objective
    optimiser : torch.optim.Optimizer
        Of the network's parameters.
    change : callable
        From a batch of inputs and a generator to the batch that is learnt from.
    schedule : Schedule
    seed : int
        Of the order of samples and of their changes. Dropout takes torch's own generator.
    curves : Curves, optional
        Empty; with `CurvesFromStart` the network is judged before it learns, too.

    Attributes
    ----------
    curves : Curves
    best : dict of Tensor
        What was learnt, as it was after the best epoch.
    generator : torch.Generator
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        change: Change,
        schedule: Schedule,
        seed: int,
        curves: Curves | None = None,
    ) -> None:
        self.network, self.objective, self.optimiser = network, objective, optimiser
        self.change, self.schedule = change, schedule
        self.generator = torch.Generator().manual_seed(seed)
        self._rates = [group["lr"] for group in optimiser.param_groups]
        self.curves = Curves() if curves is None else curves
        self.best: dict[str, torch.Tensor] = {}

    def run(
        self,
        learnt: Samples,
        validation: Samples,
        *,
        after_epoch: Callable[[Course], None] | None = None,
        verbose: bool = False,
    ) -> Curves:
        """Go on until the end, and leave the network with the weights of its best epoch.

        The end comes after ``max_epochs``, or when the validation loss has not been lower for
        ``patience`` of them.

        Raises
        ------
        ValueError
            If the loss is no longer a number.
        """
        if isinstance(self.curves, CurvesFromStart) and not len(self.curves):
            self.curves.start_loss, self.curves.start_accuracy = self._judged(validation)
            self._keep()
        epochs = range(len(self.curves), self.schedule.max_epochs)
        for _ in (bar := tqdm(epochs, unit="epoch", disable=not verbose)):
            if self.is_over:
                break
            self._epoch(learnt, validation)
            if after_epoch is not None:
                after_epoch(self)
            curves = self.curves
            told = {"loss": curves.loss[-1], "validation": curves.validation_loss[-1]}
            bar.set_postfix({name: f"{value:.3f}" for name, value in told.items()})
        self.network.load_state_dict(self.best, strict=False)
        return self.curves

    @property
    def is_over(self) -> bool:
        """Whether the validation loss has not been lower for ``patience`` epochs."""
        since = len(self.curves) - 1 - self.curves.best_epoch if len(self.curves) else 0
        return since >= self.schedule.patience

    def _epoch(self, learnt: Samples, validation: Samples) -> None:
        loss, accuracy = self._learn(learnt)
        self.curves.loss.append(loss)
        self.curves.accuracy.append(accuracy)
        loss, accuracy = self._judged(validation)
        if not math.isfinite(loss):
            raise ValueError(
                f"the network's loss is {loss} after {len(self.curves) + 1} epochs at "
                f"learning_rate={self.schedule.learning_rate}; take a smaller one"
            )
        self.curves.validation_loss.append(loss)
        self.curves.validation_accuracy.append(accuracy)
        if self.curves.best_epoch == len(self.curves) - 1:
            self._keep()

    def _keep(self) -> None:
        self.best = {name: value.clone() for name, value in learnable(self.network).items()}

    def _learn(self, learnt: Samples) -> tuple[float, float]:
        """Go once through all samples in random order; return mean loss, accuracy on the way."""
        self.network.train()
        total = right = 0.0
        order = torch.randperm(len(learnt), generator=self.generator)
        batches = self.schedule.batches(order)
        for step, rows in enumerate(batches, start=len(batches) * len(self.curves)):
            self._set_rates(self.schedule.share_of_rate(step))
            inputs, targets = learnt.batch(rows)
            answers = self.network(self.change(inputs, self.generator))
            loss = self.objective.loss(answers, targets)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            total += float(loss.detach()) * len(rows)
            right += float(self.objective.right(answers, targets).sum())
        return total / len(learnt), right / len(learnt)

    def _set_rates(self, share: float) -> None:
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = share * rate

    def _judged(self, samples: Samples) -> tuple[float, float]:
        answers, targets = answers_to(self.network, samples)
        loss = self.objective.held_out_loss(answers, targets)
        return loss, float(self.objective.right(answers, targets).double().mean())


def learnable(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return by name what a network learns, detached from its graph."""
    parameters = network.named_parameters()
    return {name: value.detach() for name, value in parameters if value.requires_grad}


@torch.inference_mode()
def answers_to(network: nn.Module, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a network's answers to all samples, in double precision, and the targets."""
    network.eval()
    pairs = [(network(inputs).double().cpu(), targets.cpu()) for inputs, targets in samples.parts()]
    targets = torch.cat([targets for _, targets in pairs])
    exact = targets.double() if targets.is_floating_point() else targets
    return torch.cat([answers for answers, _ in pairs]), exact


def train(
    network: nn.Module,
    learnt: Patches,
    validation: Patches,
    augmentation: Change,
    schedule: Schedule,
    seed: int,
    *,
    verbose: bool = False,
) -> Curves:
    """Fit a network of one output in place and leave it with the weights of its best epoch.

    Adam on the binary cross-entropy of changed patches: see `Course`.

    Raises
    ------
    ValueError
        If the loss is no longer a number.
    """
    optimiser = torch.optim.Adam(
        network.parameters(), lr=schedule.learning_rate, eps=_KERAS_EPSILON
    )
    course = Course(network, BinaryCrossEntropy(), optimiser, augmentation, schedule, seed)
    return course.run(learnt, validation, verbose=verbose)


@torch.inference_mode()
def margins(network: nn.Module, pixels: torch.Tensor) -> NDArray[np.float64]:
    """Return the log-odds (n,) of the second class, without dropout."""
    network.eval()
    device = next(network.parameters()).device
    found = [network(part.to(device))[:, 0] for part in pixels.split(_AT_ONCE)]
    return torch.cat(found).double().cpu().numpy()
