"""Patches lie where a plain loop puts them, with the labels of their masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hypervlad.features import cut_patches

SIDES = st.tuples(st.integers(1, 40), st.integers(1, 40))
EDGES = ("drop", "shift", "pad")


def naive_starts(extent, patch, stride, edges):
    starts, start = [], 0
    while start + patch <= extent:
        starts.append(start)
        start += stride
    if not starts:
        return [0]
    covered = starts[-1] + patch
    if covered < extent:
        if edges == "shift":
            starts.append(extent - patch)
        if edges == "pad" and start < extent:
            starts.append(start)
    return starts


@given(SIDES, st.integers(1, 12), st.integers(1, 15), st.sampled_from(EDGES))
@settings(max_examples=150, deadline=None)
def test_positions_are_those_of_plain_loops(shape, patch, stride, edges):
    def cut():
        return cut_patches([np.zeros(shape)], patch=patch, stride=stride, edges=edges)

    if min(shape) < patch and edges != "pad":
        with pytest.raises(ValueError):
            cut()
        return
    rows, columns = (naive_starts(extent, patch, stride, edges) for extent in shape)
    expected = [[row, column] for row in rows for column in columns]
    assert cut().positions.tolist() == expected


@pytest.mark.parametrize("colours", [(), (3,)])
def test_patches_are_cut_and_reflected(colours):
    image = np.random.default_rng(0).random((10, 13, *colours)).astype(np.float32)
    patches = cut_patches([image], patch=4, edges="pad")
    assert patches.pixels.shape == (12, 4, 4, *colours)
    assert patches.pixels.dtype == np.float32
    padded = np.concatenate([image, image[::-1]])
    padded = np.concatenate([padded, padded[:, ::-1]], axis=1)
    for cut, (row, column) in zip(patches.pixels, patches.positions, strict=True):
        assert_array_equal(cut, padded[row : row + 4, column : column + 4])
    patches.pixels[:] = 0
    assert image.any()  # a copy


def masked_images(n=6, shape=(40, 50), seed=0):
    rng = np.random.default_rng(seed)
    images = [np.rint(255 * rng.random(shape)).astype(np.uint8) for _ in range(n)]
    masks = [np.zeros(shape, dtype=bool) for _ in range(n)]
    for mask in masks:
        mask[:7, :9] = True
    return images, masks


def test_labels_follow_the_defective_share():
    images, masks = masked_images(2, (30, 30))
    masks[0][:] = False
    masks[0][:10, :10] = True  # all of the first of nine patches
    masks[0][10:12, 10:15] = True  # a tenth of the fifth
    masks[0][20, 20] = True  # a hundredth of the last: mixed
    masks[1] = None
    patches = cut_patches(images, masks, patch=10)
    assert len(patches) == 8 + 9
    expected = ["anomalous", *["normal"] * 3, "anomalous", *["normal"] * 3]
    assert patches.labels[patches.image_index == 0].tolist() == expected
    assert set(patches.labels[patches.image_index == 1]) == {"normal"}
    assert patches.defective[:5].tolist() == pytest.approx([1, 0, 0, 0, 0.1])
    assert_array_equal(patches.pixels[4], images[0][10:20, 10:20].astype(np.float32) / 255)


SMALL = np.zeros((12, 12))
MIXED = np.arange(144).reshape(12, 12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cut_patches([SMALL]), "image 0 of the list.*12 x 12 pixels is smaller than"),
        (lambda: cut_patches([SMALL], [SMALL] * 2), "one mask .None.* each of 1 image.*got 2"),
        (lambda: cut_patches([SMALL], [SMALL[:5]], patch=4), "its mask.*5 x 12 .* of 12 x 12"),
        (lambda: cut_patches([SMALL], [MIXED], patch=4), "its mask: .*144 in all"),
        (lambda: cut_patches([SMALL], patch=0), "patch must be a whole number of pixels"),
        (lambda: cut_patches([SMALL], patch=4, edges="wrap"), "edges must be one of.*got 'wrap'"),
        (lambda: cut_patches([SMALL], patch=4, groups=[1, 2]), "2 groups values for 1 image"),
    ],
)
def test_unusable_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mask_of_the_whole_frame_is_cut_with_the_banner():
    image = np.random.default_rng(0).integers(60, 200, (120, 100), dtype=np.uint8)
    image[100:] = 0
    image[108:112, 10:60] = 255  # a line of writing
    mask = np.zeros((120, 100), dtype=bool)
    mask[:10, :10] = True
    patches = cut_patches([image], [mask], patch=10, read_options={"banner": "remove"})
    assert len(patches) == 100
    assert (patches.labels == "anomalous").tolist() == [True] + [False] * 99
