"""Batch normalisations with statistics as if trained, and their number."""

from __future__ import annotations

import torch


def lively(module: torch.nn.Module) -> torch.nn.Module:
    """Give batch normalisations random statistics and weights instead of zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            n = layer.num_features
            layer.running_mean.copy_(0.1 * torch.randn(n, generator=generator))
            layer.running_var.copy_(0.5 + torch.rand(n, generator=generator))
            layer.weight.data.copy_(0.5 + torch.rand(n, generator=generator))
            layer.bias.data.copy_(0.1 * torch.randn(n, generator=generator))
    return module.eval().requires_grad_(False)


def n_norms(module: torch.nn.Module) -> int:
    return sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in module.modules())
