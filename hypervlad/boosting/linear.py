"""The linear models: weighted rows, cross-fitted margins, and one model per feature block."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from tqdm.auto import tqdm

from hypervlad.boosting.logistic import LogisticModel, fit_logistic
from hypervlad.splits import first_appearance_codes
from hypervlad.wording import name_some

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_MAX_RATIO = 1e12  # of two weights or shares: sums of numbers further apart lose the smaller ones


@dataclass(frozen=True)
class TrainingRows:
    """Distinct rows: class codes, positive weights and group codes, each (m,).

    Their features are the rows `at`, (m,), of `source`, (n, p), the matrix given to ``fit``: a
    second copy of wide vectors may not fit into memory.
    """

    source: NDArray[np.floating]
    at: IntArray
    codes: IntArray
    weight: FloatArray
    groups: IntArray

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def X(self) -> NDArray[np.floating]:  # noqa: N802
        """Features, (m, p): a new copy at each access."""
        return self.source[self.at]

    def take(self, rows: IntArray) -> TrainingRows:
        """Return only these rows."""
        return TrainingRows(
            self.source, self.at[rows], self.codes[rows], self.weight[rows], self.groups[rows]
        )

    def with_columns(self, columns: slice) -> TrainingRows:
        """Return the rows with only these columns of X."""
        return self.with_features(self.source[:, columns][self.at])

    def with_features(self, X: NDArray[np.floating]) -> TrainingRows:
        """Return the rows with other features, (m, q)."""
        return replace(self, source=X, at=np.arange(len(self)))

    def reweighted(self, ratio: FloatArray) -> TrainingRows:
        """Return the rows with weights multiplied by one number per class."""
        return replace(self, weight=self.weight * ratio[self.codes])

    def groups_of_class(self) -> list[int]:
        """Return the number of groups in which each class appears."""
        pairs = np.unique(np.column_stack([self.codes, self.groups]), axis=0)
        return np.bincount(pairs[:, 0]).tolist()


def training_rows(
    X: NDArray[np.floating],
    y: NDArray[Any],
    weight: FloatArray,
    groups: ArrayLike | None,
    class_weight: Mapping[Any, float] | str | None,
) -> tuple[NDArray[Any], TrainingRows]:
    """Return the sorted labels with positive weight, and the distinct rows with codes of these.

    ValueError if only one class has positive weight, or weights differ by a factor above 1e12.
    """
    positive = weight > 0
    classes = np.unique(y[positive])
    if len(classes) < 2:
        raise ValueError(
            "This classifier needs samples of at least 2 classes; got only one class with "
            f"positive weight: {classes.tolist()}."
        )
    codes = np.zeros(len(y), dtype=np.intp)
    codes[positive] = np.searchsorted(classes, y[positive])
    weight = scaled_to_one(weight, "sample_weight")
    weight = weight * class_weights(class_weight, classes, codes, weight)[codes]
    weight = scaled_to_one(weight, "sample_weight times class_weight")
    return classes, distinct_rows(X, codes, weight, groups)


def scaled_to_one(values: FloatArray, name: str) -> FloatArray:
    """Scale values, which are not negative, to at most 1, so that no sum of them overflows.

    ValueError if the positive ones differ by a factor above 1e12.
    """
    smallest, largest = values[values > 0].min(), values.max()
    if smallest < largest / _MAX_RATIO:
        raise ValueError(
            f"{name} must not differ by a factor above {_MAX_RATIO:g}; the values are from "
            f"{smallest:g} to {largest:g}."
        )
    return np.ldexp(values, -np.frexp(largest)[1])  # exact, as a power of two


def _named(labels: Iterable[Any]) -> str:
    return name_some([repr(label) for label in labels]) or "none"


def warn_of_small_classes(rows: TrainingRows, classes: NDArray[Any]) -> None:
    """Warn once of classes with one or two groups; the warning points at the caller's caller."""
    small = [
        f"{label!r} ({n})"
        for label, n in zip(classes.tolist(), rows.groups_of_class(), strict=True)
        if n <= 2
    ]
    if small:
        warnings.warn(
            "Classes with only one or two different samples or groups: "
            f"{name_some(small)}. They can hardly be held out, so their probabilities are guesses. "
            "Add samples from other specimens.",
            UserWarning,
            stacklevel=3,
        )


def class_weights(
    class_weight: Mapping[Any, float] | str | None,
    classes: NDArray[Any],
    codes: IntArray,
    weight: FloatArray,
) -> FloatArray:
    """Return the weight of each class; "balanced" makes the classes' summed weights equal.

    ValueError if a mapping names other labels, or its weights differ by a factor above 1e12.
    """
    if class_weight is None:
        return np.ones(len(classes))
    if isinstance(class_weight, str):
        share = np.bincount(codes, weights=weight, minlength=len(classes))
        return share.sum() / (len(classes) * share)
    labels = classes.tolist()
    unknown = [label for label in class_weight if label not in labels]
    if unknown:
        raise ValueError(
            f"class_weight names labels that are not in y: {_named(unknown)}; the classes are "
            f"{_named(labels)}."
        )
    weights = np.array([float(class_weight.get(label, 1.0)) for label in labels])
    return scaled_to_one(weights, "class_weight")


def expected_shares(
    prior: Mapping[Any, float] | str, classes: NDArray[Any], shares: FloatArray
) -> FloatArray:
    """Return the class shares expected in use, given those of the training rows.

    ValueError if a mapping does not name each class, or its shares differ by a factor above 1e12.
    """
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
    """Return the expected share of each class divided by its (weighted) share of the rows.

    Weighted by these ratios, the rows still have a mean weight of 1.
    """
    shares = np.bincount(rows.codes, weights=rows.weight, minlength=len(classes)) / len(rows)
    return expected_shares(prior, classes, shares) / shares


def margin_offset(ratio: FloatArray) -> FloatArray:
    """Return what ratios of shares, one per class, add to margins: shape (n_margins,)."""
    logs = np.log(ratio)
    return logs[1:] - logs[0] if len(logs) == 2 else logs


def distinct_rows(
    X: NDArray[np.floating], codes: IntArray, weight: FloatArray, groups: ArrayLike | None
) -> TrainingRows:
    """Join equal rows of one class and group, drop those without weight, order them by content.

    The order looks random, but does not depend on that of the rows given, nor on their last digits:
    the folds depend on it, and the batch size of a network changes the last digits. The weights
    returned have mean 1, so that no penalty or prior depends on their unit. Without `groups`, equal
    feature vectors form a group, whatever their labels.
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
    """Return digests of rows of X, and their places along a random direction.

    Equal rows have equal digests and places. Those that differ in the last digits have unrelated
    digests, but places so close that few other rows, if any, lie between them.
    """
    direction = np.random.default_rng(0).standard_normal(X.shape[1])
    digests: list[str] = []
    places: dict[str, float] = {}
    for row in rows:
        # float64, so that float32 and float64 input of equal values sort alike; + 0.0 turns -0.0
        # into 0.0.
        values = X[row].astype(np.float64) + 0.0
        digests.append(hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest())
        places.setdefault(digests[-1], float(values @ direction))
    return np.array(digests, dtype="S32"), np.array([places[digest] for digest in digests])


def n_margins(n_classes: int) -> int:
    """Return the number of columns of the margins of so many classes."""
    return 1 if n_classes == 2 else n_classes


def probabilities(margins: FloatArray) -> FloatArray:
    """Return class probabilities of shape (n, n_classes)."""
    if margins.shape[1] == 1:
        # Both from expit: 1 - p would lose the digits of a small p.
        return np.hstack([expit(-margins), expit(margins)])
    return softmax(margins, axis=1)


def log_losses(margins: FloatArray, codes: IntArray) -> FloatArray:
    """Return the negative log probability of each row's own class, shape (n,)."""
    if margins.shape[1] == 1:
        sign = np.where(codes == 1, 1.0, -1.0)
        return np.logaddexp(0.0, -sign * margins[:, 0])
    return -log_softmax(margins, axis=1)[np.arange(len(codes)), codes]


def prior_margins(codes: IntArray, weight: FloatArray, n_classes: int) -> FloatArray:
    """Return the log of the classes' weighted shares as one row of margins, shape (n_margins,)."""
    log_prior = np.log(np.bincount(codes, weights=weight, minlength=n_classes) / weight.sum())
    return log_prior[1:] - log_prior[0] if n_classes == 2 else log_prior


Folds = Sequence[tuple[IntArray, IntArray]]

# A temperature beyond these bounds is an artefact of too few rows.
_LOG_TEMPERATURE_BOUNDS = (np.log(0.05), np.log(50.0))
# Standard deviation of the prior on log temperatures below 0, which make predictions more
# confident. On fourteen tasks of 60 to 500 rows, 1 was overconfident on separable classes with few
# rows, where 0.3 lowered the log loss; elsewhere both were equal. Temperatures above 1 have no
# prior: with few, widely separated rows, margins divided by ten had a lower log loss than margins
# of a strong penalty.
_LOG_TEMPERATURE_SPREAD = 0.3
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
    ratio: FloatArray | None = None,
    max_directions: int | None = None,
    verbose: bool = False,
) -> LinearMargins:
    """Choose C and the temperature by the log loss of the folds' test rows, then refit on all rows.

    The loss is that of rows with the expected class shares, see `prior_ratio`. The margins returned
    are those of the shares of the training rows.

    The features are centred and divided by one number, the root mean square length of the centred
    rows, so that a C means the same for any X. Columns keep their relative size. Without folds, C
    is the middle of `Cs`, the temperature is 1 and the margins are those of the fit itself.
    """
    ratio = np.ones(n_classes) if ratio is None else ratio
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
    margins: FloatArray, codes: IntArray, weight: FloatArray, offset: FloatArray | float = 0.0
) -> tuple[float, float]:
    """Return the most likely temperature to divide margins by, and the resulting mean log loss.

    `offset`, see `margin_offset`, is added to the divided margins.
    For temperatures below 1, a half-normal prior on the logarithm limits the confidence that a few
    well separated rows can give. See Guo et al., "On calibration of modern neural networks", ICML
    2017.
    """

    def penalised(log_temperature: float) -> float:
        losses = log_losses(margins / np.exp(log_temperature) + offset, codes)
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
    ratio: FloatArray | None = None,
    max_directions: int | None = None,
    verbose: bool = False,
) -> BlockMargins:
    """Fit a linear model to each feature block and average the margins, see `block_shares`.

    With `ratio`, see `prior_ratio`, the margins are those of the expected class shares.

    `widths` are the numbers of columns of the blocks, side by side in X. Each block has its own C
    and temperature. The mean of the cross-fitted margins has another temperature: errors of
    different blocks partly cancel, so their mean can be more confident.
    """
    ratio = np.ones(n_classes) if ratio is None else ratio
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
