"""Scale bars are found where they are, and straight bright things are not."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hypervlad import make_fibre_images, make_particle_fields, make_tem_images
from hypervlad.images import find_scale_bar

SIZE = (160, 240)
TOP, LEFT, LENGTH, HEIGHT = 120, 60, 90, 5
BOTTOM, RIGHT = TOP + HEIGHT, LEFT + LENGTH
LINE = (TOP, LEFT, BOTTOM, RIGHT, 255)
SCAN = np.random.default_rng(0).integers(60, 120, SIZE, dtype=np.uint8)


def drawn(*rectangles):
    """A scan with rectangles: top, left, bottom, right and grey level; of the scan without one."""
    image = SCAN.copy()
    for top, left, bottom, right, *ink in rectangles:
        image[top:bottom, left:right] = ink[0] if ink else SCAN[: bottom - top, : right - left]
    return image


def of_colour(*ink):
    return np.dstack([drawn((*LINE[:4], each)) for each in ink])


def ticks(n):
    places = np.round(np.linspace(LEFT, RIGHT, n)).astype(int)
    return [(TOP, x, TOP + 8, x + 2, 255) for x in places]


def as_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


PARTS = [(TOP, LEFT + x, BOTTOM, RIGHT, ink) for x, ink in ((0, 0), (15, 255), (30, 0))]
SPLIT = [(TOP, LEFT + x, TOP + 2, LEFT + x + 30, 255) for x in (0, 60)]
AROUND_LABEL = [(TOP - 4, LEFT + x, TOP + 6, LEFT + x + 2, 255) for x in (0, 38, 44, 50, 88)]
ENDS = [(TOP - 6, x, BOTTOM + 6, x + 2, 255) for x in (LEFT, RIGHT - 2)]
BOX = [(TOP, LEFT, TOP + 12, RIGHT, 255), (TOP + 1, LEFT + 1, TOP + 11, RIGHT - 1)]
BAND = (TOP - 12, 0, TOP + 12, SIZE[1], 0)
BESIDE = (TOP, RIGHT + 8, BOTTOM, RIGHT + 20, 255)  # as the foot of a letter
IN_FRAME = [(TOP - 1, LEFT - 1, BOTTOM + 1, RIGHT + 1, 0), LINE]
IN_LABEL = [(TOP - 20, LEFT - 12, TOP + 15, RIGHT + 12, 255), (*LINE[:4], 0)]


@pytest.mark.parametrize(
    ("image", "kind", "end", "tolerance"),
    [
        *((drawn((*LINE[:4], ink)), "line", (BOTTOM, RIGHT), 0.5) for ink in (0, 255, 190)),
        (drawn(LINE, *ENDS), "line with ticks", (BOTTOM, RIGHT), 0.5),
        (drawn(*BOX), "box", (TOP + 12, RIGHT), 0.5),
        (drawn(*IN_FRAME), "line", (BOTTOM, RIGHT), 0.5),
        (drawn(*IN_LABEL), "line", (BOTTOM, RIGHT), 0.5),
        (drawn(*PARTS), "line", (BOTTOM, RIGHT), 0.5),
        (drawn(BAND, *SPLIT, *AROUND_LABEL), "line with ticks", (TOP + 2, RIGHT), 0.5),
        (drawn(BAND, LINE, BESIDE), "line", (BOTTOM, RIGHT), 0.5),
        *((drawn(*ticks(n)), "dots", (TOP + 8, RIGHT + 2), 0) for n in (6, 11)),
        (as_jpeg(drawn(LINE)), "line", (BOTTOM, RIGHT), 1.5),
        *((of_colour(*ink), "line", (BOTTOM, RIGHT), 0.5) for ink in ((0, 220, 0), (90, 90, 0))),
    ],
)
def test_bars_of_every_kind(image, kind, end, tolerance):
    bar = find_scale_bar(image)
    assert (bar.kind, bar.box) == (kind, (TOP, LEFT, *end))
    assert bar.length == pytest.approx(LENGTH, abs=tolerance)
    assert 0.2 < bar.error < 2
    for alike in (np.dstack([image] * 3)[..., :3], image * np.uint16(257), image / np.float32(255)):
        assert find_scale_bar(alike).box == bar.box


@pytest.mark.parametrize("shift", [0.25, 0.5, 0.75])
def test_lengths_are_measured_to_parts_of_a_pixel(shift):
    image = np.full(SIZE, 60.0)
    image[TOP:BOTTOM, LEFT:RIGHT] = 240
    image[TOP:BOTTOM, RIGHT] = 60 + 180 * shift
    assert find_scale_bar(image).length == pytest.approx(LENGTH + shift, abs=0.3)


@given(st.integers(10, 140), st.integers(8, 100), st.integers(34, 130), st.integers(-40, 40))
@settings(max_examples=10, deadline=None)
def test_place_mirror_inversion_and_brightness_do_not_matter(top, left, length, brighter):
    end, bottom, (height, width) = left + length, top + HEIGHT, SIZE
    scene = drawn((top, left, bottom, end, 250)).astype(np.int16)
    image = (scene + brighter * (scene < 200)).astype(np.uint8)
    for changed, box in [
        (image, (top, left, bottom, end)),
        (255 - image, (top, left, bottom, end)),
        (image[:, ::-1], (top, width - end, bottom, width - left)),
        (image[::-1], (height - bottom, left, height - top, end)),
        (image.T, (left, top, end, bottom)),
    ]:
        bar = find_scale_bar(changed)
        assert bar.box == box
        assert bar.length == pytest.approx(length, abs=0.5)


@pytest.mark.parametrize("top", [1018, 1021, 1023])
def test_bars_anywhere_in_a_large_image(top):
    for bar, bottom, right in (([LINE], HEIGHT, RIGHT), (ticks(6), 8, RIGHT + 2)):
        image = np.full((1100, 2048), 60, np.uint8)
        image[top - TOP : top - TOP + SIZE[0], : SIZE[1]] = drawn(*bar)
        assert find_scale_bar(image).box == (top, LEFT, top + bottom, right)


HEAD = [(TOP + 2 - i, RIGHT - 1 - i, TOP + 3 + i, RIGHT - i, 255) for i in range(7)]
NO_BARS = [
    drawn(LINE, *HEAD),  # an arrow
    drawn((40, LEFT, 120, RIGHT, 255), (42, LEFT + 2, 118, RIGHT - 2)),  # a frame
    drawn((60, 0, 66, SIZE[1], 255)),  # a band from one side to the other
    drawn(*((y, x, y + 3, x + 3, 255) for y in range(20, 140, 12) for x in range(20, 220, 12))),
    np.uint8(200 * (np.add.outer(np.arange(60) // 3, np.arange(150) // 3) % 2)),  # a lattice
    drawn(IN_LABEL[0], *PARTS),  # its ends may be white on white
    *map(np.zeros, (SIZE, (5, 5), (1, 1))),
    *(
        image
        for make in (make_fibre_images, make_particle_fields, make_tem_images)
        for image in make(2, size=(160, 200), random_state=0)[0]
    ),
]


@pytest.mark.parametrize("number", range(len(NO_BARS)))
def test_what_is_straight_and_bright_is_no_bar(number):
    assert find_scale_bar(NO_BARS[number]) is None
