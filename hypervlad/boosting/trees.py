"""The trees: xgboost boosting from given margins, and the number of rounds to keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from hypervlad.boosting.linear import (
    FloatArray,
    IntArray,
    TrainingRows,
    log_losses,
    probabilities,
)
from hypervlad.splits import holdout_split

# The best of many rounds looks better on the hold-out than it is. On real images, a threshold of
# one standard error kept trees that lowered the accuracy; two did not.
_GAIN_IN_STANDARD_ERRORS = 2.0
_CHUNK = 256  # rows given to xgboost at a time: 0.15 GB of 147,200 columns
# Values in which bins are searched: 2 GB at most, for 456 rows of 147,200 columns or 65,536 rows of
# 1,024 columns.
_MAX_BINNED_VALUES = 2**26
_MIN_BINNED_ROWS = 256


@dataclass(frozen=True)
class Trees:
    """The trees that were kept (None if none), and the gain of the best round on the hold-out.

    The trees use `columns` only; None is every column. `gain` is the reduction of the log loss per
    row, `gain_error` its standard error; None if nothing was held out.
    """

    booster: xgboost.Booster | None
    n_rounds: int
    columns: IntArray | None = None
    gain: float | None = None
    gain_error: float | None = None


@dataclass(frozen=True)
class RoundSearch:
    """The best round on a hold-out, its reduction of the log loss, and the standard error."""

    n_rounds: int
    gain: float
    gain_error: float

    def is_more_than_noise(self) -> bool:
        """Return whether the gain clearly exceeds its standard error."""
        return self.gain > _GAIN_IN_STANDARD_ERRORS * self.gain_error


def fit_trees(
    rows: TrainingRows,
    base_margin: FloatArray,
    parameters: dict[str, Any],
    *,
    max_rounds: int,
    patience: int | None,
    max_features: int | None,
    validation_fraction: float,
    seed: int,
    may_be_none: bool,
) -> Trees:
    """Find the number of rounds on a hold-out, then train as many on all rows.

    With `may_be_none`, trees are kept only if their gain on the hold-out is more than noise; if
    nothing can be held out, none are kept. Without `may_be_none`, at least one round is kept, and
    `max_rounds` if nothing can be held out. Without `patience` nothing is held out and
    `max_rounds` are kept.
    """
    if not max_rounds:
        return Trees(None, 0)
    if patience is None:
        columns = screen_columns(rows, base_margin, max_features)
        booster = _train(rows.with_columns(columns), base_margin, max_rounds, parameters)
        return Trees(booster, max_rounds, columns)
    train, test = holdout_split(
        rows.codes, rows.groups, test_size=validation_fraction, random_state=seed
    )
    search = None
    n_rounds = 0 if may_be_none else max_rounds
    if len(test):
        # Columns are chosen without the hold-out, so that its rows can test the choice too.
        columns = screen_columns(rows.take(train), base_margin[train], max_features)
        search = search_rounds(
            rows.with_columns(columns),
            base_margin,
            (train, test),
            parameters,
            max_rounds=max_rounds,
            patience=patience,
        )
        n_rounds = search.n_rounds if search.is_more_than_noise() or not may_be_none else 0
    gain, gain_error = (search.gain, search.gain_error) if search else (None, None)
    if not n_rounds:
        return Trees(None, 0, None, gain, gain_error)
    columns = screen_columns(rows, base_margin, max_features)
    booster = _train(rows.with_columns(columns), base_margin, n_rounds, parameters)
    return Trees(booster, n_rounds, columns, gain, gain_error)


def screen_columns(
    rows: TrainingRows, base_margin: FloatArray, max_features: int | None
) -> IntArray | None:
    """Return the columns most correlated with the residuals of the margins; None if all are used.

    The time of a tree grows with its columns. The residuals are those that boosting starts from:
    label minus probability, one column per class. Correlations are squared and summed over classes.
    """
    n_features = rows.source.shape[1]
    if max_features is None or n_features <= max_features:
        return None
    proba = probabilities(base_margin)
    residual = np.eye(proba.shape[1])[rows.codes] - proba
    residual *= rows.weight[:, None]
    X = rows.X
    covariance = X.T @ residual - np.outer(X.mean(axis=0), residual.sum(axis=0))
    spread = X.std(axis=0)
    # A constant column has nothing to split.
    score = (covariance**2).sum(axis=1) / np.where(spread > 0, spread, np.inf) ** 2
    return np.sort(np.argsort(-score, kind="stable")[:max_features])


def xgboost_parameters(n_classes: int, *, nthread: int, seed: int, **tree: Any) -> dict[str, Any]:
    """Return the parameters of ``xgboost.train``."""
    softmax = {"objective": "multi:softprob", "num_class": n_classes, "eval_metric": "mlogloss"}
    logistic = {"objective": "binary:logistic", "eval_metric": "logloss"}
    link = logistic if n_classes == 2 else softmax
    common = {"tree_method": "hist", "verbosity": 0, "seed": seed, "nthread": nthread}
    return {**common, **link, **tree}


def data_matrix(
    rows: TrainingRows, base_margin: FloatArray, parameters: dict[str, Any]
) -> xgboost.DMatrix:
    """Return a matrix of rows to predict, which start from `base_margin`."""
    fields = _fields(rows, base_margin)
    return xgboost.DMatrix(**fields, nthread=parameters["nthread"])


def training_matrix(
    rows: TrainingRows, base_margin: FloatArray, parameters: dict[str, Any]
) -> xgboost.QuantileDMatrix:
    """Return a matrix of rows to train on, of which xgboost keeps only the bins.

    It needs one byte per value (a DMatrix needs eight), but thirty while it searches the bins. For
    wide vectors, the bins are searched in a sample of the rows.
    """
    options = {"max_bin": parameters["max_bin"], "nthread": parameters["nthread"]}
    n_binned = max(_MIN_BINNED_ROWS, _MAX_BINNED_VALUES // rows.source.shape[1])
    if len(rows) <= n_binned:
        return xgboost.QuantileDMatrix(_RowChunks(rows, base_margin), **options)
    first = np.arange(n_binned)  # rows are in a random order, so these are a random sample
    bins = xgboost.QuantileDMatrix(_RowChunks(rows.take(first), base_margin[first]), **options)
    return xgboost.QuantileDMatrix(_RowChunks(rows, base_margin), ref=bins, **options)


class _RowChunks(xgboost.DataIter):
    """Rows in chunks, so that no sorted copy of all of them is made."""

    def __init__(self, rows: TrainingRows, base_margin: FloatArray) -> None:
        self._rows, self._base_margin, self._start = rows, base_margin, 0
        super().__init__()

    def reset(self) -> None:
        self._start = 0

    def next(self, input_data: Callable[..., None]) -> bool:
        if self._start >= len(self._rows):
            return False
        chunk = np.arange(self._start, min(self._start + _CHUNK, len(self._rows)))
        input_data(**_fields(self._rows.take(chunk), self._base_margin[chunk]))
        self._start += _CHUNK
        return True


def _fields(rows: TrainingRows, base_margin: FloatArray) -> dict[str, NDArray[Any]]:
    """Return the fields of a DMatrix; xgboost wants margins of two classes in one dimension."""
    return {
        "data": rows.X.astype(np.float32, copy=False),
        "label": rows.codes,
        "weight": rows.weight,
        "base_margin": base_margin[:, 0] if base_margin.shape[1] == 1 else base_margin,
    }


def _train(
    rows: TrainingRows, base_margin: FloatArray, n_rounds: int, parameters: dict[str, Any]
) -> xgboost.Booster:
    matrix = training_matrix(rows, base_margin, parameters)
    return xgboost.train(parameters, matrix, num_boost_round=n_rounds, verbose_eval=False)


def search_rounds(
    rows: TrainingRows,
    base_margin: FloatArray,
    split: tuple[IntArray, IntArray],
    parameters: dict[str, Any],
    *,
    max_rounds: int,
    patience: int,
) -> RoundSearch:
    """Boost on the training rows of `split` and observe the log loss on its test rows."""
    train, test = rows.take(split[0]), rows.take(split[1])
    start = base_margin[split[1]]
    holdout = data_matrix(test, start, parameters)
    booster = xgboost.train(
        parameters,
        training_matrix(train, base_margin[split[0]], parameters),
        num_boost_round=max_rounds,
        evals=[(holdout, "holdout")],
        early_stopping_rounds=patience,
        verbose_eval=False,
    )
    n_rounds = booster.best_iteration + 1
    boosted = booster.predict(holdout, output_margin=True, iteration_range=(0, n_rounds))
    boosted = boosted.reshape(start.shape).astype(np.float64)
    saved = log_losses(start, test.codes) - log_losses(boosted, test.codes)
    gain, error = clustered_mean(saved, test.weight, test.groups)
    return RoundSearch(n_rounds, gain, error)


def tree_margins(
    booster: xgboost.Booster,
    X: NDArray[np.floating],
    n_margins: int,
    *,
    columns: IntArray | None = None,
) -> FloatArray:
    """Return what the trees add to the margins of new rows, shape (n, n_margins)."""
    X = X if columns is None else X[:, columns]
    start = np.zeros(len(X) if n_margins == 1 else (len(X), n_margins), dtype=np.float32)
    # In place: a DMatrix would need eight bytes per value.
    added = booster.inplace_predict(
        X.astype(np.float32, copy=False), predict_type="margin", base_margin=start
    )
    return added.reshape(len(X), n_margins).astype(np.float64)


def clustered_mean(values: FloatArray, weight: FloatArray, groups: IntArray) -> tuple[float, float]:
    """Return the weighted mean and its standard error, with errors correlated within groups."""
    total = weight.sum()
    mean = float(weight @ values / total)
    _, group_of_row = np.unique(groups, return_inverse=True)
    by_group = np.bincount(group_of_row, weights=weight * (values - mean))
    n_groups = len(by_group)
    if n_groups < 2:
        return mean, float("inf")
    return mean, float(np.sqrt(n_groups / (n_groups - 1) * (by_group**2).sum()) / total)
