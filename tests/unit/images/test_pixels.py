"""Properties of scaling for any image, and of the digest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose

from hypervlad.images import read_image, read_micrograph

SHAPES = st.one_of(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3, 4])),
)
DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(sizes=(16, 32, 64)),
)
SCALINGS = st.sampled_from(["auto", "dtype", "percentile", "minmax", (0, 1), (-3.5, 1e9)])


def finite(dtype):
    options = {"allow_nan": False, "allow_infinity": False} if np.dtype(dtype).kind == "f" else {}
    return hnp.arrays(dtype, SHAPES, elements=hnp.from_dtype(np.dtype(dtype), **options))


def by_percentiles(image, percentiles=(0.1, 99.9)):
    """The definition, for an image in which the two percentiles differ."""
    low, high = np.percentile(image.astype(np.float64), percentiles)
    return np.clip((image - low) / (high - low), 0, 1)


@settings(max_examples=80)
@given(image=DTYPES.flatmap(finite), scaling=SCALINGS)
def test_output_is_float32_in_the_unit_interval_in_the_order_of_values(image, scaling):
    if scaling == "dtype" and image.dtype.kind == "f" and (image.min() < 0 or image.max() > 1):
        scaling = "auto"
    scaled = read_image(image, scaling=scaling)
    assert (scaled.dtype, scaled.flags.c_contiguous) == (np.float32, True)
    assert 0 <= scaled.min() <= scaled.max() <= 1
    colours = image[..., :3] if image.ndim == 3 and image.shape[2] > 1 else image
    assert (scaled.shape[:2], scaled.size) == (image.shape[:2], colours.size)
    order = np.argsort(colours.ravel().astype(np.float64), kind="stable")
    assert (np.diff(scaled.ravel()[order]) >= 0).all()


@settings(max_examples=60)
@given(
    image=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12),
        elements=st.integers(0, 99),
    ),
    percentiles=st.tuples(st.floats(0, 49), st.floats(50, 100)),
    gain=st.floats(1e-3, 1e3),
    offset=st.floats(-1e3, 1e3),
)
def test_percentiles_are_those_of_numpy_whatever_gain_and_offset(image, percentiles, gain, offset):
    low, high = np.percentile(image.astype(np.float64), percentiles)
    if high - low < 1e-3:
        return
    expected = by_percentiles(image, percentiles)
    for changed in (image, gain * image.astype(np.float64) + offset):
        found = read_image(changed, scaling="percentile", percentiles=percentiles)
        assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("step", range(58, 65))
def test_a_misleading_sample_does_not_change_percentiles(step):
    image = np.full((300, 300), 500, np.uint16)
    image.flat[::step] = np.arange(len(image.flat[::step])) % 999
    assert_allclose(read_image(image), by_percentiles(image), atol=1e-6)


RAMP = np.arange(1000, 3001, dtype=np.uint16).reshape(1, -1)
TOP, TINY = np.finfo(np.float64).max, np.nextafter(0, 1)
HOT = np.full((100, 100), 1000, np.uint16)
HOT[:50], HOT[0, 0] = 2000, 65535
FEW = np.zeros((100, 100), np.uint16)
FEW[3, 4] = 500
COLOURS = np.zeros((20, 20, 3), np.uint16)
COLOURS[:10] = 1000, 500, 0


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        # By the type
        (np.uint8([[0, 51, 255]]), {}, [[0, 0.2, 1]]),
        (np.array([[False, True]]), {}, [[0, 1]]),
        (np.array([[False, True]]), {"scaling": "percentile", "percentiles": (0, 100)}, [[0, 1]]),
        (np.float64([[0.25, 0.5]]), {}, [[0.25, 0.5]]),
        (np.float32([[-0.0, 0.5, 1]]), {"scaling": "dtype"}, [[0, 0.5, 1]]),
        (np.uint16([[0, 13107, 65535]]), {"scaling": "dtype"}, [[0, 0.2, 1]]),
        (np.int8([[-128, 127]]), {"scaling": "dtype"}, [[0, 1]]),
        # By percentiles: hot pixels are clipped, but the few of an empty image are kept
        (RAMP, {}, by_percentiles(RAMP)),
        (np.float32([[0, 0.5, 2]]), {}, by_percentiles(np.float32([[0, 0.5, 2]]))),
        (np.uint8([[2, 4, 6]]), {"scaling": "percentile", "percentiles": (0, 100)}, [[0, 0.5, 1]]),
        (HOT, {}, HOT > 1000),
        (FEW, {}, FEW > 0),
        (COLOURS, {}, COLOURS / 1000),  # which share their limits
        (np.full((4, 5), -(2**31)), {"scaling": "percentile"}, np.zeros((4, 5))),
        (np.full((4, 5), 2.0**99), {"scaling": "minmax"}, np.zeros((4, 5))),
        # By limits of any size
        (np.int16([[-5, 50, 900]]), {"scaling": (0, 100)}, [[0, 0.5, 1]]),
        (1e9 + np.arange(5.0)[None], {"scaling": "minmax"}, [[0, 0.25, 0.5, 0.75, 1]]),
        (np.array([[-TOP, 0, TOP]]), {"scaling": "minmax"}, [[0, 0.5, 1]]),
        (np.array([[0, -TINY]]), {"scaling": "minmax"}, [[1, 0]]),
    ],
)
def test_scaling(image, options, expected):
    assert_allclose(read_image(image, **options), np.asarray(expected), atol=1e-6)


def digest(image, **options):
    return read_micrograph(image, **options).digest


def test_digest_is_stable():
    # Kept as a number: caches and each image's own random choices hang on it.
    expected = "f6891a3ac750d9f4e58f40048dda7e4f87585d515a0df541182f7ac49f00c90a"
    assert digest(np.arange(12, dtype=np.uint8).reshape(3, 4)) == expected


def test_digest_changes_with_options_that_change_pixels_alone():
    deep = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)
    changed = [{}, {"scaling": "dtype"}, {"scaling": "minmax"}, {"percentiles": (1, 99)}]
    assert len({digest(deep, **options) for options in changed}) == 4
    assert digest(deep) == digest(deep, scaling="percentile")
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    same = [{"percentiles": (5, 95)}, {"scaling": "dtype", "max_pixels": 99}, {"banner": "remove"}]
    assert {digest(grey, **options) for options in same} == {digest(grey)}


def test_digest_depends_on_shape_type_and_every_pixel():
    image = np.zeros((4, 6), np.uint8)
    last, first = image.copy(), image.copy()
    last[3, 5] = first[0, 0] = 1
    changed = [image, image.reshape(6, 4), last, first, image.astype(np.uint16), image[:, :5]]
    assert len(set(map(digest, changed))) == len(changed)
