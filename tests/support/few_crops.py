"""Segmenters that are trained in a second: on a few small crops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_DECODER = "hypervlad.particles.decoder"


@contextmanager
def few_crops(n: int = 30, side: int = 64) -> Iterator[None]:
    """Cut so many crops of so many pixels, not 160 of 256, which take half a minute per epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{_DECODER}.N_CROPS", n)
        patch.setattr(f"{_DECODER}.CROP", side)
        yield
