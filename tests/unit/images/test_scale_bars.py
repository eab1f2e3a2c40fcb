"""Scale bars are found where they are, and straight bright things are not."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hypervlad import make_nanofibre_images, make_nanowire_images
from hypervlad.data import make_lattice_images
from hypervlad.images import find_scale_bar

SIZE = (160, 240)
TOP, LEFT, LENGTH, HEIGHT = 120, 60, 90, 5
BOTTOM, RIGHT = TOP + HEIGHT, LEFT + LENGTH


def scan(seed=0):
    return np.random.default_rng(seed).integers(60, 120, SIZE, dtype=np.uint8)


def with_line(ink=255, top=TOP, left=LEFT, length=LENGTH):
    image = scan()
    image[top : top + HEIGHT, left : left + length] = ink
    return image


def with_ticks(n):
    image = scan()
    for x in np.round(np.linspace(LEFT, RIGHT, n)).astype(int):
        image[TOP : TOP + 8, x : x + 2] = 255
    return image


def found(image):
    bar = find_scale_bar(image)
    assert bar is not None
    return bar


def line_with_ticks():
    image = with_line()
    for x in (LEFT, RIGHT - 2):
        image[TOP - 6 : BOTTOM + 6, x : x + 2] = 255
    return image


def outlined_box():
    image = scan()
    image[TOP : TOP + 12, LEFT:RIGHT] = 255
    image[TOP + 1 : TOP + 11, LEFT + 1 : RIGHT - 1] = scan()[:10, : LENGTH - 2]
    return image


def line_within_a_frame():
    image = scan()
    image[TOP - 1 : BOTTOM + 1, LEFT - 1 : RIGHT + 1] = 0
    image[TOP:BOTTOM, LEFT:RIGHT] = 255
    return image


def line_in_a_label_box():
    image = scan()
    image[TOP - 20 : TOP + 15, LEFT - 12 : RIGHT + 12] = 255
    image[TOP:BOTTOM, LEFT:RIGHT] = 0
    return image


def after_compression():
    file = io.BytesIO()
    Image.fromarray(with_line()).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize(
    ("image", "kind", "end", "tolerance"),
    [
        *((with_line(ink), "line", (BOTTOM, RIGHT), 0.5) for ink in (0, 255, 190)),
        (line_with_ticks(), "line with ticks", (BOTTOM, RIGHT), 0.5),
        (outlined_box(), "box", (TOP + 12, RIGHT), 0.5),
        (line_within_a_frame(), "line", (BOTTOM, RIGHT), 0.5),
        (line_in_a_label_box(), "line", (BOTTOM, RIGHT), 0.5),
        *((with_ticks(n), "dots", (TOP + 8, RIGHT + 2), 0) for n in (6, 11)),
        (after_compression(), "line", (BOTTOM, RIGHT), 1.5),
    ],
)
def test_bars_of_every_kind(image, kind, end, tolerance):
    bar = found(image)
    assert bar.kind == kind
    assert bar.length == pytest.approx(LENGTH, abs=tolerance)
    assert bar.box == (TOP, LEFT, *end)
    assert 0.2 < bar.error < 2


@pytest.mark.parametrize("shift", [0.25, 0.5, 0.75])
def test_lengths_are_measured_to_parts_of_a_pixel(shift):
    image = np.full(SIZE, 60.0)
    image[TOP:BOTTOM, LEFT:RIGHT] = 240
    image[TOP:BOTTOM, RIGHT] = 60 + 180 * shift
    assert found(image).length == pytest.approx(LENGTH + shift, abs=0.3)


@given(
    top=st.integers(10, 140),
    left=st.integers(8, 100),
    length=st.integers(30, 130),
    brighter=st.integers(-40, 40),
)
@settings(max_examples=10, deadline=None)
def test_place_mirror_inversion_and_brightness_do_not_matter(top, left, length, brighter):
    scene = with_line(250, top, left, length).astype(np.int16)
    image = (scene + brighter * (scene < 200)).astype(np.uint8)
    end = left + length
    down, across = (SIZE[0] - top - HEIGHT, SIZE[0] - top), (SIZE[1] - end, SIZE[1] - left)
    for changed, box in [
        (image, (top, left, top + HEIGHT, end)),
        (255 - image, (top, left, top + HEIGHT, end)),
        (image[:, ::-1], (top, across[0], top + HEIGHT, across[1])),
        (image[::-1], (down[0], left, down[1], end)),
    ]:
        bar = found(changed)
        assert bar.length == pytest.approx(length, abs=0.5)
        assert bar.box == box


def test_colours_and_deeper_pixels_are_read_as_well():
    grey = with_line()
    for alike in (np.dstack([grey] * 3), grey.astype(np.uint16) * 257, grey / np.float32(255)):
        assert found(alike).box == found(grey).box


@pytest.mark.parametrize("top", range(1018, 1026))
@pytest.mark.parametrize("n", [0, 6])
def test_bars_anywhere_in_a_large_image(top, n):
    """It is searched in bands of some thousand rows."""
    image = np.full((1100, 2048), 60, np.uint8)
    image[top - TOP : top - TOP + SIZE[0], : SIZE[1]] = with_ticks(n) if n else with_line()
    assert found(image).box == (top, LEFT, top + (8 if n else HEIGHT), RIGHT + (2 if n else 0))


def test_a_large_image_needs_little_memory():
    image = np.random.default_rng(0).integers(100, 139, (3072, 1536), dtype=np.uint8)
    tracemalloc.start()
    find_scale_bar(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * image.size  # bytes


# --- what is no bar -----------------------------------------------------------------------------


def arrow():
    image = with_line()
    for i in range(7):  # its head
        image[TOP + 2 - i : TOP + 3 + i, RIGHT - 1 - i] = 255
    return image


def frame():
    image = scan()
    image[40:120, LEFT:RIGHT] = 255
    image[42:118, LEFT + 2 : RIGHT - 2] = scan()[42:118, LEFT + 2 : RIGHT - 2]
    return image


def band():
    image = scan()
    image[60:66] = 255  # from one side to the other
    return image


def grid():
    image = scan()
    for y in range(20, 140, 12):
        for x in range(20, 220, 12):
            image[y : y + 3, x : x + 3] = 255
    return image


def lattice():
    y, x = np.indices((90, 200))
    return np.uint8(200 * ((x // 3 + y // 3) % 2))


MADE = [
    image
    for make in (make_nanowire_images, make_nanofibre_images, make_lattice_images)
    for image in make(2, size=(160, 200), random_state=0)[0]
]


@pytest.mark.parametrize(
    "image",
    [arrow(), frame(), band(), grid(), lattice(), *MADE, *map(np.zeros, (SIZE, (5, 5), (1, 1)))],
)
def test_what_is_straight_and_bright_is_no_bar(image):
    assert find_scale_bar(image) is None


@pytest.mark.parametrize(("slope", "expected"), [(0, True), (3, False)])
def test_the_edges_of_a_bar_are_horizontal(slope, expected):
    rows, columns = np.arange(SIZE[0])[:, None], np.arange(LENGTH)
    top = TOP + slope * columns / LENGTH
    image = np.full(SIZE, 60.0)
    image[:, LEFT:RIGHT] += 150 * np.minimum(rows - top + 0.5, top + 8.5 - rows).clip(0, 1)
    assert (find_scale_bar(image) is not None) == expected


@pytest.mark.parametrize(("noise", "expected"), [(0, True), (6, False)])
def test_a_wire_that_is_as_noisy_as_its_surroundings_is_no_bar(noise, expected):
    rng = np.random.default_rng(0)
    image = rng.normal(60, 6, SIZE)
    image[TOP : TOP + 8, LEFT:RIGHT] = rng.normal(200, noise, (8, LENGTH))
    assert (find_scale_bar(image.astype(np.uint8)) is not None) == expected
