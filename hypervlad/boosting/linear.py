"""The linear start: regularised multinomial logistic regression whose margins are cross-fitted.

Trees that boost from a model's margins on its own training rows see residuals that are too small,
near zero where the features outnumber the rows, and learn nothing or noise. So a row's margin
comes from a model that never saw its group: the models of the cross-validation that chooses the
regularisation anyway.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm.auto import tqdm

from hypervlad.boosting.margins import FloatArray, IntArray, log_losses, n_margins
from hypervlad.boosting.rows import TrainingRows

Folds = Sequence[tuple[IntArray, IntArray]]

_MAX_ITER = 1000
# Beyond these a temperature says that there is nothing to calibrate on, not that it is right.
_LOG_TEMPERATURE_BOUNDS = (np.log(0.05), np.log(50.0))
# Standard deviation of the prior on claiming more than the margins do. Tried on fourteen tasks of
# 60 to 500 rows: 1 was overconfident on separable classes of few rows, where 0.3 lowered the log
# loss; elsewhere they were equal. Claiming less needs no restraint: of few rows, margins of a wide
# separation divided by a temperature of ten were better than those of a strong penalty.
_LOG_TEMPERATURE_SPREAD = 0.3
# Directions with less than 1e-6 of the largest singular value: rounding error of the Gram matrix.
_TINY = np.finfo(np.float64).tiny
_NEGLIGIBLE_EIGENVALUE = 1e-12


@dataclass(frozen=True)
class LinearMargins:
    """A fitted linear start.

    ``X @ coef + intercept`` is the margin of new rows; `cross_fitted`, shape (m, n_margins), that
    of the training rows, both divided by `temperature`. `held_out` marks the rows whose margin is
    truly cross-fitted.
    """

    coef: FloatArray
    intercept: FloatArray
    C: float
    temperature: float
    cross_fitted: FloatArray
    held_out: NDArray[np.bool_]


def fit_linear_margins(
    rows: TrainingRows,
    n_classes: int,
    folds: Folds,
    Cs: Sequence[float],
    *,
    max_directions: int | None = None,
    verbose: bool = False,
) -> LinearMargins:
    """Choose C and the temperature by the log loss of the folds' test rows, then refit on all rows.

    The features are centred and divided by ONE number, the root mean square length of the centred
    rows, so that a C means the same for any X; single columns keep their relative size. Without
    folds there is nothing to choose by: the middle of `Cs` is taken, the temperature is 1 and the
    margins are those of the fit itself.
    """
    grid = sorted(float(C) for C in Cs)
    space = row_space(rows.X, max_directions)
    Z = space.Z
    held_out = np.zeros(len(rows), dtype=bool)
    for _, test in folds:
        held_out[test] = True
    C, temperature = grid[len(grid) // 2], 1.0
    if held_out.any():
        shown = tqdm(folds, desc="linear margins", unit="fold", disable=None if verbose else True)
        margins = _fold_margins(Z, rows, n_classes, shown, grid)
        codes, weight = rows.codes[held_out], rows.weight[held_out]
        fits = [fit_temperature(m[held_out], codes, weight) for m in margins]
        best = int(np.argmin([loss for _, loss in fits]))
        C, temperature = grid[best], fits[best][0]
    final = LogisticRegression(C=C, max_iter=_MAX_ITER)
    model = _fit(final, Z, rows, np.arange(len(rows)))
    cross_fitted = _decide(model, Z)
    if held_out.any():
        cross_fitted[held_out] = margins[best][held_out]
    coef = space.coefficients(model.coef_.T) / temperature
    return LinearMargins(
        coef=coef,
        intercept=model.intercept_ / temperature - space.centre @ coef,
        C=C,
        temperature=temperature,
        cross_fitted=cross_fitted / temperature,
        held_out=held_out,
    )


@dataclass(frozen=True)
class RowSpace:
    """Coordinates `Z`, (n, q), of rows that are centred, divided by `scale` and perhaps rotated."""

    Z: FloatArray
    centre: FloatArray
    scale: float
    X: FloatArray | None = None
    to_rows: FloatArray | None = None

    def coefficients(self, coef_of_Z: FloatArray) -> FloatArray:
        """Coefficients on the unscaled features, (p, k), from those on Z, (q, k)."""
        if self.X is None or self.to_rows is None:
            return coef_of_Z / self.scale
        return self.X.T @ (self.to_rows @ coef_of_Z) / self.scale


def row_space(X: NDArray[np.floating], max_directions: int | None = None) -> RowSpace:
    """Centre and scale X, (n, p); where columns outnumber rows, rotate it into its row space.

    An L2 penalty does not see a rotation and the best coefficients lie in the span of the rows,
    so n coordinates say as much as p. The Gram matrix costs n^2 p once, far less than a singular
    value decomposition of X. Where X has more than twice `max_directions` rows and columns, only so
    many main directions are kept: an approximation, for time.
    """
    scaled: FloatArray = X.astype(np.float64)
    centre = scaled.mean(axis=0)
    scaled -= centre
    scale = float(np.sqrt(np.einsum("ij,ij->", scaled, scaled) / len(X))) or 1.0
    scaled /= scale
    if max_directions is not None and min(X.shape) > 2 * max_directions:
        vectors, lengths, _ = randomized_svd(scaled, max_directions, n_iter=3, random_state=0)
        kept = lengths**2 >= _NEGLIGIBLE_EIGENVALUE * lengths[0] ** 2
        vectors, lengths = vectors[:, kept], np.maximum(lengths[kept], _TINY)
        return RowSpace(vectors * lengths, centre, scale, scaled, vectors / lengths)
    if X.shape[1] <= X.shape[0]:
        return RowSpace(scaled, centre, scale)
    eigenvalues, vectors = np.linalg.eigh(scaled @ scaled.T)
    kept = eigenvalues >= _NEGLIGIBLE_EIGENVALUE * eigenvalues[-1]
    # Equal rows leave one direction of length zero: keep it, but do not divide by it.
    lengths = np.sqrt(np.maximum(eigenvalues[kept], _TINY))
    vectors = vectors[:, kept]
    return RowSpace(vectors * lengths, centre, scale, scaled, vectors / lengths)


def fit_temperature(
    margins: FloatArray, codes: IntArray, weight: FloatArray
) -> tuple[float, float]:
    """The most likely temperature to divide margins by, and the log loss per weight then.

    Below 1, half a normal prior on its logarithm keeps a few well separated rows from claiming
    certainty. See Guo et al., "On calibration of modern neural networks", ICML 2017.
    """

    def penalised(log_temperature: float) -> float:
        losses = log_losses(margins / np.exp(log_temperature), codes)
        prior = 0.5 * (min(log_temperature, 0.0) / _LOG_TEMPERATURE_SPREAD) ** 2
        return float(weight @ losses + prior)

    found = minimize_scalar(penalised, bounds=_LOG_TEMPERATURE_BOUNDS, method="bounded")
    return float(np.exp(found.x)), float(found.fun / weight.sum())


def _fold_margins(
    Z: FloatArray,
    rows: TrainingRows,
    n_classes: int,
    folds: Iterable[tuple[IntArray, IntArray]],
    grid: list[float],
) -> FloatArray:
    """Margins of the folds' test rows for each C, (n_Cs, m, n_margins); zero for untested rows."""
    margins = np.zeros((len(grid), len(rows), n_margins(n_classes)))
    for train, test in folds:
        # From strong to weak regularisation, each start is next to the solution.
        model = LogisticRegression(warm_start=True, max_iter=_MAX_ITER)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for at, C in enumerate(grid):
                _fit(model.set_params(C=C), Z, rows, train)
                margins[at, test] = _decide(model, Z[test])
    return margins


def _fit(
    model: LogisticRegression, Z: FloatArray, rows: TrainingRows, train: IntArray
) -> LogisticRegression:
    # One thread: the products within an L-BFGS step are too small to share. On a busy machine two
    # threads, waiting for each other, took thirty times as long.
    with threadpool_limits(1, user_api="blas"):
        return model.fit(Z[train], rows.codes[train], sample_weight=rows.weight[train])


def _decide(model: LogisticRegression, Z: FloatArray) -> FloatArray:
    return model.decision_function(Z).reshape(len(Z), -1)
