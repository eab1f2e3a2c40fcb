"""Keypoints: the same places of turned and mirrored thumbnails have the same descriptors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter

from hypervlad.data.folders.copies import candidate_pairs, find_keypoints

ALL_MOVES = pytest.mark.parametrize(
    ("turns", "mirror"), list(itertools.product(range(4), [False, True]))
)


def thumbnail(seed, shape=(160, 160)):
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)
    return np.clip(np.round(24 * values / values.std()), -127, 127).astype(np.int8)


def moved(image, turns, mirror):
    image = np.rot90(image, turns)
    return np.ascontiguousarray(image[::-1] if mirror else image)


@ALL_MOVES
def test_turned_and_mirrored_thumbnails_have_the_same_descriptors(turns, mirror):
    image = thumbnail(0, (140, 182))
    one, two = find_keypoints(image), find_keypoints(moved(image, turns, mirror))
    assert len(one.positions) > 60
    assert one.n_coarse == 36
    # Cells of odd sizes differ by a pixel, and so a few keypoints do.
    best = (one.descriptors[0] @ two.descriptors[0].T).max(axis=1)
    assert (best > 0.99).mean() > 0.8
    assert_allclose(np.linalg.norm(two.descriptors, axis=2), 1, rtol=1e-4)


@ALL_MOVES
def test_the_transformation_of_a_candidate_is_the_true_one(turns, mirror):
    scene = thumbnail(1, (230, 230))
    images = [scene[:160, :160], moved(scene[50:210, 30:190], turns, mirror), thumbnail(2)]
    points = [find_keypoints(np.ascontiguousarray(image)) for image in images]
    (candidate, *others), (same, *_), none = candidate_pairs(points)
    assert others == []
    assert none == []
    index = np.arange(160 * 160).reshape(160, 160)
    position = np.argwhere(moved(index, turns, mirror) == index[60, 70])[0]
    for found in (candidate, same):
        assert (found.first, found.second) == (0, 1)
        # The first image's (110, 100) is the window's (60, 70).
        place = found.transformation.matrix @ [110, 100] + found.transformation.offset
        assert_allclose(place, position, atol=3)


def test_a_crop_to_three_quarters_is_a_candidate():
    scene = thumbnail(3)
    crop = scene[20:140, 30:150]
    larger = np.kron(crop, np.ones((4, 4)))[:480, :480].reshape(160, 3, 160, 3).mean(axis=(1, 3))
    points = [find_keypoints(image) for image in (scene, np.round(larger).astype(np.int8))]
    for (candidate,) in candidate_pairs(points):
        assert_allclose(candidate.transformation.matrix, np.eye(2) * 4 / 3, atol=0.05)


def test_blank_thumbnails_and_single_images_have_no_candidates():
    blank = find_keypoints(np.zeros((160, 160), np.int8))
    assert len(blank.positions) == 0
    assert list(candidate_pairs([blank, find_keypoints(thumbnail(4)), blank])) == [[], [], []]
    assert list(candidate_pairs([find_keypoints(thumbnail(4))])) == [[]]
    assert list(candidate_pairs([])) == []
