"""Tests on networks of torchvision: those built last are copied."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.memory import return_memory
from torchvision.models import _api

# The seed of hypervlad's "random" weights, so that a copy equals a newly built network.
_SEED = 0
_HEADS = ("classifier", "fc", "AuxLogits")


@functools.lru_cache(maxsize=2)  # some hundred megabytes each
def _built(
    builder: Callable[..., torch.nn.Module], arguments: tuple[Any, ...], device: torch.device
) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]), device:
        torch.manual_seed(_SEED)
        module = builder(**dict(arguments))
    # The dense layers of a VGG weigh half a gigabyte. hypervlad drops them: one row will do.
    for name in _HEADS:
        for layer in (getattr(module, name, None) or torch.nn.Identity()).modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.data = layer.weight.data[:1].clone().expand_as(layer.weight)
    return module


def _copied(builder: Callable[..., torch.nn.Module], **arguments: Any) -> torch.nn.Module:
    device = torch.empty(0).device  # "meta" within ``with torch.device("meta")``
    module = _built(builder, tuple(sorted(arguments.items())), device)
    # A copy of one row in many places would take its whole size.
    heads = [getattr(module, name, None) or torch.nn.Identity() for name in _HEADS]
    shared = {id(tensor): tensor for head in heads for tensor in head.parameters()}
    return copy.deepcopy(module, shared)


@pytest.fixture(autouse=True, scope="module")
def built_once() -> Iterator[None]:
    """Hand out copies of the networks of torchvision that were built last."""
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in _api.BUILTIN_MODELS.items():
            # torchvision looks for a network's weights in the signature of its builder.
            copied = functools.update_wrapper(functools.partial(_copied, builder), builder)
            patch.setitem(_api.BUILTIN_MODELS, name, copied)
        yield
    _built.cache_clear()


@pytest.fixture(autouse=True)
def memory_of_a_test_is_returned() -> Iterator[None]:
    """Free networks after each test, not only after a module's."""
    yield
    return_memory()
