"""Near copies: planted ones are found, images of similar objects or of one lattice are not."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter
from support.copies import CHANGES, SEVERAL, framed, jpeg, window, with_banner, with_caption

from hypervlad.data import make_lattice_images, make_nanofibre_images, make_tem_images
from hypervlad.data.folders import copies
from hypervlad.data.folders.copies import (
    candidate_pairs,
    find_keypoints,
    find_near_copies,
    group_copies,
    make_thumbnail,
)
from hypervlad.data.folders.registration import Registration, Transformation


@functools.cache
def tem_images_once():
    """Thirty synthetic images; a fixture would be printed in full for each hypothesis example."""
    return make_tem_images(30, size=160, random_state=3)[0]


@pytest.fixture
def tem_images():
    return tem_images_once()


@pytest.mark.parametrize("first", [0, 19])
def test_planted_copies_are_found_and_nothing_else(tem_images, first):
    thumbnails = [make_thumbnail(image) for image in tem_images]
    planted = {}
    for k, (name, change) in enumerate(CHANGES.items()):
        i = (first + k) % 30
        original, copy = change(tem_images[i])
        thumbnails[i] = make_thumbnail(original)
        thumbnails.append(make_thumbnail(np.ascontiguousarray(copy)))
        planted[i, 30 + k] = name
    done = []
    pairs, similarity, _ = find_near_copies(thumbnails, progress=done.append)
    assert sum(done) == len(thumbnails)
    found = {(int(i), int(j)) for i, j in pairs}
    assert found <= set(planted)
    # Several changes at once may hide a picture that is little more than noise.
    assert {planted[pair] for pair in set(planted) - found} <= {SEVERAL}
    assert (similarity >= 0.8).all()
    assert (similarity <= 1.001).all()


@settings(max_examples=15, deadline=None)
@given(
    top=st.integers(-8, 8),
    left=st.integers(-8, 8),
    gain=st.floats(0.2, 1.0),
    offset=st.floats(0.0, 0.3),
    which=st.integers(0, 29),
)
# Found by exploration.
@example(top=-8, left=-7, gain=1.0, offset=0.0, which=21)
@example(top=-7, left=8, gain=1.0, offset=0.0, which=28)
def test_any_small_shift_and_contrast(top, left, gain, offset, which):
    image = tem_images_once()[which]
    first = make_thumbnail(window(image, 0, 0))
    second = make_thumbnail(offset + np.float32(gain) * window(image, top, left))
    _, (similarity,), _ = find_near_copies([first, second])
    assert similarity > 0.85
    _, (reverse,), _ = find_near_copies([second, first])
    assert reverse == pytest.approx(similarity, abs=0.05)


@settings(max_examples=8, deadline=None)
@given(
    down=st.integers(-64, 64),
    right=st.integers(-64, 64),
    turns=st.integers(0, 3),
    mirror=st.booleans(),
    which=st.integers(0, 4),
)
def test_any_turn_mirror_and_shift_by_up_to_40_percent(down, right, turns, mirror, which):
    image = large_images_once()[which]
    copy = np.rot90(window(image, down, right, margin=64), turns)
    thumbnails = [make_thumbnail(window(other, 0, 0, margin=64)) for other in large_images_once()]
    thumbnails.append(make_thumbnail(copy[::-1] if mirror else copy))
    pairs, *_ = find_near_copies(thumbnails)
    assert pairs.tolist() == [[which, 5]]


@functools.cache
def large_images_once():
    """Five images with structure everywhere: shifted ones overlap in more than background."""
    return make_nanofibre_images(5, defective=0, size=288, random_state=5)[0]


def test_images_of_one_lattice_are_no_copies_but_its_copies_are_found():
    images, _ = make_lattice_images(16, images_per_sample=16, random_state=2)
    planted = range(0, 16, 4)
    copies = [jpeg(window(images[i], 3, -4), 85) for i in planted]
    originals = [window(image, 0, 0) if i in planted else image for i, image in enumerate(images)]
    pairs, *_ = find_near_copies([make_thumbnail(image) for image in originals + copies])
    assert pairs.tolist() == [[i, 16 + k] for k, i in enumerate(planted)]


@pytest.mark.parametrize(("share", "level"), [(0.02, 1.0), (0.1, 0.0), (0.25, 1.0)])
def test_a_frame_hardly_changes_the_thumbnail(tem_images, share, level):
    for image in tem_images[:6]:
        # Two rows inside a frame are cut off as well, where compression may have blurred its edge.
        inner = make_thumbnail(image[2:-2, 2:-2])
        assert np.array_equal(make_thumbnail(framed(image, share, level)), inner)


def test_what_is_no_frame_stays(tem_images):
    """A dark background around an object, or a dark object that touches an edge."""
    rows, columns = np.mgrid[-1:1:160j, -1:1:160j]
    background = np.exp(-8 * (rows**2 + columns**2)).astype(np.float32)
    on_black = np.where(np.hypot(rows, columns) < 0.9, tem_images[0], np.float32(0))
    touching = tem_images[1].copy()
    touching[:20, :100] = 0
    for image in (background, on_black, touching, *tem_images):
        assert copies._without_frame(image).shape == image.shape


def test_same_frame_caption_or_banner_makes_no_copies(tem_images):
    for change in (with_banner, with_caption, lambda image: framed(image, 0.1, 0)):
        thumbnails = [make_thumbnail(change(image)) for image in tem_images[:15]]
        assert len(find_near_copies(thumbnails)[0]) == 0


def test_overlap_is_a_part_of_the_image_with_less_else():
    whole = large_images_once()[0]
    views = [whole[:192, :192], whole[:192, 96:], whole[48:192, 48:192]]
    pairs, _, overlap = find_near_copies([make_thumbnail(view) for view in views])
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert overlap == pytest.approx([0.5, 1, 2 / 3], abs=0.04)


def test_more_copies_of_one_image_than_neighbours_stay_one_set(tem_images):
    burst = [window(tem_images[0], shift, -shift) for shift in range(-8, 9)]
    others = [window(image, 0, 0) for image in tem_images[1:20]]
    thumbnails = [make_thumbnail(image) for image in burst + others]
    pairs, *_ = find_near_copies(thumbnails)
    assert group_copies(pairs, len(thumbnails)) == [list(range(len(burst)))]


def test_noise_and_blank_images_are_no_copies():
    rng = np.random.default_rng(0)
    images = [rng.random((80, 80), dtype=np.float32) for _ in range(30)]
    images += [np.full((80, 80), level, np.float32) for level in (0.0, 0.5, 0.5, 1.0)]
    thumbnails = [make_thumbnail(image) for image in images]
    assert not np.any(thumbnails[30:])
    assert len(find_near_copies(thumbnails)[0]) == 0


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_images(tem_images, n):
    thumbnails = [make_thumbnail(tem_images[0])] * n
    pairs, similarity, _ = find_near_copies(thumbnails)
    assert len(pairs) == len(similarity) == n * (n - 1) // 2
    assert all(i < j for i, j in pairs)


def test_thumbnail_of_colour_and_tiny_images():
    rng = np.random.default_rng(1)
    grey = rng.random((50, 70), dtype=np.float32)
    colour = np.repeat(grey[..., None], 3, axis=2)
    assert np.abs(make_thumbnail(grey).astype(int) - make_thumbnail(colour)).max() <= 1
    assert make_thumbnail(np.ones((1, 1), np.float32)).shape == (160, 160)
    assert make_thumbnail(grey).shape == (135, 189)


def test_a_doubtful_pair_chains_no_sets(tem_images):
    """A pair that is only just similar counts only if other copies of the two images agree."""
    sets = [[window(tem_images[i], 2 * k, -k) for k in range(4)] for i in (3, 7)]
    thumbnails = [make_thumbnail(image) for image in sets[0] + sets[1]]
    unmoved = Transformation(np.eye(2), np.zeros(2))
    finder = copies._Finder(thumbnails)
    finder.confirmed[0, 4] = Registration(0.85, 0.9, unmoved)
    for pair in itertools.combinations(range(8), 2):
        finder.compare(pair, unmoved)
    assert not finder.supported((0, 4))
    assert finder.supported((0, 1))


def test_group_copies_joins_chains():
    pairs = np.array([[0, 3], [3, 5], [1, 2]])
    assert group_copies(pairs, 7) == [[0, 3, 5], [1, 2]]
    assert group_copies(np.empty((0, 2), np.intp), 7) == []


# --- keypoints ------------------------------------------------------------------------------------

ALL_MOVES = pytest.mark.parametrize(
    ("turns", "mirror"), list(itertools.product(range(4), [False, True]))
)


def thumbnail(seed, shape=(160, 160)):
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)
    return np.clip(np.round(24 * values / values.std()), -127, 127).astype(np.int8)


def moved(image, turns, mirror):
    image = np.rot90(image, turns)
    return np.ascontiguousarray(image[::-1] if mirror else image)


@ALL_MOVES
def test_turned_and_mirrored_thumbnails_have_the_same_descriptors(turns, mirror):
    image = thumbnail(0, (140, 182))
    one, two = find_keypoints(image), find_keypoints(moved(image, turns, mirror))
    assert len(one.positions) > 60
    assert one.n_coarse == 36
    # Cells of odd sizes differ by a pixel, and so a few keypoints do.
    best = (one.descriptors[0] @ two.descriptors[0].T).max(axis=1)
    assert (best > 0.99).mean() > 0.8
    assert_allclose(np.linalg.norm(two.descriptors, axis=2), 1, rtol=1e-4)


@ALL_MOVES
def test_the_transformation_of_a_candidate_is_the_true_one(turns, mirror):
    scene = thumbnail(1, (230, 230))
    images = [scene[:160, :160], moved(scene[50:210, 30:190], turns, mirror), thumbnail(2)]
    points = [find_keypoints(np.ascontiguousarray(image)) for image in images]
    (candidate, *others), (same, *_), none = candidate_pairs(points)
    assert others == []
    assert none == []
    index = np.arange(160 * 160).reshape(160, 160)
    position = np.argwhere(moved(index, turns, mirror) == index[60, 70])[0]
    for found in (candidate, same):
        assert (found.first, found.second) == (0, 1)
        # The first image's (110, 100) is the window's (60, 70).
        place = found.transformation.matrix @ [110, 100] + found.transformation.offset
        assert_allclose(place, position, atol=3)


def test_a_crop_to_three_quarters_is_a_candidate():
    scene = thumbnail(3)
    crop = scene[20:140, 30:150]
    larger = np.kron(crop, np.ones((4, 4)))[:480, :480].reshape(160, 3, 160, 3).mean(axis=(1, 3))
    points = [find_keypoints(image) for image in (scene, np.round(larger).astype(np.int8))]
    for (candidate,) in candidate_pairs(points):
        assert_allclose(candidate.transformation.matrix, np.eye(2) * 4 / 3, atol=0.05)


def test_blank_thumbnails_and_single_images_have_no_candidates():
    blank = find_keypoints(np.zeros((160, 160), np.int8))
    assert len(blank.positions) == 0
    assert list(candidate_pairs([blank, find_keypoints(thumbnail(4)), blank])) == [[], [], []]
    assert list(candidate_pairs([find_keypoints(thumbnail(4))])) == [[]]
    assert list(candidate_pairs([])) == []
