"""Diameters of fibres: exact ones are found, invariances, empty images, invalid input."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from hypervlad.data import make_fibre_images
from hypervlad.fibres import diameters, fibre_diameters

pytestmark = pytest.mark.slow  # a whole image is measured in each


@functools.cache
def made(look, diameter=10.0, seed=2, **asked):
    asked = {"cover": 0.25, "contrast_to_noise": 15, "curl": 0.1, "size": (200, 240)} | asked
    (image,), (truth,) = make_fibre_images(
        1, look=look, diameter=diameter, blur=0.9, random_state=seed, spread=0.1, **asked
    )
    return image, truth


@functools.cache
def reference():
    return fibre_diameters(made("flat")[0])


@pytest.mark.parametrize(
    ("look", "polarity"),
    [("flat", "bright"), ("rims", "bright"), ("round", "bright"), ("transmission", "dark")],
)
def test_exact_diameters_are_found(look, polarity):
    image, truth = made(look)
    found = fibre_diameters(image)
    assert found.polarity == polarity
    assert found.blur == pytest.approx(0.95, rel=0.35)
    assert len(found.modes) == 1
    assert found.interval.low < found.median < found.interval.high
    rows, columns = np.rint(found.positions).astype(int).T
    on = truth.fibres[rows, columns]
    assert (on >= 0).mean() > 0.97
    ratio = found.diameters / truth.diameters[on]
    assert np.median(ratio) == pytest.approx(1, abs=0.04)
    assert (np.abs(ratio - 1) < 0.15).mean() > 0.8


def test_places_are_counted_and_refused_with_reasons():
    found = reference()
    assert found.profile == "flat"
    assert found.reason is None
    assert set(found.refused) <= set(diameters.REFUSALS)
    assert found.refused["no whole fibre"] > 0
    assert found.errors.shape == found.weights.shape == found.directions.shape
    assert (found.errors > 0).all()
    assert (found.weights > 0).all()
    numbers, counts = np.unique(found.fibres, return_counts=True)
    assert 1 < len(numbers) < len(found.diameters)
    for number, (diameter, weight) in zip(numbers[counts > 1], found.of_fibres, strict=True):
        own = found.fibres == number
        errors = np.maximum(found.errors[own] / found.diameters[own], 0.01)
        shares = found.weights[own] / errors**2
        mean = np.average(np.log(found.diameters[own]), weights=shares)
        assert (np.log(diameter), weight) == pytest.approx((mean, found.weights[own].sum()))


MOVES = {
    "mirrored": np.fliplr,
    "turned": np.rot90,
    "inverted": lambda image: 1 - image,
    "darker": lambda image: 0.2 + 0.3 * image,
    "brighter": lambda image: 7 * image,
}


@pytest.mark.parametrize("move", MOVES)
def test_the_median_does_not_depend_on_the_view(move):
    found = fibre_diameters(MOVES[move](made("flat")[0]))
    assert found.median == pytest.approx(reference().median, rel=0.03)
    assert found.polarity == ("dark" if move == "inverted" else "bright")


@settings(max_examples=4, deadline=None)
@given(st.floats(0.05, 20), st.floats(-5, 5))
def test_gain_and_offset_do_not_matter(gain, offset):
    image = gain * made("flat")[0].astype(np.float64) + offset
    found = fibre_diameters(image, polarity="bright")
    assert found.median == pytest.approx(reference().median, rel=0.03)


@pytest.mark.parametrize("diameter", [8, 24])
def test_weights_are_the_length_of_a_fibre_up_to_the_rim(diameter):
    rows, columns = np.indices((240, 300))
    across = (rows - 120) * np.cos(0.1) - (columns - 150) * np.sin(0.1)
    clean = gaussian_filter(np.clip(diameter / 2 - np.abs(across) + 0.5, 0, 1), 0.8)
    found = fibre_diameters(clean + 0.01 * np.random.default_rng(0).standard_normal(clean.shape))
    assert found.weights.sum() == pytest.approx(300 / np.cos(0.1), rel=0.04)
    assert found.median == pytest.approx(diameter, rel=0.05)
    x = found.positions[:, 1]
    whole = (x > diameter) & (x < 299 - diameter)  # not cut off by the rim
    assert found.directions[whole] == pytest.approx(np.pi - 0.1, abs=0.02)
    assert found.directions == pytest.approx(np.pi - 0.1, abs=0.1)
    assert found.interval.low < diameter < found.interval.high


def test_the_pixel_size_scales_all_lengths():
    image, _ = made("flat")
    found, own = fibre_diameters(image, pixel_size=2.5), reference()
    assert (found.unit, own.unit) == ("nm", "px")
    for name in ("diameters", "errors", "weights"):
        assert getattr(found, name) == pytest.approx(2.5 * getattr(own, name))
    assert found.mean == pytest.approx(2.5 * own.mean)
    assert found.standard_deviation == pytest.approx(2.5 * own.standard_deviation)
    assert found.percentiles([50])[0] == found.median


def test_only_the_masked_part_is_measured_and_has_an_influence():
    image, _ = made("flat")
    mask = np.zeros(image.shape, dtype=bool)
    mask[:, :120] = True
    found = fibre_diameters(image, mask=mask)
    assert found.positions[:, 1].max() < 125
    other = np.where(mask, image, 9 * image[::-1])
    assert fibre_diameters(other, mask=mask).median == pytest.approx(found.median, rel=1e-6)


def test_a_scale_bar_is_not_a_fibre_and_does_not_dim_the_others():
    image = np.uint8(60 * made("flat")[0] + 20)
    plain = fibre_diameters(image)
    image[180:186, 20:100] = 255
    found = fibre_diameters(image)
    y, x = found.positions.T
    assert not ((y > 170) & (x < 110)).any()
    assert found.mean == pytest.approx(plain.mean, rel=0.03)  # the median jumps between fibres


def test_a_wire_that_is_taken_for_a_scale_bar_is_named():
    image = np.random.default_rng(0).integers(38, 43, (200, 240), dtype=np.uint8)
    image[100:106, 60:180] = 220
    assert "besides what looks like a scale bar" in fibre_diameters(image).reason


def test_what_lies_outside_the_mask_does_not_hide_fibres():
    image, _ = made("flat")
    blocks = np.random.default_rng(0).integers(0, 2, (5, 40)).astype(np.float32)
    beside = np.kron(blocks, np.ones((40, 40), np.float32))
    mask = np.zeros((200, 240 + 1600), dtype=bool)
    mask[:, :240] = True
    found = fibre_diameters(np.hstack([image, beside]), mask=mask, polarity="bright")
    assert found.median == pytest.approx(reference().median, rel=0.12)
    assert len(found.diameters) > 0.7 * len(reference().diameters)


def test_a_mask_may_have_any_shape():
    image, _ = made("flat")
    y, x = np.indices(image.shape)
    for mask in (y > 0.8 * x, (y < 100) == (x < 120)):
        found = fibre_diameters(image, mask=mask)
        assert found.median == pytest.approx(reference().median, rel=0.15)
        assert len(found.diameters) > 0.4 * len(reference().diameters)


def test_a_mask_of_a_single_row_has_no_diameters():
    image, _ = made("flat")
    found = fibre_diameters(image, mask=np.indices(image.shape)[0] == 50)
    assert found.reason == "nothing may be measured"


@pytest.mark.parametrize("polarity", ["auto", "bright", "dark"])
def test_noise_and_empty_images_have_no_diameters(polarity):
    rng = np.random.default_rng(0)
    for image in (rng.standard_normal((160, 200)), np.ones((64, 64)), np.zeros((40, 90))):
        found = fibre_diameters(image, polarity=polarity)
        assert len(found.diameters) == 0
        assert np.isnan(found.median)
        assert np.isnan(found.mean)
        assert np.isnan(found.standard_deviation)
        assert np.isnan(found.interval.low)
        assert found.reason


def test_fibres_below_the_resolution_are_not_invented():
    image, _ = made("flat", diameter=2.0, cover=0.1)
    found = fibre_diameters(image)
    assert np.isnan(found.median) or (found.diameters > 2.9).all()


def test_lengths_are_corrected_for_what_is_accepted_more_often():
    logs = np.log([10.0] * 4 + [5.0] * 4 + [1.0])
    lengths = np.array([4.0] * 4 + [2.0] * 4 + [1.0])
    found = diameters.corrected(lengths, logs, 1.0)
    assert found.sum() == pytest.approx(lengths.sum())
    assert found[:4] == pytest.approx(found[4])  # twice as thick, twice as often
    assert found[8] / found[7] == pytest.approx(0.5 * 2)  # as of half the middle diameter
    assert diameters.corrected(lengths, logs, 9.0)[0] == pytest.approx(
        diameters.corrected(lengths, logs, 1.5)[0]
    )


def test_two_kinds_are_two_modes():
    image, truth = made(
        "flat", diameter=6.0, second=16.0, second_share=0.4, cover=0.3, size=(384, 384), curl=0
    )
    modes = fibre_diameters(image).modes
    assert len(modes) == 2
    thin = truth.diameters < 10
    for kind, own in zip(modes, (thin, ~thin), strict=True):
        mean = np.average(np.log(truth.diameters[own]), weights=truth.visible_lengths[own])
        assert kind[0] == pytest.approx(np.exp(mean), rel=0.06)
    assert modes[:, 2].sum() == pytest.approx(1)


def test_invalid_parameters_are_named():
    image, _ = made("flat")
    with pytest.raises(ValueError, match="pixel_size"):
        fibre_diameters(image, pixel_size=-1)
    with pytest.raises(ValueError, match="polarity"):
        fibre_diameters(image, polarity="grey")
    with pytest.raises(ValueError, match="mask"):
        fibre_diameters(image, mask=np.ones((3, 3), dtype=bool))
    for colours in (np.random.default_rng(0).random((20, 20, 3)), np.ones((20, 20, 3))):
        with pytest.raises(ValueError, match="colours"):
            fibre_diameters(colours)
