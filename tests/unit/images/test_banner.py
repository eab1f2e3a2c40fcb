"""Detection of information bars: pasted ones are found, and nothing similar is cut."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from hypervlad.images import find_banner, read_image, read_micrograph


def texture(rng, height, width):
    """A scanned scene: blobs of several sizes, shot noise."""
    scene = np.zeros((height, width))
    for step in (4, 16, 64):
        coarse = rng.random((height // step + 2, width // step + 2))
        scene += np.asarray(
            Image.fromarray(coarse.astype(np.float32)).resize((width, height), Image.BICUBIC)
        )
    scene = 40 + 150 * (scene - scene.min()) / np.ptp(scene)
    return np.clip(rng.normal(scene, 8), 0, 255).astype(np.uint8)


def banner(height, width, background, foreground, framed):
    image = Image.new("L", (width, height), background)
    draw = ImageDraw.Draw(image)
    size = max(6, int(height * 0.4))
    for row in range(max(1, height // (size + 6))):
        text = "15.0 kV  WD 4.1 mm  x20,000  SE2  2 um"
        draw.text((4, 3 + row * (size + 4)), text, fill=foreground, font_size=size)
    draw.line([(width - width // 5, height - 4), (width - 6, height - 4)], fill=foreground, width=2)
    if framed:
        draw.rectangle([0, 0, width - 1, height - 1], outline=foreground)
    return np.asarray(image)


@pytest.mark.slow  # draws 30 scenes of up to 700 x 1024 pixels
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(300, 400), (480, 640), (700, 1024)]),
    share=st.floats(0.05, 0.2),
    colours=st.sampled_from([(0, 255), (255, 0), (20, 230), (128, 255)]),
    framed=st.booleans(),
    dtype=st.sampled_from(["uint8", "uint16", "float32", "rgb"]),
)
@settings(max_examples=30, deadline=None)
def test_a_pasted_banner_is_found_to_within_two_rows(seed, size, share, colours, framed, dtype):
    rng = np.random.default_rng(seed)
    height = max(16, int(size[0] * share))
    scene = texture(rng, *size)
    image = np.vstack([scene, banner(height, size[1], *colours, framed)])
    if dtype == "rgb":
        image = np.dstack([image] * 3)
    elif dtype != "uint8":
        image = image.astype(dtype) * np.asarray(257 if dtype == "uint16" else 0.3, dtype=dtype)

    assert abs(find_banner(image) - height) <= 2
    assert abs(len(read_image(image, banner="remove")) - size[0]) <= 2


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([(200, 300), (480, 640)]))
@settings(max_examples=15, deadline=None)
def test_a_scene_without_banner_stays_whole(seed, size):
    rng = np.random.default_rng(seed)
    scene = texture(rng, *size)

    assert find_banner(scene) == 0
    assert find_banner(scene.astype(np.float32) ** 2) == 0


def as_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=80)
    return np.asarray(Image.open(file))


def dim(scene):
    return scene // 8


def mostly_black(scene):
    return np.where(scene > 110, scene, 0).astype(np.uint8)


def half_black(scene):
    scene[:, 150:] = 0
    return scene


def black_below(scene):
    scene[-50:] = 0
    return scene


@pytest.mark.parametrize(
    ("scene", "bar", "stored"),
    [
        (texture, (96, 255, True), np.asarray),
        (dim, (96, 255, False), lambda image: image * np.uint16(257)),
        (dim, (0, 255, False), np.asarray),
        (mostly_black, (96, 255, False), as_jpeg),
        (mostly_black, (0, 255, True), np.asarray),
        (half_black, (0, 255, False), np.asarray),
        (half_black, (0, 255, False), as_jpeg),
        (black_below, (0, 255, True), np.asarray),
        (black_below, (0, 255, True), as_jpeg),
        (dim, (0, 90, False), lambda image: image * np.uint16(16)),
    ],
)
def test_bars_of_the_level_of_the_scene_or_far_brighter(scene, bar, stored):
    """The scene may be black, like the bar, or dark, which gives the bar all the contrast."""
    image = texture(np.random.default_rng(0), 240, 300)
    image = np.vstack([image if scene is texture else scene(image), banner(40, 300, *bar)])

    assert abs(find_banner(stored(image)) - 40) <= 2


def scale_bar_inside(image):
    image[-30:-22, 20:90] = 255
    return image


def dark_lower_edge(image):
    image[-40:] = 0
    return image


def noisy_flat_lower_edge(image):
    rng = np.random.default_rng(1)
    image[-40:] = np.clip(rng.normal(100, 10, image[-40:].shape), 0, 255)
    image[-25:-15, 30:100:4] = 255
    return image


def box_of_text_in_a_corner(image):
    image[-40:, -150:] = 0
    image[-25:-15, -120:-30:4] = 255
    return image


def line_of_an_axis(image):
    image = np.zeros_like(image)
    rows, columns = np.indices(image.shape)
    image[np.abs(rows - 180 - columns / 30) < 2] = 255
    image[-20:-10, 30:100:4] = 255
    return as_jpeg(image)


def scale_bar_above_its_text(image):
    image[:] = 0
    image[-40:-34, 20:120] = 255
    image[-25:-15, 30:110:4] = 255
    return image


def slanted_substrate(image):
    rows, columns = np.indices(image.shape)
    image[rows > 180 + columns / 20] = 0
    image[-20:-10, 30:100:4] = 255
    return image


def banner_on_top(image):
    return image[::-1] if find_banner(image) else np.vstack([banner(40, 300, 0, 255, 0), image])


@pytest.mark.parametrize(
    "change",
    [
        scale_bar_inside,
        dark_lower_edge,
        noisy_flat_lower_edge,
        box_of_text_in_a_corner,
        line_of_an_axis,
        scale_bar_above_its_text,
        slanted_substrate,
        banner_on_top,
        np.zeros_like,
        lambda image: image[:8],
        lambda image: image[:, :8],
    ],
)
def test_bands_that_resemble_a_banner_are_kept(change):
    image = change(texture(np.random.default_rng(0), 240, 300))

    assert find_banner(image) == 0
    assert read_image(image, banner="remove").shape == image.shape


@pytest.mark.parametrize("gain", [1, 20])
def test_keep_is_the_default_and_remove_says_how_much(gain):
    """The banner does not move the percentiles."""
    kind, top = (np.uint8, 1) if gain == 1 else (np.uint16, 257)
    scene = texture(np.random.default_rng(0), 240, 300).astype(kind) * kind(gain)
    image = np.vstack([scene, banner(30, 300, 0, 255, True).astype(kind) * kind(top)])

    assert read_image(image).shape == (270, 300)
    assert read_micrograph(image).metadata["banner_rows"] == 0
    removed = read_micrograph(image, banner="remove")
    assert removed.metadata["banner_rows"] == 30
    assert removed.digest == read_micrograph(scene).digest
