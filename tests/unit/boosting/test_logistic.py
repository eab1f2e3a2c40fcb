"""Logistic regression against scikit-learn's, and its optimum against its own gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from hypervlad.models import BoostedSoftmaxClassifier
from hypervlad.models.boosting import logistic
from hypervlad.models.boosting.logistic import (
    LogisticModel,
    decided_classes,
    fit_logistic,
    with_exact_ties,
)


def problem(n_classes, n=40, n_features=6, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    X = rng.normal(size=(n, n_features)) + rng.normal(size=(n_classes, n_features))[codes]
    return X, codes, rng.uniform(0.5, 2, n)


def probabilities(margins):
    if margins.shape[1] == 1:
        return np.hstack([expit(-margins), expit(margins)])
    return softmax(margins, axis=1)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize(("C", "tolerance"), [(0.1, 1e-7), (10.0, 1e-7), (1000.0, 5e-3)])
def test_probabilities_are_those_of_scikit_learn(n_classes, C, tolerance):
    """Step by step; with a weak penalty, rounding errors move the place where both stop."""
    X, codes, weight = problem(n_classes)
    own = fit_logistic(X, codes, weight, n_classes, C)
    theirs = LogisticRegression(C=C, max_iter=1000).fit(X, codes, sample_weight=weight)
    np.testing.assert_allclose(
        probabilities(own.margins(X)), theirs.predict_proba(X), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("n_classes", [2, 3])
def test_separable_classes_and_huge_margins_stay_finite(n_classes):
    codes = np.arange(12) % n_classes
    X = 1e6 * np.eye(n_classes)[codes]
    found = fit_logistic(X, codes, np.ones(12), n_classes, 1e6)
    proba = probabilities(found.margins(X))
    assert np.isfinite(proba).all()
    assert (proba.argmax(axis=1) == codes).all()


def test_too_few_steps_are_reported(monkeypatch):
    monkeypatch.setitem(logistic._OPTIONS, "maxiter", 2)
    X, codes, weight = problem(3)
    with pytest.warns(ConvergenceWarning, match=r"with C = 10 did not converge \(.*ITERATIONS"):
        fit_logistic(X, codes, weight, 3, 10.0)


def test_a_start_at_the_solution_is_kept():
    X, codes, weight = problem(3)
    model = fit_logistic(X, codes, weight, 3, 1.0)
    again = fit_logistic(X, codes, weight, 3, 1.0, model)
    np.testing.assert_array_equal(again.coef, model.coef)
    far = LogisticModel(model.coef + 3, model.intercept - 2)
    other = fit_logistic(X, codes, weight, 3, 1.0, far)
    np.testing.assert_allclose(
        probabilities(other.margins(X)), probabilities(model.margins(X)), atol=1e-3
    )


@given(
    margins=arrays(np.float64, array_shapes(min_dims=2, max_dims=2), elements=st.floats(-30, 30))
)
def test_margins_with_exact_ties_decide_as_their_probabilities_do(margins):
    exact = with_exact_ties(margins)
    assert np.abs(exact - margins).max() < 1e-6
    np.testing.assert_array_equal(with_exact_ties(exact), exact)
    most_probable = logistic.probabilities(exact).argmax(axis=1)
    np.testing.assert_array_equal(decided_classes(exact), most_probable)


@given(
    noise=arrays(np.float64, array_shapes(min_dims=2, max_dims=2), elements=st.floats(-4e-7, 4e-7)),
    level=st.floats(-30, 30),
)
@example(noise=np.array([[0.0, 1e-17, 0.0]]), level=0.0)
def test_the_first_class_wins_a_tie_whatever_the_last_digits_are(noise, level):
    margins = noise if noise.shape[1] == 1 else level + noise
    assert not decided_classes(with_exact_ties(margins)).any()


@pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_model_that_has_learnt_nothing_answers_the_first_class(n_classes):
    y = np.repeat(["a", "b", "c"][:n_classes], 8)
    X = np.random.default_rng(0).normal(size=(len(y), 3))
    model = BoostedSoftmaxClassifier(n_estimators=0, random_state=0).fit(X, y)
    model.linear_coef_ = np.zeros_like(model.linear_coef_)
    model.linear_intercept_ = 1e-16 * np.arange(1.0, len(model.linear_intercept_) + 1)
    assert model.predict(X).tolist() == ["a"] * len(X)
    assert model.predict_proba(X).argmax(axis=1).tolist() == [0] * len(X)
    assert decided_classes(model.decision_function(X)).tolist() == [0] * len(X)
