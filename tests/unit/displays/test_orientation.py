"""Directions in colours, as regions and as a rose."""

import dataclasses

import numpy as np
import pytest

from hypervlad.results import OrientationDisplay

ROWS, COLUMNS = np.indices((96, 128))
# Upright on the left, at 30 degrees on the right.
HALVES = np.sin(
    np.where(COLUMNS < 64, COLUMNS, COLUMNS * np.sin(np.pi / 6) + ROWS * np.cos(np.pi / 6))
).astype(np.float32)


@pytest.fixture(scope="module")
def halves():
    return OrientationDisplay.from_image(HALVES, pixel_size=2.5, window="80 nm", name="a_$b.tif")


def overlay_of(result):
    return np.asarray(OrientationDisplay(result).plot().panels_[0].images[0].get_array())


def lines(display):
    """White lines over the regions, in pixels of the image: outlines, and bars of means."""
    regions = display.panels_[1]
    scale = display.result.pixels.shape[1] / regions.get_xlim()[1]
    white = [each for each in regions.collections if each.get_color()[0][0] == 1]
    return [scale * np.array(each.get_segments()).reshape(-1, 2, 2) for each in white]


def bars_of(display):
    """Angle in degrees, length and colour of the petals of a rose, and of its rim."""
    found = [
        (round(np.rad2deg(bar.get_x() + bar.get_width() / 2), 6), bar.get_height(), bar)
        for bar in display.panels_[2].patches
    ]
    return found[:48], found[48:]


def texts(display):
    """What is above and below each panel, and on it."""
    found = [(ax.get_title(), ax.get_xlabel(), *ax.texts) for ax in display.panels_]
    return [getattr(text, "get_text", lambda text=text: text)() for own in found for text in own]


def test_the_overlay_has_the_colours_of_the_truth(halves):
    overlay = np.asarray(halves.panels_[0].images[0].get_array())
    rim = {angle: np.array(bar.get_facecolor()[:3]) for angle, _, bar in bars_of(halves)[1]}
    assert len(rim) == 48
    for column, angle in ((32, 90), (96, 30)):
        seen = overlay[20:76, column - 12 : column + 12].mean(axis=(0, 1))
        likest = min(
            rim, key=lambda each: np.linalg.norm(seen / sum(seen) - rim[each] / sum(rim[each]))
        )
        assert abs(likest % 180 - angle) < 15
    labels = {label.get_text() for label in halves.panels_[2].get_xticklabels()}
    assert labels == {"0°", "45°", "90°", "135°", ""}


def test_what_is_not_coherent_stays_grey(halves):
    found = halves.result.orientation
    for share, is_grey in ((0.0, True), (1.0, False)):
        coherence = np.full_like(found.coherence, share)
        orientation = dataclasses.replace(found, coherence=coherence)
        result = dataclasses.replace(halves.result, orientation=orientation)
        overlay = overlay_of(result)
        assert (np.ptp(overlay, axis=-1).max() < 1e-6) == is_grey
        order = np.argsort(HALVES[40, 70:90])
        brightness = overlay[40, 70:90].mean(axis=-1)[order]
        assert brightness[-5:].mean() > brightness[:5].mean() + 0.1, "brightness shows through"


def test_regions_are_outlined_and_have_bars_along_their_means(halves):
    aligned = halves.result.aligned
    assert len(aligned.regions) == 2
    outlines, bars = lines(halves)
    sides = {tuple(map(tuple, np.rint(each).astype(int).tolist())) for each in outlines}
    assert len(sides) == 2 * (3 + 4) + 3  # the image's edge, and where the halves meet
    assert ((64, 0), (64, 32)) in sides
    for region, ((x0, y0), (x1, y1)) in zip(aligned.regions, bars, strict=True):
        top, left, bottom, right = region.box
        assert left < min(x0, x1) <= max(x0, x1) < right
        assert top < min(y0, y1) <= max(y0, y1) < bottom
        assert np.arctan2(y0 - y1, x1 - x0) % np.pi == pytest.approx(region.mean_angle, abs=1e-6)
    hues = np.asarray(halves.panels_[1].images[0].get_array()).reshape(-1, 3)
    hues = hues[hues.min(axis=1) > 0.1]
    assert len(np.unique((hues / hues.sum(axis=1, keepdims=True)).round(1), axis=0)) >= 2


def test_shrinking_averages_axes_not_angles(halves):
    """Pixels of 178 and of 2 degrees are horizontal together, not vertical."""
    image = np.full((1400, 1600), 0.5, np.float32)
    angles, shown = np.tile(np.deg2rad([178.0, 2.0]), (1400, 800)).astype(np.float32), []
    for each in (angles, 0 * angles):
        parts = dict.fromkeys(("coherence", "energy"), np.ones_like(each))
        parts |= {"orientation": each, "mask": np.ones(image.shape, bool)}
        own = dataclasses.replace(halves.result.orientation, **parts)
        shown.append(overlay_of(dataclasses.replace(halves.result, orientation=own, pixels=image)))
    assert shown[0].shape == (700, 800, 3)
    np.testing.assert_allclose(*shown, atol=0.01)


def test_a_rose_is_symmetric_and_its_areas_are_shares(halves):
    petals = {angle: length for angle, length, _ in bars_of(halves)[0]}
    assert all(length == petals[(angle + 180) % 360] for angle, length in petals.items())
    assert max(petals, key=petals.__getitem__) % 180 in (90, 30)
    # Three of four pixels around 0 degrees, one at 60; those of the background do not count.
    found = halves.result.orientation
    shape = found.orientation.shape
    angles = np.resize([0, 0.01, np.pi - 0.01, np.pi / 3], shape).astype(np.float32)
    mask = np.ones(shape, bool)
    mask[0], angles[0] = False, 2
    own = dataclasses.replace(found, orientation=angles, energy=np.ones_like(angles), mask=mask)
    display = OrientationDisplay(dataclasses.replace(halves.result, orientation=own)).plot()
    lengths = {angle % 180: length for angle, length, _ in bars_of(display)[0] if length}
    assert set(lengths) == {0, 60}
    assert lengths[0] ** 2 == pytest.approx(3 * lengths[60] ** 2)


def test_captions_state_what_was_measured_with_units(halves):
    assert texts(halves).count("50 nm") == 2, "scale bars"
    found, statistics = halves.result.aligned, halves.result.statistics
    assert statistics is not None
    mean, spread = np.rad2deg([statistics.mean, statistics.spread])
    assert {
        "a_\\$b.tif",
        "0 % background; paler: less coherent",
        f"100 % aligned ({100 * found.fraction_interval.low:.0f} to 100 %), 2 regions",
        "windows of 80 nm, spread below 20°",
        f"mean {mean:.0f}°, spread {spread:.0f}°",
        f"order {statistics.order:.2f}",
    } <= set(texts(halves))
    plain = texts(OrientationDisplay.from_image(HALVES))
    assert not [text for text in plain if " nm" in text]
    assert {"direction of fibres", "windows of 32 px, spread below 20°"} <= set(plain)
    # An image of 47 pixels is one window, whatever was asked for.
    small = HALVES[:47, :47]
    for pixel_size, side in ((None, "47 px"), (2.0, "94 nm")):
        display = OrientationDisplay.from_image(small, pixel_size=pixel_size)
        assert f"windows of about {side}, spread below 20°" in texts(display)
