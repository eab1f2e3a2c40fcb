"""Smaller copies of JPEGs and of pyramid TIFFs, where they suffice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hypervlad.backbones import Preprocessing
from hypervlad.encoder.loading import ImageLoader
from hypervlad.images import ImageReadError, ReadOptions, read_micrograph
from hypervlad.images.reading import read_named

REDUCED = ReadOptions(reduced=True)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.round(120 + 60 * np.sin(x / 37) + 60 * np.cos(y / 29)).astype(np.uint8)


def blocks(image: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of pixels."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    cut = image[: height * factor, : width * factor].astype(float)
    return cut.reshape(height, factor, width, factor).mean((1, 3)).astype(image.dtype)


def read(path: Path, height: int, width: int, options: ReadOptions = REDUCED):
    return read_named(path, options, "image", lambda shape: (height, width))


@pytest.mark.parametrize(
    ("needed", "factor"),
    [
        ((400, 600), 1),
        ((201, 200), 1),
        ((200, 300), 2),
        ((101, 30), 2),
        ((60, 150), 4),
        ((1, 1), 8),
    ],
)
@pytest.mark.parametrize("colours", [1, 3])
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_suffices(tmp_path, needed, factor, colours):
    image = smooth(400, 600)
    path = tmp_path / "a.jpg"
    Image.fromarray(np.dstack([image] * 3) if colours == 3 else image).save(path, quality=95)

    found = read(path, *needed)

    assert found.pixels.shape[:2] == (400 // factor, 600 // factor)
    first = found.pixels if colours == 1 else found.pixels[:, :, 0]
    assert np.abs(255 * first - blocks(image, factor)).max() < 6
    same = found.digest == read_micrograph(path).digest
    assert same == (factor == 1) == ("reduced_from" not in found.metadata)
    if not same:
        assert found.metadata["reduced_from"] == [400, 600]


def write_pyramid(path: Path, image: np.ndarray, *, sub: bool, **options) -> None:
    """Write an image with its copies at 1/2 and 1/4: below its directory, or after it."""
    with tifffile.TiffWriter(path, ome=sub) as tiff:
        tiff.write(image, subifds=2 if sub else None, **options)
        for factor in (2, 4):
            tiff.write(blocks(image, factor), subfiletype=1, metadata=None)


@pytest.mark.parametrize("sub", [True, False])
@pytest.mark.parametrize(
    "needed", [(300, 300), (129, 20), (128, 200), (65, 100), (64, 100), (9, 9)]
)
def test_the_smallest_sufficient_level_of_a_pyramid_is_read(tmp_path, sub, needed):
    image = smooth(256, 400).astype(np.uint16) * 100
    path = tmp_path / "a.tif"
    write_pyramid(path, image, sub=sub)
    options = ReadOptions(scaling=(0, 65535), page=0, reduced=True)
    sufficient = [f for f in (1, 2, 4) if 256 // f >= needed[0] and 400 // f >= needed[1]]
    factor = max(sufficient, default=1)

    found = read(path, *needed, options)

    np.testing.assert_allclose(found.pixels, blocks(image, factor) / 65535, atol=1e-6)


def test_the_pixel_size_is_that_of_the_level(tmp_path):
    path = tmp_path / "a.ome.tif"
    sizes = {"PhysicalSizeX": 2.0, "PhysicalSizeY": 2.0}
    units = {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "nm"}
    write_pyramid(path, smooth(256, 400), sub=True, metadata=sizes | units)

    assert read_micrograph(path).pixel_size == pytest.approx(2.0)
    assert read(path, 60, 60).pixel_size == pytest.approx(8.0)
    path = tmp_path / "b.ome.tif"
    write_pyramid(path, smooth(256, 400), sub=True, metadata=sizes | units | {"PhysicalSizeX": 1.0})

    found = read(path, 60, 60)

    assert found.pixel_size is None
    assert found.metadata["pixel_sides_nm"] == pytest.approx([4.0, 8.0])


@pytest.mark.parametrize(
    "other",
    [
        smooth(64, 64),
        blocks(smooth(256, 400), 2).astype(np.uint16),
        np.dstack([smooth(128, 200)] * 3),
    ],
)
def test_what_is_no_copy_is_not_read(tmp_path, other):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(smooth(256, 400), metadata=None)
        tiff.write(other, subfiletype=1, metadata=None)

    assert read(path, 32, 32, ReadOptions(page=0, reduced=True)).pixels.shape == (256, 400)


def test_other_pages_are_not_levels(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for reduced in (0, 0, 1):
            tiff.write(blocks(smooth(256, 400), 1 + reduced), subfiletype=reduced, metadata=None)
    pages = [read(path, 9, 9, ReadOptions(page=page, reduced=True)) for page in (0, 1, 2)]

    assert [found.pixels.shape[0] for found in pages] == [256, 128, 128]
    assert pages[2].metadata["page"] == 2


def test_without_effect(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(400, 600)).save(path)

    assert read_micrograph(path, reduced=True).pixels.shape == (400, 600)


def test_information_bars_are_not_looked_for_in_reduced_copies():
    with pytest.raises(ImageReadError, match="information bars are not found"):
        ReadOptions(banner="remove", reduced=True)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({"image_size": 32}, (50, 75)),
        ({"image_size": 150}, (200, 300)),
        ({"image_size": None}, (400, 600)),
        ({"image_size": 32, "pixel_size": 1.0}, (400, 600)),
    ],
)
def test_the_loader_knows_what_the_network_needs(tmp_path, sizes, shape):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(400, 600)).save(path)
    memory = str(tmp_path / "cache")
    options = {"preprocessing": Preprocessing(), "read_options": REDUCED}
    ImageLoader(**options | {"image_size": 100, "memory": memory}).load(path, "a")

    loader = ImageLoader(**options | sizes | {"memory": memory})

    # Facts that the first loader left in the cache are not mistaken for those of this one.
    assert loader.load(path, "a", lambda key: True).info.shape == shape
    assert loader.load(path, "a").info.shape == shape
