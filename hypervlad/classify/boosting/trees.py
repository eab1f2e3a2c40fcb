"""The trees: xgboost boosting from given margins, the rounds to keep, and trees as arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from hypervlad.classify.boosting.linear import Folds, TrainingRows
from hypervlad.classify.boosting.logistic import FloatArray, IntArray, log_losses
from hypervlad.common.limits import MAX_TREE_DEPTH
from hypervlad.common.stored import Array, StoredPart

_LARGEST = float(np.finfo(np.float32).max)

# The best of many rounds looks better on held-out rows than it is. On real images, a threshold of
# one standard error kept trees that lowered the accuracy; two did not.
_GAIN_IN_STANDARD_ERRORS = 2.0
_MAX_BIN = 64  # thresholds per feature: on wide data the time grows with them
_CHUNK = 256  # rows given to xgboost at a time: 0.15 GB of 147,200 columns
_MAX_DESCENTS = 2**18  # rows times trees at a time: 10 MB, however many trees a file has
# Values in which bins are searched: 2 GB at most, such as 456 rows of 147,200 columns.
_MAX_BINNED_VALUES = 2**26
_MIN_BINNED_ROWS = 256


@dataclass(frozen=True)
class RoundSearch:
    """The best round on held-out rows, and its reduction of the log loss per row."""

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
) -> tuple[Trees | None, RoundSearch | None]:
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
    booster = xgboost.train(parameters, matrix, n_rounds, verbose_eval=False)
    return Trees.of(booster, base_margin.shape[1]), search


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
    """Return a matrix of rows to train on, of which xgboost keeps only the bins."""
    options = {name: parameters[name] for name in ("max_bin", "nthread")}
    n_binned = max(_MIN_BINNED_ROWS, _MAX_BINNED_VALUES // rows.source.shape[1])
    if len(rows) <= n_binned:
        return xgboost.QuantileDMatrix(_RowChunks(rows, base_margin), **options)
    first = np.arange(n_binned)  # rows are in a random order, so these are a random sample
    bins = xgboost.QuantileDMatrix(_RowChunks(rows.take(first), base_margin[first]), **options)
    return xgboost.QuantileDMatrix(_RowChunks(rows, base_margin), ref=bins, **options)


class _RowChunks(xgboost.DataIter):
    """Rows in chunks: no copy of all of them is made."""

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
    """Boost on the training rows of all splits in step, until `patience` rounds did not lower the
    pooled log loss of the test rows.
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
        self.booster.update(self.train, self.n_rounds)
        self.n_rounds += 1
        margins = self.booster.predict(self.test, output_margin=True).astype(np.float64)
        return log_losses(margins.reshape(len(self.codes), -1), self.codes)


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


# --- the trees as arrays --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Trees(StoredPart):
    """Trees as arrays, which are descended here, in single precision as xgboost does.

    So xgboost reads no file: a node outside of its tree would end the process.

    `roots`, (n_rounds, n_margins), are the places of the first nodes in the other arrays, which
    have one value per node of all trees. Rows with a smaller value than `condition` in `column` go
    on to the node at `left`, others to that at `right`. A leaf leads to itself, and adds its
    `condition` to the margin.
    """

    roots: Annotated[NDArray[np.int32], Array("int32", 2, at_least=0)]
    left: Annotated[NDArray[np.int32], Array("int32", 1)]
    right: Annotated[NDArray[np.int32], Array("int32", 1)]
    column: Annotated[NDArray[np.int32], Array("int32", 1, at_least=0)]
    condition: Annotated[NDArray[np.float32], Array("float32", 1, -_LARGEST, _LARGEST)]

    @classmethod
    def of(cls, booster: xgboost.Booster, n_margins: int) -> Trees:
        learner = json.loads(booster.save_raw("json"))["learner"]
        trees = learner["gradient_booster"]["model"]["trees"]
        sizes = [len(tree["left_children"]) for tree in trees]
        roots = np.cumsum(sizes) - sizes
        first, own = np.repeat(roots, sizes), np.arange(sum(sizes))

        def of_nodes(name: str, dtype: str = "int32") -> NDArray[Any]:
            return np.array([value for tree in trees for value in tree[name]], dtype)

        left, right = (
            np.where(children < 0, own, first + children).astype(np.int32)
            for children in (of_nodes("left_children"), of_nodes("right_children"))
        )
        return cls(
            roots.reshape(-1, n_margins).astype(np.int32),
            left,
            right,
            of_nodes("split_indices"),
            of_nodes("split_conditions", "float32"),
        )

    def check(self, n_margins: int, n_features: int) -> None:
        """Raise a ValueError unless rows of so many features can descend them, to margins."""
        n_nodes, own = len(self.left), np.arange(len(self.left))
        if {len(each) for each in (self.right, self.column, self.condition)} != {n_nodes}:
            raise ValueError("the arrays of the trees' nodes differ in length")
        if not self.roots.size or self.roots.shape[1] != n_margins:
            raise ValueError(f"trees of shape {self.roots.shape}; expected {n_margins} per round")
        if (self.column >= n_features).any():
            raise ValueError(f"splits on columns that are not among the {n_features}")
        is_leaf = (self.left == own) & (self.right == own)
        go_on = (self.left > own) & (self.right > own)
        last = max(each.max() for each in (self.roots, self.left, self.right))
        if last >= n_nodes or not (is_leaf | go_on).all():
            raise ValueError("nodes of the trees that do not lead to later ones")
        level = self.roots.ravel()
        for _ in range(MAX_TREE_DEPTH + 1):
            level = np.unique(level[~is_leaf[level]])
            if not len(level):
                return
            level = np.concatenate([self.left[level], self.right[level]])
        raise ValueError(f"trees of more than {MAX_TREE_DEPTH} levels of splits")

    def margins(self, X: NDArray[np.floating]) -> FloatArray:
        """Return what the trees add to the margins of rows (n, p): (n, n_margins)."""
        found = np.empty((len(X), self.roots.shape[1]))
        n_rows = max(1, _MAX_DESCENTS // self.roots.size)
        for start in range(0, len(X), n_rows):
            rows = np.arange(start, min(start + n_rows, len(X)))[:, None, None]
            node = np.broadcast_to(self.roots, (len(rows), *self.roots.shape))
            while (self.left[node] != node).any():
                is_less = X[rows, self.column[node]].astype(np.float32) < self.condition[node]
                node = np.where(is_less, self.left[node], self.right[node])
            found[rows.ravel()] = self.condition[node].sum(axis=1, dtype=np.float64)
        return found
