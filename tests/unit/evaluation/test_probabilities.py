"""Calibration and selective accuracy against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervlad.evaluation import (
    calibration_error_range,
    expected_calibration_error,
    reliability_bins,
    selective_accuracy_curve,
)


def naive_calibration_error(y_true, proba, n_bins):
    n, total = len(y_true), 0.0
    for m in range(1, n_bins + 1):
        low, high = (m - 1) / n_bins, m / n_bins
        members = [i for i in range(n) if low < max(proba[i]) <= high]
        if not members:
            continue
        hits = [int(np.argmax(proba[i])) == y_true[i] for i in members]
        confidences = [max(proba[i]) for i in members]
        gap = abs(sum(hits) / len(members) - sum(confidences) / len(members))
        total += len(members) / n * gap
    return total


def random_predictions(seed, n=200, n_classes=4, sharpness=2.0):
    rng = np.random.default_rng(seed)
    scores = np.exp(sharpness * rng.normal(size=(n, n_classes)))
    proba = scores / scores.sum(axis=1, keepdims=True)
    return rng.integers(0, n_classes, n), proba


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 15))
@settings(max_examples=50)
def test_calibration_error_is_that_of_the_naive_loop(seed, n, n_bins):
    y, proba = random_predictions(seed, n=n)
    expected = naive_calibration_error(y, proba, n_bins)
    bins = reliability_bins(proba.max(axis=1), proba.argmax(axis=1) == y, n_bins)
    assert bins.calibration_error == pytest.approx(expected, abs=1e-12)
    if n_bins == 10:
        assert expected_calibration_error(y, proba) == bins.calibration_error


def test_confidence_on_an_edge_belongs_to_the_lower_bin():
    # 0.5 in (0.4, 0.5] alone: gap 0.5; 0.55 in (0.5, 0.6] alone: gap 0.55. In one bin: 0.025.
    proba = [[0.5, 0.5], [0.45, 0.55]]
    assert expected_calibration_error([0, 0], proba) == pytest.approx((0.5 + 0.55) / 2)
    assert naive_calibration_error([0, 0], proba, 10) == pytest.approx((0.5 + 0.55) / 2)


def test_range_is_that_of_naive_simulation():
    proba, rng = np.array([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7]]), np.random.RandomState(3)
    errors = []
    for _ in range(1000):
        right = rng.random_sample(3) < proba.max(axis=1)
        y = np.where(right, proba.argmax(axis=1), proba.argmin(axis=1))
        errors.append(naive_calibration_error(y, proba, 10))
    expected = np.quantile(errors, [0.025, 0.975])
    np.testing.assert_allclose(calibration_error_range(proba, random_state=3), expected)


@given(st.integers(0, 10**6), st.integers(1, 40))
@settings(max_examples=50)
def test_selective_accuracy_is_that_of_the_naive_loop(seed, n):
    y, proba = random_predictions(seed, n=n)
    proba = np.round(proba, 1)  # ties
    proba[:, 0] += 1 - proba.sum(axis=1)
    proba = np.abs(proba) / np.abs(proba).sum(axis=1, keepdims=True)
    curve = selective_accuracy_curve(y, proba)
    confidences = sorted({max(p) for p in proba}, reverse=True)
    assert curve.threshold.tolist() == confidences
    for at, threshold in enumerate(confidences):
        kept = [i for i in range(n) if max(proba[i]) >= threshold]
        right = [i for i in kept if np.argmax(proba[i]) == y[i]]
        assert curve.coverage[at] == pytest.approx(len(kept) / n)
        assert curve.accuracy[at] == pytest.approx(len(right) / len(kept))
    assert curve.coverage[-1] == 1.0
