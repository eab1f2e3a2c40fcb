"""Local orientation: known directions, what gain and turning must not change, bad input."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import binary_dilation, gaussian_filter
from skimage.feature import structure_tensor, structure_tensor_eigenvalues
from support.fibre_images import stripes

from hypervlad.datasets import make_nanowire_images
from hypervlad.fibres import axial_difference, local_orientation
from hypervlad.fibres.background import gradient_noise, noise_deviation
from hypervlad.fibres.contrast import as_contrast
from hypervlad.fibres.gradients import (
    averaged_tensor,
    bin_axes,
    direction_histograms,
    gradients_of,
    smoothed,
)
from hypervlad.fibres.tiles import TileGrid

METHODS = ["structure_tensor", "lgo"]


def median_error(found, truth):
    """Median over the pixels that are fibre and found to be, in degrees."""
    both = found.mask & np.isfinite(truth)
    return np.rad2deg(np.median(axial_difference(found.orientation[both], truth[both])))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("degrees", [0, 10, 37, 45, 90, 135, 179])
def test_stripes_have_their_direction(method, degrees):
    found = local_orientation(stripes(np.deg2rad(degrees)), 3.0, method=method)
    inside = (slice(12, -12), slice(12, -12))
    error = axial_difference(found.orientation[inside], np.deg2rad(degrees))
    assert np.rad2deg(error).max() < 1.0
    assert found.coherence[inside].min() > 0.95
    assert found.mask[inside].all()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(METHODS), st.floats(0, np.pi), st.floats(4, 11))
def test_stripes_of_any_period_have_their_direction(method, angle, period):
    found = local_orientation(stripes(angle, (64, 64), period), 1.75, method=method)
    inside = (slice(16, -16), slice(16, -16))
    assert found.mask[inside].all()
    error = np.median(axial_difference(found.orientation[inside], angle))
    assert np.rad2deg(error) < (0.2 if method == "structure_tensor" else 0.3)


def mirrored(directions):
    return np.pi - directions[:, ::-1]


def transposed(directions):
    return np.pi / 2 - directions.T


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.sampled_from([(np.fliplr, mirrored), (np.transpose, transposed)]),
    st.integers(0, 10**6),
)
def test_a_mirrored_image_has_mirrored_directions(method, kind, seed):
    turn, turned = kind
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.standard_normal((60, 80)), (1, 3)) + 0.02 * rng.random((60, 80))
    before, after = (local_orientation(each, 2.0, method=method) for each in (image, turn(image)))
    mask = turn(before.mask)
    assert (mask == after.mask).mean() > 0.98
    both = mask & after.mask
    apart = axial_difference(after.orientation[both], turned(before.orientation)[both])
    assert np.quantile(apart, 0.98) < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_results_are_what_they_say(method):
    image = stripes(0.4, (70, 91))
    image[:, 40:] = 0
    found = local_orientation(image, 2, method=method)
    for values in (found.orientation, found.coherence, found.energy):
        assert (values.shape, values.dtype) == ((70, 91), np.float32)
        assert np.isfinite(values).all()
        assert not values[~found.mask].any()
    assert found.mask.dtype == bool
    assert found.mask[10:-10, 10:30].all()
    assert not found.mask[:, 60:].any()
    assert found.coherence.max() <= 1
    assert 0 <= found.orientation.min() <= found.orientation.max() < np.pi
    assert (found.sigma, found.pixel_size, found.method) == (2, None, method)


@pytest.mark.parametrize("method", METHODS)
def test_wires_beside_each_other_have_their_directions(method):
    images, truths = make_nanowire_images(
        3, density=0.4, width=9, overlap=0, snr=np.inf, size=256, random_state=0
    )
    for image, truth in zip(images, truths, strict=True):
        assert median_error(local_orientation(image, 3.0, method=method), truth.orientation) <= 1


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.floats(0.01, 100).flatmap(lambda gain: st.sampled_from([gain, -gain])),
    st.floats(-5, 5),
)
def test_gain_offset_and_sign_of_the_contrast_do_not_matter(method, gain, offset):
    image = scene()
    before = local_orientation(image, 2.0, method=method)
    after = local_orientation(gain * image.astype(np.float64) + offset, 2.0, method=method)
    assert (before.mask == after.mask).mean() > 0.999
    both = before.mask & after.mask
    apart = axial_difference(before.orientation[both], after.orientation[both])
    assert np.quantile(apart, 0.99) < 1e-3
    assert_allclose(after.energy[both], before.energy[both], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_image_has_turned_directions(method, turns):
    image = scene()
    before, after = (
        local_orientation(each, 2.0, method=method) for each in (image, np.rot90(image, turns))
    )
    mask = np.rot90(before.mask, turns)
    assert (mask == after.mask).mean() > 0.995
    expected = np.rot90(before.orientation, turns) + turns * np.pi / 2
    both = mask & after.mask
    apart = axial_difference(after.orientation[both], expected[both])
    assert np.quantile(apart, 0.98) < 0.01


def scene():
    (image,), _ = make_nanowire_images(1, width=8, density=0.5, size=96, random_state=4)
    return image


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float64])
def test_types_of_pixels_do_not_matter(kind):
    image = np.rint(200 * scene())
    expected = local_orientation(image.astype(np.float32), 2.0)
    found = local_orientation(image.astype(kind), 2.0)
    assert_allclose(found.orientation, expected.orientation, atol=1e-4)


def test_numbers_may_be_huge_or_far_from_zero():
    image = stripes(0.7)
    expected = local_orientation(image, 2.0).orientation
    for other in (
        1.5e308 * image.astype(np.float64),
        1e-300 * image.astype(np.float64),
        3e38 * image,
    ):
        assert_allclose(local_orientation(other, 2.0).orientation, expected, atol=1e-3)
    far = local_orientation(1e6 + image.astype(np.float64), 2.0)
    assert_allclose(far.orientation, expected, atol=1e-3)


def test_a_pixel_size_makes_sigma_nanometres():
    image = scene()
    found, same = local_orientation(image, 5.0, pixel_size=2.5), local_orientation(image, 2.0)
    assert (found.sigma, found.pixel_size) == (2.0, 2.5)
    assert_array_equal(found.orientation, same.orientation)


def test_noise_alone_is_mostly_background():
    (image,), (truth,) = make_nanowire_images(
        1, density=0.05, width=8, snr=3, size=256, random_state=0
    )
    empty = ~binary_dilation(truth.wires, iterations=10)
    for method in METHODS:
        assert local_orientation(image, 3.0, method=method).mask[empty].mean() < 0.05
        assert local_orientation(image, 3.0, method=method).mask[truth.wires].mean() > 0.9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("width", "density", "precision", "recall", "widened"),
    [(5, 0.1, 0.35, 0.97, 3.2), (8, 0.5, 0.6, 0.9, 1.7), (15, 0.5, 0.6, 0.65, 1.4)],
)
def test_the_mask_is_wires_widened(method, width, density, precision, recall, widened):
    """No segmentation: narrow wires are widened, wide ones hollow."""
    (image,), (truth,) = make_nanowire_images(
        1, width=width, density=density, snr=8, blur=0.8, size=256, random_state=12
    )
    mask = local_orientation(image, 1.75, method=method).mask
    both = (mask & truth.wires).sum()
    assert precision < both / mask.sum() < precision + 0.3
    assert both / truth.wires.sum() > recall
    assert widened - 1.2 < mask.sum() / truth.wires.sum() < widened


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.integers(0, 10**6),
    st.integers(1, 12),
    st.sampled_from([3, -3, 10, 64, -1000]),
)
def test_hot_pixels_do_not_blank_an_image(method, seed, n_hot, level):
    """As long as they are fewer than a thousandth."""
    image = np.tile(scene(), (2, 2))
    before = local_orientation(image, 1.75, method=method).mask
    hot = image.copy()
    hot.flat[np.random.default_rng(seed).choice(image.size, n_hot, replace=False)] = level
    beside = binary_dilation(hot != image, iterations=10)
    after = local_orientation(hot, 1.75, method=method).mask
    assert after.mean() > 0.7 * before.mean()
    assert (before == after)[~beside].mean() > 0.85


def test_a_thin_line_on_nothing_is_no_hot_pixel():
    image = np.zeros((256, 256))
    image[100, 100:120] = 1
    assert local_orientation(image, 1.75).mask[100, 102:118].all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("outside", [np.nan, 1e6])
def test_what_is_not_looked_at_counts_for_nothing(method, outside):
    image = stripes(0.4)
    where = np.ones(image.shape, bool)
    where[70:, 20:60] = False
    covered = np.where(where, image, outside)
    found = local_orientation(covered, 2.0, method=method, mask=where)
    assert not found.mask[~where].any()
    whole = local_orientation(image, 2.0, method=method)
    far = ~binary_dilation(~where, iterations=12)
    apart = axial_difference(found.orientation[far], whole.orientation[far])
    assert np.rad2deg(apart).max() < 0.5
    assert found.mask[far].all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((96, 95), bool), r"image's shape \(96, 96\)"),
        (np.ones((96, 96)), "array of bool"),
        (np.zeros((96, 96), bool), "nothing to look at"),
    ],
)
def test_masks_that_do_not_fit_are_told(mask, message):
    with pytest.raises(ValueError, match=message):
        local_orientation(stripes(0.3), 2.0, mask=mask)


def test_a_mask_makes_no_colours_grey():
    with pytest.raises(ValueError, match="has colours"):
        local_orientation(np.ones((20, 20, 3)), 2.0, mask=np.ones((20, 20), bool))


def test_a_higher_floor_leaves_less():
    image = scene()
    masks = [local_orientation(image, 2.0, floor=floor).mask for floor in (0, 0.05, 0.5)]
    assert masks[0].sum() >= masks[1].sum() > masks[2].sum() > 0
    assert not (masks[2] & ~masks[1]).any()


# --- statistics of an image -----------------------------------------------------------------------


def test_statistics_over_windows():
    rng = np.random.default_rng(0)
    image = stripes(0.5, (128, 160)) + 0.05 * rng.standard_normal((128, 160))
    found = local_orientation(image, 2.0).statistics(n_bootstrap=200, random_state=0)
    assert found.mean_interval.low <= found.mean <= found.mean_interval.high
    assert found.mean == pytest.approx(0.5, abs=0.02)
    assert found.order > 0.95
    assert local_orientation(image, 2.0).statistics().mean_interval is None


def test_small_images_have_statistics():
    found = local_orientation(stripes(0.5, (20, 20)), 2.0)
    assert found.statistics().mean == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("side", "window"), [(45, 15), (240, 80), (480, 120)])
def test_windows_of_the_bootstrap_suit_the_image(side, window):
    rng = np.random.default_rng(0)
    found = local_orientation(gaussian_filter(rng.standard_normal((side, side)), (1, 3)), 2.0)
    options = {"n_bootstrap": 50, "random_state": 0}
    assert found.statistics(**options) == found.statistics(window, **options)


def test_one_window_of_fibre_has_no_interval():
    found = local_orientation(stripes(0.5, (40, 40)), 2.0).statistics(40, n_bootstrap=20)
    assert found.order > 0.9
    assert (found.mean_interval, found.order_interval, found.spread_interval) == (None, None, None)


def test_statistics_that_cannot_be_had_are_refused():
    found = local_orientation(stripes(0.5), 2.0)
    with pytest.raises(ValueError, match="larger than the image"):
        found.statistics(window=97, n_bootstrap=10)
    with pytest.raises(ValueError, match="all background"):
        replace(found, mask=np.zeros_like(found.mask)).statistics()


# --- the parts ------------------------------------------------------------------------------------


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
    lattice = TileGrid.over((20, 30), 10)
    table = direction_histograms(down, right, lattice, 12)
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
    tensor = averaged_tensor(*gradients_of(image, 1.0), 1.5)
    for place in ((20, 20), (24, 27)):
        xx, xy, yy = slow_tensor(smoothed(image, 1.0), 1.5, place)
        assert tensor.energy[place] == pytest.approx(xx + yy, rel=1e-4)
        values, vectors = np.linalg.eigh([[xx, xy], [xy, yy]])
        x, y = vectors[:, 0]  # of the smaller eigenvalue: along the fibre
        angle = 0.5 * np.arctan2(tensor.sine[place], tensor.cosine[place])
        assert axial_difference(angle, np.arctan2(y, x)) < 1e-3
        length = np.hypot(tensor.cosine[place], tensor.sine[place])
        assert length == pytest.approx(values[1] - values[0], rel=1e-3)


def test_gradients_are_a_ramps():
    rows, columns = np.indices((20, 20))
    down, right = gradients_of((0.02 * rows - 0.03 * columns).astype(np.float32), 1.0)
    inside = (slice(5, -5), slice(5, -5))
    assert_allclose(down[inside], 0.02, atol=1e-5)
    assert_allclose(right[inside], -0.03, atol=1e-5)


@pytest.mark.parametrize(("sigma", "gradient_sigma"), [(1.5, 1.0), (3.0, 1.0), (2.0, 1.5)])
def test_noise_has_the_energy_that_is_taken_off(sigma, gradient_sigma):
    image = as_contrast(np.random.default_rng(2).standard_normal((400, 400)))
    noise = gradient_noise(image, sigma, gradient_sigma)
    tensor = averaged_tensor(*gradients_of(image, gradient_sigma), sigma)
    energy, axes = tensor.energy, np.stack([tensor.cosine, tensor.sine])
    # Away from the borders, whose repeated pixels are averaged to less effect.
    energy, axes = energy[20:-20, 20:-20], axes[:, 20:-20, 20:-20]
    assert noise.energy == pytest.approx(energy.mean(), rel=0.05)
    assert noise.energy_scatter == pytest.approx(energy.std() / energy.mean(), rel=0.05)
    assert noise.axis_scatter == pytest.approx(axes.std() / energy.mean(), rel=0.05)


def test_sums_of_noise_scatter_as_they_should():
    image = as_contrast(np.random.default_rng(2).standard_normal((960, 960)))
    noise = gradient_noise(image, 1.5, 1.0)
    energy = averaged_tensor(*gradients_of(image, 1.0), 1.5).energy
    sums = TileGrid.over(energy.shape, 32).sums(energy)[1:-1, 1:-1]
    expected = noise.energy * noise.total_scatter * 32
    assert sums.std() == pytest.approx(expected, rel=0.1)


def test_noise_is_estimated_beside_edges():
    rng = np.random.default_rng(3)
    image = (0.5 + 0.3 * stripes(0.6, (200, 200), period=12)).astype(np.float32)
    assert noise_deviation(image) < 0.005
    noisy = image + 0.05 * rng.standard_normal(image.shape).astype(np.float32)
    assert noise_deviation(noisy) == pytest.approx(0.05, rel=0.05)


@given(st.integers(2, 200), st.integers(2, 200), st.integers(2, 64))
def test_windows_cover_each_pixel_once(height, width, window):
    lattice = TileGrid.over((height, width), window)
    assert lattice.areas.sum() == height * width
    for edges, extent in ((lattice.rows, height), (lattice.columns, width)):
        sides = np.diff(edges)
        assert sides.max() - sides.min() <= 1
        if extent >= window:
            assert 0.75 * window - 1 <= sides.min() <= sides.max() <= 1.5 * window + 1
    values = np.random.default_rng(0).random((height, width))
    assert lattice.sums(values).sum() == pytest.approx(values.sum())
    painted = lattice.expand(np.arange(lattice.size).reshape(lattice.shape))
    assert_array_equal(np.bincount(painted.ravel()), lattice.areas.ravel())


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((20, 20)), "is flat"),
        (np.full((20, 20), 7, np.uint8), "is flat"),
        (np.where(np.eye(20) > 0, np.nan, 1.0), "NaN"),
        (np.random.default_rng(0).random((20, 20, 3)), "has colours"),
        (np.zeros((0, 5)), "no pixels"),
        (np.eye(2), "needs 3 x 3"),
        (np.zeros(20), "dimensions"),
        (np.array([["a"]]), "text"),
    ],
)
def test_bad_images_are_told(image, message):
    for method in METHODS:
        with pytest.raises(ValueError, match=message):
            local_orientation(image, 2.0, method=method)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0}, "sigma=0: expected a number of pixels above 0"),
        ({"sigma": np.nan}, "sigma=nan"),
        ({"sigma": "2"}, "sigma='2'"),
        ({"sigma": True}, "sigma=True"),
        ({"sigma": -2, "pixel_size": 1.0}, "a number of nm above 0"),
        ({"pixel_size": 0}, "pixel_size=0"),
        ({"method": "fft"}, "expected one of 'structure_tensor', 'lgo'"),
        ({"gradient_sigma": 0}, "gradient_sigma=0"),
        ({"sigma": 49}, "more than half of the image of 96 x 96; sigma is in pixels unless"),
        ({"sigma": 300, "pixel_size": 2.0}, "150 pixels are more .* sigma is in nm"),
        ({"floor": 1.5}, "floor=1.5: expected a share"),
    ],
)
def test_bad_parameters_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        local_orientation(stripes(0.3), **{"sigma": 2.0, **options})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(3, 3), (3, 40), (5, 4)])
def test_tiny_images_are_no_crash(method, shape):
    image = np.random.default_rng(0).random(shape)
    found = local_orientation(image, 1.5, method=method)
    assert np.isfinite(found.coherence).all()


def test_the_largest_sigma_takes_little_memory():
    image = stripes(0.3, (400, 400))
    tracemalloc.start()
    local_orientation(image, 200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * image.nbytes


@given(st.floats(0, np.pi), st.floats(9, 20), st.integers(0, 2**31 - 1))
@settings(max_examples=20, deadline=None)
def test_it_is_scikit_images_structure_tensor_but_for_the_derivative(angle, period, seed):
    """Sobel's derivative turns axes a little; on coarse stripes hardly."""
    image = stripes_of(angle, period, seed)
    found = local_orientation(image, 2.5, floor=0)
    theirs = structure_tensor(gaussian_filter(image, 1.0), sigma=2.5, order="rc")
    rows, mixed, columns = theirs
    along = 0.5 * np.arctan2(2 * mixed, rows - columns)
    high, low = structure_tensor_eigenvalues(theirs)
    inner = (slice(16, -16), slice(16, -16))
    assert axial_difference(found.orientation[inner], along[inner]).max() < np.deg2rad(1)
    coherence = (high - low) / (high + low)
    assert_allclose(found.coherence[inner], coherence[inner], atol=0.02)


def stripes_of(angle, period, seed):
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    y, x = np.mgrid[:80, :80]
    return np.sin(2 * np.pi / period * (x * np.sin(angle) + y * np.cos(angle)) + phase)
