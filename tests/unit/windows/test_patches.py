"""Patches lie where a plain loop puts them, with the labels of their masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hypervlad.features import cut_patches, map_from_patches, patch_positions, patches_at

SIDES = st.tuples(st.integers(1, 40), st.integers(1, 40))
EDGES = ("drop", "shift", "pad")


def naive_starts(extent, patch, stride, edges):
    starts = []
    start = 0
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
    if min(shape) < patch and edges != "pad":
        with pytest.raises(ValueError):
            patch_positions(shape, patch, stride, edges=edges)
        return
    rows, columns = (naive_starts(extent, patch, stride, edges) for extent in shape)
    expected = [[row, column] for row in rows for column in columns]
    assert patch_positions(shape, patch, stride, edges=edges).tolist() == expected


@given(st.integers(0, 10**6), SIDES, st.integers(1, 9), st.integers(1, 12), st.sampled_from(EDGES))
@settings(max_examples=80, deadline=None)
def test_maps_are_those_of_plain_loops(seed, shape, patch, stride, edges):
    rng = np.random.default_rng(seed)
    if min(shape) < patch:
        edges = "pad"
    positions = patch_positions(shape, patch, stride, edges=edges)
    values = rng.normal(size=len(positions))
    painted = map_from_patches(values, positions, shape, patch)
    total, n = np.zeros(shape), np.zeros(shape, dtype=int)
    for value, (top, left) in zip(values, positions, strict=True):
        for row in range(top, min(top + patch, shape[0])):
            for column in range(left, min(left + patch, shape[1])):
                total[row, column] += value
                n[row, column] += 1
    expected = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    assert_allclose(painted, expected, atol=1e-6)


@pytest.mark.parametrize("colours", [(), (3,)])
def test_patches_are_cut_and_reflected(colours):
    image = np.random.default_rng(0).random((10, 13, *colours)).astype(np.float32)
    positions = patch_positions((10, 13), 4, edges="pad")
    patches = patches_at(image, positions, 4)
    assert patches.shape == (12, 4, 4, *colours)
    assert patches.dtype == np.float32
    padded = np.concatenate([image, image[::-1]])
    padded = np.concatenate([padded, padded[:, ::-1]], axis=1)
    for cut, (row, column) in zip(patches, positions, strict=True):
        assert_array_equal(cut, padded[row : row + 4, column : column + 4])
    patches[:] = 0
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
        (lambda: map_from_patches([1.0], [[0, 0], [0, 1]], (4, 4), 2), "one value for each of 2"),
        (lambda: map_from_patches([1.0], [[4, 0]], (4, 4), 2), r"\[4, 0\] lies outside .* 4 x 4"),
        (lambda: map_from_patches([np.nan], [[0, 0]], (4, 4), 2), "values must be finite"),
        (lambda: patches_at(SMALL, [[0, -1]], 2), r"\[0, -1\] lies outside"),
        (lambda: patches_at(SMALL, [0, 1], 2), "positions are whole numbers"),
    ],
)
def test_unusable_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mask_of_the_whole_frame_is_cut_with_the_banner():
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (120, 100), dtype=np.uint8)
    image[100:] = 0
    image[108:112, 10:60] = 255  # a line of writing
    mask = np.zeros((120, 100), dtype=bool)
    mask[:10, :10] = True
    patches = cut_patches([image], [mask], patch=10, read_options={"banner": "remove"})
    assert len(patches) == 100
    assert (patches.labels == "anomalous").tolist() == [True] + [False] * 99
