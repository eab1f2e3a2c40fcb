"""Margins, their probabilities, losses and temperature, and regression with an L2 penalty.

The regression has the objective, steps and tolerances of scikit-learn's ``LogisticRegression``,
whose checks take longer than a fit to a few dozen rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning

from hypervlad.common.wording import warn_user

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

# A temperature beyond these bounds is an artefact of too few rows.
_LOG_TEMPERATURE_BOUNDS = (np.log(0.05), np.log(50.0))
# Standard deviation of the prior on log temperatures below 0, which make predictions more
# confident. On fourteen tasks of 60 to 500 rows, 1 was overconfident on separable classes with few
# rows, where 0.3 lowered the log loss; elsewhere both were equal. Temperatures above 1 have no
# prior: with few, widely separated rows, margins divided by ten had a lower log loss than margins
# of a strong penalty.
_LOG_TEMPERATURE_SPREAD = 0.3
# Margins that differ by less are equal: their last digits depend on processor, batch and threads.
_TIE = 1e-6
_MAX_ITER = 1000
_OPTIONS = {"maxiter": _MAX_ITER, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}


def n_margins(n_classes: int) -> int:
    return 1 if n_classes == 2 else n_classes


def probabilities(margins: FloatArray) -> FloatArray:
    """Return class probabilities of shape (n, n_classes)."""
    if margins.shape[1] == 1:
        # Both from expit: 1 - p would lose the digits of a small p.
        return np.hstack([expit(-margins), expit(margins)])
    return np.asarray(softmax(margins, axis=1))


def with_exact_ties(margins: FloatArray) -> FloatArray:
    """Return margins, (n,), (n, 1) or (n, n_classes), in which almost equal ones are equal.

    Those less than 1e-6 below a row's largest (of two classes: from 0) become equal to it, so that
    the first class wins such a tie on every processor and in every batch.
    """
    if margins.ndim == 1 or margins.shape[1] == 1:
        return np.where(np.abs(margins) < _TIE, 0.0, margins)
    largest = margins.max(axis=1, keepdims=True)
    return np.where(margins > largest - _TIE, largest, margins)


def decided_classes(margins: NDArray[np.floating]) -> IntArray:
    """Return the class (n,) of the largest of a row's margins, the first of equal ones."""
    if margins.ndim == 1 or margins.shape[1] == 1:
        return (margins.ravel() > 0).astype(np.intp)
    return np.asarray(margins.argmax(axis=1))


def log_losses(margins: FloatArray, codes: IntArray) -> FloatArray:
    """Return the negative log probability of each row's own class, shape (n,)."""
    if margins.shape[1] == 1:
        sign = np.where(codes == 1, 1.0, -1.0)
        return np.asarray(np.logaddexp(0.0, -sign * margins[:, 0]))
    return np.asarray(-log_softmax(margins, axis=1)[np.arange(len(codes)), codes])


def margin_offset(ratio: FloatArray) -> FloatArray:
    """Return what ratios of shares, one per class, add to margins: shape (n_margins,)."""
    logs = np.log(ratio)
    return logs[1:] - logs[0] if len(logs) == 2 else logs


def fit_temperature(
    margins: FloatArray, codes: IntArray, weight: FloatArray, offset: FloatArray | float = 0.0
) -> tuple[float, float]:
    """Return the most likely temperature to divide margins by, and the resulting mean log loss.

    `offset`, see `margin_offset`, is added to the divided margins.
    """

    def penalised(log_temperature: float) -> float:
        losses = log_losses(margins / np.exp(log_temperature) + offset, codes)
        prior = 0.5 * (min(log_temperature, 0.0) / _LOG_TEMPERATURE_SPREAD) ** 2
        return float(weight @ losses + prior)

    found = minimize_scalar(penalised, bounds=_LOG_TEMPERATURE_BOUNDS, method="bounded")
    return float(np.exp(found.x)), float(found.fun / weight.sum())


@dataclass(frozen=True)
class LogisticModel:
    """Coefficients (k, q) and intercepts (k,), with k = 1 for two classes."""

    coef: FloatArray
    intercept: FloatArray

    def margins(self, X: NDArray[np.floating]) -> FloatArray:
        return X @ self.coef.T.astype(X.dtype) + self.intercept


def fit_logistic(
    X: NDArray[np.floating],
    codes: NDArray[np.intp],
    weight: FloatArray,
    n_classes: int,
    C: float,
    start: LogisticModel | None = None,
) -> LogisticModel:
    """Minimise the weighted sum of the log losses plus the squared coefficients over 2 C.

    Products of X, (n, q), are computed in its own precision. Each class has rows, and weights are
    positive. `start` is the solution for another C. A ConvergenceWarning if it does not converge.
    """
    shape = (n_margins(n_classes), X.shape[1] + 1)
    is_own = (codes == 1)[:, None] if n_classes == 2 else codes[:, None] == np.arange(n_classes)
    share, penalty = weight / weight.sum(), 1.0 / (C * weight.sum())
    loss_and_residuals = _of_two_classes if n_classes == 2 else _of_several_classes

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        parameters = flat.reshape(shape)
        coef = parameters[:, :-1]
        margins = np.asarray(X @ coef.T.astype(X.dtype) + parameters[:, -1], np.float64)
        losses, residuals = loss_and_residuals(margins, is_own)
        residuals *= share[:, None]
        gradient = np.empty_like(parameters)
        gradient[:, :-1] = residuals.T.astype(X.dtype) @ X + penalty * coef
        gradient[:, -1] = residuals.sum(axis=0)
        loss = float(share @ losses) + 0.5 * penalty * float(np.vdot(coef, coef))
        return loss, gradient.ravel()

    first = np.zeros(shape)
    if start is not None:
        first[:, :-1], first[:, -1] = start.coef, start.intercept
    found = minimize(objective, first.ravel(), jac=True, method="L-BFGS-B", options=_OPTIONS)
    if not found.success:
        warn_user(
            f"the logistic regression with C = {C:g} did not converge ({found.message}); smaller "
            "values of Cs converge sooner",
            ConvergenceWarning,
        )
    parameters = found.x.reshape(shape)
    return LogisticModel(parameters[:, :-1], parameters[:, -1])


def _of_two_classes(
    margins: FloatArray, is_own: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Return log losses (n,), and the derivatives by the margins (n, 1)."""
    signed = np.where(is_own, margins, -margins)
    log_proba = -np.logaddexp(0.0, -signed)
    # 1 - p of the own class, computed without losing the digits of a small one.
    miss = np.exp(log_proba - signed)
    return -log_proba[:, 0], np.where(is_own, -miss, miss)


def _of_several_classes(
    margins: FloatArray, is_own: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Return log losses (n,), and the derivatives by the margins (n, k)."""
    margins = margins - margins.max(axis=1, keepdims=True)
    proba = np.exp(margins)
    total = proba.sum(axis=1, keepdims=True)
    losses = np.log(total[:, 0]) - margins[is_own]
    return losses, proba / total - is_own
