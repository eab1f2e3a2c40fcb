"""The benchmark of near copies: every change makes a copy, and sets are counted by pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.copies.__main__ import Folder, measure, with_copies
from benchmarks.copies.changes import CHANGES
from benchmarks.copies.tables import changes_table, found_table
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


def test_tables_give_wilsons_intervals() -> None:
    found = {
        "n_images": 12,
        "planted": {"turned": 6, "mirrored": 2},
        "found": {"turned": 5, "mirrored": 0},
        "wrong": 4,
        "other": 1,
        "largest_set": 3,
    }
    result = {"search": "new", "sets": {"x": found}}

    def shown(n: int, total: int) -> str:
        interval = binomtest(n, total).proportion_ci(method="wilson")
        return f"{n / total:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

    row = found_table([result]).splitlines()[2]
    assert row == f"| x | 12 | new | 5 of 8 | {shown(5, 8)} | 4 | {shown(6, 10)} | 1 | 3 |"
    assert f"| turned | 5 of 6: {shown(5, 6)} |" in changes_table([result])
    nothing = found | {"found": {"turned": 0, "mirrored": 0}, "wrong": 0, "other": 0}
    assert "| 0 | – | 0 | 3 |" in found_table([{"search": "new", "sets": {"x": nothing}}])
