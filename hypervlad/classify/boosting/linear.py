"""The rows that are learnt from, their coordinates, and one linear model per feature block."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.extmath import randomized_svd

from hypervlad.classify.boosting.logistic import (
    FloatArray,
    IntArray,
    fit_logistic,
    fit_temperature,
    margin_offset,
    n_margins,
)
from hypervlad.common.progress import ProgressBar, one_blas_thread
from hypervlad.common.wording import name_some, warn_user
from hypervlad.statistics.splits import first_appearance_codes

Folds = Sequence[tuple[IntArray, IntArray]]

#: Of a block with more than twice as many rows and columns, only so many principal directions are
#: used. The variance of VLAD vectors is concentrated.
MAX_DIRECTIONS = 1024
_TINY = np.finfo(np.float64).tiny
# Directions below 1e-6 of the largest singular value are rounding errors of the Gram matrix.
_NEGLIGIBLE_EIGENVALUE = 1e-12
# Of a Gram matrix this large, the leading eigenvectors take as long as a randomised decomposition:
# four seconds for 1,024 directions of 8,704 columns.
_MAX_GRAM_SIDE = 5000
# From learning curves of six sets; at 60 to 600, they were the same within their errors.
_COLUMNS_PER_GROUP = 400
_MAX_PRODUCTS_OF_ONE_THREAD = 1e10  # half a second
_MAX_VALUES_OF_ONE_THREAD = 2**18  # coordinates: a regression takes a tenth of a second
_MAX_RATIO = 1e12  # of two weights or shares: sums of numbers further apart lose the smaller ones


# --- rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingRows:
    """Distinct rows: class codes, positive weights and group codes, each (m,).

    Their features are the rows `at`, (m,), of `source`, (n, p): wide vectors are not copied.
    """

    source: NDArray[np.floating]
    at: IntArray
    codes: IntArray
    weight: FloatArray
    groups: IntArray

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def X(self) -> NDArray[np.floating]:  # noqa: N802  # as in scikit-learn
        """Return a new copy of the features, (m, p)."""
        return self.source[self.at]

    def take(self, rows: IntArray) -> TrainingRows:
        return TrainingRows(
            self.source, self.at[rows], self.codes[rows], self.weight[rows], self.groups[rows]
        )

    def with_features(self, X: NDArray[np.floating]) -> TrainingRows:
        return replace(self, source=X, at=np.arange(len(self)))

    def reweighted(self, ratio: FloatArray) -> TrainingRows:
        return replace(self, weight=self.weight * ratio[self.codes])

    def groups_of_class(self) -> list[int]:
        pairs = np.unique(np.column_stack([self.codes, self.groups]), axis=0)
        counts: list[int] = np.bincount(pairs[:, 0]).tolist()
        return counts


def training_rows(
    X: NDArray[np.floating], y: NDArray[Any], weight: FloatArray, groups: ArrayLike | None
) -> tuple[NDArray[Any], TrainingRows]:
    """Return the sorted labels with positive weight, and the distinct rows."""
    positive = weight > 0
    classes = np.unique(y[positive])
    if len(classes) < 2:
        raise ValueError(
            "This classifier needs samples of at least 2 classes; got only one class with "
            f"positive weight: {classes.tolist()}."
        )
    codes = np.zeros(len(y), dtype=np.intp)
    codes[positive] = np.searchsorted(classes, y[positive])
    return classes, distinct_rows(X, codes, scaled_to_one(weight, "sample_weight"), groups)


def scaled_to_one(values: FloatArray, name: str) -> FloatArray:
    """Scale weights or shares to at most 1, so that no sum overflows."""
    smallest, largest = values[values > 0].min(), values.max()
    if smallest < largest / _MAX_RATIO:
        raise ValueError(
            f"{name} must not differ by a factor above {_MAX_RATIO:g}; the values are from "
            f"{smallest:g} to {largest:g}."
        )
    return np.asarray(np.ldexp(values, -np.frexp(largest)[1]))  # exact, as a power of two


def _named(labels: Iterable[Any]) -> str:
    return name_some([repr(label) for label in labels]) or "none"


def warn_of_small_classes(rows: TrainingRows, classes: NDArray[Any]) -> None:
    pairs = zip(classes.tolist(), rows.groups_of_class(), strict=True)
    small = [f"{label!r} ({n})" for label, n in pairs if n <= 2]
    if small:
        warn_user(
            "Classes with only one or two different samples or groups: "
            f"{name_some(small)}. They can hardly be held out, so their probabilities are guesses. "
            "Add samples from other specimens."
        )


def expected_shares(
    prior: Mapping[Any, float] | str, classes: NDArray[Any], shares: FloatArray
) -> FloatArray:
    if isinstance(prior, str):
        expected = shares ** {"training": 1.0, "sqrt": 0.5, "uniform": 0.0}[prior]
    else:
        labels = classes.tolist()
        unknown = [label for label in prior if label not in labels]
        missing = [label for label in labels if label not in prior]
        if unknown or missing:
            raise ValueError(
                f"prior must name every class: missing {_named(missing)}, unknown "
                f"{_named(unknown)}; the classes are {_named(labels)}."
            )
        expected = np.array([float(prior[label]) for label in labels])
        expected = scaled_to_one(expected, "prior")
    return np.asarray(expected / expected.sum())


def prior_ratio(
    prior: Mapping[Any, float] | str, classes: NDArray[Any], rows: TrainingRows
) -> FloatArray:
    """Return the expected share of each class divided by its share of the rows."""
    shares = np.bincount(rows.codes, weights=rows.weight, minlength=len(classes)) / len(rows)
    return expected_shares(prior, classes, shares) / shares


def distinct_rows(
    X: NDArray[np.floating], codes: IntArray, weight: FloatArray, groups: ArrayLike | None
) -> TrainingRows:
    """Join equal rows of one class and group, drop those without weight, order them by content.

    The order does not depend on that of the rows given, nor on their last digits, which vary with
    the batch size of a network. The weights have mean 1. Without `groups`, equal vectors form one.
    """
    if groups is None:
        group_codes = np.zeros(len(codes), dtype=np.intp)
    else:
        group_codes = first_appearance_codes(groups, "groups")
        if len(group_codes) != len(codes):
            raise ValueError(f"X has {len(codes)} rows but groups has {len(group_codes)}.")
    kept = np.flatnonzero(weight > 0)
    digests, places = _row_digests(X, kept)
    order = np.lexsort((group_codes[kept], codes[kept], digests, places))
    kept, digests = kept[order], digests[order]
    new_vector = np.append(True, digests[1:] != digests[:-1])
    new_row = new_vector.copy()
    for key in (codes, group_codes):
        new_row[1:] |= key[kept[1:]] != key[kept[:-1]]
    starts = np.flatnonzero(new_row)
    group_of_kept = np.cumsum(new_vector) - 1 if groups is None else group_codes[kept]
    joined_weight = np.add.reduceat(weight[kept], starts)
    rows = TrainingRows(
        source=X,
        at=kept[starts],
        codes=codes[kept[starts]],
        weight=joined_weight / joined_weight.mean(),
        groups=group_of_kept[starts].astype(np.intp),
    )
    # Not sorted along the direction of `_row_digests`: the first rows are a random sample.
    return rows.take(np.random.default_rng(0).permutation(len(rows)))


def _row_digests(X: NDArray[np.floating], rows: IntArray) -> tuple[NDArray[np.bytes_], FloatArray]:
    """Return digests of rows, and their places along a direction, which rounding hardly changes."""
    direction = np.random.default_rng(0).standard_normal(X.shape[1])
    digests: list[str] = []
    places: dict[str, float] = {}
    for row in rows:
        # float64, so that equal values of any float sort alike; + 0.0 turns -0.0 into 0.0.
        values = X[row].astype(np.float64) + 0.0
        digests.append(hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest())
        places.setdefault(digests[-1], float(values @ direction))
    return np.array(digests, dtype="S32"), np.array([places[digest] for digest in digests])


# --- coordinates of rows --------------------------------------------------------------------------


@dataclass(frozen=True)
class RowSpace:
    """Coordinates `Z`, (n, q), of rows X, (n, p), in which a regression costs least.

    Z is (X - centre) / scale times the product of `factors`, less `offset`.
    """

    Z: NDArray[np.floating]
    centre: FloatArray
    scale: float
    factors: tuple[NDArray[np.floating], ...] = ()
    offset: FloatArray | float = 0.0

    def take(self, rows: IntArray) -> RowSpace:
        """Return some rows, centred and scaled on their own, in the directions of all."""
        Z = self.Z[rows]
        centre = Z.mean(axis=0, dtype=np.float64).astype(Z.dtype)
        Z -= centre
        scale = _root_mean_square_length(Z)
        Z /= Z.dtype.type(scale)
        offset = (self.offset + centre.astype(np.float64)) / scale
        return replace(self, Z=Z, scale=self.scale * scale, offset=offset)

    def in_columns(self, coef: FloatArray, intercept: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return coefficients (p, k) and intercepts (k,) for X, given those for Z."""
        found = coef
        for factor in reversed(self.factors):
            found = factor @ found
        found = found / self.scale
        return found, intercept - self.offset * np.ones(len(coef)) @ coef - self.centre @ found


def row_space(
    X: NDArray[np.floating], max_directions: int | None = None, rows: IntArray | None = None
) -> RowSpace:
    """Centre and scale `rows` of X, (n, p); if columns outnumber rows, rotate into the row space.

    Of more than twice `max_directions` rows and columns, only that many principal directions are
    kept, in the precision of X; otherwise, all are, in double precision.
    """
    n_rows = len(X) if rows is None else len(rows)
    is_large = max_directions is not None and n_rows > 2 * max_directions
    own = X if rows is None else X[rows]  # a copy, which may be changed
    scaled = own.astype(X.dtype if is_large else np.float64, copy=rows is None)
    del own
    # In the precision of the rows: what is subtracted is then what the intercepts contain.
    centre = scaled.mean(axis=0, dtype=np.float64).astype(scaled.dtype)
    scaled -= centre
    scale = _root_mean_square_length(scaled)
    scaled /= scaled.dtype.type(scale)
    if max_directions is not None and min(scaled.shape) > 2 * max_directions:
        directions = _principal_directions(scaled, max_directions)
        return RowSpace(scaled @ directions, centre, scale, (directions,))
    if scaled.shape[1] <= n_rows:
        return RowSpace(scaled, centre, scale)
    eigenvalues, vectors = np.linalg.eigh(scaled @ scaled.T)
    kept = eigenvalues >= _NEGLIGIBLE_EIGENVALUE * eigenvalues[-1]
    # Equal rows leave one direction of length zero: keep it without dividing by zero.
    lengths = np.sqrt(np.maximum(eigenvalues[kept], _TINY))
    vectors = vectors[:, kept]
    return RowSpace(vectors * lengths, centre, scale, (scaled.T, vectors / lengths))


def _principal_directions(X: NDArray[np.floating], n: int) -> NDArray[np.floating]:
    side = min(X.shape)
    if side <= _MAX_GRAM_SIDE:
        is_wide = X.shape[1] > side
        gram = X @ X.T if is_wide else X.T @ X
        vectors: NDArray[np.floating]
        eigenvalues, vectors = scipy.linalg.eigh(gram, subset_by_index=(side - n, side - 1))
        # Eigenvalues have errors of a few eps of the largest: below that, directions are noise.
        if eigenvalues[0] > 100 * np.finfo(X.dtype).eps * eigenvalues[-1]:
            return X.T @ (vectors / np.sqrt(eigenvalues)) if is_wide else vectors
    _, lengths, directions = randomized_svd(X, n, n_iter=3, random_state=0)
    kept = lengths**2 >= _NEGLIGIBLE_EIGENVALUE * lengths[0] ** 2
    return np.asarray(directions[kept].T)


def _root_mean_square_length(rows: NDArray[np.floating]) -> float:
    # Not by a sum of squares, which is 0 for tiny features.
    norm = float(scipy.linalg.norm(rows.ravel("K"), check_finite=False))
    if np.isinf(norm):  # in single precision
        largest = np.abs(rows).max()
        norm = float(largest) * _root_mean_square_length(rows / largest) * len(rows) ** 0.5
    return norm / len(rows) ** 0.5 or 1.0


# --- the models -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearMargins:
    """A fitted linear model of one feature block: ``X @ coef + intercept`` are margins of new rows.

    `cross_fitted`, (m, n_margins), are those of the training rows: if `held_out`, (m,), by a model
    fitted without their groups. All are divided by `temperature`.
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
    space: RowSpace | None = None,
    verbose: bool = False,
) -> LinearMargins:
    """Choose C and the temperature by the log loss of the folds' test rows, then refit on all rows.

    Only the loss is that of the expected class shares, `ratio` times those of the rows. Without
    folds, C is the middle of `Cs` and the temperature is 1.
    """
    grid = sorted(float(C) for C in Cs)
    space = row_space(rows.X) if space is None else space
    Z = space.Z
    held_out = np.zeros(len(rows), dtype=bool)
    for _, test in folds:
        held_out[test] = True
    C, temperature = grid[len(grid) // 2], 1.0
    if held_out.any():
        margins = _fold_margins(Z, rows, n_classes, folds, grid, verbose=verbose)
        codes, weight = rows.codes[held_out], rows.reweighted(ratio).weight[held_out]
        offset = margin_offset(ratio)
        fits = [fit_temperature(m[held_out], codes, weight, offset) for m in margins]
        best = int(np.argmin([loss for _, loss in fits]))
        C, temperature = grid[best], fits[best][0]
    with one_blas_thread():
        model = fit_logistic(Z, rows.codes, rows.weight, n_classes, C)
    cross_fitted = model.margins(Z)
    if held_out.any():
        cross_fitted[held_out] = margins[best][held_out]
    coef, intercept = space.in_columns(model.coef.T, model.intercept)
    return LinearMargins(
        coef=coef / temperature,
        intercept=intercept / temperature,
        C=C,
        temperature=temperature,
        cross_fitted=cross_fitted / temperature,
        held_out=held_out,
    )


def _fold_margins(
    Z: NDArray[np.floating],
    rows: TrainingRows,
    n_classes: int,
    folds: Folds,
    grid: list[float],
    *,
    verbose: bool,
) -> FloatArray:
    """Return margins for each C, (n_Cs, m, n_margins), of the folds' test rows, elsewhere 0."""

    def of_fold(train: IntArray, test: IntArray) -> list[FloatArray]:
        # From strong to weak regularisation, each solution is a good start for the next. The model
        # of all rows has no such start; with one, or with smaller tolerances for large C, held-out
        # losses were higher on two of four sets and training took longer.
        model, found = None, []
        own = Z[train], rows.codes[train], rows.weight[train], n_classes
        for C in grid:
            model = fit_logistic(*own, C, model)
            found.append(model.margins(Z[test]))
        return found

    margins = np.zeros((len(grid), len(rows), n_margins(n_classes)))
    n_jobs = 1 if Z.size < _MAX_VALUES_OF_ONE_THREAD else -1
    # Also within a user's joblib context of processes, to which the rows would be sent.
    parallel = joblib.Parallel(n_jobs, require="sharedmem", return_as="generator")
    with one_blas_thread():  # the products of an L-BFGS step are too small to share
        found = parallel(joblib.delayed(of_fold)(*fold) for fold in folds)
        bar = ProgressBar(found, "linear margins", len(folds), unit="fold", shown=verbose)
        for (_, test), of_test in zip(folds, bar, strict=True):
            margins[:, test] = of_test
    return margins


def blas_threads(rows: TrainingRows) -> AbstractContextManager[None]:
    # Unless the Gram matrix takes seconds.
    n_products = len(rows) ** 2 * rows.source.shape[1]
    return one_blas_thread() if n_products < _MAX_PRODUCTS_OF_ONE_THREAD else nullcontext()


class FeatureBlocks:
    """The feature blocks of X, (n, p), side by side, whose row spaces fits to some rows share.

    Learners that are fitted without one fold each then decompose X only once.
    """

    def __init__(self, X: NDArray[np.floating], widths: Sequence[int]) -> None:
        self.widths = list(widths)
        self._rows = np.arange(len(X))
        self._row_spaces = functools.cache(
            lambda: [row_space(X[:, c], MAX_DIRECTIONS) for c in block_columns(self.widths)]
        )

    def __getitem__(self, rows: IntArray) -> FeatureBlocks:
        found = copy.copy(self)
        found._rows = self._rows[rows]
        return found

    def __len__(self) -> int:
        return len(self._rows)

    def spaces(self, rows: IntArray) -> list[RowSpace]:
        return [space.take(self._rows[rows]) for space in self._row_spaces()]


@dataclass(frozen=True)
class BlockMargins:
    """The linear models of all feature blocks as one model of the whole vector.

    `Cs` and `weights` have one value per block, its penalty and the factor of its margins;
    `by_block` is what each block adds to the margins of the training rows.
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
    spaces: Sequence[RowSpace | None] | None = None,
    verbose: bool = False,
) -> BlockMargins:
    """Fit a linear model to each feature block and average the margins with `block_shares`.

    They are margins of the expected class shares, `ratio` times those of the rows. The mean has its
    own temperature, because errors of different blocks partly cancel.
    """
    offset = margin_offset(ratio)
    blocks = []
    known = spaces or [None] * len(widths)
    for columns, space in zip(block_columns(widths), known, strict=True):
        if space is None:
            space = row_space(rows.source[:, columns], MAX_DIRECTIONS, rows.at)
        block = fit_linear_margins(
            rows, n_classes, folds, Cs, ratio=ratio, space=space, verbose=verbose
        )
        blocks.append(block)
    shares = block_shares(widths, float(np.mean(rows.groups_of_class())))
    mean = np.tensordot(shares, [block.cross_fitted for block in blocks], 1)
    held_out, temperature = blocks[0].held_out, 1.0
    if len(blocks) > 1 and held_out.any():
        weight = rows.reweighted(ratio).weight[held_out]
        temperature, _ = fit_temperature(mean[held_out], rows.codes[held_out], weight, offset)
    factors, centred = shares / temperature, [own.cross_fitted - own.intercept for own in blocks]
    return BlockMargins(
        coef=np.concatenate([f * block.coef for f, block in zip(factors, blocks, strict=True)]),
        intercept=factors @ [block.intercept for block in blocks] + offset,
        Cs=tuple(block.C for block in blocks),
        weights=tuple(float(f / own.temperature) for f, own in zip(factors, blocks, strict=True)),
        cross_fitted=mean / temperature + offset,
        by_block=np.hstack([f * own for f, own in zip(factors, centred, strict=True)]),
    )


def block_shares(widths: Sequence[int], groups_per_class: float) -> FloatArray:
    """Return the share of each block in the mean: with few samples, narrow blocks count more."""
    counts = 1.0 / (1.0 + np.asarray(widths) / (_COLUMNS_PER_GROUP * groups_per_class))
    return np.asarray(counts / counts.sum())


def block_columns(widths: Sequence[int]) -> list[slice]:
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
