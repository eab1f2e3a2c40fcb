"""Statistics of axes: slow oracles and invariances."""

import cmath
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hypervlad.fibres import axial_difference, axial_statistics

ANGLES = arrays(np.float64, st.integers(1, 30), elements=st.floats(-10, 10))
CLOSE = {"rel": 1e-9, "abs": 1e-9}


def slow(angles, weights):
    """By the definition, one axis after the other."""
    total = 0j
    for theta, w in zip(angles, weights, strict=True):
        total += w * cmath.exp(2j * theta)
    resultant = total / math.fsum(weights)
    mean = (cmath.phase(resultant) / 2) % math.pi
    # Of a nematic, S is the mean of cos 2 (theta - mean).
    cosines = [w * math.cos(2 * (a - mean)) for a, w in zip(angles, weights, strict=True)]
    order = math.fsum(cosines) / math.fsum(weights)
    return mean, order, math.sqrt(-2 * math.log(min(order, 1))) / 2 if order > 1e-9 else math.inf


@settings(max_examples=50)
@given(ANGLES, st.integers(0, 10**6))
def test_statistics_are_those_of_the_definition(angles, seed):
    weights = np.random.default_rng(seed).uniform(0.1, 5, len(angles))
    mean, order, spread = slow(angles, weights)
    found = axial_statistics(angles, weights)
    assert found.order == pytest.approx(order, **CLOSE)
    if order > 1e-6:
        assert axial_difference(found.mean, mean) < 1e-6
        assert found.spread == pytest.approx(spread, rel=1e-6, abs=1e-7)


@settings(max_examples=50)
@given(ANGLES, st.floats(-7, 7), st.integers(0, 10**6))
def test_turning_axes_turns_the_mean_only(angles, turn, seed):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 5, len(angles))
    before, order = axial_statistics(angles, weights), rng.permutation(len(angles))
    heads = angles + np.pi * rng.integers(-3, 4, len(angles))
    for after, own in (
        (axial_statistics(angles[order], weights[order]), before.mean),
        (axial_statistics(heads, weights), before.mean),
        (axial_statistics(angles, 1e-200 * weights), before.mean),
        (axial_statistics(angles, 1e200 * weights), before.mean),
        (axial_statistics(angles + turn, weights), before.mean + turn),
    ):
        assert after.order == pytest.approx(before.order, **CLOSE)
        assert before.order < 1e-6 or axial_difference(after.mean, own) < 1e-6
        assert 0 <= after.mean < np.pi
        assert 0 <= after.order <= 1
        assert after.spread >= 0


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_differences_are_those_of_axes(one, other):
    apart = axial_difference(one, other)
    assert 0 <= apart <= np.pi / 2
    assert apart == pytest.approx(axial_difference(other, one), abs=1e-9)
    assert apart == pytest.approx(axial_difference(one + np.pi, other), abs=1e-9)
    assert np.cos(2 * apart) == pytest.approx(np.cos(2 * (one - other)), abs=1e-6)


def test_special_sets_of_axes():
    assert str(axial_statistics([0.3, 0.3]).spread) == "0.0"
    found = axial_statistics([0, np.pi / 2])
    assert (found.order, found.spread) == (0, np.inf)
    assert axial_difference(axial_statistics(np.deg2rad([179, 1])).mean, 0) < 1e-12
    assert axial_statistics([0.5, np.nan], [1, 0]).mean == pytest.approx(0.5)
    for tiny in (-1e-12, -1e-30, 0.0):  # just below zero is not pi
        assert 0 <= axial_statistics([tiny]).mean < np.pi


def test_more_pixels_per_window_give_no_narrower_intervals():
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(20), 4)
    angles, widths = rng.normal(0.02, 0.2, 20)[groups] + rng.normal(0, 0.02, 80), []
    for times in (1, 4000):
        repeated, own = np.repeat(angles, times), np.repeat(groups, times)
        found = axial_statistics(repeated, groups=own)
        widths.append(found.order_interval.high - found.order_interval.low)
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (([],), {}, "at least one of them above 0"),
        (([0.1], [-1.0]), {}, "weights of at least 0"),
        (([0.1, 0.2], [1.0]), {}, "one for each"),
        (([np.nan],), {}, "must be finite"),
        (([0.1, 0.2],), {"groups": [0]}, "a group for each of 2 axes"),
    ],
)
def test_invalid_axes_are_rejected(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        axial_statistics(*arguments, **options)
