"""Scale bars are found where they are, and straight bright things are not."""

from __future__ import annotations

import io
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from hypervlad import make_nanofibre_images, make_nanowire_images
from hypervlad.data import make_lattice_images
from hypervlad.images import ScaleBar, find_scale_bar, scale_bars

SIZE = (160, 240)
TOP, LEFT, LENGTH, HEIGHT = 120, 60, 90, 5


def scan(seed: int = 0, low: int = 60, high: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, SIZE, dtype=np.uint8)


def with_line(ink: int = 255, top: int = TOP, left: int = LEFT, length: int = LENGTH) -> np.ndarray:
    image = scan()
    image[top : top + HEIGHT, left : left + length] = ink
    return image


def found(image: np.ndarray) -> ScaleBar:
    bar = find_scale_bar(image)
    assert bar is not None
    return bar


@pytest.mark.parametrize("ink", [0, 255, 190])
def test_a_line_has_its_length_and_place(ink: int) -> None:
    bar = found(with_line(ink))
    assert bar.kind == "line"
    assert bar.length == pytest.approx(LENGTH, abs=0.5)
    assert bar.box == (TOP, LEFT, TOP + HEIGHT, LEFT + LENGTH)
    assert 0.2 < bar.error < 2


def test_colours_and_deeper_pixels_are_read_as_well() -> None:
    grey = with_line()
    expected = found(grey).box
    assert found(np.dstack([grey] * 3)).box == expected
    assert found(grey.astype(np.uint16) * 257).box == expected
    assert found(grey / np.float32(255)).box == expected


@pytest.mark.parametrize("shift", [0.25, 0.5, 0.75])
def test_lengths_are_measured_to_parts_of_a_pixel(shift: float) -> None:
    image = np.full(SIZE, 60.0)
    image[TOP : TOP + HEIGHT, LEFT : LEFT + LENGTH] = 240
    image[TOP : TOP + HEIGHT, LEFT + LENGTH] = 60 + 180 * shift
    assert found(image).length == pytest.approx(LENGTH + shift, abs=0.3)


def test_a_line_with_ticks() -> None:
    image = with_line()
    for x in (LEFT, LEFT + LENGTH - 2):
        image[TOP - 6 : TOP + HEIGHT + 6, x : x + 2] = 255
    bar = found(image)
    assert (bar.kind, round(bar.length)) == ("line with ticks", LENGTH)


def test_an_outlined_box() -> None:
    image = scan()
    image[TOP : TOP + 12, LEFT : LEFT + LENGTH] = 255
    image[TOP + 1 : TOP + 11, LEFT + 1 : LEFT + LENGTH - 1] = scan()[:10, : LENGTH - 2]
    bar = found(image)
    assert (bar.kind, round(bar.length)) == ("box", LENGTH)
    assert bar.box == (TOP, LEFT, TOP + 12, LEFT + LENGTH)


def test_a_line_within_a_frame_is_a_line() -> None:
    image = scan()
    image[TOP - 1 : TOP + HEIGHT + 1, LEFT - 1 : LEFT + LENGTH + 1] = 0
    image[TOP : TOP + HEIGHT, LEFT : LEFT + LENGTH] = 255
    bar = found(image)
    assert (bar.kind, round(bar.length)) == ("line", LENGTH)


def test_a_line_in_a_label_box_is_not_the_box() -> None:
    image = scan()
    image[TOP - 20 : TOP + 15, LEFT - 12 : LEFT + LENGTH + 12] = 255
    image[TOP : TOP + HEIGHT, LEFT : LEFT + LENGTH] = 0
    assert round(found(image).length) == LENGTH


@pytest.mark.parametrize("n", [6, 11])
def test_ticks_without_a_line(n: int) -> None:
    image = scan()
    places = np.round(np.linspace(LEFT, LEFT + LENGTH, n)).astype(int)
    for x in places:
        image[TOP : TOP + 8, x : x + 2] = 255
    bar = found(image)
    assert (bar.kind, bar.length) == ("dots", LENGTH)
    assert bar.box == (TOP, LEFT, TOP + 8, LEFT + LENGTH + 2)


def test_after_compression() -> None:
    file = io.BytesIO()
    Image.fromarray(with_line()).save(file, "JPEG", quality=60)
    assert found(np.asarray(Image.open(file))).length == pytest.approx(LENGTH, abs=1.5)


def test_what_is_straight_and_bright_is_no_bar() -> None:
    arrow = with_line()
    for i in range(7):  # its head
        x = LEFT + LENGTH - 1 - i
        arrow[TOP + 2 - i : TOP + 3 + i, x] = 255
    frame = scan()
    frame[40:120, LEFT : LEFT + LENGTH] = 255
    frame[42:118, LEFT + 2 : LEFT + LENGTH - 2] = scan()[42:118, LEFT + 2 : LEFT + LENGTH - 2]
    band = scan()
    band[60:66] = 255  # from one side to the other
    grid = scan()
    for y in range(20, 140, 12):
        for x in range(20, 220, 12):
            grid[y : y + 3, x : x + 3] = 255
    for name, image in {"arrow": arrow, "frame": frame, "band": band, "grid": grid}.items():
        assert find_scale_bar(image) is None, name


@pytest.mark.parametrize(("slope", "expected"), [(0, True), (3, False)])
def test_the_edges_of_a_bar_are_horizontal(slope: int, expected: bool) -> None:
    rows, columns = np.arange(SIZE[0])[:, None], np.arange(LENGTH)
    top = TOP + slope * columns / LENGTH
    image = np.full(SIZE, 60.0)
    cover = np.minimum(rows - top + 0.5, top + 8.5 - rows).clip(0, 1)
    image[:, LEFT : LEFT + LENGTH] += 150 * cover
    assert (find_scale_bar(image) is not None) == expected


@pytest.mark.parametrize(("noise", "expected"), [(0, True), (6, False)])
def test_a_wire_that_is_as_noisy_as_its_surroundings_is_no_bar(noise: int, expected: bool) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(60, 6, SIZE)
    image[TOP : TOP + 8, LEFT : LEFT + LENGTH] = rng.normal(200, noise, (8, LENGTH))
    assert (find_scale_bar(image.astype(np.uint8)) is not None) == expected


def test_nothing_is_found_in_images_without_a_bar() -> None:
    images = [
        *make_nanowire_images(5, size=(160, 200), random_state=0)[0],
        *make_nanofibre_images(5, size=(160, 200), random_state=0)[0],
        *make_lattice_images(5, size=(160, 200), random_state=0)[0],
        np.zeros(SIZE),
        np.zeros((5, 5)),
        np.random.default_rng(0).random(SIZE),
    ]
    assert [i for i, image in enumerate(images) if find_scale_bar(image) is not None] == []


@given(
    st.integers(10, 140),
    st.integers(8, 100),
    st.integers(30, 130),
    st.booleans(),
    st.booleans(),
    st.integers(-40, 40),
)
@settings(max_examples=20, deadline=None)
def test_place_mirror_inversion_and_brightness_do_not_matter(
    top: int, left: int, length: int, mirrored: bool, inverted: bool, brighter: int
) -> None:
    image = with_line(250, top, left, length).astype(np.int16)
    image = image + brighter * (image < 200)
    image = 255 - image if inverted else image
    image = image[:, ::-1] if mirrored else image
    bar = found(image.astype(np.uint8))
    start = SIZE[1] - left - length if mirrored else left
    assert bar.length == pytest.approx(length, abs=0.5)
    assert bar.box == (top, start, top + HEIGHT, start + length)


def test_lattices_take_little_time():
    y, x = np.indices((128, 320))
    lattice = np.uint8(200 * ((x // 3 + y // 3) % 2))
    started = time.process_time()
    assert find_scale_bar(lattice) is None
    assert time.process_time() - started < 4


def with_dots() -> np.ndarray:
    image = scan()
    for x in np.round(np.linspace(LEFT, LEFT + LENGTH, 6)).astype(int):
        image[TOP : TOP + 8, x : x + 2] = 255
    return image


@pytest.mark.parametrize("image", [with_line(), with_dots()], ids=["line", "dots"])
@pytest.mark.parametrize("n_rows", [3, 123])
def test_bars_cross_the_bands_that_are_searched(
    image: np.ndarray, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = found(image)
    monkeypatch.setattr(scale_bars, "_BAND", n_rows * SIZE[1])
    assert found(image) == expected


@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.6, 0.9, 1])
def test_small_objects_are_those_of_labelled_pixels(share: float) -> None:
    mask = np.random.default_rng(0).random((90, 70)) < share
    labels, _ = ndimage.label(mask)
    expected = []
    for i, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        area = (labels == i).sum()
        if 2 <= height <= 40 and width <= 12 and area >= 0.6 * height * width:
            expected.append([rows.start, columns.start, rows.stop, columns.stop])
    assert sorted(scale_bars._small_objects(mask).tolist()) == sorted(expected)


def test_a_large_image_needs_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_bars, "_BAND", 2**15)
    image = np.random.default_rng(0).integers(100, 139, (512, 1024), dtype=np.uint8)
    tracemalloc.start()
    find_scale_bar(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * image.size  # bytes
