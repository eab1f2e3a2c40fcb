"""What all makers of images have in common: types, ranges, seeds, checked parameters."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hypervlad.data import FIBRE_LOOKS, make_fibre_images, make_particle_fields, make_tem_images

fields = partial(make_particle_fields, classes=["rod"], extent=(20, 40))
MAKERS = [
    make_tem_images,
    partial(make_fibre_images, aligned=0.5),
    fields,
    *(partial(make_fibre_images, look=look, diameter=(4, 9)) for look in FIBRE_LOOKS),
]


def values(truth):
    """A label, a mask or a map as an array."""
    for name in ("labels", "orientation", "fibres"):
        truth = getattr(truth, name, truth)
    return truth


@pytest.mark.parametrize("make", MAKERS)
def test_images_are_what_they_say(make):
    images, truths = make(3, size=(70, 101), random_state=0)
    assert len(images) == len(truths) == 3
    for image, truth in zip(images, truths, strict=True):
        assert (image.shape, image.dtype) == ((70, 101), np.float32)
        assert 0 <= image.min() < image.max() <= 1
        assert image.std() > 0.02
        assert image.flags.c_contiguous
        assert np.shape(values(truth)) in ((), (70, 101))


@pytest.mark.parametrize("make", MAKERS)
def test_same_seed_same_images_whatever_their_number(make):
    (one,), (truth,) = make(1, size=64, random_state=3)
    (same, _), (same_truth, _) = make(2, size=64, random_state=np.random.RandomState(3))
    assert_array_equal(one, same)
    assert_array_equal(values(truth), values(same_truth))
    others = [make(1, size=64)[0][0] for _ in range(2)]  # without a seed
    assert not np.array_equal(one, others[0])
    assert not np.array_equal(*others)


BAD = [
    *(
        (make, {"n": n}, f"n must be .*, not {n!r}")
        for make in MAKERS
        for n in (0, 2.5, True, "12")
    ),
    *(
        (make, {"size": size}, "size must be .* at least .* or height and width")
        for make in MAKERS
        for size in (31, (64, 16), (64, 64, 3), "224", None)
    ),
    (make_fibre_images, {"aligned": 1.2}, "aligned=1.2: expected a number from 0 to 1"),
    (make_fibre_images, {"curl": 3}, "curl=3: expected a number from 0 to 2"),
    (make_fibre_images, {"contrast_to_noise": (2, np.inf)}, "expected a number from 0.1 to inf"),
    (make_fibre_images, {"blur": (1, 0)}, "the lower first"),
    (make_fibre_images, {"diameter": 0}, "diameter"),
    (fields, {"classes": "rod"}, r"classes must be a list of names \(each one of .*, not 'rod"),
    (fields, {"classes": ["rod", "fibre"]}, r"classes must be .*, not \('rod', 'fibre'\)"),
    (fields, {"touching": (0.2, 0.1)}, "touching=.*the lower first"),
]


@pytest.mark.parametrize(("make", "options", "words"), BAD)
def test_bad_parameters_are_reported(make, options, words):
    with pytest.raises(ValueError, match=words):
        make(**({"n": 1} | options))
