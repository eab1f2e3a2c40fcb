"""Logistic regression of scikit-learn as a careful user tunes it: C by grouped cross-validation."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from hypervlad.evaluation import group_folds


class UnitLength(TransformerMixin, BaseEstimator):
    """Centre, then divide by one number: the mean squared length of a row is 1.

    For vectors whose columns share a scale: their own deviations would inflate rare ones.
    """

    def fit(self, X: np.ndarray, y: object = None) -> UnitLength:
        self.mean_ = X.mean(axis=0)
        self.scale_ = float(np.sqrt(((X - self.mean_) ** 2).sum(axis=1).mean())) or 1.0
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean_) / self.scale_


class RowSpace(TransformerMixin, BaseEstimator):
    """Rotate into the space of the training rows, where the best coefficients lie.

    An L2 penalty is invariant under rotation: the model is the same, with fewer columns.
    """

    def fit(self, X: np.ndarray, y: object = None) -> RowSpace:
        self.axes_ = None
        if X.shape[1] > X.shape[0]:
            eigenvalues, vectors = np.linalg.eigh(X @ X.T)
            kept = eigenvalues >= 1e-12 * eigenvalues[-1]
            # Equal rows have lengths of zero: keep them, but do not divide by zero.
            lengths = np.sqrt(np.maximum(eigenvalues[kept], np.finfo(np.float64).tiny))
            self.axes_ = X.T @ (vectors[:, kept] / lengths)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return X if self.axes_ is None else X @ self.axes_


SCALERS = {"columns": StandardScaler, "length": UnitLength}
# A standardised row of p columns has squared length p, not 1: its C are smaller by that factor.
CS = {"columns": np.logspace(-5, 2, 8), "length": np.logspace(-2, 5, 8)}


class TunedLogisticRegression(ClassifierMixin, BaseEstimator):
    """Logistic regression whose scaling, C and temperature are chosen on grouped folds.

    Parameters
    ----------
    scaling : sequence of {"columns", "length"}
        Each is tried with each C; the lowest log-loss of the pooled out-of-fold rows wins.
    temperature : bool, default=False
        For each C, divide the margins by the number, at least 1, that lowers the log-loss of the
        out-of-fold rows most (Guo et al., "On calibration of modern neural networks", ICML 2017).
    n_splits : int, default=5
    random_state : int
    """

    def __init__(
        self,
        scaling: tuple[str, ...] = ("columns",),
        temperature: bool = False,
        n_splits: int = 5,
        random_state: int = 0,
    ) -> None:
        self.scaling = scaling
        self.temperature = temperature
        self.n_splits = n_splits
        self.random_state = random_state

    def fit(
        self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None
    ) -> TunedLogisticRegression:
        """Choose the settings, then fit on all rows."""
        # Not by GridSearchCV: scikit-learn's log-loss fails on a fold that lacks a class.
        X = np.asarray(X, dtype=np.float64)
        self.classes_, codes = np.unique(y, return_inverse=True)
        folds = group_folds(y, groups, n_splits=self.n_splits, random_state=self.random_state)
        # One thread: the steps are too small to be shared.
        with threadpool_limits(1, user_api="blas"):
            best = (np.inf, self.scaling[0], 1.0, 1.0)
            for scaling in self.scaling:
                best = min(best, self._best_choice(X, codes, folds, scaling))
            self.loss_, self.scaling_, self.C_, self.temperature_ = best
            self.model_ = _pipeline(self.scaling_, self.C_)
            _fit(self.model_, X, codes)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.exp(log_softmax(self._logs(self.model_, X) / self.temperature_, axis=1))

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _best_choice(
        self, X: np.ndarray, codes: np.ndarray, folds: list, scaling: str
    ) -> tuple[float, str, float, float]:
        """Return the lowest log-loss, and its scaling, C and temperature."""
        if not folds:
            return np.inf, scaling, float(np.median(CS[scaling])), 1.0
        tested = np.concatenate([test for _, test in folds])
        logs = np.zeros((len(CS[scaling]), len(X), len(self.classes_)))
        for train, test in folds:
            scaler = make_pipeline(SCALERS[scaling](), RowSpace())
            scaled_train = scaler.fit_transform(X[train])
            scaled_test = scaler.transform(X[test])
            # From strong to weak regularisation, each solution starts the next fit.
            model = LogisticRegression(warm_start=True, max_iter=1000)
            for at, C in enumerate(CS[scaling]):
                _fit(model.set_params(C=C), scaled_train, codes[train])
                logs[at, test] = self._logs(model, scaled_test)
        choices = []
        for C, margins in zip(CS[scaling], logs[:, tested], strict=True):
            temperature = _temperature(margins, codes[tested]) if self.temperature else 1.0
            loss = _log_loss(margins / temperature, codes[tested])
            choices.append((loss, scaling, float(C), temperature))
        return min(choices)

    @staticmethod
    def _logs(model: Pipeline | LogisticRegression, X: np.ndarray) -> np.ndarray:
        """Return margins, one column per class even for two."""
        margins = model.decision_function(X)
        return np.stack([-margins / 2, margins / 2], 1) if margins.ndim == 1 else margins


def _pipeline(scaling: str, C: float) -> Pipeline:
    return make_pipeline(SCALERS[scaling](), RowSpace(), LogisticRegression(C=C, max_iter=1000))


def _fit(model: Pipeline | LogisticRegression, X: np.ndarray, codes: np.ndarray) -> None:
    with warnings.catch_warnings():
        # The weakest regularisations of the grid may not converge, but they are never chosen.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, codes)


def _log_loss(margins: np.ndarray, codes: np.ndarray) -> float:
    return float(-log_softmax(margins, axis=1)[np.arange(len(codes)), codes].mean())


def _temperature(margins: np.ndarray, codes: np.ndarray) -> float:
    bounds = (0.0, np.log(20.0))
    found = minimize_scalar(lambda t: _log_loss(margins / np.exp(t), codes), bounds=bounds)
    return float(np.exp(found.x))
