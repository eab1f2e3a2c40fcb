"""The linear models: cross-fitted margins, and one model per feature block."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from tqdm.auto import tqdm

from hypervlad.boosting.logistic import (
    FloatArray,
    IntArray,
    LogisticModel,
    fit_logistic,
    fit_temperature,
    margin_offset,
    n_margins,
)
from hypervlad.boosting.rows import TrainingRows

Folds = Sequence[tuple[IntArray, IntArray]]

# At 60 to 600, the curves of the default were the same within their errors.
_COLUMNS_PER_GROUP = 400
_TINY = np.finfo(np.float64).tiny
_MAX_PRODUCTS_OF_ONE_THREAD = 1e10  # half a second
# Directions below 1e-6 of the largest singular value are rounding errors of the Gram matrix.
_NEGLIGIBLE_EIGENVALUE = 1e-12


@dataclass(frozen=True)
class LinearMargins:
    """A fitted linear model of one feature block.

    ``X @ coef + intercept`` is the margin of new rows. `cross_fitted`, shape (m, n_margins), is
    the margin of the training rows. Both are already divided by `temperature`. `held_out` marks
    the rows that were in the test part of a fold, whose margins come from a model fitted without
    their groups; the margins of the others are those of the fit itself.
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
    ratio: FloatArray,
    max_directions: int | None = None,
    verbose: bool = False,
) -> LinearMargins:
    """Choose C and the temperature by the log loss of the folds' test rows, then refit on all rows.

    The loss is that of rows with the expected class shares: `ratio`, one number per class, times
    those of the rows. The margins returned are those of the shares of the training rows.

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
        codes, weight = rows.codes[held_out], rows.reweighted(ratio).weight[held_out]
        offset = margin_offset(ratio)
        fits = [fit_temperature(m[held_out], codes, weight, offset) for m in margins]
        best = int(np.argmin([loss for _, loss in fits]))
        C, temperature = grid[best], fits[best][0]
    model = _fit(Z, rows, np.arange(len(rows)), n_classes, C)
    cross_fitted = model.margins(Z)
    if held_out.any():
        cross_fitted[held_out] = margins[best][held_out]
    coef = space.coefficients(model.coef.T) / temperature
    return LinearMargins(
        coef=coef,
        intercept=model.intercept / temperature - space.centre @ coef,
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
    # Not by a sum of squares, which is 0 for tiny features.
    scale = float(scipy.linalg.norm(scaled.ravel("K"), check_finite=False)) / len(X) ** 0.5 or 1.0
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
        # From strong to weak regularisation, each solution is a good start for the next. The model
        # of all rows has no such start; with one, or with smaller tolerances for large C, held-out
        # losses were higher on two of four sets and training took longer.
        model = None
        for at, C in enumerate(grid):
            model = _fit(Z, rows, train, n_classes, C, model)
            margins[at, test] = model.margins(Z[test])
    return margins


def _fit(
    Z: FloatArray,
    rows: TrainingRows,
    train: IntArray,
    n_classes: int,
    C: float,
    start: LogisticModel | None = None,
) -> LogisticModel:
    # One thread: the products within an L-BFGS step are too small to parallelise. On a busy machine
    # two threads that wait for each other took thirty times as long.
    with _thread_pools().limit(limits=1, user_api="blas"):
        codes, weight = rows.codes[train], rows.weight[train]
        return fit_logistic(Z[train], codes, weight, n_classes, C, start)


@functools.cache
def _thread_pools() -> ThreadpoolController:
    """Return the thread pools of this process. To find them takes longer than a small fit."""
    return ThreadpoolController()


def blas_threads(rows: TrainingRows) -> AbstractContextManager[object]:
    """Use one thread for matrix products and eigenvectors, unless the Gram matrix takes seconds.

    On a busy machine, two threads that wait for each other took ten times as long for a hundred
    rows.
    """
    n_products = len(rows) ** 2 * rows.source.shape[1]
    limits = 1 if n_products < _MAX_PRODUCTS_OF_ONE_THREAD else None
    return _thread_pools().limit(limits=limits, user_api="blas")


@dataclass(frozen=True)
class BlockMargins:
    """The linear models of all feature blocks as one model of the whole vector.

    ``X @ coef + intercept`` is the margin of new rows. `cross_fitted` is the margin of the training
    rows, as in `LinearMargins`; `by_block` is what each block adds to it, as `block_margins`
    returns it for new rows. `Cs` and `weights` have one value per block; a weight is the factor of
    the block's margins, temperatures included.
    """

    coef: FloatArray
    intercept: FloatArray
    Cs: tuple[float, ...]
    weights: tuple[float, ...]
    cross_fitted: FloatArray
    by_block: FloatArray


def fit_blocks(
    rows: TrainingRows,
    n_classes: int,
    folds: Folds,
    Cs: Sequence[float],
    widths: Sequence[int],
    *,
    ratio: FloatArray,
    max_directions: int | None = None,
    verbose: bool = False,
) -> BlockMargins:
    """Fit a linear model to each feature block and average the margins, see `block_shares`.

    The margins are those of the expected class shares: `ratio` times those of the rows.

    `widths` are the numbers of columns of the blocks, side by side in X. Each block has its own C
    and temperature. The mean of the cross-fitted margins has another temperature: errors of
    different blocks partly cancel, so their mean can be more confident.
    """
    offset = margin_offset(ratio)
    blocks = [
        fit_linear_margins(
            rows.with_columns(columns),
            n_classes,
            folds,
            Cs,
            ratio=ratio,
            max_directions=max_directions,
            verbose=verbose,
        )
        for columns in block_columns(widths)
    ]
    shares = block_shares(widths, float(np.mean(rows.groups_of_class())))
    mean = np.tensordot(shares, [block.cross_fitted for block in blocks], 1)
    held_out, temperature = blocks[0].held_out, 1.0
    if len(blocks) > 1 and held_out.any():
        weight = rows.reweighted(ratio).weight[held_out]
        temperature, _ = fit_temperature(mean[held_out], rows.codes[held_out], weight, offset)
    factors = shares / temperature
    return BlockMargins(
        coef=np.concatenate([f * block.coef for f, block in zip(factors, blocks, strict=True)]),
        intercept=factors @ [block.intercept for block in blocks] + offset,
        Cs=tuple(block.C for block in blocks),
        weights=tuple(
            float(f / block.temperature) for f, block in zip(factors, blocks, strict=True)
        ),
        cross_fitted=mean / temperature + offset,
        by_block=np.hstack(
            [
                f * (block.cross_fitted - block.intercept)
                for f, block in zip(factors, blocks, strict=True)
            ]
        ),
    )


def block_margins(X: NDArray[np.floating], coef: FloatArray, widths: Sequence[int]) -> FloatArray:
    """Return what each block of X, (n, p), adds to the margins: (n, n_blocks * n_margins)."""
    return np.hstack([X[:, columns] @ coef[columns] for columns in block_columns(widths)])


def block_shares(widths: Sequence[int], groups_per_class: float) -> FloatArray:
    """Return the share of each block in the mean of their margins, equal for blocks of one width.

    A regression on many columns needs more samples: with few, narrow blocks count more, with many,
    all count alike. The number of columns at which a block counts half, for each group of a class,
    was chosen on learning curves of six sets of images, from 1 to 50 images per class.
    """
    counts = 1.0 / (1.0 + np.asarray(widths) / (_COLUMNS_PER_GROUP * groups_per_class))
    return np.asarray(counts / counts.sum())


def block_columns(widths: Sequence[int]) -> list[slice]:
    """Return the columns of each block."""
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
