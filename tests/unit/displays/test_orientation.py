"""Directions in colours, as regions and as a rose."""

from __future__ import annotations

import dataclasses
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Rectangle, Wedge
from support.displays import texts

from hypervlad.fibres import AlignmentRecipe, aligned_fraction
from hypervlad.results import OrientationDisplay
from hypervlad.results.displays.colours import direction_colours
from hypervlad.results.displays.directions import (
    length_text,
    mean_bars,
    outlines,
    rose_weights,
    round_length,
    shrink_directions,
    tinted_regions,
)

ROWS, COLUMNS = np.indices((96, 128))
# Upright on the left, at 30 degrees on the right.
HALVES = np.sin(
    np.where(COLUMNS < 64, COLUMNS, COLUMNS * np.sin(np.pi / 6) + ROWS * np.cos(np.pi / 6))
).astype(np.float32)


def test_the_overlay_has_the_colours_of_the_truth() -> None:
    display = OrientationDisplay.from_image(HALVES)
    picture = np.asarray(display.ax_.images[0].get_array())
    for column, angle in ((32, np.pi / 2), (96, np.pi / 6)):
        seen = picture[20:76, column - 12 : column + 12].mean(axis=(0, 1))
        likest = np.argmin(
            np.linalg.norm(
                seen / seen.sum()
                - [(c / c.sum()) for c in direction_colours(np.arange(0, 3.14, 0.1))],
                axis=1,
            )
        )
        assert abs(0.1 * likest - angle) < 0.25
    assert texts(display)[:2] == ["direction of fibres", "0 % of the pixels are background"]
    assert "paler: less coherent" in texts(display)
    assert {"0°", "45°", "90°", "135°", "180°"} <= set(texts(display))


def test_regions_are_outlined_and_have_bars_along_their_means() -> None:
    aligned = aligned_fraction(HALVES)
    assert len(aligned.regions) == 2
    sides = outlines(aligned)
    assert len(sides) == 2 * (3 + 4) + 3  # the image's edge, and where the halves meet
    assert ((64, 0), (64, 32)) in sides
    for region, ((x0, y0), (x1, y1)) in zip(aligned.regions, mean_bars(aligned), strict=True):
        top, left, bottom, right = region.box
        assert left < min(x0, x1) <= max(x0, x1) < right
        assert top < min(y0, y1) <= max(y0, y1) < bottom
        slope = np.arctan2(y0 - y1, x1 - x0) % np.pi
        assert slope == pytest.approx(region.mean_angle, abs=1e-6)
    tinted = tinted_regions(np.full(HALVES.shape, 0.5, np.float32), aligned)
    assert len(np.unique(tinted.reshape(-1, 3), axis=0)) == 2
    shrunk = tinted_regions(np.full((48, 64), 0.5, np.float32), aligned)
    np.testing.assert_array_equal(shrunk, tinted[1::2, 1::2])


def test_a_region_of_one_window_has_no_outline_of_its_own() -> None:
    """Boxes around each of a hundred windows would hide what is in them."""
    rng = np.random.default_rng(0)
    turned = np.where((ROWS // 32 + COLUMNS // 32) % 2, ROWS, COLUMNS)
    aligned = aligned_fraction(np.sin(turned).astype(np.float32) + 0.01 * rng.random(turned.shape))
    assert {region.n_windows for region in aligned.regions} == {1}
    assert len(aligned.regions) > 5
    assert not outlines(aligned)
    assert len(list(mean_bars(aligned))) == len(aligned.regions)


@pytest.mark.parametrize("shape", [(64, 3840), (96, 128)])
def test_outlines_are_left_out_where_windows_are_three_pixels_on_the_page(
    shape: tuple[int, int],
) -> None:
    image = np.sin(0.8 * np.indices(shape)[0]).astype(np.float32)
    display = OrientationDisplay.from_image(image, window=8)
    _, white, *_ = display.ax_.collections
    assert bool(len(white.get_segments())) == (shape[1] == 128)


def test_shrinking_averages_axes_not_angles() -> None:
    orientation = np.tile(np.deg2rad([178.0, 2.0]), (2, 2)).astype(np.float32)
    angles, coherence = shrink_directions(orientation, np.ones((2, 4), np.float32), 2)
    assert np.abs(np.sin(angles)).max() < 1e-6
    assert coherence == pytest.approx(np.cos(np.deg2rad(4)), abs=1e-6)


def test_panels_of_a_wide_image_lie_one_above_the_other() -> None:
    wide = np.tile(HALVES, (1, 3))
    for image, stacked in ((HALVES, False), (wide, True), (wide.T, False)):
        display = OrientationDisplay.from_image(image)
        first, second = (picture.get_extent() for picture in display.ax_.images[:2])
        assert (second[3] > first[2]) == stacked
        assert (second[0] > first[1]) == (not stacked)
    width, height = OrientationDisplay.from_image(wide).figure_size
    assert width / height > 1
    strip = OrientationDisplay.from_image(np.tile(HALVES[:40], (1, 20)), pixel_size=2.0)
    *_, bottom, top = strip.ax_.images[0].get_extent()
    bars = [patch for patch in strip.ax_.patches if isinstance(patch, Rectangle)]
    assert bars
    assert not any(top < bar.get_y() < bottom for bar in bars), "they would hide the strip"


def test_captions_state_the_actual_windows() -> None:
    """An image of 47 pixels is one window, whatever was asked for."""
    image = HALVES[:47, :47]
    assert "windows of about 47 px, spread below 20°" in texts(OrientationDisplay.from_image(image))
    nm = OrientationDisplay.from_image(image, pixel_size=2.0)
    assert "windows of about 94 nm, spread below 20°" in texts(nm)
    assert "windows of 32 px, spread below 20°" in texts(OrientationDisplay.from_image(HALVES))


def test_windows_without_fibres_are_darkened_and_not_coloured() -> None:
    image = np.where(COLUMNS < 64, HALVES, 0).astype(np.float32)
    tinted = tinted_regions(np.full(image.shape, 0.5, np.float32), aligned_fraction(image))
    assert np.ptp(tinted[48, 120]) == 0
    assert tinted[48, 120, 0] < 0.3


def test_a_rose_is_symmetric_and_its_areas_are_shares() -> None:
    weights = rose_weights([0, 0.01, np.pi - 0.01, 1.0], [1, 1, 1, 1])
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == 0.75
    assert not rose_weights([], []).any()
    display = OrientationDisplay.from_image(HALVES)
    petals = [patch for patch in display.ax_.patches if isinstance(patch, Wedge)]
    middles = {round((petal.theta1 + petal.theta2) / 2, 6) for petal in petals}
    assert all(any((m + 180 - o) % 360 < 1e-6 for o in middles) for m in middles)
    longest = max(petals, key=lambda petal: petal.r)
    assert (longest.theta1 + longest.theta2) / 2 % 180 in (90, 150)  # y points down: 30 is 150
    for petal in petals:
        assert petal.get_edgecolor() == petal.get_facecolor(), "no light between neighbours"
        assert petal.get_linewidth() > 0


def test_all_panels_and_a_scale_bar_where_the_pixel_size_is_known() -> None:
    display = OrientationDisplay.from_image(HALVES, pixel_size=2.5, window="80 nm", name="a_$b.tif")
    assert texts(display).count("50 nm") == 2
    assert "a_\\$b.tif" in texts(display)
    assert "100 % of the area is aligned, 2 regions" in texts(display)
    assert "windows of 80 nm, spread below 20°" in texts(display)
    mean = np.rad2deg(display.result.statistics.mean)
    assert any(text.startswith(f"mean {mean:.0f}°, spread") for text in texts(display))
    assert "50 nm" not in texts(OrientationDisplay.from_image(HALVES))


def test_an_image_of_background_alone_is_drawn_too() -> None:
    image = np.zeros((64, 64), np.float32)
    image[0, 0] = 1
    found = AlignmentRecipe().find(image)
    found.orientation.mask[:] = False
    nothing = aligned_fraction(np.random.default_rng(0).standard_normal((64, 64)))
    assert np.isnan(nothing.fraction)
    empty = dataclasses.replace(found, aligned=nothing, statistics=None)
    assert {"no direction", "background everywhere"} <= set(texts(OrientationDisplay(empty).plot()))


@pytest.mark.parametrize(
    ("shape", "in_small_axes"),
    [
        ((96, 128), False),
        ((96, 128), True),
        ((128, 40), False),
        ((40, 400), True),
        ((40, 3000), False),
        ((400, 40), True),
    ],
)
def test_no_text_overlaps_another_or_leaves_the_figure(
    shape: tuple[int, int], in_small_axes: bool
) -> None:
    rng = np.random.default_rng(0)
    # Fonts of a few pixels are wider than their size, so the small figure is a fine one.
    small = plt.figure(figsize=(6, 3), dpi=400)
    ax = small.subplots(1, 2)[0] if in_small_axes else None
    display = OrientationDisplay.from_image(rng.random(shape), pixel_size=0.3, ax=ax)
    renderer = display.figure_.canvas.get_renderer()
    display.figure_.draw(renderer)
    boxes = [text.get_window_extent(renderer) for text in display.ax_.texts if text.get_text()]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= display.figure_.bbox.x1
        assert box.y1 <= display.figure_.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_round_lengths() -> None:
    assert [round_length(each) for each in (1, 1.99, 2, 49, 5e5, 0.012)] == [1, 1, 2, 20, 5e5, 0.01]
    assert length_text(999.9) == "1000 nm"
    assert length_text(0.05) == "50 pm"
    assert length_text(2e6) == "2 mm"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fft"}, "method must be one of .* not 'fft'"),
        ({"pixel_size": "4"}, "pixel_size must be nanometres per pixel .* not '4'"),
        ({"n_bootstrap": 1.5}, "n_bootstrap must be a whole number .* not 1.5"),
        ({"random_state": "a"}, "random_state must be a whole number .* not 'a'"),
        ({"window": "5nm", "pixel_size": 5}, "^5nm is 1 pixel at 5 nm per pixel: .* at least 2"),
        ({"window": "1um", "pixel_size": 5}, "^1um is 200 pixels at 5 nm per pixel: .* larger"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlignmentRecipe(**options).find(HALVES)
