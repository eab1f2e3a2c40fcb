"""A small convolutional network for patches: unpadded convolutions with pooling, a dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from hypervlad.constraints import Integer, ListOf, Number, OneOf, check_value

_POOL = 2
_MAX_COUNT = 2**16  # of filters and units
_MAX_CONVOLUTIONS = 16
_MAX_PATCH = 2048  # pixels
_MAX_BATCH = 4096  # patches
_MAX_ACTIVATIONS = 2**26  # of one layer for the patches of a batch: 256 MB


@dataclass(frozen=True)
class PatchArchitecture:
    """The arguments that a patch network is built with: see `build_patch_network`."""

    n_channels: int
    patch: int
    filters: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    n_dense: int
    dropout: float

    def __post_init__(self) -> None:
        """Refuse values that cannot be those of a network, or need too much memory."""
        count = Integer(1, _MAX_COUNT)
        check_value("n_channels", self.n_channels, [OneOf(1, 3)])
        check_value("patch", self.patch, [Integer(1, _MAX_PATCH)])
        check_value("n_dense", self.n_dense, [count])
        counts = ListOf(count, "a sequence of at most 16 numbers", at_most=_MAX_CONVOLUTIONS)
        for name in ("filters", "kernel_sizes"):
            check_value(name, getattr(self, name), [counts])
        check_value("dropout", self.dropout, [Number(at_least=0, below=1)])
        if self.n_activations > _MAX_ACTIVATIONS:
            raise ValueError(
                f"patches of {self.patch} x {self.patch} pixels give {self.n_activations:,} "
                f"values in one layer, more than {_MAX_ACTIVATIONS:,}: use smaller "
                "patches or fewer filters"
            )

    @property
    def n_activations(self) -> int:
        """The most values that a patch has in the network, as input or after one layer."""
        side, most = self.patch, max(self.n_channels * self.patch**2, self.n_dense)
        for n_filters, size in zip(self.filters, self.kernel_sizes, strict=True):
            side = max(side - size + 1, 0)
            most, side = max(most, n_filters * side**2), side // _POOL
        return most

    @property
    def batch_size(self) -> int:
        """Patches that are classified at once, which bounds the memory."""
        return min(_MAX_BATCH, _MAX_ACTIVATIONS // self.n_activations)


def build_patch_network(
    n_channels: int,
    patch: int,
    *,
    filters: Sequence[int] = (16, 32, 64),
    kernel_sizes: Sequence[int] = (5, 5, 3),
    n_dense: int = 64,
    dropout: float = 0.6,
) -> nn.Sequential:
    """Return the network of Carrillo Pérez (2020), with new weights from torch's generator.

    Each convolution is unpadded and followed by ReLU and 2 x 2 max pooling. The one output is the
    log-odds of the second class; the sigmoid belongs to the loss. Weights start as in Keras: from
    Glorot's uniform distribution, with biases of 0.

    Parameters
    ----------
    n_channels : int
        1 for grey, 3 for colour.
    patch : int
        Side in pixels.
    filters, kernel_sizes : sequence of int
        Number of filters and side of the kernels of each convolution.
    n_dense : int
        Width of the dense layer.
    dropout : float
        Fraction of the dense layer's outputs that are dropped in training.

    Returns
    -------
    torch.nn.Sequential
        From (n, n_channels, patch, patch) to (n, 1).

    Raises
    ------
    ValueError
        If no pixel of a patch is left after the last pooling.
    """
    smallest = smallest_patch(kernel_sizes)
    if patch < smallest:
        raise ValueError(
            f"patches of {patch} x {patch} pixels are too small for kernels of "
            f"{', '.join(map(str, kernel_sizes))} pixels, each followed by pooling: they need "
            f"{smallest} x {smallest}; give larger patches, or fewer or smaller kernels"
        )
    layers: list[nn.Module] = []
    n_inputs = n_channels
    for n_filters, size in zip(filters, kernel_sizes, strict=True):
        layers += [nn.Conv2d(n_inputs, n_filters, size), nn.ReLU(), nn.MaxPool2d(_POOL)]
        n_inputs, patch = n_filters, (patch - size + 1) // _POOL
    layers += [nn.Flatten(), nn.Linear(n_inputs * patch**2, n_dense), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(n_dense, 1))
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


def smallest_patch(kernel_sizes: Sequence[int]) -> int:
    """Return the side, in pixels, of the smallest patch that leaves a pixel after the pooling."""
    side = 1
    for size in reversed(kernel_sizes):
        side = side * _POOL + size - 1
    return side


def n_parameters(network: nn.Module) -> int:
    """Return the number of a network's trainable parameters."""
    return sum(each.numel() for each in network.parameters())


@torch.inference_mode()
def activations(network: nn.Sequential, patch: torch.Tensor) -> list[torch.Tensor]:
    """Return each convolution's activations (filters, h, w), after ReLU, for a patch (C, p, p)."""
    found, signal = [], patch[None].to(next(network.parameters()).device)
    for layer in network:
        signal = layer(signal)
        if isinstance(layer, nn.ReLU) and signal.ndim == 4:
            found.append(signal[0])
    return found
