"""Synthetic fibres have exactly the diameters and lengths that are returned."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hypervlad.data import FIBRE_LOOKS, make_fibre_images
from hypervlad.data.synthetic import fibres


@pytest.mark.parametrize("diameter", [2.5, 5.0, 8.3])
def test_the_area_of_a_single_fibre_is_its_length_times_its_diameter(diameter):
    asked = {"diameter": diameter, "spread": 0, "curl": 0, "blur": 0.3, "length": 80}
    widths = []
    for seed in range(12):
        (image,), (truth,) = make_fibre_images(
            1, look="flat", cover=0.001, contrast_to_noise=1e6, size=160, random_state=seed, **asked
        )
        assert len(truth.diameters) == 1
        assert truth.diameters[0] == diameter
        inside = (
            truth.lengths[0] > 79.5
            and max(np.ptp(image[[0, -1]]), np.ptp(image[:, [0, -1]])) < 1e-3
        )
        if inside:
            low, high = image.min(), image.max()
            area = (image - low).sum() / (high - low) - np.pi / 4 * diameter**2  # rounded ends
            widths.append(area / truth.lengths[0])
    assert len(widths) >= 3
    assert np.mean(widths) == pytest.approx(diameter, rel=0.01)


ARC = np.linspace(0, 5, 75)[:, None]
LINES = {
    "straight": np.linspace([20, 30], [60, 90], 25),
    "along a row": np.linspace([40, 9], [40, 69], 21),
    "along a column": np.linspace([70, 40], [10, 40], 21),
    "two points": np.array([[20.5, 30], [24, 33]]),
    "across the canvas": np.linspace([-300, -200], [390, 300], 280),
    "partly outside": np.linspace([50, 80], [75, 150], 25),
    "outside": np.linspace([20, -90], [60, -70], 15),
    "curled": [40, 40] + 25 * np.hstack([np.sin(ARC), np.cos(ARC)]),
    "crossing itself": [40, 50] + 35 * np.hstack([np.sin(2 * ARC), np.cos(ARC)]),
    "with corners": np.array([[20, 20], [23, 20], [23, 23], [22, 20], [60, 70]]),
}


@pytest.mark.parametrize("radius", [1.6, 7.0, 31.0])
@pytest.mark.parametrize("line", LINES)
def test_every_point_on_a_fibre_is_painted_once_at_its_distance(line, radius):
    nodes = LINES[line].astype(np.float32)
    canvas = fibres._Canvas((81, 102))
    for _ in range(2):  # the second fibre lies upon the first
        canvas.paint(nodes, radius)
    stride = max(1, int(radius / 6)) if len(nodes) > 2 else 1
    kept = [*range(0, len(nodes) - 1, stride), len(nodes) - 1]
    points = np.moveaxis(np.indices(canvas.shape), 0, -1).astype(float)
    distance = np.full(canvas.shape, np.inf)
    for start, stop in itertools.pairwise(nodes[kept].astype(float)):
        step = stop - start
        along = np.clip((points - start) @ step / (step @ step), 0, 1)
        apart = np.linalg.norm(points - start - along[..., None] * step, axis=-1)
        distance = np.minimum(distance, apart)
    on = distance < radius
    assert on.any() == (line != "outside")
    clear = np.abs(distance - radius) > 1e-6
    assert np.array_equal(canvas.fibre[clear], np.where(on, 1, -1)[clear])
    np.testing.assert_allclose(canvas.place[on & clear], (distance / radius)[on & clear], atol=1e-6)
    thickness = np.where(on, 4 * np.sqrt(np.maximum(radius**2 - distance**2, 0)), 0)
    np.testing.assert_allclose(canvas.thickness[clear], thickness[clear], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("look", FIBRE_LOOKS)
def test_images_are_repeated_by_their_seed(look):
    asked = {"look": look, "size": (96, 128), "diameter": (4, 9)}
    images, truths = make_fibre_images(2, random_state=5, **asked)
    again, _ = make_fibre_images(2, random_state=5, **asked)
    for image, other, truth in zip(images, again, truths, strict=True):
        assert np.array_equal(image, other)
        assert image.dtype == np.float32
        assert image.min() >= 0
        assert image.max() <= 1
        assert truth.look == look
        assert truth.fibres.shape == image.shape
        assert (truth.visible_lengths <= truth.lengths + 1e-9).all()
    if look == "transmission":
        assert (truths[0].visible_lengths == truths[0].lengths).all()


def test_lit_fibres_are_brighter_on_one_side():
    canvas = fibres._Canvas((60, 90))
    canvas.paint(np.stack([np.full(91, 30.0), np.arange(91.0)], axis=1), 9.0)
    rng = np.random.default_rng(0)
    for side, brighter in ((np.pi / 2, 1), (-np.pi / 2, -1)):  # from below, from above
        shaded = canvas.shaded(rng, "flat", fibres.FibreStyle(lit=(0.4, side)))[:, 45]
        edges = shaded[30 + 6 * brighter] / shaded[30 - 6 * brighter]
        assert edges == pytest.approx((1 + 0.4 * 6 / 9) / (1 - 0.4 * 6 / 9), rel=0.02)


def test_cover_spread_and_two_kinds_are_as_asked():
    _, (truth,) = make_fibre_images(
        1, diameter=5, second=15, second_share=0.5, spread=0.1, cover=0.6, random_state=1
    )
    assert 0.6 <= truth.cover < 0.7
    thick = truth.diameters > 9
    assert 0.25 < thick.mean() < 0.75
    assert np.median(truth.diameters[thick]) == pytest.approx(15, rel=0.12)
    assert np.median(truth.diameters[~thick]) == pytest.approx(5, rel=0.12)
    assert truth.diameters.min() <= truth.median <= truth.diameters.max()


def test_a_cover_that_cannot_be_drawn_is_refused(monkeypatch):
    monkeypatch.setattr(fibres, "_MAX_FIBRES", 20)
    with pytest.raises(ValueError, match=r"cover=0.5: 20 fibres, .* cover only 0.0"):
        make_fibre_images(1, diameter=1, length=4, cover=0.5, size=96, random_state=0)


def test_invalid_values_are_named():
    for name, value in (("diameter", 0), ("cover", 1.5), ("second_share", 2), ("second", 0.1)):
        with pytest.raises(ValueError, match=name):
            make_fibre_images(1, **{name: value})
    with pytest.raises(ValueError, match="look"):
        make_fibre_images(1, look="shiny")
