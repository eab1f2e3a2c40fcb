"""Near copies: planted ones are found, images of similar objects or of one lattice are not."""

import functools
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from hypervlad.data import check_image_folder, make_fibre_images, make_tem_images


def jpeg(image, quality):
    stream = io.BytesIO()
    Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8)).save(
        stream, "JPEG", quality=quality
    )
    return np.asarray(Image.open(stream), np.float32) / 255


def resize(image, scale):
    height, width = (round(extent * scale) for extent in image.shape)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def window(image, top, left, margin=16):
    height, width = image.shape
    return image[margin + top : height - margin + top, margin + left : width - margin + left]


def with_banner(image, seed=0):
    image = image.copy()
    rows = max(6, image.shape[0] // 11)
    text = np.random.default_rng(seed).random((rows, image.shape[1])) > 0.7
    image[-rows:] = gaussian_filter(text.astype(np.float32), 0.7)
    return image


def framed(image, share, level):
    return np.pad(image, round(share * min(image.shape)), constant_values=level)


def stretched(image, share):
    height, width = image.shape
    size = (round(width * (1 + share)), height)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def with_caption(image):
    """Below the image, a white strip with a line of text, and a margin around both."""
    height, width = image.shape
    strip = np.ones((height // 8, width), np.float32)
    strip[height // 32 : -height // 32, width // 20 : width // 2 : 3] = 0
    return framed(np.vstack([image, strip]), 0.03, 1)


SEVERAL = "shift, size, contrast and JPEG"
CHANGES = {
    "shift by 1 % of the frame": lambda im: (window(im, 0, 0), window(im, 1, -1)),
    "shift by 6 %": lambda im: (window(im, 0, 0), window(im, 8, 3)),
    "shift by 12 %": lambda im: (window(im, 0, 0), window(im, -4, 15)),
    "brightness and contrast": lambda im: (im, 0.3 + 0.5 * im),
    "gamma": lambda im: (im, im**1.5),
    "inverse scaling kept": lambda im: (im, np.float32(0.02) + im * 0.1),
    "JPEG 30": lambda im: (im, jpeg(im, 30)),
    "half size": lambda im: (im, resize(im, 0.5)),
    "1.7 times the size": lambda im: (im, resize(im, 1.7)),
    "2 % magnification": lambda im: (im, resize(im[2:-2, 2:-2], 1.02)),
    "banner": lambda im: (im, with_banner(im)),
    "shading": lambda im: (im, im * np.linspace(0.5, 1.2, im.shape[1], dtype=np.float32)),
    "stretched by 6 %": lambda im: (im, stretched(im, 0.06)),
    "black frame": lambda im: (im, framed(im, 0.1, 0)),
    "thin white frame, JPEG 60": lambda im: (im, jpeg(framed(im, 0.02, 1), 60)),
    "grey frame, stretched": lambda im: (im, stretched(framed(im, 0.05, 0.4), -0.05)),
    "frame in a frame": lambda im: (im, framed(framed(im, 0.02, 0), 0.06, 1)),
    "caption": lambda im: (im, jpeg(with_caption(im), 80)),
    SEVERAL: lambda im: (window(im, 0, 0), jpeg(0.2 + 0.6 * resize(window(im, -5, 4), 0.8), 60)),
}


@functools.cache
def tem_images():
    return make_tem_images(30, size=160, random_state=3)[0]


@functools.cache
def large_images():
    """Three images with structure everywhere: shifted ones overlap in more than background."""
    return make_fibre_images(3, cover=0.85, size=288, random_state=5)[0]


def texture(seed, shape=(160, 160)):
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)
    return values / values.std()


@pytest.fixture
def near(tmp_path_factory):
    """Return sets of near copies among images, as positions in the list."""

    def find(images):
        folder = tmp_path_factory.mktemp("images")
        for number, image in enumerate(images):
            pixels = np.round(np.clip(image, 0, 1) * 65535).astype(np.uint16)
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{number:02d}.png")
        report = check_image_folder(folder)
        return {tuple(int(file[:2]) for file in s.files): s for s in report.near_copies}

    return find


# Similarity and overlap of each change of CHANGES, in its order.
EXPECTED = [
    *((0.995, 0.94), (0.991, 0.91), (0.991, 0.85), (0.995, 1), (0.994, 1), (0.996, 1)),
    *((0.941, 1), (0.986, 1), (0.994, 1), (0.985, 1), (0.997, 1), (0.983, 1), (0.986, 1)),
    *((0.995, 1), (0.993, 1), (0.975, 1), (0.988, 1), (0.993, 1), (0.984, 0.94)),
]


def test_planted_copies_are_found_and_nothing_else(near):
    images = list(tem_images())
    for k, change in enumerate(CHANGES.values()):
        images[k], copy = change(images[k])
        images.append(copy)
    found = near(images)
    assert set(found) == {(k, 30 + k) for k in range(len(CHANGES))}
    values = [(found[k, 30 + k].similarity, found[k, 30 + k].overlap) for k in range(19)]
    np.testing.assert_allclose(values, EXPECTED, atol=0.012)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
def test_any_small_shift_and_contrast(near, top, left, gain, offset, which):
    image = tem_images()[which]
    pair = [window(image, 0, 0), (offset + np.float32(gain) * window(image, top, left)) / 1.3]
    similarity = near(pair)[0, 1].similarity
    assert similarity > 0.85
    assert near(pair[::-1])[0, 1].similarity == pytest.approx(similarity, abs=0.05)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    down=st.integers(-64, 64),
    right=st.integers(-64, 64),
    turns=st.integers(0, 3),
    mirror=st.booleans(),
    which=st.integers(0, 2),
)
def test_any_turn_mirror_and_shift_by_up_to_40_percent(near, down, right, turns, mirror, which):
    copy = 0.9 * np.rot90(window(large_images()[which], down, right, margin=64), turns)
    images = [window(other, 0, 0, margin=64) for other in large_images()]
    found = near([*images, copy[::-1] if mirror else copy])
    assert set(found) == {(which, 3)}
    overlap = (1 - abs(down) / 160) * (1 - abs(right) / 160)
    assert found[which, 3].overlap == pytest.approx(overlap, abs=0.04)


def test_the_overlap_is_a_part_of_the_smaller_view(near):
    whole = large_images()[0]
    views = [whole[:192, :192], whole[:192, 96:], whole[48:192, 48:192]]
    for pair, expected in (((0, 1), 0.5), ((0, 2), 1), ((1, 2), 2 / 3)):
        (copies,) = near([views[i] for i in pair]).values()
        assert copies.overlap == pytest.approx(expected, abs=0.04)
    assert set(near(views)) == {(0, 1, 2)}


def test_images_of_one_lattice_are_no_copies_but_its_copies_are_found(near):
    y, x = np.indices((224, 224))
    rng, images = np.random.default_rng(2), []
    for number in range(8):
        down, right = rng.uniform(0, 16, 2)
        atoms = np.cos(np.pi / 7 * (y + down)) * np.cos(np.pi / 9 * (x + right))
        atoms = atoms * (1 + 0.3 * texture(number, y.shape)) + rng.normal(0, 0.1, y.shape)
        images.append(np.clip(0.5 + 0.2 * atoms, 0, 1))
    planted = range(0, 8, 4)
    copies = [jpeg(window(images[i], 3, -4), 85) for i in planted]
    originals = [window(image, 0, 0) if i in planted else image for i, image in enumerate(images)]
    assert set(near(originals + copies)) == {(i, 8 + k) for k, i in enumerate(planted)}


def test_neither_the_same_frame_nor_noise_makes_copies(near):
    for change in (with_banner, with_caption, lambda image: framed(image, 0.1, 0)):
        assert near([change(image) for image in tem_images()[:10]]) == {}
    rng = np.random.default_rng(0)
    images = [rng.random((80, 80)) for _ in range(20)] + [texture(i) / 9 + 0.5 for i in range(5)]
    assert near([*images, *(np.full((80, 80), level) for level in (0, 0.4, 0.5, 1))]) == {}


def test_more_copies_of_one_image_than_neighbours_stay_one_set(near):
    burst = [window(tem_images()[0], shift, -shift) for shift in range(-8, 9)]
    others = [window(image, 0, 0) for image in tem_images()[1:8]]
    assert set(near(burst + others)) == {tuple(range(17))}


def test_colour_proportions_and_tiny_images(near):
    scene = 0.5 + 0.12 * texture(4, (240, 240))
    long = scene[:80]
    assert set(near([long, np.rot90(long), scene[:4], scene[:1, :1]])) == {(0, 1)}
