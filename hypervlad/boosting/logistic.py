"""Logistic regression with an L2 penalty, for the many small fits of cross-validation.

Objective, steps and tolerances are those of scikit-learn's ``LogisticRegression``, whose checks of
its arguments take longer than a fit to a few dozen rows; the limit is 1000 iterations.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from hypervlad.boosting.margins import FloatArray, n_margins

_MAX_ITER = 1000
_OPTIONS = {"maxiter": _MAX_ITER, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}


@dataclass(frozen=True)
class LogisticModel:
    """Coefficients (k, q) and intercepts (k,), with k = 1 for two classes."""

    coef: FloatArray
    intercept: FloatArray

    def margins(self, X: FloatArray) -> FloatArray:
        """Return the margins of rows X (n, q), shape (n, k)."""
        return X @ self.coef.T + self.intercept


def fit_logistic(
    X: FloatArray,
    codes: NDArray[np.intp],
    weight: FloatArray,
    n_classes: int,
    C: float,
    start: LogisticModel | None = None,
) -> LogisticModel:
    """Minimise the weighted sum of the log losses plus the squared coefficients over 2 C.

    Intercepts have no penalty. Two classes have one margin, the log odds of the second; more have
    one each.

    Parameters
    ----------
    X : ndarray of shape (n, q)
    codes : ndarray of int, shape (n,)
        Number of each row's class; each class has rows.
    weight : ndarray of shape (n,)
        Weight of each row, positive.
    n_classes : int
    C : float
        Inverse penalty.
    start : LogisticModel, optional
        Where to begin, such as the solution for another C; zeros by default.

    Returns
    -------
    LogisticModel

    Warns
    -----
    ConvergenceWarning
        If the steps end before the gradient is small.

    Examples
    --------
    >>> X, codes = np.array([[-1.0], [0.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    >>> model = fit_logistic(X, codes, np.ones(4), 2, C=10.0)
    >>> (model.margins(X)[:, 0] > 0).tolist()
    [False, False, True, True]
    """
    shape = (n_margins(n_classes), X.shape[1] + 1)
    is_own = (codes == 1)[:, None] if n_classes == 2 else codes[:, None] == np.arange(n_classes)
    share, penalty = weight / weight.sum(), 1.0 / (C * weight.sum())
    loss_and_residuals = _of_two_classes if n_classes == 2 else _of_several_classes

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        parameters = flat.reshape(shape)
        coef = parameters[:, :-1]
        margins = X @ coef.T + parameters[:, -1]
        losses, residuals = loss_and_residuals(margins, is_own)
        residuals *= share[:, None]
        gradient = np.empty_like(parameters)
        gradient[:, :-1] = residuals.T @ X + penalty * coef
        gradient[:, -1] = residuals.sum(axis=0)
        loss = float(share @ losses) + 0.5 * penalty * float(np.vdot(coef, coef))
        return loss, gradient.ravel()

    first = np.zeros(shape)
    if start is not None:
        first[:, :-1], first[:, -1] = start.coef, start.intercept
    found = minimize(objective, first.ravel(), jac=True, method="L-BFGS-B", options=_OPTIONS)
    if not found.success:
        warnings.warn(
            f"the logistic regression with C = {C:g} did not converge ({found.message}); smaller "
            "values of Cs converge sooner",
            ConvergenceWarning,
            stacklevel=2,
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
