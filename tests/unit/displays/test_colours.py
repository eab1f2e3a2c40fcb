"""Colours of directions."""

import numpy as np

from hypervlad.results import OrientationDisplay


def test_directions_have_a_period_of_half_a_turn_and_no_jump():
    rim = OrientationDisplay.from_image(np.eye(32)).panels_[2].patches[48:]
    colours = np.array([bar.get_facecolor()[:3] for bar in rim])
    assert 0 <= colours.min() < colours.max() <= 1
    np.testing.assert_allclose(colours[:24], colours[24:])
    assert np.abs(np.diff(colours, axis=0)).max() < 0.3
    assert colours[0].argmax() == 0, "red"
    assert colours[12].argmin() == 0, "cyan"
