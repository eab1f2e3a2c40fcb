"""Structure tensor, histograms, noise and window grid against slow oracles and known values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support.fibre_images import stripes

from hypervlad.fibres import axial_difference
from hypervlad.fibres.gradients import (
    gaussian_smooth,
    gradient_noise,
    image_gradients,
    noise_deviation,
    normalised_contrast,
    tensor_axes,
    tensor_energy,
)
from hypervlad.fibres.orientation import bin_axes, direction_histograms
from hypervlad.fibres.regions import TileGrid


def slow_histogram(down, right, n_bins):
    """Gradient by gradient."""
    table = np.zeros(n_bins)
    for dy, dx in zip(down.ravel(), right.ravel(), strict=True):
        along = np.arctan2(-dy, dx) + np.pi / 2  # y up; fibres run across gradients
        place = along % np.pi / np.pi * n_bins
        low, share = int(place), place % 1
        table[low % n_bins] += (1 - share) * (dx**2 + dy**2)
        table[(low + 1) % n_bins] += share * (dx**2 + dy**2)
    return table


def test_histograms_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    down, right = rng.standard_normal((2, 20, 30)).astype(np.float32)
    grid = TileGrid.over((20, 30), 10)
    table = direction_histograms(down, right, grid, 12)
    for i in range(2):
        for j in range(3):
            own = (slice(10 * i, 10 * i + 10), slice(10 * j, 10 * j + 10))
            assert_allclose(table[i, j], slow_histogram(down[own], right[own], 12), rtol=1e-3)
    assert_allclose(bin_axes(4), [1, 1j, -1, -1j], atol=1e-12)


def slow_tensor(image, sigma, place):
    """Products of gradients about one pixel, by a loop."""
    total, weights = np.zeros(3), 0.0
    reach = int(3 * sigma + 0.5)
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            r, c = place[0] + i, place[1] + j
            near = image[r - 1 : r + 2, c - 1 : c + 2].astype(np.float64)
            dx = (near[:, 2] - near[:, 0]) @ [9, 32, 9] / 100
            dy = -(near[2] - near[0]) @ [9, 32, 9] / 100
            weight = np.exp(-(i**2 + j**2) / (2 * sigma**2))
            total += weight * np.array([dx * dx, dx * dy, dy * dy])
            weights += weight
    return total / weights


def test_the_tensor_is_that_of_the_definition():
    image = np.random.default_rng(1).random((48, 48), dtype=np.float32)
    gradients = image_gradients(image)
    energy, (cosine, sine) = tensor_energy(*gradients, 1.5), tensor_axes(*gradients, 1.5)
    for place in ((20, 20), (24, 27)):
        xx, xy, yy = slow_tensor(gaussian_smooth(image, 1.0), 1.5, place)
        assert energy[place] == pytest.approx(xx + yy, rel=1e-4)
        values, vectors = np.linalg.eigh([[xx, xy], [xy, yy]])
        x, y = vectors[:, 0]  # of the smaller eigenvalue: along the fibre
        angle = 0.5 * np.arctan2(sine[place], cosine[place])
        assert axial_difference(angle, np.arctan2(y, x)) < 1e-3
        length = np.hypot(cosine[place], sine[place])
        assert length == pytest.approx(values[1] - values[0], rel=1e-3)


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_noise_has_the_energy_that_is_subtracted(sigma):
    image = normalised_contrast(np.random.default_rng(2).standard_normal((400, 400)))
    noise = gradient_noise(image, sigma)
    gradients = image_gradients(image)
    energy, axes = tensor_energy(*gradients, sigma), np.stack(tensor_axes(*gradients, sigma))
    # Away from the borders, whose repeated pixels are averaged to less effect.
    energy, axes = energy[20:-20, 20:-20], axes[:, 20:-20, 20:-20]
    assert noise.energy == pytest.approx(energy.mean(), rel=0.05)
    assert noise.energy_scatter == pytest.approx(energy.std() / energy.mean(), rel=0.05)
    assert noise.axis_scatter == pytest.approx(axes.std() / energy.mean(), rel=0.05)


def test_sums_of_noise_scatter_as_they_should():
    image = normalised_contrast(np.random.default_rng(2).standard_normal((960, 960)))
    noise = gradient_noise(image, 1.5)
    energy = tensor_energy(*image_gradients(image), 1.5)
    sums = TileGrid.over(energy.shape, 32).sums(energy)[1:-1, 1:-1]
    expected = noise.energy * noise.total_scatter * 32
    assert sums.std() == pytest.approx(expected, rel=0.1)


def test_noise_is_estimated_beside_edges():
    rng = np.random.default_rng(3)
    image = (0.5 + 0.3 * stripes(0.6, (200, 200), period=12)).astype(np.float32)
    assert noise_deviation(image) < 0.005
    noisy = image + 0.05 * rng.standard_normal(image.shape).astype(np.float32)
    assert noise_deviation(noisy) == pytest.approx(0.05, rel=0.05)


def test_noise_is_that_within_the_mask():
    noisy = 0.05 * np.random.default_rng(3).standard_normal((240, 300)).astype(np.float32)
    mask = np.hypot(*np.indices(noisy.shape)) < 180
    assert noise_deviation(np.where(mask, noisy, 0), mask) == pytest.approx(0.05, rel=0.05)
    assert noise_deviation(noisy, np.zeros(noisy.shape, bool)) == noise_deviation(noisy)


@given(st.integers(2, 200), st.integers(2, 200), st.integers(2, 64))
def test_windows_cover_each_pixel_once(height, width, window):
    grid = TileGrid.over((height, width), window)
    assert grid.areas.sum() == height * width
    for edges, extent in ((grid.rows, height), (grid.columns, width)):
        sides = np.diff(edges)
        assert sides.max() - sides.min() <= 1
        if extent >= window:
            assert 0.75 * window - 1 <= sides.min() <= sides.max() <= 1.5 * window + 1
    values = np.random.default_rng(0).random((height, width))
    assert grid.sums(values).sum() == pytest.approx(values.sum())
    numbers = grid.expand(np.arange(grid.size).reshape(grid.shape))
    assert_array_equal(np.bincount(numbers.ravel()), grid.areas.ravel())
