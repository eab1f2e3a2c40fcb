"""The benchmark of near copies: every change makes a copy, and sets are counted by pairs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.copies.__main__ import Folder, measure, with_copies
from benchmarks.copies.changes import CHANGES
from hypervlad.datasets import make_nanofibre_images


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_two_different_images_in_range(change: str) -> None:
    image = make_nanofibre_images(1, size=(100, 120), random_state=0)[0][0]
    first, second = CHANGES[change](image, np.random.default_rng(0))
    assert min(first.shape + second.shape) >= 50
    assert first.shape != second.shape or np.abs(first - second).max() > 0.01
    assert -0.1 < second.min() < second.max() < 1.1


def test_pairs_are_counted() -> None:
    images = make_nanofibre_images(4, size=96, random_state=0)[0]
    folder = with_copies(images, list("abcd"), seed=0)
    assert sorted(folder.images) == [
        "0000.png",
        "0000_copy.png",
        "0001.png",
        "0002.png",
        "0002_copy.png",
        "0003.png",
    ]
    counted = measure(folder)
    assert sum(counted["planted"].values()) == sum(counted["found"].values()) == 2
    assert (counted["wrong"], counted["other"], counted["largest_set"]) == (0, 0, 2)
    # The same files, but nothing was planted: within one origin a pair may be real.
    other = measure(Folder(folder.images, dict.fromkeys(folder.images, "a"), {}))
    assert (other["wrong"], other["other"]) == (0, 2)
    wrong = measure(Folder(folder.images, {name: name for name in folder.images}, {}))
    assert (wrong["wrong"], wrong["other"]) == (2, 0)
