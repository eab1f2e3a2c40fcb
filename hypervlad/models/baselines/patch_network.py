"""The small network for patches of Carrillo Pérez (2020), and its augmentation."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

MIN_PATCH, MAX_PATCH = 28, 2048  # pixels; one is left after the last pooling, and memory
_FILTERS, _KERNEL_SIZES = (16, 32, 64), (5, 5, 3)
_N_DENSE, _DROPOUT = 64, 0.6
_MAX_BATCH = 4096  # patches
_MAX_ACTIVATIONS = 2**26  # of one layer for the patches of a batch: 256 MB
_SHEAR = 0.2  # degrees
_ZOOM = 0.2


def build_patch_network(n_channels: int, patch: int) -> nn.Sequential:
    """Return the network of Carrillo Pérez (2020), with new weights from torch's generator.

    From patches (n, n_channels, patch, patch) to the log-odds (n, 1) of the second class.
    """
    if not MIN_PATCH <= patch <= MAX_PATCH:
        raise ValueError(
            f"patches of {patch} x {patch} pixels: the network, which pools three times, needs at "
            f"least {MIN_PATCH} x {MIN_PATCH} and takes at most {MAX_PATCH} x {MAX_PATCH}"
        )
    layers: list[nn.Module] = []
    n_inputs = n_channels
    for n_filters, size in zip(_FILTERS, _KERNEL_SIZES, strict=True):
        layers += [nn.Conv2d(n_inputs, n_filters, size), nn.ReLU(), nn.MaxPool2d(2)]
        n_inputs, patch = n_filters, (patch - size + 1) // 2
    layers += [nn.Flatten(), nn.Linear(n_inputs * patch**2, _N_DENSE), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Dropout(_DROPOUT), nn.Linear(_N_DENSE, 1))
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):  # as in Keras
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


def evaluation_batch(patch: int) -> int:
    """Return how many patches are classified at once; the first layer has the most activations."""
    n_activations = _FILTERS[0] * (patch - _KERNEL_SIZES[0] + 1) ** 2
    return min(_MAX_BATCH, _MAX_ACTIVATIONS // n_activations)


def augment_patches(patches: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shear, zoom and mirror each patch (n, C, p, p) at random, as Keras's ImageDataGenerator."""
    maps = random_affine_maps(len(patches), generator).to(patches.device)
    grid = functional.affine_grid(maps, list(patches.shape), align_corners=True)
    return functional.grid_sample(
        patches, grid, mode="bilinear", padding_mode="border", align_corners=True
    )


def random_affine_maps(n: int, generator: torch.Generator) -> torch.Tensor:
    """Return n maps (2, 3) from coordinates (x, y) in the new patch to those in the old."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    angle = uniform(-math.radians(_SHEAR), math.radians(_SHEAR))
    down, across = (uniform(1 - _ZOOM, 1 + _ZOOM) for _ in range(2))
    sign = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    maps = torch.zeros(n, 2, 3)
    # Keras shears rows (y) by columns (x), then zooms: y' = y - sin(a) x, x' = cos(a) x.
    maps[:, 0, 0] = sign * torch.cos(angle) * across
    maps[:, 1, 0] = -sign * torch.sin(angle) * across
    maps[:, 1, 1] = down
    return maps
