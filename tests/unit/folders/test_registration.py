"""Registration of thumbnails: transformations, correlations against simple loops, known shifts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.ndimage import affine_transform, gaussian_filter

from hypervlad.data import make_lattice_images
from hypervlad.data.folders.copies import make_thumbnail
from hypervlad.data.folders.registration import (
    Transformation,
    best_other_shift,
    phase_shift,
    register,
    tile_correlations,
)


def texture(seed, shape=(160, 160), smoothness=1.5):
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), smoothness)
    return (24 * values / values.std()).astype(np.float32)


def random_transformation(rng):
    return Transformation(np.eye(2) + rng.normal(0, 0.3, (2, 2)), rng.normal(0, 30, 2))


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_transformations_compose_and_invert(seed):
    rng = np.random.default_rng(seed)
    one, two = random_transformation(rng), random_transformation(rng)
    point, shift = rng.normal(0, 50, (2, 2))

    def apply(transformation, p):
        return transformation.matrix @ p + transformation.offset

    assert_allclose(apply(one.then(two), point), apply(two, apply(one, point)))
    assert_allclose(apply(one.then(one.inverse()), point), point, atol=1e-6)
    assert_allclose(apply(one.after_shift(shift), point), apply(one, point - shift))
    # Pixel k of a thumbnail of half the size covers pixels 2 k and 2 k + 1.
    assert_allclose(2 * apply(one.halved(), (point - 0.5) / 2) + 0.5, apply(one, point))
    assert_allclose(one.halved().doubled().offset, one.offset)


def correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    # One unit of noise per pixel, as documented.
    return (a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + a.size)


def test_tile_correlations_are_those_of_a_loop():
    first, second = texture(0, (50, 63)), texture(1, (50, 63))
    moved = first + 0.8 * second
    inside = np.zeros(first.shape, bool)
    inside[5:46, 10:60] = True  # 41 x 50: tiles of 10 x 12
    inside[5:10, 10:22] = False
    expected = []
    for row in range(4):
        for column in range(4):
            tile = slice(5 + 10 * row, 15 + 10 * row), slice(10 + 12 * column, 22 + 12 * column)
            if (row, column) != (0, 0):  # half of it is unknown
                expected.append(correlation(first[tile], moved[tile]))
    assert_allclose(tile_correlations(first, moved, inside), expected, rtol=1e-4)
    assert len(tile_correlations(first, moved, np.zeros_like(inside))) == 0


def test_best_other_shift_is_that_of_a_loop():
    """The masked correlation of all shifts, pixel by pixel."""
    first = texture(2, (33, 40), 2)
    moved = texture(3, (33, 40), 2)
    moved[:14] += first[19:]  # as similar 19 rows further down
    inside = np.zeros(first.shape, bool)
    inside[:22, 5:38] = True
    known = np.zeros(first.shape, bool)
    known[2:-2, 2:-2] = True
    found = {}
    for down in range(-32, 33):
        for right in range(-39, 40):
            rows, columns = np.nonzero(inside)
            there = (rows + down, columns + right)
            ok = (there[0] >= 0) & (there[0] < 33) & (there[1] >= 0) & (there[1] < 40)
            ok[ok] &= known[there[0][ok], there[1][ok]]
            a = first[there[0][ok], there[1][ok]]
            b = moved[rows[ok], columns[ok]]
            if ok.any():
                found[down, right] = ok.sum(), correlation(a, b)
    here = found[0, 0]
    other = {
        shift: value
        for shift, (count, value) in found.items()
        if np.hypot(*shift) > 12 and count >= 0.5 * here[0]
    }
    best = max(other, key=other.get)
    result = best_other_shift(first, moved, inside)
    assert_allclose(result[:2], [here[1], other[best]], atol=1e-4)
    assert tuple(result[2]) == best


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    down=st.floats(-60, 60),
    right=st.floats(-60, 60),
    growth=st.floats(-0.05, 0.05),
    error=st.tuples(st.floats(-12, 12), st.floats(-12, 12)),
)
def test_a_known_transformation_is_recovered(seed, down, right, growth, error):
    scene = texture(seed, (330, 330), 2)
    truth = Transformation(np.eye(2) * (1 + growth), np.array([down, right]))
    first = scene[80:240, 80:240]
    # second(q) = first(truth^-1 q)
    back = truth.inverse()
    second = affine_transform(
        scene, back.matrix, back.offset + 80, output_shape=(160, 160), order=3
    )
    start = Transformation(np.eye(2), truth.offset + np.array(error))
    found = register(first, second.astype(np.float32), start)
    assert found.similarity > 0.9
    assert found.distinctness > 0.75
    corners = np.array([[40, 40], [40, 120], [120, 40], [120, 120]]) - np.array([down, right])
    for point in np.clip(corners, 0, 159):
        place = found.transformation.matrix @ point + found.transformation.offset
        assert_allclose(place, truth.matrix @ point + truth.offset, atol=1.0)


def test_different_textures_do_not_register():
    for seed in range(5):
        start = Transformation(np.eye(2), np.zeros(2))
        assert register(texture(seed), texture(seed + 100), start) is None


@pytest.mark.parametrize("sample", range(2))
def test_two_places_of_a_lattice_are_similar_but_not_distinct(sample):
    images, _ = make_lattice_images(4, images_per_sample=2, random_state=6)
    image = images[2 * sample]
    first, other, copy = (
        make_thumbnail(pixels).astype(np.float32)
        for pixels in (image[:200, :200], images[2 * sample + 1][:200, :200], image[9:209, 9:209])
    )
    start = Transformation(np.eye(2), np.zeros(2))
    genuine = register(first, copy, start)
    assert genuine.similarity > 0.9
    assert genuine.distinctness > 0.6
    assert_allclose(genuine.transformation.offset, -9 * 160 / 200, atol=1)
    alike = register(first, other, start)
    assert alike is None or alike.distinctness < 0.3


def test_phase_correlation_sees_noise_through_a_lattice():
    rows, columns = np.mgrid[:180, :180]
    lattice = 100 * np.cos(rows / 1.5) * np.cos(columns / 1.5)
    scene = (lattice + texture(5, (180, 180), 1)).astype(np.float32)
    shift = phase_shift(scene[:160, :160], scene[13:173, 7:167])
    assert shift.tolist() == [13, 7]
