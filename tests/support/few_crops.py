"""Segmenters that are trained in a second: on a few small crops."""

from contextlib import contextmanager

import pytest

_DECODER = "hypervlad.particles.decoder"


@contextmanager
def few_crops(n=30, side=64):
    """Cut so many crops of so many pixels, not 160 of 256, which take half a minute per epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{_DECODER}.N_CROPS", n)
        patch.setattr(f"{_DECODER}.CROP", side)
        yield
