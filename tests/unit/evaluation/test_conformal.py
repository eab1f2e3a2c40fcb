"""Prediction sets and confidence thresholds: slow oracles and coverage."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervlad.evaluation import (
    Calibration,
    confidence_for_error,
    groups_for_error,
    prediction_sets,
)

N_CLASSES = 3


def slow_sets(proba, calibration, coverage):
    """As the formula says, image by image and class by class."""
    groups = calibration.groups.tolist()
    n_groups, result = len(set(groups)), []
    for image in range(proba.shape[1]):
        row = []
        for k in range(proba.shape[2]):
            support = 1 / (n_groups + 1)
            for misfit, group, model in zip(
                calibration.misfit, groups, calibration.models, strict=True
            ):
                if misfit >= 1 - proba[model, image, k]:
                    support += 1 / (n_groups + 1) / groups.count(group)
            row.append(support > 1 - coverage + 1e-12)
        result.append(row)
    return result


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 8), st.integers(1, 3))
def test_sets_are_those_of_the_formula(seed, n, n_groups, n_models):
    rng = np.random.default_rng(seed)
    known = rng.dirichlet(np.ones(N_CLASSES), n).round(2)  # rounded: equal ones occur
    codes = (rng.integers(0, end, n) for end in (N_CLASSES, n_groups, n_models))
    calibration = Calibration.of(known, *codes)
    proba = rng.dirichlet(np.ones(N_CLASSES), (n_models, 4)).round(2)
    coverage = float(rng.choice([0.5, 0.75, 0.9, rng.uniform(0.05, 0.95)]))
    sets = prediction_sets(proba, calibration, coverage)
    assert sets.tolist() == slow_sets(proba, calibration, coverage)


def is_shown(calibration, threshold, max_error):
    """Whether the answers from this confidence on pass the binomial test; with exact fractions."""
    answers, wrong = Fraction(0), Fraction(0)
    sizes = Counter(calibration.groups.tolist())
    for confidence, correct, group in zip(
        calibration.confidence, calibration.correct, calibration.groups.tolist(), strict=True
    ):
        if confidence >= threshold:
            answers += Fraction(1, sizes[group])
            wrong += 0 if correct else Fraction(1, sizes[group])
    n, at_most = math.floor(answers), math.ceil(wrong)
    terms = (
        math.comb(n, k) * max_error**k * (1 - max_error) ** (n - k)
        for k in range(min(at_most, n) + 1)
    )
    return n > 0 and sum(terms) <= 0.1


def slow_confidence(calibration, max_error):
    n_needed = next(n for n in itertools.count(1) if (1 - max_error) ** n <= 0.1)
    sizes, best, has_begun = Counter(calibration.groups.tolist()), float("inf"), False
    accepted = Fraction(0)
    for threshold in sorted(set(calibration.confidence.tolist()), reverse=True):
        at = calibration.groups[calibration.confidence == threshold].tolist()
        accepted += sum(Fraction(1, sizes[group]) for group in at)
        lower = calibration.confidence[calibration.confidence < threshold]
        is_first = not any(lower >= 1 - max_error) and accepted >= n_needed
        has_begun = has_begun or is_first
        if has_begun:
            if not is_shown(calibration, threshold, max_error):
                break
            best = threshold
    return best


@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([0.05, 0.1, 0.2, 0.37, 0.6]))
def test_the_confidence_is_that_of_the_last_test_passed(seed, n_groups, max_error):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 120))
    right = rng.beta(rng.choice([2, 20]), 1, n).round(2)
    table, groups = np.column_stack([right, 1 - right]), rng.integers(0, n_groups, n)
    calibration = Calibration.of(table, np.zeros(n, int), groups, np.zeros(n))
    expected = slow_confidence(calibration, max_error)
    assert confidence_for_error(calibration, max_error) == expected


@pytest.mark.parametrize("max_error", [0.02, 0.05, 0.1, 0.3])
def test_so_many_groups_are_needed(max_error):
    n = groups_for_error(max_error)
    assert (1 - max_error) ** n <= 0.1 < (1 - max_error) ** (n - 1)
    for n_groups, is_sure in ((n, True), (n - 1, False)):
        zeros, table = np.zeros(n_groups, dtype=int), [[0.999, 0.001]] * n_groups
        calibration = Calibration.of(table, zeros, np.arange(n_groups), zeros)
        assert np.isfinite(confidence_for_error(calibration, max_error)) == is_sure
