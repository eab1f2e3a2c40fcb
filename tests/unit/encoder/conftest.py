"""What tests of the encoder share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hypervlad.features.backbones import TappedNetwork


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes (B, H, W) of all batches that pass a network."""
    shapes: list[tuple[int, ...]] = []
    original = TappedNetwork._forward

    def watched(self: TappedNetwork, batch: torch.Tensor) -> Any:
        shapes.append((len(batch), *batch.shape[2:]))
        return original(self, batch)

    monkeypatch.setattr(TappedNetwork, "_forward", watched)
    return shapes
