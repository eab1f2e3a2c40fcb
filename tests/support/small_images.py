"""Smaller images inside estimators, whose usual sizes would take most of a test's time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hypervlad.models.defects.cells import DESCRIPTIONS


@contextmanager
def small_images() -> Iterator[None]:
    """Pad no batches of patches to their usual size, and resize no image to 224 pixels."""
    sides = {None: None, 224: 16, 112: 8}
    smaller = tuple(each._replace(side=sides[each.side]) for each in DESCRIPTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hypervlad.models.baselines.patch_cnn._MAX_BATCH", 16)
        patch.setattr("hypervlad.models.defects.normal_images.DESCRIPTIONS", smaller)
        patch.setattr("hypervlad.models.defects.normal_images.SIDES", (*sides.values(),))
        yield
