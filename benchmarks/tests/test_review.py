"""Two windows label against a server that is killed at random; the long run is a benchmark."""

from __future__ import annotations

import pytest

from benchmarks.review import load as review_load


@pytest.mark.slow
@pytest.mark.long
def test_no_acknowledged_label_is_lost_and_none_counts_twice() -> None:
    found = review_load.run(6.0, seed=1, pause=1.5, n_images=1000)
    assert found["errors"] == []
    assert (found["lost"], found["wrong"], found["twice"]) == (0, 0, 0)
    assert found["kills"] >= 2
    assert found["acknowledged"] > 30
