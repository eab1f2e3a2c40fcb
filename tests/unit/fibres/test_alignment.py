"""The aligned fraction: a slow oracle, constructed regions, known truth, bad input."""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter, zoom
from support.fibre_images import cells, stripes

from hypervlad.data import make_fibre_images
from hypervlad.fibres import (
    aligned_fraction,
    aligned_fraction_of_map,
    axial_difference,
    axial_statistics,
)
from hypervlad.images import ImageReadError


def fractions_by_the_rule(orientation, window, tolerance):
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


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([4, 8]), st.floats(0.05, 1.5))
def test_fractions_are_those_of_the_rule(seed, window, tolerance):
    rng = np.random.default_rng(seed)
    spread = np.kron(rng.uniform(0, 0.8, (3, 4)), np.ones((8, 8)))
    orientation = rng.normal(rng.uniform(0, np.pi), 1, (24, 32)) * spread
    orientation[rng.random((24, 32)) < np.kron(rng.uniform(0, 1, (3, 4)), np.ones((8, 8)))] = np.nan
    found = aligned_fraction_of_map(orientation, window, tolerance)
    expected = fractions_by_the_rule(orientation, window, tolerance)
    assert_allclose((found.fraction, found.fibre_fraction), expected, rtol=1e-12)
    # True directions are known, so only what differs in the image is uncertain.
    assert_array_equal(astuple(found.fraction_range), [found.fraction] * 2)


def test_regions_of_constructed_images():
    found = aligned_fraction(cells(np.deg2rad([[40, 40, 100, 100], [40, 40, 40, 100]])))
    assert found.fraction == 1
    assert [region.n_windows for region in found.regions] == [5, 3]
    degrees = [np.rad2deg(region.mean_angle) for region in found.regions]
    assert degrees == pytest.approx([40, 100], abs=3)
    assert [region.area for region in found.regions] == [5 * 32**2, 3 * 32**2]
    assert found.regions[1].box == (0, 64, 64, 128)
    assert min(region.order for region in found.regions) > 0.8
    assert_array_equal(found.labels[::32, ::32], [[1, 1, 2, 2], [1, 1, 1, 2]])
    assert [int((found.labels == k).sum()) for k in (1, 2)] == [5 * 32**2, 3 * 32**2]


def fraction_of_cells(degrees, **options):
    angles = np.deg2rad(np.atleast_2d(degrees))
    return aligned_fraction_of_map(np.kron(angles, np.ones((8, 8))), window=8, **options)


def test_a_region_may_cross_zero_degrees_and_turn_slowly_through_any_angle():
    found = fraction_of_cells([170.0, 178, 4, 12, 60])
    assert [region.n_windows for region in found.regions] == [4, 1]
    assert axial_difference(found.regions[0].mean_angle, np.deg2rad(1)) < 1e-6
    assert found.regions[0].order > 0.9
    angles = np.arange(0, 180, 15.0)
    (region,) = fraction_of_cells(angles).regions
    assert region.order < 0.1
    assert len(fraction_of_cells(angles, tolerance=np.deg2rad(14)).regions) == 12


def test_windows_that_single_fibres_fill_are_noted(recwarn):
    drawn = {"diameter": 14, "cover": 0.5, "size": (320, 384), "random_state": 1}
    (image,), _ = make_fibre_images(1, aligned=0, **drawn)
    assert aligned_fraction(image).fraction == pytest.approx(0.59, abs=0.01)
    words = "(59% of windows of 32 px are aligned, about 27% of those of 64 px)"
    assert words in str(recwarn.pop(UserWarning).message)
    aligned_fraction([image, image[::-1]])
    assert str(recwarn.pop(UserWarning).message).count(words) == 2
    aligned_fraction(image, HalfModel(np.full((10, 12), 0.9)))  # which may know single fibres
    (image,), _ = make_fibre_images(1, aligned=1, **drawn)
    assert aligned_fraction(image).fraction > 0.9
    assert len(recwarn) == 0


def test_a_map_of_background_has_no_fraction():
    found = aligned_fraction_of_map(np.full((64, 64), np.nan))
    assert np.isnan([found.fraction, found.fibre_fraction]).all()
    assert (found.regions, found.background.all()) == ((), True)
    assert (found.statistics, found.expected_fraction) == (None, None)
    assert not found.order.any()
    assert np.isinf(found.spread).all()


@pytest.mark.parametrize("blur", [0.01, 1])
def test_noise_does_not_look_aligned(blur):
    for noise in np.random.default_rng(0).standard_normal((4, 256, 256)):
        gaussian_filter(noise, blur, output=noise)
        assert np.nan_to_num(aligned_fraction(noise).fraction) == 0
        noise[:, 120:128] += 9 * noise.std()  # beside a wire, noise is background
        assert aligned_fraction(noise).background.mean() > 0.6


@pytest.fixture(scope="module", params=[9, 29])
def clean_and_noisy(request):
    """Parallel wires, without noise and with half as much noise as contrast."""
    options = {"aligned": 1, "cover": 0.5, "diameter": 7, "size": 192, "look": "round"}
    made = [
        make_fibre_images(1, contrast_to_noise=snr, random_state=request.param, **options)
        for snr in (np.inf, 3.5)
    ]
    return made[0][0][0], made[1][0][0], made[0][1][0]


@pytest.mark.filterwarnings("ignore:.*as dark or as bright as possible")
def test_noise_is_corrected_for(clean_and_noisy):
    """Without it the order would fall by 0.044 or more, and the spread grow by 3.6 degrees."""
    found, noisy = map(aligned_fraction, clean_and_noisy[:2])
    assert np.rad2deg(abs(np.median(noisy.spread) - np.median(found.spread))) < 2
    found, noisy = found.statistics, noisy.statistics
    assert noisy.order == pytest.approx(found.order, abs=0.035)
    assert axial_difference(noisy.mean, found.mean) < np.deg2rad(2)
    assert found.spread == pytest.approx(np.sqrt(-2 * np.log(found.order)) / 2)
    truth = clean_and_noisy[2]
    order = axial_statistics(truth.orientation[truth.fibres >= 0]).order
    assert truth.aligned_fraction().statistics.order == pytest.approx(order, abs=0.01)
    # Intervals hold the truth, also where noise makes less order of it.
    for each in map(aligned_fraction, clean_and_noisy[:2]):
        (least, most), (low, high) = map(astuple, (each.fraction_range, each.fraction_interval))
        assert low <= least < each.fraction <= most <= high
        assert low <= truth.aligned_fraction().fraction <= high
        assert each.statistics.order_interval.low < order <= each.statistics.order_interval.high


@pytest.mark.filterwarnings("ignore:.*as dark or as bright as possible", "ignore:enlarged by a")
def test_noise_that_was_enlarged_is_corrected_for(clean_and_noisy):
    clean, _, truth = clean_and_noisy
    noise = 0.15 * np.random.default_rng(0).standard_normal(clean.shape)
    found = aligned_fraction(zoom(clean + noise, 2)).statistics.order
    assert found == pytest.approx(truth.aligned_fraction().statistics.order, abs=0.07)


@pytest.mark.parametrize("move", [np.fliplr, np.flipud, np.transpose, lambda each: 3 - 2 * each])
def test_turned_and_inverted_images_have_the_same_fraction(move):
    image = cells(np.deg2rad([[40, 40, 100], [40, 130, 100], [10, 20, 100]]))
    noise = np.random.default_rng(0).standard_normal(image.shape)
    image[:32] = noise[:32]
    found, moved = aligned_fraction(image), aligned_fraction(move(image))
    assert moved.fraction == pytest.approx(found.fraction)
    assert moved.fibre_fraction == pytest.approx(found.fibre_fraction, abs=0.02)
    areas = ([region.area for region in each.regions] for each in (found, moved))
    assert next(areas) == next(areas)


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


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.where(np.eye(64) > 0, np.nan, 1.0), "NaN"),
        (np.random.default_rng(0).random((64, 31)), "larger than the image of 64 x 31"),
        (np.random.default_rng(0).random((2, 2)), "a gradient needs 3 x 3"),
        (np.random.default_rng(0).random((3, 9)), "more than half of the image of 3 x 9"),
    ],
)
def test_invalid_images_are_rejected(image, words):
    with pytest.raises(ImageReadError, match=rf"^image 1 of the list .*: .*{words}"):
        aligned_fraction([stripes(0.3), image])


def test_a_flat_image_among_others_has_a_reason():
    with pytest.warns(
        UserWarning, match="image 1 of the list .*: nothing is measured: the image is"
    ):
        whole, flat = aligned_fraction([stripes(0.3), np.zeros((64, 64))])
    assert (whole.reason, flat.reason, flat.regions) == (None, "the image is flat", ())
    assert flat.background.all()


MAP = np.zeros((40, 40))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda image: aligned_fraction(image, window=1), "at least 2"),
        (lambda image: aligned_fraction(image, tolerance=20), r"of degrees np\.deg2rad"),
        (lambda image: aligned_fraction(image, HalfModel), "or a model with a method"),
        (lambda image: aligned_fraction(image, HalfModel(np.full((3, 3), np.nan))), "a probabili"),
        (lambda image: aligned_fraction(image, sigma=0), "a number of pixels above 0, not 0"),
        (lambda image: aligned_fraction_of_map(np.zeros(5)), "map of directions"),
        (lambda image: aligned_fraction_of_map(MAP + np.inf), "got infinity"),
    ],
)
def test_invalid_parameters_and_maps_are_rejected(call, words):
    with pytest.raises(ValueError, match=words):
        call(stripes(0.3))
