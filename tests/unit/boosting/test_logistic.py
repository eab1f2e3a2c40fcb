"""Logistic regression against scikit-learn's, and its optimum against its own gradient."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from hypervlad.boosting import logistic
from hypervlad.boosting.logistic import LogisticModel, fit_logistic


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


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_gradient_of_the_sum_of_losses_vanishes(n_classes):
    X, codes, weight = problem(n_classes, seed=1)
    C = 2.0
    model = fit_logistic(X, codes, weight, n_classes, C)
    proba = probabilities(model.margins(X))
    for k in range(len(model.coef)):
        label = 1 if n_classes == 2 else k
        slope, slope_of_intercept = model.coef[k] / C, 0.0
        for i in range(len(X)):
            residual = weight[i] * (proba[i, label] - (codes[i] == label))
            slope = slope + residual * X[i]
            slope_of_intercept += residual
        assert np.abs(np.append(slope, slope_of_intercept)).max() < 2e-4 * weight.sum()


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
