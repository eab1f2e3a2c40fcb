"""The aligned fraction: a slow oracle, constructed regions, known truth, bad input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from support.fibre_images import cells, stripes

from hypervlad.data import make_nanowire_images
from hypervlad.fibres import (
    AlignmentRecipe,
    aligned_fraction,
    aligned_fraction_of_map,
    axial_difference,
    axial_statistics,
    local_orientation,
)
from hypervlad.fibres.alignment import background_windows
from hypervlad.images import ImageReadError

METHODS = ["structure_tensor", "lgo"]
TOLERANCE = np.deg2rad(20)


def slow_fractions(orientation, window, tolerance):
    """Window by window, by the rule."""
    area = aligned = fibre = aligned_fibre = 0
    for top in range(0, orientation.shape[0], window):
        for left in range(0, orientation.shape[1], window):
            own = orientation[top : top + window, left : left + window]
            known = own[np.isfinite(own)]
            if known.size == 0 or known.size < 0.1 * own.size:
                continue
            area, fibre = area + own.size, fibre + known.size
            if axial_statistics(known).spread < tolerance:
                aligned, aligned_fibre = aligned + own.size, aligned_fibre + known.size
    return (aligned / area, aligned_fibre / fibre) if area else (np.nan, np.nan)


@pytest.mark.slow  # a slow oracle on 100 maps
@given(st.integers(0, 10**6), st.sampled_from([4, 8]), st.floats(0.05, 1.5))
def test_fractions_are_those_of_the_rule(seed, window, tolerance):
    rng = np.random.default_rng(seed)
    spread = np.kron(rng.uniform(0, 0.8, (3, 4)), np.ones((8, 8)))
    orientation = rng.normal(rng.uniform(0, np.pi), 1, (24, 32)) * spread
    orientation[rng.random((24, 32)) < np.kron(rng.uniform(0, 1, (3, 4)), np.ones((8, 8)))] = np.nan
    found = aligned_fraction_of_map(orientation, None, window, tolerance)
    expected = slow_fractions(orientation, window, tolerance)
    assert_allclose((found.fraction, found.fibre_fraction), expected, rtol=1e-12)


def slow_regions(aligned, angle, tolerance):
    """Grow each region from its first window."""
    labels, n = np.zeros(aligned.shape, int), 0
    for start in zip(*np.nonzero(aligned), strict=True):
        if labels[start]:
            continue
        n += 1
        labels[start], edge = n, [start]
        while edge:
            i, j = edge.pop()
            for k, l in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):  # noqa: E741
                inside = 0 <= k < aligned.shape[0] and 0 <= l < aligned.shape[1]
                if not inside or not aligned[k, l] or labels[k, l]:
                    continue
                if axial_difference(angle[i, j], angle[k, l]) <= tolerance:
                    labels[k, l] = n
                    edge.append((k, l))
    return labels


@given(st.integers(0, 10**6))
def test_regions_are_those_grown_from_a_window(seed):
    rng = np.random.default_rng(seed)
    angles = rng.choice(np.deg2rad([0, 15, 30, 90, 170]), (6, 7))
    angles[rng.random((6, 7)) < 0.2] = np.nan
    found = aligned_fraction_of_map(np.kron(angles, np.ones((4, 4))), window=4, tolerance=TOLERANCE)
    expected = slow_regions(found.aligned, found.angle, TOLERANCE)
    own = found.labels[::4, ::4]
    pairs = set(zip(own.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    areas = [region.area for region in found.regions]
    assert areas == sorted(areas, reverse=True)
    assert areas == [int((found.labels == region.label).sum()) for region in found.regions]


@pytest.mark.parametrize("method", METHODS)
def test_regions_of_constructed_images(method):
    angles = np.deg2rad([[40, 40, 100, 100], [40, 40, 40, 100]])
    found = aligned_fraction(cells(angles), method)
    assert found.fraction == 1
    assert [region.n_windows for region in found.regions] == [5, 3]
    degrees = [np.rad2deg(region.mean_angle) for region in found.regions]
    assert degrees == pytest.approx([40, 100], abs=3)
    assert [region.area for region in found.regions] == [5 * 32**2, 3 * 32**2]
    assert found.regions[1].box == (0, 64, 64, 128)
    assert min(region.order for region in found.regions) > 0.8
    assert_array_equal(found.labels[::32, ::32], [[1, 1, 2, 2], [1, 1, 1, 2]])


def fraction_of_cells(degrees, **options):
    angles = np.deg2rad(np.atleast_2d(degrees))
    return aligned_fraction_of_map(np.kron(angles, np.ones((8, 8))), window=8, **options)


def test_a_region_may_cross_zero_degrees():
    found = fraction_of_cells([170.0, 178, 4, 12, 60])
    assert [region.n_windows for region in found.regions] == [4, 1]
    assert axial_difference(found.regions[0].mean_angle, np.deg2rad(1)) < 1e-6
    assert found.regions[0].order > 0.9


def test_a_region_may_turn_slowly_through_any_angle():
    angles = np.arange(0, 180, 15.0)
    (region,) = fraction_of_cells(angles).regions
    assert region.order < 0.1
    assert len(fraction_of_cells(angles, tolerance=np.deg2rad(14)).regions) == 12


def test_a_map_of_background_has_no_fraction():
    found = aligned_fraction_of_map(np.full((64, 64), np.nan))
    assert np.isnan([found.fraction, found.fibre_fraction]).all()
    assert (found.regions, found.background.all()) == ((), True)
    assert (found.statistics, found.expected_fraction) == (None, None)
    assert not found.order.any()
    assert np.isinf(found.spread).all()


def test_fibre_counts_where_windows_are_half_empty():
    orientation = np.full((32, 64), 0.3)
    orientation[:, 32:] = np.random.default_rng(0).uniform(0, np.pi, (32, 32))
    orientation[16:, :32] = np.nan
    found = aligned_fraction_of_map(orientation)
    assert (found.fraction, found.fibre_fraction) == (0.5, pytest.approx(1 / 3))
    assert found.regions[0].fibre_area == 512


# --- noise and contrast --------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("blur", [0, 1])
def test_noise_does_not_look_aligned(method, blur):
    fractions = []
    for seed in range(8):
        noise = np.random.default_rng(seed).standard_normal((256, 256))
        image = gaussian_filter(noise, blur) if blur else noise
        fractions.append(aligned_fraction(image, method).fraction)
    assert np.nan_to_num(fractions).max() == 0


@pytest.fixture(scope="module", params=[9, 29])
def clean_and_noisy(request):
    """Parallel wires, without noise and at an SNR of 2."""
    options = {"aligned": 1, "density": 0.5, "width": 7, "size": 192}
    made = [
        make_nanowire_images(1, snr=snr, random_state=request.param, **options)
        for snr in (np.inf, 2.0)
    ]
    return made[0][0][0], made[1][0][0], made[0][1][0]


def test_the_spread_of_windows_is_corrected_for_noise(clean_and_noisy):
    """Without the correction it would be 3.6 to 4.8 degrees more."""
    clean, noisy, _ = clean_and_noisy
    spreads = [np.median(aligned_fraction(each).spread) for each in (clean, noisy)]
    assert np.rad2deg(abs(spreads[1] - spreads[0])) < 2


@pytest.mark.parametrize("method", METHODS)
def test_statistics_of_all_windows(clean_and_noisy, method):
    """Without the correction the order would decrease by 0.044 or more."""
    found, noisy = (aligned_fraction(each, method).statistics for each in clean_and_noisy[:2])
    assert noisy.order == pytest.approx(found.order, abs=0.035)
    assert axial_difference(noisy.mean, found.mean) < np.deg2rad(2)
    assert found.spread == pytest.approx(np.sqrt(-2 * np.log(found.order)) / 2)


def test_true_statistics_are_those_of_the_wires(clean_and_noisy):
    truth = clean_and_noisy[2]
    order = axial_statistics(truth.orientation[truth.wires]).order
    assert truth.aligned_fraction().statistics.order == pytest.approx(order, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_one_pass_gives_what_two_give(clean_and_noisy, method):
    for image in clean_and_noisy[:2]:
        both = AlignmentRecipe(method, window=24, sigma=2.0, pixel_size=3.0).find(image)
        orientation, found = both.orientation, both.aligned
        alone = aligned_fraction(image, method, 24, sigma=2.0)
        for name in ("labels", "aligned", "background", "angle", "order", "spread"):
            assert_array_equal(getattr(found, name), getattr(alone, name))
        assert (found.fraction, found.statistics) == (alone.fraction, alone.statistics)
        pixels = local_orientation(image, 2.0, method=method)
        for name in ("orientation", "coherence", "energy", "mask"):
            assert_array_equal(getattr(orientation, name), getattr(pixels, name))
        assert (orientation.sigma, orientation.pixel_size) == (2.0, 3.0)


@pytest.mark.parametrize("window", [8, 45])
def test_background_windows_are_the_background(clean_and_noisy, window):
    clean, noisy, _ = clean_and_noisy
    noise = np.random.default_rng(0).standard_normal(clean.shape)
    for image in (clean, noisy, noise):
        expected = aligned_fraction(image, window=window).background
        assert_array_equal(background_windows(image, window), expected)


# --- models ---------------------------------------------------------------------------------------


@dataclass
class HalfModel:
    """A model by which the windows of the upper half are aligned."""

    proba: Any = None

    def aligned_proba(self, image, rows, columns):
        if self.proba is not None:
            return self.proba
        proba = np.zeros((len(rows) - 1, len(columns) - 1))
        proba[rows[:-1] < np.shape(image)[0] / 2] = 0.9
        return proba


def test_a_model_classifies_windows():
    found = aligned_fraction(stripes(0.5, (128, 96)), HalfModel())
    assert found.fraction == 0.5
    assert found.proba is not None
    assert found.expected_fraction == pytest.approx(0.45)
    assert_array_equal(found.aligned, [[True] * 3] * 2 + [[False] * 3] * 2)
    assert found.regions[0].mean_angle == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("proba", [[0.5], np.full((3, 3), np.nan)])
def test_invalid_probabilities_of_a_model_are_rejected(proba):
    with pytest.raises(ValueError, match=r"HalfModel\.aligned_proba: expected a probability"):
        aligned_fraction(stripes(0.5), HalfModel(proba))


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64, 64)), "is flat"),
        (np.where(np.eye(64) > 0, np.nan, 1.0), "NaN"),
        (np.random.default_rng(0).random((64, 64, 3)), "has colours"),
        (np.random.default_rng(0).random((64, 31)), "larger than the image of 64 x 31"),
        (np.random.default_rng(0).random((2, 2)), "a gradient needs 3 x 3"),
        (np.random.default_rng(0).random((3, 9)), "more than half of the image of 3 x 9"),
    ],
)
def test_invalid_images_are_rejected(image, message):
    with pytest.raises(ImageReadError, match=rf"^a\.png: .*{message}"):
        aligned_fraction(image, name="a.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1}, "at least 2"),
        ({"tolerance": 20}, "of degrees np.deg2rad"),
        ({"method": "fft"}, "must be one of 'structure_tensor', 'lgo'"),
        ({"method": HalfModel}, "or a model with a method"),
        ({"sigma": 0}, "sigma must be a number of pixels above 0, not 0"),
        ({"image": "wires.tif"}, "read it first"),
    ],
)
def test_invalid_parameters_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        aligned_fraction(**{"image": stripes(0.3), **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(5),), "map of directions"),
        ((np.full((40, 40), np.inf),), "got infinity"),
        ((np.zeros((40, 40)), np.ones((2, 2))), "one for each of 40 x 40"),
        ((np.zeros((40, 40)), -np.ones((40, 40))), "at least 0"),
    ],
)
def test_invalid_maps_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        aligned_fraction_of_map(*arguments)
