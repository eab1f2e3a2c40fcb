"""Images that count how often they are read, and a count of images passing through networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hypervlad.features.backbones import TappedNetwork


class CountingImage:
    """An image, or a mask, that counts how often its pixels are requested."""

    def __init__(self, pixels: NDArray[Any]) -> None:
        self.pixels = pixels
        self.n_reads = 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        self.n_reads += 1
        return np.array(self.pixels, dtype=dtype)


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that receives the number of images of each pass of any network.

    Those that only find a network's receptive field are not counted.
    """
    counts: list[int] = []
    original = TappedNetwork.__call__

    def counted(self: TappedNetwork, batch: Any) -> Any:
        if not batch.isnan().any():
            counts.append(len(batch))
        return original(self, batch)

    monkeypatch.setattr(
        "hypervlad.features.backbones.tapped_network.is_shift_equivariant", lambda *_: True
    )
    monkeypatch.setattr(TappedNetwork, "__call__", counted)
    return counts
