"""Finding and separating particles, against plain loops and whole-image operations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed

from hypervlad.particles import split_particles

EIGHT = np.ones((3, 3))


def disks(seed, n=25, size=96, radii=(2, 12)):
    """A normalised distance map of disks, the union of their pixels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    depth = np.zeros((size, size))
    for _ in range(n):
        radius = rng.uniform(*radii)
        row, column = rng.uniform(0, size, 2)
        depth = np.maximum(depth, 1 - np.hypot(rows - row, columns - column) / radius)
    return depth, depth > 0


def whole_image_split(depth, mask, core, min_area, min_core):
    """The same at once, with plain loops over labels."""
    smooth = ndimage.gaussian_filter((depth * mask).astype(np.float32), 1.0)
    seeds = ndimage.label((smooth > core) & mask, EIGHT)[0]
    for seed in range(1, seeds.max() + 1):
        if (seeds == seed).sum() < min_core:
            seeds[seeds == seed] = 0
    labels = watershed(-smooth, seeds, mask=mask, connectivity=2)
    rest = ndimage.label(mask & (labels == 0), EIGHT)[0]
    labels[rest > 0] = rest[rest > 0] + labels.max()
    ordered = np.zeros_like(labels)
    _, firsts = np.unique(labels, return_index=True)
    for label in labels.flat[sorted(firsts)]:
        if label and (labels == label).sum() >= min_area and not ordered[labels == label].any():
            ordered[labels == label] = ordered.max() + 1
    return ordered


@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.5, 0.8]), st.sampled_from([0, 20, 60]))
def test_components_one_by_one_equal_the_whole_image(seed, core, min_area):
    depth, mask = disks(seed, size=48)
    depth += np.random.default_rng(seed).normal(0, 1e-3, depth.shape)  # no ties
    found = split_particles(depth, mask, core=core, min_area=min_area)
    expected = whole_image_split(depth, mask, core, min_area, 6)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int32


def test_touching_disks_are_separated_and_far_ones_kept():
    depth = np.zeros((96, 96))
    rows, columns = np.mgrid[:96, :96]
    for row, column in [(30, 20), (30, 38), (70, 70)]:
        depth = np.maximum(depth, 1 - np.hypot(rows - row, columns - column) / 10)
    found = split_particles(depth, depth > 0)
    assert [found[30, 20], found[30, 38], found[70, 70]] == [1, 2, 3]
    assert found.max() == 3


def test_nothing_and_mismatched_shapes():
    assert not split_particles(np.ones((5, 7)), np.zeros((5, 7), bool)).any()
    with pytest.raises(ValueError, match=r"one shape .* \(5, 7\) and \(7, 5\)"):
        split_particles(np.ones((5, 7)), np.zeros((7, 5), bool))
