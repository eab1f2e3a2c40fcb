"""Defect maps beside images, and patches coloured by whether they are classified correctly."""

from __future__ import annotations

import numpy as np
import pytest
from support.displays import pictures, texts

from hypervlad.results import DefectMapDisplay, PatchConfusionDisplay

IMAGE = np.full((60, 90), 0.5)
SCORES = np.zeros((60, 90))
SCORES[10:30, 10:40] = 1.0
MASK = np.zeros((60, 90), dtype=bool)
MASK[10:30, 20:50] = True


def maps_of(images, maps, threshold=0.5, **options):
    found = [np.asarray(scores) >= threshold for scores in maps]
    return DefectMapDisplay(images, maps, found, threshold, **options).plot()


def drawn(picture, colour):
    return np.abs(picture - colour).max(axis=-1) < 0.02


def test_outlines_and_captions_are_those_of_the_map():
    maps = [SCORES, 0 * SCORES]
    display = maps_of([IMAGE, IMAGE], maps, masks=[MASK, None], names=["a", "b"])
    assert texts(display) == [
        *("a", "true: 11.1 % defective", "", "found: 11.1 % (+0.0)"),
        *("b", "", "", "found: 0.0 %"),
        *("0", " 1", " mask", " found"),
    ]
    first, first_map, second, _, bar, true, found = pictures(display)
    assert drawn(first, true).any()
    assert drawn(first, found).any()
    assert drawn(first_map, found).any()
    assert not drawn(second, found).any()
    assert bar.shape == (1, 129, 3)


@pytest.mark.parametrize("rows", [slice(0, 8), slice(3, 10), slice(0, 12), slice(0, 0)])
def test_an_outline_is_two_pixels_wide_and_lies_outside_only_within_the_image(rows):
    """That of what was found lies inside of it, that of the mask outside."""
    region = np.zeros((12, 14), dtype=bool)
    region[rows, 2:10] = True
    places = np.argwhere(np.ones((16, 18), dtype=bool)) - 2  # two pixels beyond each edge, too

    def is_near(pixel, inside):
        others = (place for place in places if np.abs(place - pixel).sum() <= 2)
        return any(contains(place) == inside for place in others)

    def contains(place):
        return bool((place >= 0).all() and (place < region.shape).all() and region[tuple(place)])

    image, none = np.full((12, 14), 0.5), np.zeros((12, 14), bool)
    found, *_, colour = pictures(DefectMapDisplay([image], [none], [region], 1).plot())
    for pixel, is_drawn in np.ndenumerate(drawn(found, colour[0, 0])):
        assert is_drawn == (region[pixel] and is_near(pixel, inside=False))
    display = DefectMapDisplay([image], [none], [none], 1, masks=[region]).plot()
    true, *_, colour, _ = pictures(display)
    for pixel, is_drawn in np.ndenumerate(drawn(true, colour[0, 0])):
        at_edge = min(*pixel, 11 - pixel[0], 13 - pixel[1]) < 2
        within = at_edge and is_near(pixel, inside=False)
        assert is_drawn == (within if region[pixel] else is_near(pixel, inside=True))


def test_a_perfect_map_hides_no_mask():
    *shown, _, true, found = pictures(maps_of([IMAGE], [MASK.astype(float)], masks=[MASK]))
    for picture in shown:
        assert drawn(picture, true).any()
        assert drawn(picture, found).any()


def test_small_defects_in_large_images_are_visible():
    image, mask = np.full((1000, 1000), 0.5), np.zeros((1000, 1000), dtype=bool)
    mask[501:504, 301:304] = True
    first, second, _, true, found = pictures(maps_of([image], [mask.astype(float)], masks=[mask]))
    assert drawn(first, true).any()
    assert drawn(second, found).any()


def test_large_images_are_shrunk_and_colour_ones_shown():
    colour = np.random.default_rng(0).random((500, 700, 3))
    display = maps_of([colour], [np.zeros((500, 700))], masks=[np.eye(500, 700)])
    assert pictures(display)[0].shape == (166, 233, 3)


def test_the_scale_of_maps_includes_the_threshold():
    flat = maps_of([IMAGE], [np.full((60, 90), 3.0)], threshold=7.0)
    assert texts(flat)[4:] == ["3", " 7", " found"]
    below_zero = maps_of([IMAGE], [np.full((60, 90), -3.0)], threshold=-3.0)
    assert texts(below_zero)[4:6] == ["−3", " −2"], "a minus, not a hyphen, as in the captions"
    # A single bright and a single dark pixel do not set the scale, which says so.
    scores = np.tile(np.linspace(0, 1, 90), (60, 1))
    scores[0, 0], scores[1, 0] = 100, -100
    display, low = maps_of([IMAGE], [scores], threshold=2.0), np.percentile(scores, 1)
    assert texts(display)[4:6] == [f"≤ {low:.3g}", " ≥ 2"]
    shown = (scores[30, 30:60] - low) / (2 - low)
    np.testing.assert_allclose(pictures(display)[1][30, 30:60, 0], shown)


def test_patches_are_coloured_by_their_outcome():
    display = PatchConfusionDisplay([IMAGE], [SCORES >= 0.5], [MASK], patch=10).plot()
    confusion = display.confusions[0]
    counts = (confusion.true_positives, confusion.false_positives, confusion.false_negatives)
    assert counts == (4, 2, 2)
    assert texts(display) == [
        *("image 0", "4 hit, 2 false, 2 missed", "F1 0.67"),
        *(" hit", " false alarm", " missed", " defect-free"),
    ]
    picture, *colours = pictures(display)
    for (row, column), colour, strength in zip(
        [(15, 25), (15, 15), (15, 45), (45, 45)], colours, (0.55, 0.55, 0.6, 0.12), strict=True
    ):
        expected = 0.5 * (1 - strength) + strength * colour[0, 0]
        np.testing.assert_allclose(picture[row, column], expected)
    nothing = PatchConfusionDisplay([IMAGE], [0 * SCORES], [None]).plot()
    assert "nothing defective" in texts(nothing), "no F1"
