"""Synthetic TEM and STEM images: balanced, not told by their brightness, lattices of samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft

from hypervlad.data import TEM_CLASSES, TEM_FINE_CLASSES, make_lattice_images, make_tem_images


@pytest.mark.parametrize("n_classes", [4, 8])
def test_labels_are_balanced_to_within_one_and_do_not_depend_on_n(n_classes):
    names = TEM_CLASSES if n_classes == 4 else tuple(TEM_FINE_CLASSES)
    images, labels = make_tem_images(18, n_classes=n_classes, size=32, random_state=0)
    counts = [int((labels == name).sum()) for name in names]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == 18
    assert labels.dtype.kind == "U"
    assert len({tuple(labels[i : i + n_classes]) for i in (0, 8)}) == 2  # shuffled
    fewer, few = make_tem_images(5, n_classes=n_classes, size=(np.int64(32), 32), random_state=0)
    assert few.tolist() == labels[:5].tolist()
    np.testing.assert_array_equal(fewer, images[:5])


@pytest.mark.full  # draws hundreds of images
def test_brightness_and_contrast_do_not_tell_the_class():
    images, labels = make_tem_images(160, size=64, random_state=5)
    for statistic in (np.mean, np.std):
        values = np.array([statistic(image) for image in images])
        for name in TEM_CLASSES:
            assert abs(values[labels == name].mean() - values.mean()) < 0.6 * values.std()


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
    different = ~same
    np.fill_diagonal(same, False)
    assert np.median(likeness[same]) > 0.5
    assert np.median(likeness[different]) < 0.2
    for i, j in np.argwhere(same):
        assert abs(np.corrcoef(images[i].ravel(), images[j].ravel())[0, 1]) < 0.9


def test_samples_are_numbered_and_the_last_may_be_smaller():
    _, samples = make_lattice_images(7, images_per_sample=3, size=64, random_state=0)
    assert samples.tolist() == [0, 0, 0, 1, 1, 1, 2]
