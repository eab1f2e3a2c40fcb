"""Masks: two values, of the image's size, whatever the file's format."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image

from hypervlad.images import ImageReadError, read_mask

MASK = np.zeros((20, 30), dtype=bool)
MASK[3:5, 7:9] = True


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (255 * MASK.astype(np.uint8), "mask.png"),
        (MASK.astype(np.uint8), "mask.png"),  # 0 and 1: black to the eye
        (MASK, "mask.png"),
        (np.stack([255 * MASK.astype(np.uint8)] * 3, axis=-1), "mask.png"),
        (65535 * MASK.astype(np.uint16), "mask.tif"),
        (MASK.astype(np.uint16), "mask.tif"),
        (MASK.astype(np.float32), "mask.tif"),
        (255 * MASK.astype(np.uint8), "mask.bmp"),
        (0 * MASK.astype(np.uint8), "mask.png"),
        (255 + 0 * MASK.astype(np.uint8), "mask.png"),
    ],
)
def test_masks_of_every_kind(tmp_path, values, name):
    file = tmp_path / name
    tifffile.imwrite(file, values) if name.endswith("tif") else Image.fromarray(values).save(file)
    expected = values[..., 0] != 0 if values.ndim == 3 else values != 0
    assert_array_equal(read_mask(file, shape=(20, 30)), expected)
    if values.ndim == 2:
        assert_array_equal(read_mask(values), expected)
        assert_array_equal(read_mask(values.tolist()), expected)


def test_grey_edges_are_cut_in_the_middle(tmp_path):
    large = np.kron(MASK, np.ones((7, 7), dtype=np.uint8)) * 255
    jpeg, resized = tmp_path / "mask.jpg", tmp_path / "resized.png"
    Image.fromarray(large).save(jpeg, quality=60)
    assert len(np.unique(np.asarray(Image.open(jpeg)))) > 2
    assert_array_equal(read_mask(jpeg), large > 0)
    smooth = Image.fromarray(large).resize((120, 80), Image.Resampling.BILINEAR)
    smooth.save(resized)
    assert_array_equal(read_mask(resized), np.asarray(smooth) > 127)


def test_bad_masks_are_told(tmp_path):
    file = tmp_path / "labels.png"
    Image.fromarray(np.repeat(np.arange(4, dtype=np.uint8), 30).reshape(4, 30)).save(file)
    with pytest.raises(ImageReadError, match=r"labels\.png: .*more grey \(60 pixels\) than white"):
        read_mask(file)
    colours = tmp_path / "colours.png"
    Image.fromarray(np.stack([255 * MASK, 0 * MASK, 0 * MASK], -1).astype(np.uint8)).save(colours)
    with pytest.raises(ImageReadError, match=r"colours\.png: .*got shape \(20, 30, 3\)"):
        read_mask(colours)
    with pytest.raises(ImageReadError, match="a mask of 20 x 30 pixels for an image of 30 x 20"):
        read_mask(MASK, shape=(30, 20))
    with pytest.raises(ImageReadError, match=r"gone\.png"):
        read_mask(tmp_path / "gone.png")
    with pytest.raises(ImageReadError, match="got type"):
        read_mask(np.array([["a"]]))
    with pytest.raises(ImageReadError, match="not empty"):
        read_mask(np.zeros((0, 3)))
    with pytest.raises(ImageReadError, match="got values -1, 0"):
        read_mask(np.array([[-1, 0]]))
