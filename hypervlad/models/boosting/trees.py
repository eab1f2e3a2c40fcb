"""The trees: xgboost boosting from given margins, and the number of rounds to keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from hypervlad.models.boosting.linear import Folds
from hypervlad.models.boosting.logistic import FloatArray, IntArray, log_losses
from hypervlad.models.boosting.rows import TrainingRows

# The best of many rounds looks better on held-out rows than it is. On real images, a threshold of
# one standard error kept trees that lowered the accuracy; two did not.
_GAIN_IN_STANDARD_ERRORS = 2.0
_MAX_BIN = 64  # thresholds per feature: on wide data the time grows with them
_CHUNK = 256  # rows given to xgboost at a time: 0.15 GB of 147,200 columns
# Values in which bins are searched: 2 GB at most, for 456 rows of 147,200 columns or 65,536 rows of
# 1,024 columns.
_MAX_BINNED_VALUES = 2**26
_MIN_BINNED_ROWS = 256


@dataclass(frozen=True)
class RoundSearch:
    """The best round on held-out rows, its reduction of the log loss per row, and the error."""

    n_rounds: int
    gain: float
    gain_error: float


def fit_trees(
    rows: TrainingRows,
    base_margin: FloatArray,
    splits: Folds,
    parameters: dict[str, Any],
    *,
    max_rounds: int,
    patience: int | None,
    may_be_none: bool,
) -> tuple[xgboost.Booster | None, RoundSearch | None]:
    """Find the number of rounds on the test rows of `splits`, then train as many on all rows.

    Without `patience`, all `max_rounds` are kept; so they are without test rows, unless
    `may_be_none`. With it, trees are kept only if their gain on the test rows is more than noise.
    """
    search = None
    n_rounds = 0 if may_be_none and patience is not None else max_rounds
    splits = [(train, test) for train, test in splits if len(test)]
    if max_rounds and patience is not None and splits:
        search = search_rounds(
            rows, base_margin, splits, parameters, max_rounds=max_rounds, patience=patience
        )
        is_more_than_noise = search.gain > _GAIN_IN_STANDARD_ERRORS * search.gain_error
        n_rounds = search.n_rounds if is_more_than_noise or not may_be_none else 0
    if not n_rounds:
        return None, search
    matrix = training_matrix(rows, base_margin, parameters)
    return xgboost.train(parameters, matrix, n_rounds, verbose_eval=False), search


def xgboost_parameters(
    n_classes: int, n_threads: int, learning_rate: float, max_depth: int
) -> dict[str, Any]:
    return link(n_classes) | {
        "tree_method": "hist",
        "max_bin": _MAX_BIN,
        "nthread": n_threads,
        "learning_rate": learning_rate,
        "max_depth": max_depth,
    }


def training_matrix(
    rows: TrainingRows, base_margin: FloatArray, parameters: dict[str, Any]
) -> xgboost.QuantileDMatrix:
    """Return a matrix of rows to train on, of which xgboost keeps only the bins, to save memory."""
    options = {name: parameters[name] for name in ("max_bin", "nthread")}
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


def search_rounds(
    rows: TrainingRows,
    base_margin: FloatArray,
    splits: Folds,
    parameters: dict[str, Any],
    *,
    max_rounds: int,
    patience: int,
) -> RoundSearch:
    """Boost on the training rows of each split, all in step, and observe the pooled log loss.

    The search ends after `patience` rounds without a lower loss.
    """
    models = [_Split.of(rows, base_margin, split, parameters) for split in splits]
    tested = np.concatenate([test for _, test in splits])
    weight = rows.weight[tested]
    start = log_losses(base_margin[tested], rows.codes[tested])
    best_round, lowest, best = 1, np.inf, start
    for n_rounds in range(1, max_rounds + 1):
        losses = np.concatenate([model.losses_of_next_round() for model in models])
        if (loss := float(weight @ losses)) < lowest:
            best_round, lowest, best = n_rounds, loss, losses
        elif n_rounds - best_round >= patience:
            break
    gain, error = clustered_mean(start - best, weight, rows.groups[tested])
    return RoundSearch(best_round, gain, error)


@dataclass
class _Split:
    booster: xgboost.Booster
    train: xgboost.DMatrix
    test: xgboost.DMatrix
    codes: IntArray
    n_rounds: int = 0

    @classmethod
    def of(
        cls,
        rows: TrainingRows,
        base_margin: FloatArray,
        split: tuple[IntArray, IntArray],
        parameters: dict[str, Any],
    ) -> _Split:
        train = training_matrix(rows.take(split[0]), base_margin[split[0]], parameters)
        held_out = rows.take(split[1])
        fields = _fields(held_out, base_margin[split[1]])
        test = xgboost.DMatrix(**fields, nthread=parameters["nthread"])
        # Margins of matrices in the cache are not computed again from the first round on.
        return cls(xgboost.Booster(parameters, [train, test]), train, test, held_out.codes)

    def losses_of_next_round(self) -> FloatArray:
        """Train one more round; return the log loss of each test row."""
        self.booster.update(self.train, self.n_rounds)
        self.n_rounds += 1
        margins = self.booster.predict(self.test, output_margin=True).astype(np.float64)
        return log_losses(margins.reshape(len(self.codes), -1), self.codes)


def tree_margins(booster: xgboost.Booster, X: NDArray[np.floating], n_margins: int) -> FloatArray:
    """Return what the trees add to the margins of new rows, shape (n, n_margins)."""
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


def link(n_classes: int) -> dict[str, Any]:
    # The base score is unused, as all rows are given margins. Without one, xgboost would estimate
    # it, and refuse an estimate of 1.
    common = {"verbosity": 0, "base_score": 0.5}
    if n_classes == 2:
        return {"objective": "binary:logistic", **common}
    return {"objective": "multi:softprob", "num_class": n_classes, **common}
