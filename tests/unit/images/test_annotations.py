"""What was drawn into an image is found, and is left out by all that looks for objects."""

import io
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from hypervlad.data import make_fibre_images, make_particle_fields
from hypervlad.fibres import fibre_diameters, find_fibres, find_pores, local_orientation
from hypervlad.images import ImageReadError, find_annotations
from hypervlad.particles import find_particles

ROWS, COLUMNS = np.indices((300, 400))


def scan(seed: int = 0) -> np.ndarray:
    """Discs on a noisy background, of 8 bits, far from black and white."""
    noise = np.random.default_rng(seed).normal(90, 6, (300, 400))
    for row, column in ((60, 60), (80, 200), (150, 320), (200, 90)):
        noise += 70 * (np.hypot(ROWS - row, COLUMNS - column) < 14)
    return np.uint8(noise.clip(40, 200))


def wires() -> np.ndarray:
    """Eight horizontal wires whose middle is saturated, so that it has no noise."""
    image = np.full((400, 500), 60.0)
    for number in range(8):
        top = 25 + 45 * number
        image[top : top + 9, 40 + 5 * number : 440 - 3 * number] = 300
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    return np.uint8((gaussian_filter(image, 1) + noise).clip(0, 255))


def annotated(image: np.ndarray, ink: int = 255) -> np.ndarray:
    """Draw a scale bar with its label and an arrow, and in grey, a title and a panel's letter."""
    picture, grey = Image.fromarray(image), abs(ink - 30)
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    draw.rectangle([width - 120, height - 20, width - 30, height - 16], ink)
    draw.text((width - 75, height - 26), "500 nm", ink, font_size=18, anchor="ms")
    draw.text((width // 2, 8), "(i) PTFE", grey, font_size=20, anchor="mt")
    draw.text((12, 8), "b", grey, font_size=24)
    draw.rectangle([160, 230, 200, 232], ink)
    draw.polygon([(198, 225), (212, 231), (198, 237)], ink)
    return np.asarray(picture)


def coloured(image: np.ndarray) -> np.ndarray:
    """Mark a disc with a yellow circle, a letter and a red bar, as people do in JPEGs."""
    picture = Image.fromarray(image).convert("RGB")
    draw = ImageDraw.Draw(picture)
    draw.ellipse([170, 50, 230, 110], outline=(255, 230, 0), width=3)
    draw.text((235, 50), "b", (255, 230, 0), font_size=24)
    draw.rectangle([280, 280, 370, 286], (220, 20, 20))
    return compressed(picture)


def compressed(picture: Image.Image, quality: int = 90) -> np.ndarray:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def cubes(n: int = 1, side: int = 140, pitch: int = 150) -> np.ndarray:
    """Faceted particles on a background that is black throughout."""
    image = np.zeros((256, 256))
    for row, column in np.ndindex(n, n):
        image[50 + pitch * row :, 53 + pitch * column :][:side, :side] = 180
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return np.uint8((image + noise * (image > 0)).clip(0, 255))


def in_colour(colour: tuple[int, ...], contrast: float = 1.0) -> np.ndarray:
    grey = scan()[..., None]
    discs = gaussian_filter(grey[..., 0].astype(float), 3)[..., None] > 125
    shown = 90 + contrast * (grey.astype(float) - 90) + discs * np.array(colour)
    return np.uint8(shown.clip(0, 255))


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("change", [lambda i: i, np.fliplr, lambda i: 257 * i.astype(int)])
def test_what_was_drawn_is_found(ink: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    plain, image = scan(), annotated(scan(), ink)
    found = find_annotations(change(image))
    kinds = [each.kind for each in found]
    assert kinds.count("scale bar") == kinds.count("arrow") == 1
    covered = np.zeros(image.shape, bool)
    for each in found:
        top, left, bottom, right = each.box
        covered[top - 1 : bottom + 1, left - 1 : right + 1] = True
    drawn = change(image != plain) != 0
    assert covered[drawn].mean() > 0.97
    assert covered.mean() < 3 * drawn.mean()


@pytest.mark.parametrize(
    "image",
    [
        scan(),
        wires(),
        np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8),
        np.zeros((50, 60), np.uint8),
        np.full((1, 1), 255),
        np.kron(np.eye(6), np.pad([[1, 0], [1, 1]], 2)).repeat(8, 0).repeat(8, 1) > 0,  # two levels
        np.uint8(np.tile(np.pad(np.ones((13, 13)) - np.pad(np.ones((7, 7)), 3), 5), (8, 12)) * 90)
        + scan()[:184, :276] // 9,
        np.uint8(255 * (scan() > 130)),  # saturated
        np.uint8(scan().astype(float).clip(120, 160) * 6.3 - 756),
        cubes(),
        cubes(5, 28, 32),
        np.where(np.hypot(ROWS - 150, COLUMNS - 200) < 120, 150 + scan() // 9, 0).astype(np.uint8),
        in_colour((8, 0, -8), 0.2),
        257 * in_colour((8, 0, -8), 0.2).astype(np.uint16),
        in_colour((70, 50, -100)),
        np.stack([scan(), scan(1) // 2, scan(2) // 3], axis=2),
        make_particle_fields(1, size=256, random_state=0)[0][0],
        make_fibre_images(1, size=256, random_state=0)[0][0],
    ],
)
def test_samples_have_none(image: np.ndarray) -> None:
    assert find_annotations(image) == []


@pytest.mark.parametrize("image", [np.full((9, 9), np.nan), np.eye(9) * 1j, np.ones((0, 4)), "a"])
def test_what_is_no_image_is_refused(image: Any) -> None:
    with pytest.raises(ImageReadError, match="image: "):
        find_annotations(image)


@pytest.mark.filterwarnings("ignore:(there may be|how many particles)")  # of letters
def test_coloured_marks_are_no_sample() -> None:
    image = coloured(scan())
    with pytest.warns(UserWarning, match="a coloured mark was left out of 2 images") as warned:
        found, _ = find_particles([image, image])
    assert (len(warned), len(found)) == (1, 4)
    assert {each.kind for each in found.annotations} == {"coloured mark"}
    assert len(find_particles(image, annotations="keep")) != 4


@pytest.mark.parametrize(("colour", "contrast"), [((8, 0, -8), 0.2), ((70, 50, -100), 1.0)])
def test_particles_in_colour_are_found(colour: tuple[int, ...], contrast: float) -> None:
    assert len(find_particles(in_colour(colour, contrast))) == 4


@pytest.mark.filterwarnings("ignore:a margin was left out")
@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize(
    "is_shown",
    [
        np.abs(0.98 * (ROWS - 150) + 0.2 * (COLUMNS - 200)) < 140,  # turned
        np.hypot(ROWS - 150, COLUMNS - 200) < 190,  # through a round hole
        np.hypot(ROWS - 150, COLUMNS - 200) < 140,  # a whole one
        ((COLUMNS >= 200) | (ROWS >= 9)) & ((COLUMNS < 380) | (ROWS > 140)),  # of tiles
        (ROWS >= 7) & (COLUMNS < 380),  # shifted
    ],
)
@pytest.mark.filterwarnings("ignore:(there may be|how many particles)")
def test_margins_are_no_sample(is_shown: np.ndarray, level: int) -> None:
    image = np.where(is_shown, scan(), level).astype(np.uint8)
    for each in (image, compressed(Image.fromarray(image), 60), 257 * image.astype(int)):
        (margin,) = find_annotations(each)
        assert (margin.kind, margin.mask.shape) == ("margin", image.shape)
        assert (margin.mask == is_shown).mean() < 0.02
    assert len(find_particles(image)) == is_shown[[60, 80, 150, 200], [60, 200, 320, 90]].sum()


def in_figure(level: int) -> np.ndarray:
    """A scan with axes, ticks and words in the margin around it."""
    picture = Image.new("L", (560, 460), level)
    picture.paste(Image.fromarray(scan()), (90, 60))
    draw, ink = ImageDraw.Draw(picture), 255 - level
    draw.rectangle([89, 59, 490, 360], outline=ink)
    for at in range(0, 400, 50):
        draw.line([90 + at, 361, 90 + at, 365], fill=ink)
        draw.text((80 + at, 368), str(at), fill=ink)
        draw.line([85, 60 + min(at, 299), 88, 60 + min(at, 299)], fill=ink)
    draw.text((200, 20), "sample 3", fill=ink, font_size=20)
    draw.text((10, 60), "(a)", fill=ink, font_size=24)
    return np.array(picture)


@pytest.mark.filterwarnings("ignore:(bands of scan lines|an information bar)")
@pytest.mark.parametrize("level", [0, 255])
def test_margins_with_axes_and_words_are_no_sample(level: int) -> None:
    image = in_figure(level)
    found, is_shown = find_particles(image), np.ones(image.shape, bool)
    for each in found.annotations:
        top, left, bottom, right = each.box
        is_shown[top:bottom, left:right] &= False if each.mask is None else ~each.mask
    assert is_shown[64:356, 94:486].all()
    assert is_shown.sum() < 1.02 * scan().size
    number_range = plain("find_particles").number_range
    assert (len(found), found.number_range) == (4, number_range), "nothing is doubtful there"


@pytest.mark.parametrize("level", [0, 255])
def test_a_lattice_on_even_ground_has_no_margin(level: int) -> None:
    image = np.full((300, 400), level, np.uint8)
    image[40:260, 60:340] = np.where(ROWS % 12 + COLUMNS % 12 < 8, 128, level)[40:260, 60:340]
    assert "margin" not in {each.kind for each in find_annotations(image)}


def test_information_bars_are_found_on_both_sides() -> None:
    bar = np.zeros((30, 400), np.uint8)
    bar[10:20, 20:120:3] = 255
    found = find_annotations(np.vstack([bar, scan(), bar]))
    bars = [each.box for each in found if each.kind == "information bar"]
    assert bars == [(0, 0, 30, 400), (330, 0, 360, 400)]


# --- all that looks for objects ------------------------------------------------------------------


def fibres(**options: float) -> np.ndarray:
    images, _ = make_fibre_images(1, size=(300, 400), random_state=0, **options)
    return np.uint8(100 * images[0] + 60)


MAT = fibres(diameter=7, cover=0.3)
THREADS = fibres(diameter=8, length=120, cover=0.05, contrast_to_noise=20)
#: Function, image, and what of the answer must not depend on annotations.
FINDERS: dict[str, tuple[Callable[..., Any], np.ndarray, Callable[[Any], float], float]] = {
    "find_particles": (find_particles, scan(), len, 0),
    "find_fibres": (find_fibres, THREADS, len, 1),
    "directions": (partial(local_orientation, sigma=2), MAT, lambda f: f.mask.sum() / 1e5, 0.05),
    "fibre_diameters": (fibre_diameters, MAT, lambda found: found.median, 0.03),
    "find_pores": (partial(find_pores, found=fibre_diameters(MAT)), MAT, lambda f: f.cover, 0.02),
}


@cache
def plain(name: str) -> Any:
    find, image, *_ = FINDERS[name]
    return find(image)


@pytest.mark.filterwarnings("ignore:(there may be|how many particles)")
@pytest.mark.parametrize("name", FINDERS)
def test_annotations_are_no_sample(name: str) -> None:
    find, image, number, tolerance = FINDERS[name]
    drawn = annotated(image)
    with pytest.warns(UserWarning, match="scale bar were left out of 1 image"):
        found = find(drawn)
    assert number(found) == pytest.approx(number(plain(name)), rel=tolerance, abs=1e-9 + tolerance)
    assert "scale bar" in {each.kind for each in found.annotations}
    assert plain(name).annotations == find(drawn, annotations="keep").annotations == []
    if hasattr(found, "outlines") and name != "find_fibres":  # fibres go on below a bar
        change = drawn != image
        assert not any((each.mask & change[each.window]).any() for each in found)


@pytest.mark.filterwarnings("ignore:(there may be|how many particles|a margin was left out)")
@pytest.mark.parametrize("name", FINDERS)
def test_hot_pixels_tiles_and_frames_hide_nothing(name: str) -> None:
    find, image, number, tolerance = FINDERS[name]
    one, many = 50 * np.stack([image, image]).astype(np.uint16)
    one[246, 184] = 65535
    for row, column in np.random.default_rng(0).integers(0, 290, (20, 2)):
        many[row : row + 2, column : column + 2] = 65535
    tiles = image + np.kron([[0, 8], [14, 3]], np.ones((150, 200)))
    with pytest.warns(UserWarning, match="tiles of a detector"):
        found = [number(find(each)) for each in (one, many, tiles, np.pad(image, (0, 40)))]
    assert found == pytest.approx([number(plain(name))] * 4, rel=2 * tolerance, abs=1e-9)


@pytest.mark.parametrize("column", [285, 300, 320])
def test_a_particle_that_an_annotation_covers_in_part_is_left_out_and_counted(column: int) -> None:
    is_disc = np.hypot(ROWS - 270, COLUMNS - column) < 16
    image = annotated(np.where(is_disc, 170, scan()).astype(np.uint8))
    with pytest.warns(UserWarning, match="with 1 particle that annotations cover"):
        found = find_particles(image)
    assert (len(found), found.n_beside) == (4, 1)


@pytest.mark.filterwarnings("ignore:.* left out of 1 image")
def test_a_bar_does_not_decide_on_the_contrast_of_16_bits() -> None:
    image = 10 * scan().astype(np.uint16)
    image[280:285, 300:390] = 65535
    assert len(find_particles(image)) == 4
    bar = np.zeros((30, 400), np.uint16)
    bar[10:20, 20:120:3] = 65535
    assert len(find_particles(np.vstack([image, bar]))) == 4


@pytest.mark.filterwarnings("ignore:.* left out of 1 image")
def test_what_an_annotation_cuts_is_counted_and_left_out() -> None:
    pores = find_pores(annotated(MAT), fibre_diameters(annotated(MAT)))
    assert len(pores) < len(plain("find_pores")) <= len(pores) + pores.n_beside
    assert find_fibres(annotated(THREADS)).n_beside > plain("find_fibres").n_beside == 0
