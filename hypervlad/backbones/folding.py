"""Batch normalisation folded into the preceding convolution: the same maps in less time.

In eval mode batch normalisation is an affine map of each channel, which can be merged into the
weights and the bias of the convolution before it. Which layer follows which is observed in a pass
over an empty image; the order in which layers are listed does not decide.
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
class ConvNormPair:
    """A convolution and the batch normalisation of its output.

    Attributes
    ----------
    conv, norm : str
        Names of the layers.
    same_output : tuple of str
        Names of all layers with the same output as the convolution: itself, and blocks that end in
        it.
    """

    conv: str
    norm: str
    same_output: tuple[str, ...]


def find_conv_norm_pairs(module: torch.nn.Module, image: torch.Tensor) -> tuple[ConvNormPair, ...]:
    """Find the convolutions whose output goes into a batch normalisation.

    Other uses of that output are not detected. Call this only for networks that are known to have
    none.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode. It is not changed; on the meta device nothing is computed.
    image : torch.Tensor of shape (1, C, H, W)
    """
    layers = {name: layer for name, layer in module.named_modules() if name}
    # Keeping the tensors keeps their ids unique.
    outputs: dict[int, list[tuple[str, torch.Tensor]]] = {}
    found, calls = dict[str, tuple[str, int]](), Counter[str]()

    def record(name: str, layer: torch.nn.Module, inputs: Any, output: Any) -> None:
        calls[name] += 1
        before = outputs.get(id(inputs[0]), [("", output)])[0][0]
        if type(layer) is torch.nn.BatchNorm2d and type(layers.get(before)) is torch.nn.Conv2d:
            found[name] = before, id(inputs[0])
        if isinstance(output, torch.Tensor):
            outputs.setdefault(id(output), []).append((name, output))

    handles = [
        layer.register_forward_hook(lambda m, x, y, name=name: record(name, m, x, y))
        for name, layer in layers.items()
    ]
    try:
        module(image)
    finally:
        for handle in handles:
            handle.remove()
    pairs = [
        ConvNormPair(conv, norm, tuple(name for name, _ in outputs[tensor]))
        for norm, (conv, tensor) in found.items()
        if calls[conv] == calls[norm] == 1
    ]
    return tuple(p for p in pairs if all(_contains(name, p.conv) for name in p.same_output))


def fold_norms(module: torch.nn.Module, pairs: Iterable[ConvNormPair]) -> torch.nn.Module:
    """Return a network with the batch normalisations folded; it shares the other layers.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode. It is not changed.
    pairs : iterable of ConvNormPair

    Returns
    -------
    torch.nn.Module
        With layers of the same names; ``module`` itself if there are no pairs.
    """
    pairs = list(pairs)
    if not pairs:
        return module
    tensors = itertools.chain(module.parameters(), module.buffers())
    folded = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for pair in pairs:
        first, second = (cast(Any, folded.get_submodule(n)) for n in (pair.conv, pair.norm))
        _replace(folded, pair.conv, fuse_conv_bn_eval(first, second).requires_grad_(False))
        _replace(folded, pair.norm, torch.nn.Identity())
    return folded


def _contains(block: str, layer: str) -> bool:
    """Return whether a layer is the block or inside it; if not, it changes the output in place."""
    return f"{layer}.".startswith(f"{block}.")


def _replace(module: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)
