"""Synthetic fields of particles: what is drawn is what their truth says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from hypervlad.data import make_particle_fields
from hypervlad.particles import cut_particles


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    n_particles=st.integers(0, 6),
    touching=st.sampled_from([0.0, 1.0]),
    size=st.sampled_from([64, (80, 150)]),
)
def test_outlines_labels_and_sizes_agree(seed, n_particles, touching, size):
    _, (truth,) = make_particle_fields(
        1,
        classes=("sphere", "cube", "rod"),
        n_particles=n_particles,
        extent=(12, 40),
        touching=touching,
        size=size,
        random_state=seed,
    )
    assert [outline.label for outline in truth.outlines] == list(range(1, n_particles + 1))
    for name in ("classes", "area", "diameter", "visible"):
        assert getattr(truth, name).shape == (n_particles,)
    expected = np.zeros(truth.outlines.shape, np.int32)
    for outline, area in zip(truth.outlines, truth.area, strict=True):
        assert 0 < outline.mask.sum() <= area
        assert all(outline.mask.any(axis=axis)[[0, -1]].all() for axis in (0, 1))
        expected[outline.window] = np.where(outline.mask, outline.label, expected[outline.window])
    assert_array_equal(truth.labels, expected)
    seen = [(expected == label).sum() for label in range(1, n_particles + 1)]
    assert_allclose(truth.visible * truth.area, seen)


@pytest.mark.parametrize("name", ["sphere", "rod", "cube"])
def test_sizes_are_those_of_their_shapes(name):
    options = {"n_particles": 1, "extent": (80, 100), "size": 300, "random_state": 0}
    (image, *_), truths = make_particle_fields(4, classes=[name], **options)
    (particle,) = cut_particles(image, truths[0].outlines)
    assert particle.mask.sum() <= truths[0].area[0]
    boxes = [max(outline.mask.shape) for truth in truths for outline in truth.outlines]
    assert max(boxes) <= 101
    if name == "sphere":
        assert truths[0].diameter[0] == pytest.approx(max(boxes[0], 80), rel=0.25)


def test_touching_particles_touch_and_others_keep_a_distance():
    options = {"classes": ["sphere"], "n_particles": 5, "extent": (20, 40), "random_state": 0}
    for touching in (0.0, 1.0):
        _, truths = make_particle_fields(6, touching=touching, size=256, **options)
        pieces = [ndimage.label(truth.labels, np.ones((3, 3)))[1] for truth in truths]
        assert pieces == [1 if touching else 5] * 6
        near = [ndimage.label(ndimage.binary_dilation(t.labels > 0))[1] for t in truths]
        assert near == pieces
        for truth in truths:
            inside = np.array([outline.mask.sum() for outline in truth.outlines]) / truth.area
            assert (truth.visible / inside > 0.4).all()
