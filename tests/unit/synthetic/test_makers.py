"""What all makers of images have in common: types, ranges, seeds, checked parameters."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hypervlad.data import (
    make_alignment_examples,
    make_lattice_images,
    make_nanofibre_images,
    make_nanowire_images,
    make_particle_fields,
    make_tem_images,
)

MAKERS = [
    make_tem_images,
    make_lattice_images,
    make_nanofibre_images,
    make_nanowire_images,
    make_alignment_examples,
    partial(make_particle_fields, classes=["rod"], extent=(20, 40)),
    partial(make_particle_fields, kind="sem", classes=["rod"], extent=(20, 40)),
]
pytestmark = pytest.mark.parametrize("make", MAKERS)


def values(truth):
    """A label, a mask or a map as an array."""
    truth = getattr(truth, "labels", truth)
    return getattr(truth, "orientation", truth)


def test_images_are_what_they_say(make):
    images, truths = make(3, size=(70, 101), random_state=0)
    assert len(images) == len(truths) == 3
    for image, truth in zip(images, truths, strict=True):
        assert (image.shape, image.dtype) == ((70, 101), np.float32)
        assert 0 <= image.min() < image.max() <= 1
        assert image.std() > 0.02
        assert image.flags.c_contiguous
        assert np.shape(values(truth)) in ((), (70, 101))


def test_same_seed_same_images_whatever_their_number(make):
    (one,), (truth,) = make(1, size=64, random_state=3)
    (same, _), (same_truth, _) = make(2, size=64, random_state=np.random.RandomState(3))
    assert_array_equal(one, same)
    assert_array_equal(values(truth), values(same_truth))
    others = [make(1, size=64)[0][0] for _ in range(2)]  # without a seed
    assert not np.array_equal(one, others[0])
    assert not np.array_equal(*others)


@pytest.mark.parametrize("n", [0, 2.5, True, "12"])
def test_bad_numbers_are_reported(make, n):
    with pytest.raises(ValueError, match=f"n={n!r}: expected the number of images"):
        make(n)


@pytest.mark.parametrize("size", [31, (64, 16), (64, 64, 3), "224", None])
def test_bad_sizes_are_reported(make, size):
    with pytest.raises(ValueError, match=r"size=.*: expected an integer or .* at least \d\d each"):
        make(1, size=size)
