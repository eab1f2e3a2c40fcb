"""Synthetic TEM and STEM images: balanced, not told by their brightness, true to their crystals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft

from hypervlad.data import TEM_CLASSES, TEM_FINE_CLASSES, make_lattice_images, make_tem_images
from hypervlad.data.synthetic.drawing import worm_like_chains
from hypervlad.data.synthetic.tem import Crystal, balanced_labels, draw_columns, draw_crystal
from hypervlad.data.synthetic.tem_scenes import SCENES, Stage
from hypervlad.data.synthetic.tem_specimens import Walls, particle_thickness, tube_thickness


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), n=st.integers(1, 30), n_classes=st.sampled_from([4, 8]))
def test_labels_are_balanced_to_within_one_and_do_not_depend_on_n(seed, n, n_classes):
    names = TEM_CLASSES if n_classes == 4 else tuple(TEM_FINE_CLASSES)
    labels = balanced_labels(n, names, seed)
    counts = [int((labels == name).sum()) for name in names]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == n
    longer = balanced_labels(n + 5, names, seed)
    assert longer[:n].tolist() == labels.tolist()


def test_class_names():
    _, four = make_tem_images(16, size=32, random_state=0)
    _, eight = make_tem_images(8, n_classes=8, size=(np.int64(33), 32), random_state=0)
    assert set(four) == set(TEM_CLASSES) == {"cluster", "fiber", "matrix", "matrix-surface"}
    assert set(eight) == set(TEM_FINE_CLASSES) == set(SCENES)
    assert set(TEM_FINE_CLASSES.values()) == set(TEM_CLASSES)
    assert four.dtype.kind == "U"
    assert len({tuple(four[i : i + 4]) for i in range(0, 16, 4)}) > 1  # shuffled


@pytest.mark.slow  # draws hundreds of images
def test_brightness_and_contrast_do_not_tell_the_class():
    images, labels = make_tem_images(160, size=64, random_state=5)
    for statistic in (np.mean, np.std):
        values = np.array([statistic(image) for image in images])
        spread = values.std()
        for name in TEM_CLASSES:
            assert abs(values[labels == name].mean() - values.mean()) < 0.6 * spread


def test_few_numbers_guard_against_silent_drift():
    images, labels = make_tem_images(2, size=64, random_state=0)
    assert labels.tolist() == ["fiber", "matrix-surface"]
    blocks = [image.reshape(2, 32, 2, 32).mean(axis=(1, 3)).ravel() for image in images]
    expected = [[0.4967, 0.5420, 0.2924, 0.3404], [0.3223, 0.4403, 0.3359, 0.4559]]
    np.testing.assert_allclose(blocks, expected, atol=2e-3)


def test_an_unknown_number_of_classes_is_reported():
    with pytest.raises(ValueError, match="n_classes=5: there are synthetic images of 4 or of 8"):
        make_tem_images(2, n_classes=5)


def test_hollow_tube_has_the_projection_of_a_hollow_cylinder():
    rng = np.random.default_rng(0)
    rows = np.full(400, 40.0)
    chain = np.stack([rows, np.linspace(-20, 120, 400)], axis=1)[None].astype(np.float32)
    radius, inner = 15.0, 0.5
    thickness = tube_thickness(
        (80, 100), chain, np.array([radius]), Walls(inner, roughness=0.0), rng
    )
    u = (np.arange(80) - 40) / radius
    expected = 2 * np.sqrt(np.maximum(0, 1 - u**2)) - 2 * np.sqrt(np.maximum(0, inner**2 - u**2))
    profile = thickness[:, 30:70].mean(axis=1)
    # The two kinks of the chord are blurred by half a pixel.
    smooth = (np.abs(np.abs(u) - 1) > 0.15) & (np.abs(np.abs(u) - inner) > 0.15)
    np.testing.assert_allclose(profile[smooth], expected[smooth], atol=0.03)
    assert profile[40] < 0.7 * profile.max()
    # And no stripes along it.
    assert thickness[40, 30:70].std() < 0.02 * profile[40]


def test_bent_tube_holds_as_much_material_as_a_straight_one():
    rng = np.random.default_rng(0)
    angle = np.linspace(0, np.pi, 600)
    length = np.pi * 40
    bent = np.stack([70 + 40 * np.sin(angle), 70 - 40 * np.cos(angle)], axis=1)[None]
    straight = np.stack([np.full(600, 70.0), np.linspace(7, 7 + length, 600)], axis=1)[None]
    walls = Walls(0.4, roughness=0.0)
    masses = [
        tube_thickness((140, 140), chain.astype(np.float32), np.array([9.0]), walls, rng).sum()
        for chain in (bent, straight)
    ]
    assert masses[0] == pytest.approx(masses[1], rel=0.01)


def test_chain_goes_through_its_anchor_in_its_direction():
    rng = np.random.default_rng(3)
    anchors = np.array([[10.0, 20.0], [50.0, 5.0]])
    headings = np.array([0.3, -2.0])
    chains = worm_like_chains(
        rng,
        anchors=anchors,
        headings=headings,
        length=np.array([100.0, 60.0]),
        persistence=1000.0,
        step=0.5,
        stiffness=2.0,
        anchor_at=np.array([0.0, 1.0]),
    )
    np.testing.assert_allclose(chains[0, 0], anchors[0], atol=1e-4)
    np.testing.assert_allclose(chains[1, -1], anchors[1], atol=1e-4)
    steps = np.linalg.norm(np.diff(chains, axis=1), axis=2).sum(axis=1)
    np.testing.assert_allclose(steps, [100, 60], rtol=0.02)
    first = chains[0, 1] - chains[0, 0]
    assert np.arctan2(first[0], first[1]) == pytest.approx(0.3, abs=0.05)


def test_particle_outside_the_frame_leaves_it_empty():
    out = particle_thickness(
        (20, 20),
        np.array([[-50.0, 5.0], [10.0, 10.0]]),
        np.array([3.0, 4.0]),
        np.array([1.0, 1.0]),
        np.array([0.0, 0.0]),
    )
    assert out[10, 10] == pytest.approx(2.0)
    assert out[:5].sum() == 0


@pytest.mark.parametrize("kind", sorted(SCENES))
def test_scene_contents(kind):
    """Fibres and clusters have tubes; matrix has polymer and no tube outside it."""
    for seed in range(2):
        stage = Stage(np.random.default_rng(seed), (128, 128), 112 / 224)
        SCENES[kind](stage)
        coarse = TEM_FINE_CLASSES[kind]
        if coarse in ("fiber", "cluster"):
            assert stage.tubes.max() > 0.5
        else:
            assert stage.matrix.max() > 0.2
        bare = stage.tubes[stage.matrix < 0.05].sum()
        if coarse == "matrix":
            assert bare == 0
        if coarse == "matrix-surface":
            assert bare > 0


# --- lattices ------------------------------------------------------------------------------------


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
    np.testing.assert_allclose((brightness < 0.8).mean(), 0.1, atol=0.01)
    np.testing.assert_allclose((brightness > 1.2).mean(), 0.2, atol=0.01)


def test_samples_are_numbered_and_the_last_may_be_smaller():
    _, samples = make_lattice_images(7, images_per_sample=3, size=64, random_state=0)
    assert samples.tolist() == [0, 0, 0, 1, 1, 1, 2]
    with pytest.raises(ValueError, match="images_per_sample=0: expected the number of images"):
        make_lattice_images(2, images_per_sample=0)
