"""The aligned fraction of synthetic images of wires against their known fraction."""

from __future__ import annotations

import numpy as np
import pytest

from hypervlad.data import make_nanowire_images
from hypervlad.fibres import aligned_fraction, axial_difference

METHODS = ["structure_tensor", "lgo"]
SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]


def scene_of(share, snr, seed):
    (image,), (truth,) = make_nanowire_images(
        1, aligned=share, density=0.5, width=7, blur=0.8, snr=snr, size=384, random_state=seed
    )
    return image, truth.aligned_fraction().fraction


@pytest.fixture(scope="module")
def scenes():
    """Three times, images aligned from not at all to all over; clean and at an SNR of 2."""
    return {
        snr: [[scene_of(share, snr, base + i) for i, share in enumerate(SHARES)] for base in bases]
        for snr, bases in ((np.inf, (100, 200, 300)), (2.0, (400, 500, 600)))
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("snr", "bound", "of_any_five"), [(np.inf, 0.03, 0.04), (2.0, 0.05, 0.06)])
def test_fractions_are_near_the_truth(scenes, method, snr, bound, of_any_five):
    errors = np.array(
        [
            [aligned_fraction(image, method).fraction - true for image, true in five]
            for five in scenes[snr]
        ]
    )
    assert np.abs(errors).mean() <= bound
    assert np.abs(errors).mean(axis=1).max() <= of_any_five
    assert abs(errors.mean()) <= bound


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("turns", [1, 2])
def test_a_turned_image_has_the_same_fraction(scenes, method, turns):
    image, _ = scenes[np.inf][0][1]
    before, after = (aligned_fraction(each, method) for each in (image, np.rot90(image, turns)))
    assert (np.rot90(before.aligned, turns) == after.aligned).mean() > 0.98
    both = np.rot90(before.aligned, turns) & after.aligned
    expected = np.rot90(before.angle, turns) + turns * np.pi / 2
    assert axial_difference(after.angle[both], expected[both]).max() < 0.02
