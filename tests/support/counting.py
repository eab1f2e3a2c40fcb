"""Images that count how often they are read, and a count of images passing through a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.tiny import Tiny

_MEASURED = 448  # pixels: images of this side, and larger ones, measure the receptive field


class CountingImage:
    """An image, or a mask, that counts how often its pixels are requested."""

    def __init__(self, pixels: NDArray[Any]) -> None:
        self.pixels = pixels
        self.n_reads = 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        self.n_reads += 1
        return np.array(self.pixels, dtype=dtype)


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that receives the number of images of each batch that passes "tiny"."""
    counts: list[int] = []
    _watch(monkeypatch, lambda shape: counts.append(shape[0]))
    return counts


def shapes_of_passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that receives the shape (B, H, W) of each batch that passes "tiny"."""
    shapes: list[tuple[int, ...]] = []
    _watch(monkeypatch, shapes.append)
    return shapes


def _watch(monkeypatch: pytest.MonkeyPatch, report: Callable[[tuple[int, ...]], object]) -> None:
    """Report each batch but those that only find the network's receptive field."""
    original = Tiny.forward

    def watched(self: Tiny, batch: torch.Tensor) -> torch.Tensor:
        shape = (len(batch), *batch.shape[2:])
        if max(shape[1:]) < _MEASURED:
            report(shape)
        return original(self, batch)

    monkeypatch.setattr(Tiny, "forward", watched)
