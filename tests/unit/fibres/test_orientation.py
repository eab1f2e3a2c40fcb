"""Local orientation: known directions, invariances, invalid input."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.ndimage import binary_dilation, gaussian_filter
from skimage.feature import structure_tensor, structure_tensor_eigenvalues
from support.fibre_images import stripes

from hypervlad.data import make_fibre_images
from hypervlad.fibres import aligned_fraction, axial_difference, local_orientation

MOVES = {
    np.fliplr: lambda directions: np.pi - directions[:, ::-1],
    np.transpose: lambda directions: np.pi / 2 - directions.T,
    np.rot90: lambda directions: np.rot90(directions) + np.pi / 2,
}


@functools.cache
def scene():
    (image,), _ = make_fibre_images(1, diameter=8, cover=0.5, size=96, random_state=4)
    return image


@pytest.mark.filterwarnings("ignore:.*scan lines differ")
@settings(max_examples=30, deadline=None)
@given(st.floats(0, np.pi), st.floats(4, 11))
def test_stripes_of_any_period_have_their_direction(angle, period):
    found = local_orientation(stripes(angle, (64, 64), period), 1.75, annotations="keep")
    inside = (slice(16, -16), slice(16, -16))
    assert found.mask[inside].all()
    assert found.coherence[inside].min() > 0.95
    error = np.rad2deg(axial_difference(found.orientation[inside], angle))
    assert np.median(error) < 0.2
    assert error.max() < 1


@settings(max_examples=15, deadline=None)
@given(st.floats(0, np.pi), st.floats(9, 20), st.integers(0, 2**31 - 1))
def test_the_tensor_is_scikit_images_except_for_the_derivative(angle, period, seed):
    """Sobel's derivative turns axes a little, but hardly on coarse stripes."""
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    y, x = np.mgrid[:80, :80]
    image = np.sin(2 * np.pi / period * (x * np.sin(angle) + y * np.cos(angle)) + phase)
    found = local_orientation(image, 2.5, annotations="keep")
    theirs = rows, mixed, columns = structure_tensor(
        gaussian_filter(image, 1.0), sigma=2.5, order="rc"
    )
    along = 0.5 * np.arctan2(2 * mixed, rows - columns)
    high, low = structure_tensor_eigenvalues(theirs)
    inner = (slice(16, -16), slice(16, -16))
    assert found.mask[inner].all()
    assert axial_difference(found.orientation[inner], along[inner]).max() < np.deg2rad(1)
    coherence = (high - low) / (high + low)
    assert_allclose(found.coherence[inner], coherence[inner], atol=0.02)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(list(MOVES)), st.integers(0, 10**6))
def test_mirrored_and_turned_images_have_such_directions(turn, seed):
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.standard_normal((40, 520)), (1, 3)) + 0.02 * rng.random((40, 520))
    before, after = (local_orientation(each, 2.0) for each in (image, turn(image)))
    mask = turn(before.mask)
    assert (mask == after.mask).mean() > 0.98
    both = mask & after.mask & (after.coherence > 0.3)
    apart = axial_difference(after.orientation[both], MOVES[turn](before.orientation)[both])
    assert apart.max() < 0.02


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100), st.sampled_from([1, -1]), st.floats(-5, 5))
def test_gain_offset_and_sign_of_the_contrast_do_not_matter(gain, sign, offset):
    image = scene()
    before = local_orientation(image, 2.0)
    after = local_orientation(sign * gain * image.astype(float) + offset, 2.0)
    assert (before.mask == after.mask).mean() > 0.999
    both = before.mask & after.mask
    apart = axial_difference(before.orientation[both], after.orientation[both])
    assert np.quantile(apart, 0.99) < 1e-3
    assert_allclose(after.energy[both], before.energy[both], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(
    "same",
    [
        *(lambda image, kind=kind: image.astype(kind) for kind in ("u1", "u2", "i4", "f8")),
        *(lambda image, by=by: by * image.astype(float) for by in (5e305, 1e-300)),
        lambda image: 1e6 + image.astype(float),
    ],
)
def test_types_of_pixels_do_not_matter_and_numbers_may_be_huge(same):
    image = np.rint(100 + 100 * stripes(0.7))
    found, expected = (local_orientation(each, 2.0).orientation for each in (same(image), image))
    assert_allclose(found, expected, atol=1e-3)


def test_types_and_ranges_of_results():
    image = stripes(0.4, (70, 91))
    image[:, 40:] = 0
    found = local_orientation(image, 2)
    for values in (found.orientation, found.coherence, found.energy):
        assert (values.shape, values.dtype) == ((70, 91), np.float32)
        assert (np.isfinite(values).all(), values[~found.mask].any()) == (True, False)
    assert (found.mask.dtype, found.coherence.max() <= 1) == (bool, True)
    assert (found.mask[10:-10, 10:30].all(), found.mask[:, 60:].any()) == (True, False)
    assert 0 <= found.orientation.min() <= found.orientation.max() < np.pi
    assert (found.sigma, found.pixel_size, found.annotations) == (2, None, [])
    for shape in ((3, 3), (3, 40), (5, 4)):
        tiny = np.random.default_rng(0).random(shape)
        assert np.isfinite(local_orientation(tiny, 1.5).coherence).all()


def test_noise_alone_is_mostly_background_and_wires_are_not():
    thin = {"cover": 0.05, "diameter": 8, "contrast_to_noise": 8, "size": 256}
    (image,), (truth,) = make_fibre_images(1, **thin, random_state=0)
    mask = local_orientation(image, 3.0).mask
    assert mask[~binary_dilation((truth.fibres >= 0), iterations=10)].mean() < 0.05
    assert mask[(truth.fibres >= 0)].mean() > 0.9


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([3, -3, 10, 64, -1000]))
def test_few_hot_pixels_do_not_blank_an_image(seed, n_hot, level):
    image = np.pad(scene(), [(0, extent) for extent in scene().shape], "symmetric")
    before, hot = local_orientation(image, 1.75).mask, image.copy()
    hot.flat[np.random.default_rng(seed).choice(image.size, n_hot, replace=False)] = level
    beside = binary_dilation(hot != image, iterations=10)
    after = local_orientation(hot, 1.75).mask
    assert after.mean() > 0.7 * before.mean()
    assert (before == after)[~beside].mean() > 0.85


def test_statistics_over_windows():
    rng = np.random.default_rng(0)
    image = stripes(0.5, (128, 160)) + 0.05 * rng.standard_normal((128, 160))
    found = aligned_fraction(image).statistics
    assert found.mean_interval.low <= found.mean <= found.mean_interval.high
    assert (found.mean, found.order) == pytest.approx((0.5, 0.97), abs=0.03)
    assert np.isnan(aligned_fraction(image[:40, :40]).statistics.order_interval.low)  # one window


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: local_orientation(stripes(0.3), np.nan), "sigma must be .* not nan"),
        (lambda: local_orientation(stripes(0.3), 49), "half of the image of 96 x 96; sigma"),
    ],
)
def test_invalid_parameters_are_rejected(call, words):
    with pytest.raises(ValueError, match=words):
        call()
