"""The grid of windows over an image, and maps of their scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervlad.features.windows import WindowGrid


@given(st.integers(10, 40), st.integers(10, 40), st.integers(1, 10), st.integers(1, 12))
@settings(deadline=None)
def test_windows_cover_the_image_and_lie_inside(
    height: int, width: int, side: int, stride: int
) -> None:
    windows = WindowGrid.cover((height, width), side, stride)
    for starts, extent in ((windows.rows, height), (windows.columns, width)):
        assert starts[0] == 0
        assert starts[-1] == extent - side
        assert (np.diff(starts) <= stride).all()
    assert len(windows.positions) == len(windows.rows) * len(windows.columns)


@pytest.mark.parametrize("side", [5, 6])
def test_a_map_has_the_score_of_each_window_at_its_centre(side: int) -> None:
    windows = WindowGrid.cover((21, 30), side=side, stride=4)
    scores = np.random.default_rng(0).random((len(windows.rows), len(windows.columns)))
    painted = windows.to_map(scores, (21, 30), (21, 30))
    assert painted.shape == (21, 30)
    assert painted.dtype == np.float32
    centres = painted[np.ix_(windows.rows + 2, windows.columns + 2)]
    np.testing.assert_allclose(centres, scores, rtol=1e-6)
    np.testing.assert_allclose(painted[0, 0], scores[0, 0], rtol=1e-6)  # constant beyond
    assert painted.min() >= scores.min() - 1e-6
    assert painted.max() <= scores.max() + 1e-6


def test_a_map_of_a_resized_image_has_the_image_s_own_pixels() -> None:
    windows = WindowGrid.cover((20, 20), side=4, stride=4)
    ramp = np.tile(windows.columns.astype(float), (len(windows.rows), 1))
    own = windows.to_map(ramp, (40, 40), (20, 20))
    same = windows.to_map(ramp, (20, 20), (20, 20))
    np.testing.assert_allclose(own.reshape(20, 2, 20, 2).mean((1, 3)), same, atol=0.26)
