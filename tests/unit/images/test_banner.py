"""Detection of information bars: pasted ones are found, and nothing similar is cut."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from hypervlad.images import find_banner, read_image, read_micrograph


def texture(seed, height=240, width=300):
    """A scanned scene: blobs of several sizes, shot noise."""
    rng, scene = np.random.default_rng(seed), np.zeros((height, width))
    for step in (4, 16, 64):
        coarse = rng.random((height // step + 2, width // step + 2)).astype(np.float32)
        scene += np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))
    scene = 40 + 150 * (scene - scene.min()) / np.ptp(scene)
    return np.clip(rng.normal(scene, 8), 0, 255).astype(np.uint8)


def banner(height, width, ground, ink, framed):
    image = Image.new("L", (width, height), ground)
    draw, size = ImageDraw.Draw(image), max(6, int(height * 0.4))
    for row in range(max(1, height // (size + 6))):
        text = "15.0 kV  WD 4.1 mm  x20,000  SE2  2 um"
        draw.text((4, 3 + row * (size + 4)), text, fill=ink, font_size=size)
    draw.line([(width - width // 5, height - 4), (width - 6, height - 4)], fill=ink, width=2)
    if framed:
        draw.rectangle([0, 0, width - 1, height - 1], outline=ink)
    return np.asarray(image)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(200, 300), (300, 400), (480, 640)]),
    share=st.floats(0.05, 0.2),
    colours=st.sampled_from([(0, 255), (255, 0), (20, 230), (128, 255)]),
    framed=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_a_pasted_banner_is_found_to_within_two_rows(seed, size, share, colours, framed):
    scene, height = texture(seed, *size), max(16, int(size[0] * share))
    image = np.vstack([scene, banner(height, size[1], *colours, framed)])
    alike = [image, np.dstack([image] * 3), image * np.uint16(257), image * np.float32(0.3)]
    for each in [*alike, image[:, ::-1], 255 - image]:
        assert abs(find_banner(each) - height) <= 2
    assert abs(len(read_image(image, banner="remove")) - size[0]) <= 2
    assert find_banner(scene) == find_banner(scene.astype(np.float32) ** 2) == 0


def as_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=80)
    return np.asarray(Image.open(file))


def painted(*parts, scene=None):
    """A scene in which parts have a grey level."""
    image = texture(0) if scene is None else scene.copy()
    for rows, columns, level in parts:
        image[rows, columns] = level
    return image


ALL, SCENE = slice(None), texture(0)
DIM, VACUUM = SCENE // 8, np.where(SCENE > 110, SCENE, 0).astype(np.uint8)
HALF, BELOW = painted((ALL, slice(150, None), 0)), painted((slice(-50, None), ALL, 0))


@pytest.mark.parametrize(
    ("scene", "bar", "stored"),
    [
        (SCENE, (96, 255, True), np.asarray),
        (DIM, (96, 255, False), lambda image: image * np.uint16(257)),
        (DIM, (0, 255, False), np.asarray),
        (DIM, (0, 90, False), lambda image: image * np.uint16(16)),
        (VACUUM, (96, 255, False), as_jpeg),
        (VACUUM, (0, 255, True), np.asarray),
        *((HALF, (0, 255, False), stored) for stored in (np.asarray, as_jpeg)),
        *((BELOW, (0, 255, True), stored) for stored in (np.asarray, as_jpeg)),
    ],
)
def test_bars_of_the_level_of_the_scene_or_far_brighter(scene, bar, stored):
    """The scene may be black, like the bar, or dark, which gives the bar all the contrast."""
    image = np.vstack([scene, banner(40, 300, *bar)])
    assert abs(find_banner(stored(image)) - 40) <= 2


ROWS, COLUMNS = np.indices(SCENE.shape)
LAST, TEXT = slice(-40, None), (slice(-25, -15), slice(30, 100, 4), 255)
LOW_TEXT = (slice(-20, -10), slice(30, 100, 4), 255)
AXIS = np.where(np.abs(ROWS - 180 - COLUMNS / 30) < 2, 255, 0).astype(np.uint8)
NOISY = np.random.default_rng(1).normal(100, 10, (40, 300))
RESEMBLE = {
    "scale bar": painted((slice(-30, -22), slice(20, 90), 255)),
    "dark lower edge": painted((LAST, ALL, 0)),
    "noisy lower edge": painted((LAST, ALL, NOISY), TEXT),
    "box of text": painted((LAST, slice(-150, None), 0), (TEXT[0], slice(-120, -30, 4), 255)),
    "axis": as_jpeg(painted(LOW_TEXT, scene=AXIS)),
    "scale bar and text": painted((ALL, ALL, 0), (slice(-40, -34), slice(20, 120), 255), TEXT),
    "slanted substrate": painted(LOW_TEXT, scene=np.where(ROWS > 180 + COLUMNS / 20, 0, SCENE)),
    "on top": np.vstack([banner(40, 300, 0, 255, False), SCENE]),
    "one pixel": SCENE[:1, :1],
}


@pytest.mark.parametrize("case", RESEMBLE)
def test_bands_that_resemble_a_banner_are_kept(case):
    assert find_banner(RESEMBLE[case]) == 0
    assert read_image(RESEMBLE[case], banner="remove").shape == RESEMBLE[case].shape


@pytest.mark.parametrize(("kind", "gain", "top"), [("u1", 1, 1), ("u2", 20, 257)])
def test_keep_is_the_default_and_remove_says_how_much(kind, gain, top):
    """The banner does not move the percentiles."""
    scene, bar = SCENE.astype(kind) * gain, banner(30, 300, 0, 255, True).astype(kind) * top
    image = np.vstack([scene, bar])
    assert read_image(image).shape == (270, 300)
    assert read_micrograph(image).metadata["banner_rows"] == 0
    removed = read_micrograph(image, banner="remove")
    assert removed.metadata["banner_rows"] == 30
    assert removed.digest == read_micrograph(scene).digest
