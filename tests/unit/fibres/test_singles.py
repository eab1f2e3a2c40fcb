"""Single fibres, against rods that are drawn exactly."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from hypervlad.fibres import find_fibres
from hypervlad.particles import measure

WIDTH = 8.0


def drawn(*rods, shape=(160, 200), noise=0.04):
    """Return an image of rods with round ends, each from one point (row, column) to another."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for number, (start, stop) in enumerate(np.asarray(rods, float)):
        step = stop - start
        along = (rows - start[0]) * step[0] + (columns - start[1]) * step[1]
        along = np.clip(along / (step @ step), 0, 1)
        apart = np.hypot(rows - start[0] - along * step[0], columns - start[1] - along * step[1])
        image[apart <= WIDTH / 2] = 0.8 + 0.1 * number
    noisy = gaussian_filter(image, 0.8) + noise * np.random.default_rng(0).standard_normal(shape)
    return noisy.astype(np.float32)


CROSSED = ((80.5, 30), (80.5, 170)), ((30, 80), (130, 120))


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_crossing_fibres_are_found_whole(turned, sign):
    image = np.rot90(sign * drawn(*CROSSED), turned)
    table = measure(find_fibres(image, pixel_size=5.0)).sort_values("length_nm")
    lengths = [np.hypot(100, 40) + WIDTH, 140 + WIDTH]
    np.testing.assert_allclose(table["length_px"], lengths, rtol=0.05)
    np.testing.assert_allclose(table["end_to_end_nm"], 5 * np.array(lengths), rtol=0.05)
    np.testing.assert_allclose(table["width_px"], WIDTH, rtol=0.08)
    assert not table[["touches_edge", "annotation_share"]].any(axis=None)
    assert table["confidence"].between(0.9, 1).all()


@pytest.mark.filterwarnings("ignore:.*no fibre is found")
def test_polarity_length_colours_gaps_and_the_edge():
    crossed, rods = drawn(*CROSSED), drawn(((40, 30), (40, 170)), ((110, 40), (110, 100)))
    assert len(find_fibres(crossed, polarity="dark")) == 0
    boxes = [fibre.box for fibre in find_fibres(crossed, polarity="bright")]
    assert len(boxes) == 2
    assert boxes == [fibre.box for fibre in find_fibres(np.repeat(crossed[..., None], 3, axis=2))]
    with pytest.warns(UserWarning, match="enlarged by a program"):
        large = find_fibres(zoom(crossed, 2, grid_mode=True, mode="nearest"), min_length=60)
    assert np.array([fibre.box for fibre in large]) == pytest.approx(2 * np.array(boxes), abs=2)
    assert len(find_fibres(drawn(((80, 20), (80, 85)), ((80, 105), (80, 180))))) == 2  # a gap
    (longer,) = find_fibres(rods, min_length=100)
    (shorter,) = find_fibres(rods, leave_out=[(40.3, 100)])
    assert (longer.window[0].stop < 80, shorter.window[0].start > 80) == (True, True)
    (found,) = measure(find_fibres(drawn(((80, 60), (80, 260))))).itertuples()
    assert found.touches_edge
    assert found.length_px == pytest.approx(200 - 60 + WIDTH / 2, abs=4)


@pytest.mark.parametrize("length", [30, 60, 120])
def test_a_lone_fibre_is_found(length):
    image = drawn(((80.5, 60), (90.5, 60 + length)), shape=(300, 400))
    (found,) = measure(find_fibres(image, min_length=20))["length_px"]
    assert found == pytest.approx(length + WIDTH, rel=0.08)


@pytest.mark.parametrize(
    "image",
    [
        np.full((128, 160), 0.5),
        np.random.default_rng(0).random((128, 160)),
        (np.hypot(*np.mgrid[-60:68, -80:80]) < 30) * 0.8,
        np.pad([[65535.0]], 40),  # one hot pixel
        np.zeros((1, 1)),
    ],
)
def test_there_are_no_fibres_in_an_image_without_any(image):
    with pytest.warns(UserWarning, match="image: no fibre is found: ") as warned:
        found = find_fibres(image)
    assert (len(found), str(warned[0].message)) == (0, f"image: {found.note}")


@pytest.mark.parametrize("is_two_level", [False, True])
def test_long_grains_of_a_texture_are_no_fibres(is_two_level, recwarn):
    noise = np.random.default_rng(4).standard_normal((2, 300, 400))
    texture = gaussian_filter(noise[0], (2.5, 12))
    image = texture > 0 if is_two_level else texture / texture.std() + 0.1 * noise[1]
    found = find_fibres(gaussian_filter(image.astype(float), 0.7), annotations="keep")
    assert len(found) == 0
    assert any("none of the lines" in str(each.message) for each in recwarn) == is_two_level
