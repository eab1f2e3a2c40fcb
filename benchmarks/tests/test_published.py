"""OrientationJ and FibrilTool by their formulas: known directions, known anisotropy."""

from __future__ import annotations

import numpy as np
import pytest
from support.fibre_images import cells, stripes

from benchmarks.alignment.published import GRADIENTS, fibriltool, orientationj
from hypervlad.fibres import axial_difference


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("degrees", [0, 25, 90, 160])
def test_directions_of_stripes(gradient, degrees):
    image = 100 * stripes(np.deg2rad(degrees), period=16)
    found = orientationj(image, 2.0, gradient)
    inside = (slice(12, -12), slice(12, -12))
    error = axial_difference(found.orientation[inside], np.deg2rad(degrees))
    assert np.rad2deg(error).max() < 1.5
    assert found.coherency[inside].min() > 0.95
    region = np.zeros(image.shape, bool)
    region[inside] = True
    whole = fibriltool(image, region)
    assert np.rad2deg(axial_difference(whole.direction, np.deg2rad(degrees))) < 1.5
    assert whole.anisotropy > 0.95


def test_two_directions_at_right_angles_have_no_anisotropy():
    image = 100 * cells(np.deg2rad([[20.0, 110], [110, 20]]))
    assert fibriltool(image).anisotropy < 0.05


def test_flat_places_count_for_nothing():
    image = 100 * stripes(0.4)
    image[:, 60:] = 0
    left = np.indices(image.shape)[1] < 56  # short of the edge
    seen = left | (np.indices(image.shape)[1] > 64)
    assert fibriltool(image, seen) == pytest.approx(fibriltool(image, left))
    assert fibriltool(np.zeros((20, 20))) == (0, 0)


def test_an_unknown_gradient_is_reported():
    with pytest.raises(ValueError, match="expected one of cubic_spline"):
        orientationj(np.eye(9), gradient="riesz")
