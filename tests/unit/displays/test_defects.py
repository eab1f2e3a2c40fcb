"""Defect maps beside images."""

import numpy as np
from support.displays import colours, pictures, texts

from hypervlad.results import DefectMapDisplay

IMAGE = np.full((60, 90), 0.5)
SCORES = np.zeros((60, 90))
SCORES[10:30, 10:40] = 1.0
MASK = np.zeros((60, 90), dtype=bool)
MASK[10:30, 20:60] = True


def maps_of(images, maps, threshold=0.5, **options):
    found = [np.asarray(scores) >= threshold for scores in maps]
    return DefectMapDisplay(images, maps, found, threshold, **options).plot()


def drawn(picture, colour):
    return np.abs(picture - colour).max(axis=-1) < 0.02


def test_outlines_and_captions_are_those_of_the_map():
    maps = [SCORES, 0 * SCORES]
    display = maps_of([IMAGE, IMAGE], maps, masks=[MASK, None], names=["a", "b"])
    assert texts(display) == [
        *("a", "true: 14.8 % defective", "", "found: 11.1 % (−3.7)"),
        *("b", "", "", "found: 0.0 %"),
        *("0 ", " 1", "mask", "found"),
    ]
    first, first_map, second, _, bar = pictures(display)
    true, found = colours(display).values()
    assert drawn(first, true).any()
    assert drawn(first, found).any()
    assert drawn(first_map, found).any()
    assert not drawn(second, found).any()
    assert bar.shape == (1, 129, 3)


def test_small_defects_in_large_images_are_visible():
    image, mask = np.full((1000, 1000), 0.5), np.zeros((1000, 1000), dtype=bool)
    mask[501:504, 301:304] = True
    display = maps_of([image], [mask.astype(float)], masks=[mask])
    first, second, _ = pictures(display)
    true, found = colours(display).values()
    assert drawn(first, true).any()
    assert drawn(second, found).any()
