"""Defect maps beside images, and patches coloured by whether they are classified correctly."""

import numpy as np
import pytest
from support.displays import texts

from hypervlad.results import DefectMapDisplay, PatchConfusionDisplay
from hypervlad.results.displays.colours import DEFECT_FREE, FALSE_ALARM, FOUND, HIT, MISSED, TRUE
from hypervlad.results.displays.defects import outline

IMAGE = np.full((60, 90), 0.5)
SCORES = np.zeros((60, 90))
SCORES[10:30, 10:40] = 1.0
MASK = np.zeros((60, 90), dtype=bool)
MASK[10:30, 20:50] = True


def maps_of(images, maps, threshold=0.5, **options):
    found = [np.asarray(scores) >= threshold for scores in maps]
    return DefectMapDisplay(images, maps, found, threshold, **options)


def has(image, colour):
    return (np.abs(np.asarray(image.get_array()) - colour).max(axis=-1) < 0.02).any()


def test_outlines_and_captions_are_those_of_the_map():
    display = maps_of(
        [IMAGE, IMAGE], [SCORES, 0 * SCORES], masks=[MASK, None], names=["a", "b"]
    ).plot()
    assert texts(display)[:8] == [
        *("a", "true: 11.1 % defective", "", "found: 11.1 % (+0.0)"),
        *("b", "", "", "found: 0.0 %"),
    ]
    assert texts(display)[8:] == ["0", " 1", " mask", " found"]
    first, first_map, second, _, bar, *_ = display.ax_.images
    assert has(first, TRUE)
    assert has(first, FOUND)
    assert has(first_map, FOUND)
    assert not has(second, FOUND)
    assert np.asarray(bar.get_array()).shape == (1, 129, 3)


def test_landscape_images_stand_close_together():
    square = maps_of([np.zeros((60, 60))] * 3, [np.zeros((60, 60))] * 3)
    strips = maps_of([np.zeros((20, 60))] * 3, [np.zeros((20, 60))] * 3).plot()
    assert strips.figure_size[0] == square.figure_size[0]
    assert strips.figure_size[1] < 0.7 * square.figure_size[1]
    tops, bottoms = ([each.get_extent()[k] for each in strips.ax_.images] for k in (3, 2))
    captions = [text.get_position()[1] for text in strips.ax_.texts]
    assert bottoms[0] < captions[0] < bottoms[0] + 0.1, "directly beneath the image"
    assert tops[4] - bottoms[0] < 0.4, "two lines and a gap"


def test_flat_maps_have_a_scale_too():
    flat = maps_of([IMAGE], [np.full((60, 90), 3.0)], threshold=7.0).plot()
    assert texts(flat)[4:] == ["3", " 7", " found"]
    below_zero = maps_of([IMAGE], [np.full((60, 90), -3.0)], threshold=-3.0).plot()
    assert texts(below_zero)[4:6] == ["−3", " −2"], "a minus, not a hyphen, as in the captions"


def test_patches_are_coloured_by_their_outcome():
    display = PatchConfusionDisplay([IMAGE], [SCORES >= 0.5], [MASK], patch=10).plot()
    confusion = display.confusions[0]
    counts = (confusion.true_positives, confusion.false_positives, confusion.false_negatives)
    assert counts == (4, 2, 2)
    assert texts(display)[:3] == ["image 0", "4 hit, 2 false, 2 missed", "F1 0.67"]
    picture = np.asarray(display.ax_.images[0].get_array())
    for (row, column), colour, strength in (
        ((15, 25), HIT, 0.55),
        ((15, 15), FALSE_ALARM, 0.55),
        ((15, 45), MISSED, 0.6),
        ((45, 45), DEFECT_FREE, 0.12),
    ):
        expected = 0.5 * (1 - strength) + strength * np.asarray(colour)
        np.testing.assert_allclose(picture[row, column], expected)
    assert texts(display)[3:] == [" hit", " false alarm", " missed", " defect-free"]


def test_without_defects_there_is_no_f1():
    assert "nothing defective" in texts(PatchConfusionDisplay([IMAGE], [0 * SCORES], [None]).plot())


def test_large_images_are_shrunk_and_colour_ones_shown():
    colour = np.random.default_rng(0).random((500, 700, 3))
    display = maps_of([colour], [np.zeros((500, 700))], masks=[np.eye(500, 700)]).plot()
    assert np.asarray(display.ax_.images[0].get_array()).shape == (166, 233, 3)


@pytest.mark.parametrize("rows", [slice(0, 8), slice(3, 10), slice(0, 12), slice(0, 0)])
def test_an_outline_is_two_pixels_wide_and_lies_outside_only_within_the_image(rows):
    region = np.zeros((12, 14), dtype=bool)
    region[rows, 2:10] = True
    places = np.argwhere(np.ones((16, 18), dtype=bool)) - 2  # two pixels beyond each edge, too

    def is_near(pixel, inside):
        others = (place for place in places if np.abs(place - pixel).sum() <= 2)
        return any(contains(place) == inside for place in others)

    def contains(place):
        return bool((place >= 0).all() and (place < region.shape).all() and region[tuple(place)])

    for pixel, found in np.ndenumerate(outline(region)):
        assert found == (region[pixel] and is_near(pixel, inside=False))
    for pixel, found in np.ndenumerate(outline(region, outside=True)):
        at_edge = min(*pixel, 11 - pixel[0], 13 - pixel[1]) < 2
        within = at_edge and is_near(pixel, inside=False)
        assert found == (within if region[pixel] else is_near(pixel, inside=True))


def test_a_perfect_map_hides_no_mask():
    display = maps_of([IMAGE], [MASK.astype(float)], masks=[MASK]).plot()
    for picture in display.ax_.images[:2]:
        assert has(picture, TRUE)
        assert has(picture, FOUND)


def test_small_defects_in_large_images_are_visible():
    image, mask = np.full((1000, 1000), 0.5), np.zeros((1000, 1000), dtype=bool)
    mask[501:504, 301:304] = True
    display = maps_of([image], [mask.astype(float)], masks=[mask]).plot()
    assert has(display.ax_.images[0], TRUE)
    assert has(display.ax_.images[1], FOUND)


@pytest.mark.parametrize(
    ("display", "message"),
    [
        (lambda: DefectMapDisplay([IMAGE], [], [MASK], 1), "one map for each of 1 image; got 0"),
        (lambda: maps_of([IMAGE], [np.full((60, 90), np.nan)]), "image 0: .*NaN"),
        (lambda: maps_of([IMAGE], [np.zeros((2, 2, 2))]), r"got shape \(2, 2, 2\)"),
        (lambda: maps_of([IMAGE], [SCORES.T]).plot(), "60 x 90 pixels, but a map of 90"),
        (lambda: maps_of([IMAGE], [SCORES], masks=[MASK.T]).plot(), "a mask of 90 x 60"),
        (lambda: PatchConfusionDisplay([IMAGE], [SCORES], [MASK.T]), "a mask of 90 x 60"),
        (lambda: PatchConfusionDisplay([IMAGE], [MASK.T], [MASK.T]).plot(), "but a map of 90 x 60"),
    ],
)
def test_what_does_not_fit_is_refused(display, message):
    with pytest.raises(ValueError, match=message):
        display()
