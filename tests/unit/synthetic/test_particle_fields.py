"""Synthetic fields of particles: what is drawn is what their truth says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from hypervlad.data import TEM_FINE_CLASSES, make_particle_fields
from hypervlad.particles import cut_particles

CLEAN = {"illumination": 0.0, "noise": 0.0, "blur": 0.5}
KINDS = pytest.mark.parametrize("kind", ["tem", "sem"])


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
        classes=("sphere", "cube", "fiber"),
        n_particles=n_particles,
        extent=(12, 40),
        touching=touching,
        size=size,
        random_state=seed,
    )
    assert [outline.label for outline in truth.outlines] == list(range(1, n_particles + 1))
    for name in ("classes", "area", "diameter", "length", "width", "visible"):
        assert getattr(truth, name).shape == (n_particles,)
    expected = np.zeros(truth.outlines.shape, np.int32)
    for outline, area in zip(truth.outlines, truth.area, strict=True):
        assert 0 < outline.mask.sum() <= area
        assert all(outline.mask.any(axis=axis)[[0, -1]].all() for axis in (0, 1))
        expected[outline.window] = np.where(outline.mask, outline.label, expected[outline.window])
    assert_array_equal(truth.labels, expected)
    seen = [(expected == label).sum() for label in range(1, n_particles + 1)]
    assert_allclose(truth.visible * truth.area, seen)


@pytest.mark.parametrize("name", ["sphere", "rod", "cube", "fiber"])
def test_sizes_are_those_of_their_shapes(name):
    options = {"n_particles": 1, "extent": (80, 100), "size": 144, "random_state": 0}
    (image, *_), truths = make_particle_fields(4, classes=[name], **options)
    (particle,) = cut_particles(image, truths[0].outlines)
    assert particle.mask.sum() == truths[0].area[0]
    for truth in truths:
        (outline,), (area,) = truth.outlines, truth.area
        (length,), (width,) = truth.length, truth.width
        if name == "sphere":
            assert truth.diameter[0] == pytest.approx(max(outline.mask.shape), rel=0.02)
        if name == "rod":
            assert area == pytest.approx(width * (length - width) + np.pi / 4 * width**2, rel=0.05)
        elif name == "fiber":
            assert area == pytest.approx(length * width, rel=0.15)
        else:
            assert np.isnan([length, width]).all()


@KINDS
@pytest.mark.parametrize("name", [*TEM_FINE_CLASSES, "cube", "rod", "sphere"])
def test_particles_are_visible_in_one_piece_and_nothing_else_is(kind, name):
    (image,), (truth,) = make_particle_fields(
        1, kind=kind, classes=[name], n_particles=1, extent=90, size=128, random_state=1, **CLEAN
    )
    particle = truth.labels > 0
    assert ndimage.label(particle, np.ones((3, 3)))[1] == 1
    far = ~ndimage.binary_dilation(particle, iterations=12)
    difference = image[particle].mean() - np.median(image[far])
    assert difference > 0.06 if kind == "sem" else difference < -0.06
    assert image[far].std() < 0.4 * abs(difference)


@KINDS
def test_a_particle_alone_is_the_same_structure_on_another_background(kind):
    options = {"extent": (40, 60), "random_state": 4}
    _, together = make_particle_fields(2, n_particles=(1, 3), size=160, **options)
    n = sum(len(truth.area) for truth in together)
    _, alone = make_particle_fields(
        n, n_particles=1, size=96, kind=kind, background="cluttered", **options
    )
    for name in ("classes", "area", "length", "width"):
        assert_array_equal(
            *(np.concatenate([getattr(t, name) for t in x]) for x in (together, alone))
        )
    assert_array_equal([truth.visible[0] for truth in alone], 1)


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


def test_the_upper_particle_hides_the_lower_in_sem_only():
    step = {}
    for kind in ("tem", "sem"):
        options = {"classes": ["cube"], "n_particles": 2, "extent": 60, "touching": 1, "size": 150}
        (image,), (truth,) = make_particle_fields(1, kind=kind, **options, **CLEAN, random_state=1)
        lower, upper = (np.zeros(image.shape, bool) for _ in range(2))
        for mask, outline in zip((lower, upper), truth.outlines, strict=True):
            mask[outline.window] = ndimage.binary_erosion(outline.mask, iterations=4)
        assert (lower & upper).sum() > 50
        assert truth.visible[1] == 1
        step[kind] = abs(image[lower & upper].mean() - image[upper & ~lower].mean())
    assert step["tem"] > 0.05 > step["sem"]


@KINDS
def test_illumination_noise_and_blur_are_as_strong_as_given(kind):
    def empty(**options):
        (image,), (truth,) = make_particle_fields(
            1, kind=kind, n_particles=0, size=256, random_state=0, **{**CLEAN, **options}
        )
        assert len(truth.outlines) == 0
        return image.astype(float)

    clean = empty()
    light = ndimage.gaussian_filter(empty(illumination=0.5) / clean, 3)
    assert np.ptp(light) == pytest.approx(0.5, abs=0.02)
    grain = (empty(noise=0.05) - clean) / np.sqrt(clean / 0.5)
    assert grain.std() == pytest.approx(0.05, rel=0.03)
    blurred = ndimage.gaussian_filter(empty(blur=0.0), 3, mode="nearest")
    assert_allclose(empty(blur=3.0), blurred, atol=1e-5)
