"""Defects added to any image: visible, masked, in range, reproducible."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.ndimage import binary_dilation

from hypervlad.data import IMAGE_DEFECTS, add_defect, make_fibre_images, make_tem_images

LOCAL = ("scratch", "stain", "band", "blur", "pits")
kinds = st.sampled_from(IMAGE_DEFECTS)
seeds = st.integers(0, 2**31 - 1)


@cache
def textures():
    """Images of several kinds and shapes: also dark, bright, of low contrast, in colour."""
    (mat,), _ = make_fibre_images(1, cover=0.8, size=(96, 130), random_state=0)
    (tubes,), _ = make_tem_images(1, size=(80, 64), random_state=1)
    (wires,), _ = make_fibre_images(1, size=100, random_state=0)
    noise = np.random.default_rng(0).random((64, 64))
    colour = np.stack([mat, 0.5 * mat, 1 - mat], axis=2)
    return [mat, tubes, wires, noise, 0.08 * mat, 0.9 + 0.1 * wires, 0.5 + 0.04 * tubes, colour]


images = st.sampled_from(range(8)).map(lambda i: textures()[i])


def change(before, after):
    """The largest change of a channel, at each pixel."""
    difference = np.abs(after - before.astype(np.float32))
    return difference.max(axis=2) if difference.ndim == 3 else difference


@settings(max_examples=25)
@given(image=images, kind=kinds, seed=seeds)
def test_image_and_mask_are_what_they_say(image, kind, seed):
    original = image.copy()
    changed, mask = add_defect(image, kind, random_state=seed)
    assert_array_equal(image, original)
    assert (changed.shape, changed.dtype) == (image.shape, np.float32)
    assert (mask.shape, mask.dtype) == (image.shape[:2], bool)
    assert 0 <= changed.min() <= changed.max() <= 1
    assert mask.any()

    difference, visible = change(image, changed), max(0.099 * float(image.std()), 0.002)
    # Every pixel of the mask is near a pixel that has changed.
    assert binary_dilation(difference >= visible, np.ones((5, 5)))[mask].all()
    if kind in LOCAL:
        outside = ~binary_dilation(mask, iterations=3)
        assert difference[outside].mean() < 0.2 * difference[mask].mean()


FLAT = np.full((64, 64), 0.5)


@pytest.mark.parametrize(
    ("image", "kind", "words"),
    [
        (FLAT, "blur", "kind='blur'.*visible nowhere.*use another kind"),
        (0 * FLAT, "pits", "kind='pits'.*visible nowhere.*use another kind"),
        (FLAT, "crack", "expected one of scratch, stain, band, blur, gradient"),
        (np.zeros((63, 100)), "stain", "63 x 100 pixels; expected at least 64 on each side"),
        (np.zeros((64, 64), np.uint8), "stain", "type uint8 .* floats in .0, 1.*divide an 8-bit"),
        (3 * FLAT, "stain", "from 1.5 to 1.5; expected floats"),
        (np.nan * FLAT, "stain", "4096 NaN"),
        (np.zeros((2, 64, 64, 3)), "stain", "4 dimensions"),
        ("mat.png", "stain", "image: an array of text"),
    ],
)
def test_what_is_refused(image, kind, words):
    with pytest.raises(ValueError, match=words):
        add_defect(image, kind, random_state=0)
