"""What tests of the encoder share."""

from __future__ import annotations

from typing import Any

import numpy as np
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


@pytest.fixture
def images(texture_images: tuple[list[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    return texture_images[0]
