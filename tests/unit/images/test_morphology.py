"""Masks grown and shrunk, and areas of hulls, against SciPy."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import binary_dilation, binary_erosion

from hypervlad.images.morphology import EIGHT, grown, hull_areas, hull_of, shrunk

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)


@given(arrays(bool, SHAPES), st.integers(1, 4), st.booleans())
def test_masks_grow_and_shrink_as_in_scipy(mask, by, corners):
    neighbours = EIGHT if corners else None
    assert (grown(mask, by, corners=corners) == binary_dilation(mask, neighbours, by)).all()
    assert (shrunk(mask, by, corners=corners) == binary_erosion(mask, neighbours, by)).all()


@given(arrays("int32", SHAPES, elements=st.integers(0, 2)))
def test_all_hulls_at_once_have_the_areas_of_each(labels):
    numbers = range(1, labels.max() + 1)
    assume(np.isin(numbers, labels).all())
    assert hull_areas(labels) == pytest.approx([hull_of(labels == k).volume for k in numbers])
