"""Folding batch normalisations into the convolutions before them, which saves a pass over each."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, cast

from hypervlad.features.lazy_torch import torch


def fold_norms(
    module: torch.nn.Module, image: torch.Tensor, taps: Collection[str] = ()
) -> torch.nn.Module:
    """Return a network with folded batch normalisations, which shares all other tensors.

    They are found in a pass of the image. Convolutions whose output is that of a tap stay as they
    are; networks that use an output elsewhere must not be folded.
    """
    found = _conv_norm_pairs(module, image)
    pairs = [(conv, norm) for conv, norm, names in found if not names & set(taps)]
    if not pairs:
        return module
    tensors = itertools.chain(module.parameters(), module.buffers())
    folded = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for conv, norm in pairs:
        first, second = (cast(Any, folded.get_submodule(name)) for name in (conv, norm))
        fused = torch.nn.utils.fusion.fuse_conv_bn_eval(first, second)
        _replace(folded, conv, fused.requires_grad_(False))
        _replace(folded, norm, torch.nn.Identity())
    return folded


def _conv_norm_pairs(
    module: torch.nn.Module, image: torch.Tensor
) -> Iterator[tuple[str, str, set[str]]]:
    """Yield each convolution, the normalisation of its output, and the layers that return it."""
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
    for norm, (conv, tensor) in found.items():
        names = {name for name, _ in outputs[tensor]}
        # A block that contains the convolution has its output; another layer may change it.
        if calls[conv] == calls[norm] == 1 and all(f"{conv}.".startswith(f"{n}.") for n in names):
            yield conv, norm, names


def _replace(module: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)
