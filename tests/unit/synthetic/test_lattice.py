"""Synthetic lattices: reproducible, alike within a sample, and never copies of each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import fft

from hypervlad.data.synthetic import make_lattice_images
from hypervlad.data.synthetic.tem import Crystal, draw_columns, draw_crystal


def spectrum(image):
    """Magnitudes of the Fourier transform, which a shift does not change."""
    window = np.hanning(len(image))
    values = np.abs(fft.rfft2((image - image.mean()) * window[:, None] * window))
    return (values / np.linalg.norm(values)).ravel()


def test_images_of_a_sample_share_the_lattice_but_nothing_else():
    images, samples = make_lattice_images(24, images_per_sample=4, random_state=1)
    spectra = np.stack([spectrum(image) for image in images])
    likeness = spectra @ spectra.T
    same = samples[:, None] == samples[None, :]
    np.fill_diagonal(same, False)
    different = samples[:, None] != samples[None, :]
    assert np.median(likeness[same]) > 0.5
    assert np.median(likeness[different]) < 0.2
    for i, j in np.argwhere(same):
        assert abs(np.corrcoef(images[i].ravel(), images[j].ravel())[0, 1]) < 0.9


def test_an_image_correlates_with_itself_shifted_by_a_lattice_vector():
    """The peaks of the autocorrelation lie at sums of lattice vectors."""
    for seed in range(6):
        images, _ = make_lattice_images(1, size=160, random_state=seed)
        state = np.random.RandomState(seed).randint(2**31 - 1)
        vectors = draw_crystal(np.random.default_rng([0, state, 0])).vectors
        values = images[0] - images[0].mean()
        correlation = fft.irfft2(np.abs(fft.rfft2(values)) ** 2)
        correlation /= correlation[0, 0]
        at = {
            share: np.mean([correlation[tuple(np.rint(v * share).astype(int))] for v in vectors])
            for share in (0.5, 1.0)
        }
        assert at[1.0] > at[0.5] + 0.1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(64, 200), width=st.integers(64, 200))
def test_columns_cover_the_frame_at_the_density_of_the_crystal(seed, height, width):
    crystal = draw_crystal(np.random.default_rng(seed))
    positions, brightness = draw_columns(np.random.default_rng(seed), crystal, (height, width))
    inside = ((positions >= 0) & (positions < (height, width))).all(axis=1)
    cell = abs(np.linalg.det(crystal.vectors))
    expected = height * width / cell * len(crystal.basis)
    # The cells at the edges count or do not.
    edge = (height + width) / np.sqrt(cell) * len(crystal.basis)
    assert abs(inside.sum() - expected) < edge
    assert (brightness > -1e-9).all()


def test_defects_are_as_frequent_as_the_crystal_says():
    crystal = Crystal(
        vectors=np.array([[6.0, 0.0], [0.0, 6.0]]),
        basis=np.zeros((1, 2)),
        brightness=np.ones(1),
        width=1.0,
        vacancies=0.1,
        dopants=0.2,
    )
    _, brightness = draw_columns(np.random.default_rng(0), crystal, (600, 600))
    # Other columns vary by 3 %.
    assert_allclose((brightness < 0.8).mean(), 0.1, atol=0.01)
    assert_allclose((brightness > 1.2).mean(), 0.2, atol=0.01)


def test_samples_are_numbered_and_the_last_may_be_smaller():
    _, samples = make_lattice_images(7, images_per_sample=3, size=64, random_state=0)
    assert samples.tolist() == [0, 0, 0, 1, 1, 1, 2]
    with pytest.raises(ValueError, match="images_per_sample=0: expected the number of images"):
        make_lattice_images(2, images_per_sample=0)
