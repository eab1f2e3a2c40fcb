"""Synthetic fibres have exactly the diameters and lengths that are returned."""

from __future__ import annotations

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
