"""The linear part: regularised multinomial logistic regressions with cross-fitted margins.

A model's margins on its own training rows leave residuals that are too small, near zero if the
features outnumber the rows. Trees boosted from them learn nothing, or noise. So the margin of a
training row comes from a model that was fitted without the row's group: one of the models of the
cross-validation that also chooses the regularisation.

Feature blocks of different kinds, such as VLAD and pooled features, need different regularisation.
In one vector under one penalty, the longest or largest block dominates. Here each block has its
own model, and the margins of the blocks are averaged. A mean of linear margins is linear too, so
the result is one linear model of the whole vector.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from tqdm.auto import tqdm

from hypervlad.boosting.rows import FloatArray, IntArray, TrainingRows, log_losses, n_margins

Folds = Sequence[tuple[IntArray, IntArray]]

_MAX_ITER = 1000
# A temperature beyond these bounds is an artefact of too few rows.
_LOG_TEMPERATURE_BOUNDS = (np.log(0.05), np.log(50.0))
# Standard deviation of the prior on log temperatures below 0, which make predictions more
# confident. On fourteen tasks of 60 to 500 rows, 1 was overconfident on separable classes with few
# rows, where 0.3 lowered the log loss; elsewhere both were equal. Temperatures above 1 have no
# prior: with few, widely separated rows, margins divided by ten had a lower log loss than margins
# of a strong penalty.
_LOG_TEMPERATURE_SPREAD = 0.3
_TINY = np.finfo(np.float64).tiny
# Directions below 1e-6 of the largest singular value are rounding errors of the Gram matrix.
_NEGLIGIBLE_EIGENVALUE = 1e-12


@dataclass(frozen=True)
class LinearMargins:
    """A fitted linear model of one feature block.

    ``X @ coef + intercept`` is the margin of new rows. `cross_fitted`, shape (m, n_margins), is
    the margin of the training rows. Both are already divided by `temperature`. `held_out` marks
    the rows that were in the test part of a fold; the margins of the others are those of the fit
    itself.
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

    The features are centred and divided by one number, the root mean square length of the centred
    rows, so that a C means the same for any X. Columns keep their relative size. Without folds, C
    is the middle of `Cs`, the temperature is 1 and the margins are those of the fit itself.
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
    """Coordinates `Z`, (n, q), of rows: centred, divided by `scale`, rotated if X is wide."""

    Z: FloatArray
    centre: FloatArray
    scale: float
    X: FloatArray | None = None
    to_rows: FloatArray | None = None

    def coefficients(self, coef_of_Z: FloatArray) -> FloatArray:
        """Return coefficients of the unscaled features, (p, k), from those of Z, (q, k)."""
        if self.X is None or self.to_rows is None:
            return coef_of_Z / self.scale
        return self.X.T @ (self.to_rows @ coef_of_Z) / self.scale


def row_space(X: NDArray[np.floating], max_directions: int | None = None) -> RowSpace:
    """Centre and scale X, (n, p); if columns outnumber rows, rotate it into its row space.

    An L2 penalty is invariant to rotations, and the best coefficients lie in the span of the rows,
    so n coordinates are enough. The Gram matrix costs n^2 p once, far less than a singular value
    decomposition of X. If X has more than twice `max_directions` rows and columns, only that many
    principal directions are kept: an approximation that saves time.
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
    # Equal rows leave one direction of length zero: keep it without dividing by zero.
    lengths = np.sqrt(np.maximum(eigenvalues[kept], _TINY))
    vectors = vectors[:, kept]
    return RowSpace(vectors * lengths, centre, scale, scaled, vectors / lengths)


def fit_temperature(
    margins: FloatArray, codes: IntArray, weight: FloatArray
) -> tuple[float, float]:
    """Return the most likely temperature to divide margins by, and the resulting mean log loss.

    For temperatures below 1, a half-normal prior on the logarithm limits the confidence that a few
    well separated rows can give. See Guo et al., "On calibration of modern neural networks", ICML
    2017.
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
    """Return margins of the folds' test rows for each C, (n_Cs, m, n_margins); 0 if untested."""
    margins = np.zeros((len(grid), len(rows), n_margins(n_classes)))
    for train, test in folds:
        # From strong to weak regularisation, each solution is a good start for the next.
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
    # One thread: the products within an L-BFGS step are too small to parallelise. On a busy machine
    # two threads that wait for each other took thirty times as long.
    with _thread_pools().limit(limits=1, user_api="blas"):
        return model.fit(Z[train], rows.codes[train], sample_weight=rows.weight[train])


@functools.cache
def _thread_pools() -> ThreadpoolController:
    """Return the thread pools of this process. To find them takes longer than a small fit."""
    return ThreadpoolController()


def _decide(model: LogisticRegression, Z: FloatArray) -> FloatArray:
    return model.decision_function(Z).reshape(len(Z), -1)


@dataclass(frozen=True)
class BlockMargins:
    """The linear models of all feature blocks as one model of the whole vector.

    ``X @ coef + intercept`` is the margin of new rows. `cross_fitted` is the margin of the training
    rows, from models fitted without their groups. `Cs` and `weights` have one value per block; a
    weight is the factor of the block's margins, temperatures included.
    """

    coef: FloatArray
    intercept: FloatArray
    Cs: tuple[float, ...]
    weights: tuple[float, ...]
    cross_fitted: FloatArray


def fit_blocks(
    rows: TrainingRows,
    n_classes: int,
    folds: Folds,
    Cs: Sequence[float],
    widths: Sequence[int],
    *,
    max_directions: int | None = None,
    verbose: bool = False,
) -> BlockMargins:
    """Fit a linear model to each feature block and average the margins.

    `widths` are the numbers of columns of the blocks, side by side in X. Each block has its own C
    and temperature. The mean of the cross-fitted margins has another temperature: errors of
    different blocks partly cancel, so their mean can be more confident.
    """
    blocks = [
        fit_linear_margins(
            rows.with_columns(columns),
            n_classes,
            folds,
            Cs,
            max_directions=max_directions,
            verbose=verbose,
        )
        for columns in block_columns(widths)
    ]
    mean = np.mean([block.cross_fitted for block in blocks], axis=0)
    held_out, temperature = blocks[0].held_out, 1.0
    if len(blocks) > 1 and held_out.any():
        temperature, _ = fit_temperature(
            mean[held_out], rows.codes[held_out], rows.weight[held_out]
        )
    share = 1.0 / (len(blocks) * temperature)
    return BlockMargins(
        coef=share * np.concatenate([block.coef for block in blocks]),
        intercept=share * np.sum([block.intercept for block in blocks], axis=0),
        Cs=tuple(block.C for block in blocks),
        weights=tuple(share / block.temperature for block in blocks),
        cross_fitted=mean / temperature,
    )


def block_columns(widths: Sequence[int]) -> list[slice]:
    """Return the columns of each block."""
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
