"""Synthetic TEM images: balanced."""

import numpy as np

from hypervlad.data import TEM_CLASSES, make_tem_images


def test_labels_are_balanced_to_within_one_and_do_not_depend_on_n():
    images, labels = make_tem_images(18, size=32, random_state=0)
    counts = [int((labels == name).sum()) for name in TEM_CLASSES]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == 18
    assert labels.dtype.kind == "U"
    assert len({tuple(labels[i : i + 4]) for i in (0, 8)}) == 2  # shuffled
    fewer, few = make_tem_images(5, size=(np.int64(32), 32), random_state=0)
    assert few.tolist() == labels[:5].tolist()
    np.testing.assert_array_equal(fewer, images[:5])
