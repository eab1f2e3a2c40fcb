"""OrientationJ and FibrilTool by their formulas: known directions, known anisotropy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.alignment.published import GRADIENTS, fibriltool, orientationj
from hypervlad.fibres import axial_difference


def stripes(
    angle: float, shape: tuple[int, int] = (96, 96), period: float = 11.0
) -> NDArray[np.float32]:
    """Return stripes along a direction, in radians, counter-clockwise in the image."""
    rows, columns = np.indices(shape)
    across = columns * np.sin(angle) + rows * np.cos(angle)
    return np.sin(2 * np.pi / period * across).astype(np.float32)


def cells(angles: NDArray, side: int = 32) -> NDArray[np.float32]:
    """Return squares of stripes, each along an angle of its own."""
    of_pixels = np.kron(angles, np.ones((side, side)))
    rows, columns = np.indices(of_pixels.shape)
    across = columns * np.sin(of_pixels) + rows * np.cos(of_pixels)
    return np.sin(2 * np.pi / 8 * across).astype(np.float32)


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


def test_an_unknown_gradient_is_told():
    with pytest.raises(ValueError, match="expected one of cubic_spline"):
        orientationj(np.eye(9), gradient="riesz")
