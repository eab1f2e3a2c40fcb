"""Codeword maps."""

import numpy as np
import pytest
from support.displays import TwoCodebooks, texts

from hypervlad.results import CodewordMapDisplay
from hypervlad.results.displays.colours import codeword_colours

IMAGES = [np.full((8, 8 + 2 * i), i / 6, dtype="float32") for i in range(2)]


def test_codeword_maps_come_beside_each_image():
    display = CodewordMapDisplay.from_estimator(TwoCodebooks(), IMAGES, names=["a", "b"])
    assert texts(display) == [
        *("a", "codewords of layer1", "codewords of layer2"),
        *("b", "codewords of layer1", "codewords of layer2"),
    ]
    painted = display.ax_.images[1].get_array()
    np.testing.assert_allclose(painted, np.broadcast_to(codeword_colours(np.eye(3))[2], (4, 4, 3)))


def test_a_map_covers_its_image_whatever_its_grid():
    wide = np.zeros((10, 40), dtype="float32")
    display = CodewordMapDisplay([wide], [np.zeros((1, 4, 4), dtype=int)], [np.eye(3)]).plot()
    shapes = [
        (abs(x1 - x0), abs(y1 - y0))
        for x0, x1, y0, y1 in (image.get_extent() for image in display.ax_.images)
    ]
    assert shapes[0] == pytest.approx((1, 0.25))
    assert shapes[1] == pytest.approx(shapes[0])


def test_places_without_a_codeword_are_white():
    words = np.array([[[0, -1], [-1, 1]]])
    display = CodewordMapDisplay([np.zeros((2, 2))], [words], [np.eye(3)]).plot()
    painted = display.ax_.images[1].get_array()
    np.testing.assert_array_equal(painted[0, 1], [1, 1, 1])
    assert not np.allclose(painted[0, 0], painted[1, 1])


@pytest.mark.parametrize(
    "maps",
    [
        [np.zeros((1, 4, 4))],
        [np.zeros((4, 4), dtype=int)],
        [np.zeros((1, 4, 4), dtype=int)] * 2,
        [np.zeros((2, 4, 4), dtype=int)],
    ],
)
def test_malformed_maps_are_refused(maps):
    with pytest.raises(ValueError, match="map"):
        CodewordMapDisplay([np.zeros((4, 4))], maps, [np.eye(3)])
