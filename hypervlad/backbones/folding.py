"""Batch normalisation folded into the convolution before it: the same maps in less time.

In eval mode batch normalisation is an affine step a channel, and so is what a convolution does to
its weights and bias: one layer can take both. What follows what is seen in a pass over an empty
image, not in the order in which layers are listed.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval


@dataclass(frozen=True)
class Pair:
    """A convolution, the batch normalisation that takes its output, and who else gives it.

    Attributes
    ----------
    conv, norm : str
        Names of the layers.
    givers : tuple of str
        Names of all layers whose output is that of the convolution: itself, and blocks that end in
        it.
    """

    conv: str
    norm: str
    givers: tuple[str, ...]


def pairs_of(module: torch.nn.Module, image: torch.Tensor) -> tuple[Pair, ...]:
    """Find the convolutions whose output goes into a batch normalisation.

    It is not seen whether anything else takes that output too: this is for networks of which it is
    known that nothing does.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode. It stays as it is; one on the meta device computes nothing.
    image : torch.Tensor of shape (1, C, H, W)
    """
    layers = {name: layer for name, layer in module.named_modules() if name}
    outputs: dict[int, list[tuple[str, torch.Tensor]]] = {}  # which keep the tensors, so their ids
    found, calls = dict[str, tuple[str, int]](), Counter[str]()

    def watch(name: str, layer: torch.nn.Module, given: Any, output: Any) -> None:
        calls[name] += 1
        before = outputs.get(id(given[0]), [("", output)])[0][0]
        if type(layer) is torch.nn.BatchNorm2d and type(layers.get(before)) is torch.nn.Conv2d:
            found[name] = before, id(given[0])
        if isinstance(output, torch.Tensor):
            outputs.setdefault(id(output), []).append((name, output))

    handles = [
        layer.register_forward_hook(lambda m, x, y, name=name: watch(name, m, x, y))
        for name, layer in layers.items()
    ]
    try:
        module(image)
    finally:
        for handle in handles:
            handle.remove()
    pairs = [
        Pair(conv, norm, tuple(name for name, _ in outputs[tensor]))
        for norm, (conv, tensor) in found.items()
        if calls[conv] == calls[norm] == 1
    ]
    return tuple(pair for pair in pairs if all(_holds(name, pair.conv) for name in pair.givers))


def folded(module: torch.nn.Module, pairs: Iterable[Pair]) -> torch.nn.Module:
    """Return a network with fewer batch normalisations; the other layers are shared.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode. It stays as it is.
    pairs : iterable of Pair

    Returns
    -------
    torch.nn.Module
        With layers of the same names; ``module`` itself if there are no pairs.
    """
    pairs = list(pairs)
    if not pairs:
        return module
    tensors = itertools.chain(module.parameters(), module.buffers())
    lighter = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for pair in pairs:
        first, second = (cast(Any, lighter.get_submodule(n)) for n in (pair.conv, pair.norm))
        _replace(lighter, pair.conv, fuse_conv_bn_eval(first, second).requires_grad_(False))
        _replace(lighter, pair.norm, torch.nn.Identity())
    return lighter


def _holds(block: str, layer: str) -> bool:
    """Say whether a layer is the block or within it: else it changes the output in place."""
    return f"{layer}.".startswith(f"{block}.")


def _replace(module: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)
