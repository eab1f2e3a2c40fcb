"""Properties of scaling for any image, and of the digest."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from hypervlad.images import pixels, read_image, read_micrograph
from hypervlad.images.pixels import percentile_limits

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


def finite_arrays(dtypes=DTYPES, shapes=SHAPES):
    def arrays(dtype):
        kind = np.dtype(dtype).kind
        elements = {"allow_nan": False, "allow_infinity": False} if kind == "f" else {}
        return hnp.arrays(dtype, shapes, elements=hnp.from_dtype(np.dtype(dtype), **elements))

    return dtypes.flatmap(arrays)


@settings(max_examples=80)
@given(image=finite_arrays(), scaling=SCALINGS)
def test_output_is_float32_in_the_unit_interval_in_the_order_of_values(image, scaling):
    if scaling == "dtype" and image.dtype.kind == "f" and (image.min() < 0 or image.max() > 1):
        scaling = "auto"
    scaled = read_image(image, scaling=scaling)

    assert scaled.dtype == np.float32
    assert scaled.flags.c_contiguous
    assert np.isfinite(scaled).all()
    assert 0 <= scaled.min() <= scaled.max() <= 1
    colours = image[..., :3] if image.ndim == 3 and image.shape[2] > 1 else image
    assert (scaled.shape[:2], scaled.size) == (image.shape[:2], colours.size)
    order = np.argsort(colours.ravel().astype(np.float64), kind="stable")
    assert (np.diff(scaled.ravel()[order]) >= 0).all()


@settings(max_examples=20)
@given(
    image=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=4, max_side=12),
        elements=st.integers(0, 4095).map(float),
    ),
    gain=st.floats(1e-3, 1e3),
    offset=st.floats(-1e3, 1e3),
)
def test_percentile_scaling_ignores_gain_and_offset(image, gain, offset):
    changed = gain * image + offset

    assert_allclose(
        read_image(changed, scaling="percentile"),
        read_image(image, scaling="percentile"),
        atol=1e-5,
    )


@given(
    image=finite_arrays(),
    percentiles=st.tuples(st.floats(0, 100), st.floats(0, 100)).map(sorted).map(tuple),
)
@settings(max_examples=60)
def test_percentiles_equal_those_of_numpy(image, percentiles):
    values = image.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.percentile(values, percentiles)
    if not np.isfinite(expected).all():
        return  # numpy subtracts before it interpolates, and overflows
    scale = max(1.0, np.abs(values).max())

    assert_allclose(percentile_limits(image, percentiles), expected, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, bool])
@pytest.mark.parametrize("percentiles", [(0, 100), (0.1, 99.9), (30, 51), (98, 99)])
def test_percentiles_of_many_values_equal_those_of_numpy(dtype, percentiles):
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal(60, 40, (270, 301)), 0, 250) > (180 if dtype is bool else -1)
    image = (values * rng.integers(1, 250, values.shape)).astype(dtype)

    found = percentile_limits(image, percentiles)

    assert_allclose(found, np.percentile(image.astype(np.float64), percentiles), rtol=1e-12)


def test_a_misleading_sample_does_not_change_percentiles():
    image = np.full((300, 300), 500, dtype=np.uint16)
    image.flat[:: pixels._SAMPLE_STEP] = np.arange(len(image.flat[:: pixels._SAMPLE_STEP])) % 999

    limits = [percentile_limits(image, each) for each in ((0.1, 99.9), (2, 98))]

    assert_allclose(limits, [np.percentile(image, each) for each in ((0.1, 99.9), (2, 98))])


@given(value=st.one_of(st.integers(-(2**31), 2**31 - 1), st.floats(-(2.0**99), 2.0**99, width=32)))
def test_a_constant_image_gives_zeros(value):
    dtype = np.int32 if isinstance(value, int) else np.float32
    image = np.full((4, 5), value, dtype=dtype)

    for scaling in ("percentile", "minmax"):
        assert not read_image(image, scaling=scaling).any()


def test_auto_scaling_by_type():
    eight = np.array([[0, 51, 255]], np.uint8)
    sixteen = np.arange(1000, 3001, dtype=np.uint16).reshape(1, -1)
    unit = np.array([[0.25, 0.5]], np.float64)
    beyond = np.array([[0.0, 2.0]], np.float32)

    assert_array_equal(read_image(eight), np.float32([[0, 0.2, 1]]))
    assert_allclose(read_image(sixteen)[0, [0, 1000, 2000]], [0, 0.5, 1], atol=1e-6)
    assert_array_equal(read_image(unit), np.float32([[0.25, 0.5]]))
    assert_allclose(read_image(beyond), [[0, 1]], atol=2e-3)
    assert_array_equal(read_image(eight > 60), np.float32([[0, 0, 1]]))


def test_scaling_by_type_and_by_fixed_limits():
    sixteen = np.array([[0, 13107, 65535]], np.uint16)
    signed = np.array([[-128, 127]], np.int8)

    assert_allclose(read_image(sixteen, scaling="dtype"), [[0, 0.2, 1]], atol=1e-7)
    assert_array_equal(read_image(signed, scaling="dtype"), np.float32([[0, 1]]))
    assert_allclose(read_image(np.int16([[-5, 50, 900]]), scaling=(0, 100)), [[0, 0.5, 1]])


def test_the_percentiles_clip_hot_pixels_but_keep_the_few_of_an_empty_image():
    image = np.full((100, 100), 1000, np.uint16)
    image[:50] = 2000
    image[0, 0] = 65535
    assert_array_equal(np.unique(read_image(image)), [0, 1])

    image = np.zeros((100, 100), np.uint16)
    image[3, 4] = 500
    assert read_image(image)[3, 4] == 1
    assert read_image(image).sum() == 1


def test_colours_share_their_limits():
    image = np.zeros((20, 20, 3), np.uint16)
    image[:10, :, 0] = 1000
    image[:10, :, 1] = 500

    assert_allclose(read_image(image)[0, 0], [1, 0.5, 0], atol=1e-6)


def test_numbers_of_any_size():
    image = 1e9 + np.arange(100.0).reshape(10, 10)
    top, tiny = np.finfo(np.float64).max, np.nextafter(0, 1)

    assert_allclose(read_image(image, scaling="minmax").ravel(), np.arange(100) / 99, atol=1e-6)
    assert_array_equal(read_image(np.array([[-top, 0, top]]), scaling="minmax"), [[0, 0.5, 1]])
    assert_array_equal(read_image(np.array([[0, -tiny]]), scaling="minmax"), [[1, 0]])


def test_large_images_are_scaled_like_small_ones_and_like_floats():
    """In blocks, and by looking up each level."""
    image = np.random.default_rng(0).integers(0, 65536, (400, 400)).astype(np.uint16)
    large = read_image(image, scaling=(1000.5, 40000))

    assert_array_equal(large[:100], read_image(image[:100], scaling=(1000.5, 40000)))
    assert_array_equal(large, read_image(image.astype(np.float64), scaling=(1000.5, 40000)))


@given(
    image=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=5, max_side=20),
    )
)
@settings(max_examples=25, deadline=None)
def test_digest_and_pixels_do_not_depend_on_the_container(tmp_path_factory, image):
    folder = tmp_path_factory.mktemp("containers")
    expected = read_micrograph(image)
    Image.fromarray(image).save(folder / "a.png")
    tifffile.imwrite(folder / "a.tif", image)
    tifffile.imwrite(folder / "zip.tif", image, compression="zlib")

    for path in folder.iterdir():
        micrograph = read_micrograph(path)
        assert micrograph.digest == expected.digest
        assert_array_equal(micrograph.pixels, expected.pixels)


def test_digest_is_stable():
    # Kept as a number: caches and each image's own random choices hang on it.
    expected = "f6891a3ac750d9f4e58f40048dda7e4f87585d515a0df541182f7ac49f00c90a"
    assert read_micrograph(np.arange(12, dtype=np.uint8).reshape(3, 4)).digest == expected


@pytest.mark.parametrize(
    "options",
    [{"scaling": "percentile"}, {"scaling": "dtype"}, {"percentiles": (1, 99)}],
    ids=str,
)
def test_digest_changes_with_options_that_change_pixels(options):
    image = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)
    changes = not np.array_equal(read_image(image), read_image(image, **options))

    same = read_micrograph(image).digest == read_micrograph(image, **options).digest

    assert changes == (not same)


def test_digest_ignores_options_without_effect():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    digest = read_micrograph(image).digest

    assert read_micrograph(image, percentiles=(5, 95)).digest == digest
    assert read_micrograph(image, scaling="dtype", max_pixels=99).digest == digest
    assert read_micrograph(image, banner="remove").digest == digest


def test_digest_depends_on_shape_type_and_every_pixel():
    image = np.zeros((4, 6), np.uint8)
    one_changed = image.copy()
    one_changed[3, 5] = 1
    sources = [image, image.reshape(6, 4), one_changed, image.astype(np.uint16), image[:, :5]]

    assert len({read_micrograph(source).digest for source in sources}) == len(sources)
