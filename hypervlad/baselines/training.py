"""A network fitted to patches, stopped where it no longer gets better on others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from tqdm.auto import tqdm

from hypervlad.baselines.augmentation import Augmentation

_KERAS_EPSILON = 1e-7  # of Adam; torch's own is a tenth of it


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network learns.

    Attributes
    ----------
    learning_rate : float
    batch_size, max_epochs, patience : int
    """

    learning_rate: float
    batch_size: int
    max_epochs: int
    patience: int


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


@dataclass
class Curves:
    """Loss (binary cross-entropy) and accuracy of each epoch, the first one first.

    ``loss`` and ``accuracy`` are of the changed patches and with dropout, while learning went on;
    the others of the unchanged validation patches after it.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest validation loss, counted from 0."""
        return int(np.argmin(self.validation_loss))


def train(
    network: nn.Module,
    learnt: Patches,
    validation: Patches,
    augmentation: Augmentation,
    schedule: Schedule,
    seed: int,
    *,
    verbose: bool = False,
) -> Curves:
    """Fit a network in place and leave it with the weights of its best epoch.

    Adam on the binary cross-entropy of changed patches, until the validation loss has not been
    lower for ``patience`` epochs. Dropout takes torch's own generator.

    Raises
    ------
    ValueError
        If the loss is no longer a number.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(
        network.parameters(), lr=schedule.learning_rate, eps=_KERAS_EPSILON
    )
    curves, best = Curves(), {}
    for epoch in (bar := tqdm(range(schedule.max_epochs), unit="epoch", disable=not verbose)):
        loss, accuracy = _epoch(network, learnt, augmentation, optimiser, schedule, generator)
        curves.loss.append(loss)
        curves.accuracy.append(accuracy)
        loss, accuracy = _judged(network, validation)
        if not math.isfinite(loss):
            raise ValueError(
                f"the network's loss is {loss} after {epoch + 1} epochs at learning_rate="
                f"{schedule.learning_rate}; take a smaller one"
            )
        curves.validation_loss.append(loss)
        curves.validation_accuracy.append(accuracy)
        bar.set_postfix(loss=f"{curves.loss[-1]:.3f}", validation=f"{loss:.3f}")
        if curves.best_epoch == epoch:
            best = {name: value.clone() for name, value in network.state_dict().items()}
        if epoch - curves.best_epoch >= schedule.patience:
            break
    network.load_state_dict(best)
    return curves


@torch.inference_mode()
def margins(network: nn.Module, pixels: torch.Tensor) -> NDArray[np.float64]:
    """Return the log-odds (n,) of the second class, without dropout."""
    network.eval()
    device = next(network.parameters()).device
    found = [network(part.to(device))[:, 0] for part in pixels.split(4096)]
    return torch.cat(found).double().cpu().numpy()


def _epoch(
    network: nn.Module,
    learnt: Patches,
    augmentation: Augmentation,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Go once through all patches in random order; return mean loss and accuracy on the way."""
    network.train()
    total = right = 0.0
    for rows in torch.randperm(len(learnt), generator=generator).split(schedule.batch_size):
        rows = rows.to(learnt.targets.device)
        pixels, targets = augmentation(learnt.pixels[rows], generator), learnt.targets[rows]
        answers = network(pixels)[:, 0]
        loss = functional.binary_cross_entropy_with_logits(answers, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += float(loss.detach()) * len(rows)
        right += float(((answers > 0) == (targets > 0)).sum())
    return total / len(learnt), right / len(learnt)


def _judged(network: nn.Module, patches: Patches) -> tuple[float, float]:
    answers = torch.from_numpy(margins(network, patches.pixels))
    targets = patches.targets.double().cpu()
    loss = functional.binary_cross_entropy_with_logits(answers, targets)
    return float(loss), float(((answers > 0) == (targets > 0)).double().mean())
