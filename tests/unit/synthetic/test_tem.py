"""Synthetic TEM and STEM images: balanced, not told by their brightness, lattices of samples."""

import numpy as np
import pytest

from hypervlad.data import TEM_CLASSES, TEM_FINE_CLASSES, make_tem_images


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
