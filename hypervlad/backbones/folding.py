"""Batch normalisation folded into the convolution before it: the same maps in less time.

In eval mode batch normalisation is an affine step a channel, and so is what a convolution does to
its weights and bias: one layer can take both. What follows what is read from the graph of the
network, not from the order in which its layers are listed.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Collection
from typing import Any, cast

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(module: torch.nn.Module, kept: Collection[str] = ()) -> torch.nn.Module:
    """Return a network with as few batch normalisations as can be; the other layers are shared.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode. It stays as it is.
    kept : collection of str, optional
        Names of layers whose own output is wanted.

    Returns
    -------
    torch.nn.Module
        With layers of the same names; ``module`` itself if there is nothing to fold, or if its
        graph cannot be read.
    """
    pairs = [(conv, norm) for conv, norm in _foldable(module) if conv not in kept]
    if not pairs:
        return module
    tensors = itertools.chain(module.parameters(), module.buffers())
    lighter = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for conv, norm in pairs:
        first, second = (cast(Any, lighter.get_submodule(name)) for name in (conv, norm))
        both = fuse_conv_bn_eval(first, second)
        _replace(lighter, conv, both.requires_grad_(False))
        _replace(lighter, norm, torch.nn.Identity())
    return lighter


def _foldable(module: torch.nn.Module) -> list[tuple[str, str]]:
    """Name each convolution of which nothing but a batch normalisation takes the output."""
    try:
        nodes = list(torch.fx.Tracer().trace(module).nodes)
    except Exception:
        return []
    layers = dict(module.named_modules())
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    found = []
    for node in nodes:
        before = node.args[0] if node.op == "call_module" and len(node.args) == 1 else None
        if not isinstance(before, torch.fx.Node) or before.op != "call_module":
            continue
        names = str(before.target), str(node.target)
        conv, norm = layers[names[0]], layers[names[1]]
        is_pair = type(conv) is torch.nn.Conv2d and type(norm) is torch.nn.BatchNorm2d
        if is_pair and len(before.users) == 1 and calls[names[0]] == calls[names[1]] == 1:
            found += [names] if not norm.training and norm.track_running_stats else []
    return found


def _replace(module: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)
