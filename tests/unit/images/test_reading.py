"""Each format returns the pixels that were written, under any file name."""

from __future__ import annotations

import copy
import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageFile

from hypervlad.images import (
    ImageReadError,
    PixelSizes,
    ReadOptions,
    read_image,
    read_micrograph,
)
from hypervlad.images.formats import json_value, strict_decoding

GREY = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
GREY16 = np.random.default_rng(1).integers(0, 65536, (37, 53), dtype=np.uint16)
RGB = np.random.default_rng(2).integers(0, 256, (37, 53, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(3).integers(0, 256, (37, 53, 1), dtype=np.uint8)


def save(image, path: Path, **kwargs) -> Path:
    Image.fromarray(image).save(path, **kwargs)
    return path


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[:, :, 0] = 255
    Image.fromarray(red).convert("CMYK").save(tmp_path / "a.jpg", quality=95)

    image = read_image(tmp_path / "a.jpg")

    assert image.shape == (16, 16, 3)
    assert_allclose(image[8, 8], [1, 0, 0], atol=0.05)


def test_alpha_is_dropped_not_blended(tmp_path):
    path = tmp_path / "a.tif"
    for pixels, kind in ((RGB, "rgb"), (GREY, "minisblack")):
        with_alpha = np.dstack([pixels, ALPHA])
        tifffile.imwrite(path, with_alpha, photometric=kind, extrasamples=["unassalpha"])
        for source in (path, save(with_alpha, tmp_path / "a.png")):
            assert_array_equal(read_image(source), (pixels / 255).astype(np.float32))
    assert_array_equal(read_image(np.dstack([RGB, ALPHA])), (RGB / 255).astype(np.float32))


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
def test_palettes_are_looked_up(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(GREY % 4).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255])
    image.save(path)
    table = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=np.float32)
    assert_array_equal(read_image(path), table[GREY % 4])
    assert_array_equal(read_image(image), table[GREY % 4])

    image = Image.fromarray(GREY).convert("P")
    image.putpalette([level for value in range(256) for level in [255 - value] * 3])
    image.save(path)
    assert_array_equal(read_image(path), ((255 - GREY) / 255).astype(np.float32))


def test_palette_with_transparency_gives_no_warning(tmp_path):
    image = Image.fromarray(GREY % 3).convert("P")
    image.putpalette([9, 8, 7, 30, 20, 10, 1, 2, 3])
    image.save(tmp_path / "a.png", transparency=b"\x00\x80\xff")

    assert read_image(tmp_path / "a.png").shape == (37, 53, 3)


@pytest.mark.parametrize("suffix", ["png", "bmp", "pbm"])
def test_one_bit(tmp_path, suffix):
    mask = GREY > 127
    for source in (mask, save(mask, tmp_path / f"a.{suffix}")):
        assert_array_equal(read_image(source), mask.astype(np.float32))


def test_white_is_zero_in_a_tiff_of_floats_in_the_unit_interval(tmp_path):
    image = np.float32(GREY / 255)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="miniswhite")

    assert read_micrograph(tmp_path / "a.tif").digest == read_micrograph(1 - image).digest


@pytest.mark.parametrize("name", ["a.tif", "a", "a.MRC", "Größe 1µm #[1].png"])
def test_content_decides_not_the_name(tmp_path, name):
    save(GREY, tmp_path / "a.png")
    path = (tmp_path / "a.png").rename(tmp_path / name)

    for given in (path, str(path)):
        micrograph = read_micrograph(given)
        assert micrograph.source == str(path)
        assert micrograph.metadata["format"] == "PNG"
        assert_array_equal(micrograph.pixels, (GREY / 255).astype(np.float32))


class Wrapped:
    """The interface of tensors and labelled arrays."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype=dtype)


@pytest.mark.parametrize(
    "source",
    [
        GREY[:, :, None],
        Wrapped(GREY),
        np.asfortranarray(GREY),
        np.ma.MaskedArray(GREY),
        Image.fromarray(GREY),
        GREY16.astype(">u2"),
    ],
    ids=["one channel", "__array__", "fortran", "masked", "pillow", "big-endian"],
)
def test_arrays_of_other_libraries(source):
    expected = read_micrograph(GREY16 if getattr(source, "dtype", None) == ">u2" else GREY)
    micrograph = read_micrograph(source)

    assert micrograph.digest == expected.digest
    assert_array_equal(micrograph.pixels, expected.pixels)
    assert micrograph.source is None


def test_pixels_never_share_memory_with_the_source():
    source = np.random.default_rng(0).random((5, 6), dtype=np.float32)
    image = read_image(source)
    image[:] = 0

    assert not np.shares_memory(image, source)
    assert source.any()


def test_truncated_files_are_errors_even_if_pillow_fills_them(tmp_path, monkeypatch):
    path = save(GREY, tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:-400])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)

    with strict_decoding():
        with pytest.raises(ValueError, match="truncated"):
            read_image(path)
        assert not ImageFile.LOAD_TRUNCATED_IMAGES  # another thread may still be decoding
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_header_values_become_json():
    values = {1: np.float32(0.5), "b": b"ab\0", "t": (1, np.arange(2)), "o": Path("x"), "n": None}

    assert json_value(values) == {"1": 0.5, "b": "ab", "t": [1, [0, 1]], "o": "x", "n": None}


def test_larger_than_pillows_own_limit_reads_without_its_warning(tmp_path, monkeypatch):
    path = save(np.zeros((64, 64), np.uint8), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    assert read_image(path).shape == (64, 64)


def test_a_micrograph_is_shown_on_one_line_without_metadata(tmp_path):
    fei = "[User]\nUser=operator\n[Scan]\nPixelWidth=2e-9\nPixelHeight=2e-9\n" + "x=1\n" * 500
    tifffile.imwrite(tmp_path / "a.tif", GREY16, extratags=[(34682, "s", 0, fei, True)])
    micrograph = read_micrograph(tmp_path / "a.tif")

    assert micrograph.metadata["fei"]["User"]["User"] == "operator"
    assert json.loads(json.dumps(micrograph.metadata)) == micrograph.metadata
    assert repr(micrograph) == (
        f"Micrograph(source={str(tmp_path / 'a.tif')!r}, shape={GREY16.shape}, dtype=float32, "
        "pixel_size=2.0)"
    )
    assert repr(read_micrograph(np.zeros((4, 6, 3)))) == (
        "Micrograph(source=None, shape=(4, 6, 3), dtype=float32, pixel_size=None)"
    )


def test_a_pixel_size_is_assumed_only_where_none_is_stated(tmp_path):
    resolution = {"resolution": (0.5, 0.5), "metadata": {"unit": "nm"}}
    tifffile.imwrite(tmp_path / "a.tif", GREY16, imagej=True, **resolution)
    oblong = {"resolution": (0.5, 0.25), "metadata": {"unit": "nm"}}
    tifffile.imwrite(tmp_path / "b.tif", GREY16, imagej=True, **oblong)

    assumed = read_micrograph(GREY16, pixel_size=7)

    assert assumed.pixel_size == 7
    assert assumed.metadata["pixel_size_from"] == "reading options"
    assert read_micrograph(tmp_path / "a.tif", pixel_size=7).pixel_size == 2
    assert read_micrograph(tmp_path / "b.tif", pixel_size=7).pixel_size is None
    with pytest.raises(ImageReadError, match="pixel_size"):
        ReadOptions(pixel_size=0)


def test_options_survive_json():
    options = ReadOptions(
        page=2, scaling=(0, 4095), percentiles=[1, 99], banner="remove", pixel_size=2
    )

    assert ReadOptions(**json.loads(json.dumps(asdict(options)))) == options


def test_pixel_sizes_of_single_files(tmp_path):
    names = [tmp_path / "a.png", tmp_path / "b.png"]
    for name in names:
        Image.fromarray(np.zeros((4, 6), np.uint8)).save(name)
    sizes = PixelSizes({names[0]: 2.5})
    found = [read_micrograph(name, pixel_size=sizes) for name in names]
    assert [each.pixel_size for each in found] == [2.5, None]
    assert found[0].metadata["pixel_size_from"] == "reading options"
    assert read_micrograph(np.zeros((4, 6)), pixel_size=sizes).pixel_size is None


def test_pixel_sizes_are_compared_by_files_and_values():
    sizes = PixelSizes({"a.png": 2.5})
    assert sizes == PixelSizes({os.path.abspath("a.png"): 2.5}) != PixelSizes({"a.png": 2})
    assert pickle.loads(pickle.dumps(sizes)) == copy.deepcopy(sizes) == sizes
    assert len({sizes, PixelSizes({"./a.png": 2.5})}) == 1
    with pytest.raises(ValueError, match=r"pixel size of a.png must be .* above 0, not -1"):
        PixelSizes({"a.png": -1})


def test_a_pixel_size_of_the_file_takes_precedence_over_its_row(tmp_path):
    file = tmp_path / "a.tif"
    options = {"resolution": (1 / 4.0,) * 2, "metadata": {"unit": "nm"}}
    tifffile.imwrite(file, np.zeros((4, 6), np.uint8), imagej=True, **options)
    assert read_micrograph(file, pixel_size=PixelSizes({file: 4.1})).pixel_size == 4
    with pytest.warns(UserWarning, match="5 nm per pixel by the table, but 4 by its metadata"):
        assert read_micrograph(file, pixel_size=PixelSizes({file: 5})).pixel_size == 4
