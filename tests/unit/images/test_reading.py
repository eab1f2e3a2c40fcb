"""One image of any kind, many in order, and what is stated about them."""

import warnings

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image
from support.golden import digest, values

from hypervlad.images import (
    ImageReadError,
    PixelSizes,
    SkippedImagesWarning,
    read_image,
    read_micrograph,
    read_micrographs,
)

GREY, GREY16 = values("u1"), values("u2")


class Wrapped:
    """The interface of tensors and labelled arrays."""

    def __array__(self, dtype=None, copy=None):
        return np.asarray(GREY, dtype=dtype)


@pytest.mark.parametrize(
    ("source", "same"),
    [
        *((GREY[:, :, None], GREY), (Wrapped(), GREY), (np.asfortranarray(GREY), GREY)),
        *((np.ma.MaskedArray(GREY), GREY), (Image.fromarray(GREY), GREY)),
        (GREY16.astype(">u2"), GREY16),
    ],
)
def test_arrays_of_other_libraries(source, same):
    expected, found = read_micrograph(same), read_micrograph(source)
    assert (found.digest, found.source, found.pixel_size) == (expected.digest, None, None)
    assert_array_equal(found.pixels, expected.pixels)
    assert repr(found) == "Micrograph(source=None, shape=(21, 18), dtype=float32, pixel_size=None)"


def test_pixels_never_share_memory_with_the_source():
    source = np.random.default_rng(0).random((5, 6), dtype=np.float32)
    assert not np.shares_memory(read_image(source), source)


def test_a_given_pixel_size_is_used_only_where_none_is_stated(tmp_path):
    stated, silent = tmp_path / "a.tif", tmp_path / "b.png"
    size = {"resolution": (1 / 4.0,) * 2, "metadata": {"unit": "nm"}}
    tifffile.imwrite(stated, GREY, imagej=True, **size)
    Image.fromarray(GREY).save(silent, dpi=(300, 300))  # which is no pixel size
    for source, given in ((silent, 7), (silent, PixelSizes({silent: 7})), (GREY, 7)):
        found = read_micrograph(source, pixel_size=given)
        assert (found.pixel_size, found.metadata["pixel_size_from"]) == (7, "reading options")
    for source in (GREY, silent):
        assert read_micrograph(source, pixel_size=PixelSizes({stated: 7})).pixel_size is None
    for given in (4.1, PixelSizes({stated: 4.1}), PixelSizes({silent: 7})):
        assert read_micrograph(stated, pixel_size=given).pixel_size == 4
    for given in (5, PixelSizes({stated: 5})):
        with pytest.warns(UserWarning, match=r"than is given, and are used: .*\(4, not 5\)"):
            assert read_micrograph(stated, pixel_size=given).pixel_size == 4


@pytest.fixture
def mixed(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "good.png")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"junk")
    return [tmp_path / "good.png", tmp_path / "a.png", GREY, GREY * 1j, tmp_path / "b.png"]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_skip_warns_once_at_the_end_with_a_list(mixed, n_jobs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        indices = []
        for index, found in read_micrographs(mixed, on_error="skip", n_jobs=n_jobs):
            assert (caught, found.digest) == ([], digest(GREY))
            indices.append(index)
    assert indices == [0, 2]
    (warning,) = (each.message for each in caught)
    assert isinstance(warning, SkippedImagesWarning)
    assert [image.position for image in warning.skipped] == [1, 3, 4]


def test_an_error_ends_reading(mixed):
    reader = read_micrographs(mixed)
    assert next(reader)[0] == 0
    with pytest.raises(ImageReadError, match=r"^\S*a\.png: not an image"):
        next(reader)
    none = r"none of the images could be read:\n.*not an image(.|\n)*a\.png\n.*b\.png$"
    with pytest.raises(ImageReadError, match=none):
        list(read_micrographs([mixed[1], mixed[4]], on_error="skip"))


def test_threads_read_in_the_same_order_and_stop_with_the_caller():
    images = [np.full((4, 5), value, np.uint8) for value in range(12)]
    read = list(read_micrographs(images, n_jobs=2))
    expected = [(value, np.float32(value / 255)) for value in range(12)]
    assert [(index, found.pixels[0, 0]) for index, found in read] == expected
    stream = read_micrographs(images, n_jobs=2)
    assert next(stream)[0] == 0
    stream.close()
    assert list(stream) == []


@pytest.mark.parametrize("shape", [(5, 30, 40), (1, 30, 40), (5, 30, 40, 3), (2, 3, 4, 1)])
def test_an_array_of_images_is_a_list_of_them(shape):
    stack = np.random.default_rng(0).random(shape)
    assert [found.digest for _, found in read_micrographs(stack)] == list(map(digest, stack))
