"""The trees: xgboost boosting from given margins, the rounds to keep, and trees in model files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from hypervlad.classify.boosting.linear import Folds, TrainingRows
from hypervlad.classify.boosting.logistic import FloatArray, IntArray, log_losses, n_margins
from hypervlad.common.base import Array, Arrays, StoredPart, Value, stored_fields
from hypervlad.common.constraints import Integer
from hypervlad.common.limits import (
    MAX_TREE_COLUMNS,
    MAX_TREE_DEPTH,
    MAX_TREE_MARGIN,
    MAX_TREE_NODES,
    MAX_TREES,
)
from hypervlad.common.modelfile import ModelFileError

_NO_PARENT = 2**31 - 1
# Our names of the arrays of nodes, and xgboost's.
_NODES = {
    "left": "left_children",
    "right": "right_children",
    "column": "split_indices",
    "condition": "split_conditions",
    "default_left": "default_left",
    "weight": "base_weights",
    "gain": "loss_changes",
    "hessian": "sum_hessian",
}
_LARGEST = float(np.finfo(np.float32).max)
_FINITE = Array("float32", 1, -_LARGEST, _LARGEST)

# The best of many rounds looks better on held-out rows than it is. On real images, a threshold of
# one standard error kept trees that lowered the accuracy; two did not.
_GAIN_IN_STANDARD_ERRORS = 2.0
_MAX_BIN = 64  # thresholds per feature: on wide data the time grows with them
_CHUNK = 256  # rows given to xgboost at a time: 0.15 GB of 147,200 columns
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


# --- in model files -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TreeArrays(StoredPart):
    """Trees as plain arrays: checked completely, and turned into a booster of xgboost and back.

    xgboost's parser trusts what it reads: a child outside its tree ends the process. So a model
    file holds arrays, and the parser only reads what `to_booster` writes.

    The trees of a round follow one another, one for each class, or one for two classes. `n_nodes`,
    (n_trees,), are the sizes of the trees; the other arrays have one value per node, tree by tree.
    `left` and `right` are children, counted in their tree, -1 for a leaf. Rows with a smaller value
    than `condition` in `column` go left; a leaf adds `condition` to the margin. `weight` is the
    node's optimal value, `gain` the loss that its split saves, and `hessian` its sum of hessians.
    """

    n_classes: Annotated[int, Value(int, Integer(2))]
    n_features: Annotated[int, Value(int, Integer(1, MAX_TREE_COLUMNS))]
    n_nodes: Annotated[NDArray[np.int32], Array("int32", 1, at_least=1)]
    left: Annotated[NDArray[np.int32], Array("int32", 1)]
    right: Annotated[NDArray[np.int32], Array("int32", 1)]
    column: Annotated[NDArray[np.int32], Array("int32", 1, at_least=0)]
    condition: Annotated[NDArray[np.float32], _FINITE]
    default_left: Annotated[NDArray[np.uint8], Array("uint8", 1, at_most=1)]
    weight: Annotated[NDArray[np.float32], _FINITE]
    gain: Annotated[NDArray[np.float32], _FINITE]
    hessian: Annotated[NDArray[np.float32], _FINITE]

    @classmethod
    def from_booster(cls, booster: xgboost.Booster) -> TreeArrays:
        """Return the trees of a booster; a ModelFileError if the arrays cannot represent it."""
        import pyarrow as pa  # only to save trees

        try:
            # As text: Python's numbers would round the decimal digits twice.
            learner = json.loads(booster.save_raw("json"), parse_float=str)["learner"]
            parameters = learner["learner_model_param"]
            trees = learner["gradient_booster"]["model"]["trees"]
            fields: Any = stored_fields(cls)
            nodes = {
                name: pa.array([value for tree in trees for value in tree[theirs]])
                .cast(pa.from_numpy_dtype(np.dtype(fields[name].dtype)))
                .to_numpy()
                for name, theirs in _NODES.items()
            }
            arrays = cls(
                int(parameters["num_class"]) or 2,
                int(parameters["num_feature"]),
                np.array([len(tree["left_children"]) for tree in trees], dtype=np.int32),
                **nodes,
            )
            arrays.check()
            is_same = arrays.to_booster().save_raw("ubj") == booster.save_raw("ubj")
        except (LookupError, TypeError, ValueError) as error:
            raise ModelFileError(f"these trees cannot be saved: {error!r}") from error
        if not is_same:
            raise ModelFileError(
                "these trees cannot be saved: they differ from those that fit learns, by "
                "categorical splits, names or attributes, for example"
            )
        return arrays

    def check(self) -> None:
        """Raise a ValueError unless xgboost can use the trees safely."""
        n_trees, n_outputs = len(self.n_nodes), n_margins(self.n_classes)
        if not 1 <= n_trees <= MAX_TREES or n_trees % n_outputs:
            raise ValueError(
                f"{n_trees} trees; expected {n_outputs} in each round and at most {MAX_TREES}"
            )
        n_nodes = int(self.n_nodes.sum(dtype=np.int64))
        if n_nodes > MAX_TREE_NODES:
            raise ValueError(f"{n_nodes} nodes; expected at most {MAX_TREE_NODES} in all trees")
        if {len(getattr(self, name)) for name in _NODES} != {n_nodes}:
            raise ValueError("the arrays of the trees' nodes differ in length")
        if (self.column >= self.n_features).any():
            raise ValueError(f"splits on columns that are not among the {self.n_features}")
        self._check_structure()
        leaves = np.where(self.left < 0, np.abs(self.condition), 0)
        largest = np.maximum.reduceat(leaves, self._roots())
        if largest.sum(dtype=np.float64) > MAX_TREE_MARGIN:
            raise ValueError(f"leaves of the trees whose sum exceeds {MAX_TREE_MARGIN:g}")

    def _roots(self) -> NDArray[np.int64]:
        return np.cumsum(self.n_nodes, dtype=np.int64) - self.n_nodes

    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each node where its tree begins, and its number in that tree."""
        first = np.repeat(self._roots(), self.n_nodes)
        return first, np.arange(len(first)) - first

    def _check_structure(self) -> None:
        """Check that the nodes of each tree are one tree, without cycles, and not too deep."""
        first, own = self._places()
        size = np.repeat(self.n_nodes, self.n_nodes)
        splits = self.left != -1
        for children in (self.left, self.right):
            wrong = np.where(splits, (children <= own) | (children >= size), children != -1)
            if wrong.any():
                raise ValueError("nodes whose children are not later nodes of the same tree")
        children = np.concatenate([(first + self.left)[splits], (first + self.right)[splits]])
        n_parents = np.bincount(children, minlength=len(first))
        if (n_parents != (own > 0)).any():
            raise ValueError("nodes of the trees that are reached twice or not at all")
        level = self._roots()
        for _ in range(MAX_TREE_DEPTH + 1):
            level = level[splits[level]]
            if not len(level):
                return
            level = np.concatenate([first[level] + own[level] for own in (self.left, self.right)])
        raise ValueError(f"trees of more than {MAX_TREE_DEPTH} levels of splits")

    def to_booster(self) -> xgboost.Booster:
        """Return a booster with these trees, which `check` must have accepted."""
        empty = xgboost.Booster(link(self.n_classes) | {"num_feature": self.n_features})
        document = json.loads(empty.save_raw("json"))
        model = document["learner"]["gradient_booster"]["model"]
        n_trees, n_outputs = len(self.n_nodes), n_margins(self.n_classes)
        model["gbtree_model_param"]["num_trees"] = str(n_trees)
        model["iteration_indptr"] = list(range(0, n_trees + 1, n_outputs))
        model["tree_info"] = [number % n_outputs for number in range(n_trees)]
        model["trees"] = self._trees_of_xgboost()
        data = json.dumps(document).encode()
        return xgboost.Booster({"verbosity": 0}, model_file=bytearray(data))

    def _trees_of_xgboost(self) -> list[dict[str, Any]]:
        nodes = {theirs: getattr(self, name).tolist() for name, theirs in _NODES.items()}
        first, own = self._places()
        splits = np.flatnonzero(self.left != -1)
        parents = np.full(len(first), _NO_PARENT, dtype=np.int32)
        for children in (self.left, self.right):
            parents[first[splits] + children[splits]] = own[splits]
        nodes |= {"parents": parents.tolist(), "split_type": [0] * len(self.left)}
        categories = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
        parameters = {"num_deleted": "0", "num_feature": str(self.n_features)}
        trees, start = [], 0
        for number, n in enumerate(self.n_nodes.tolist()):
            tree = {name: values[start : start + n] for name, values in nodes.items()}
            tree |= dict.fromkeys(categories, ())
            tree["tree_param"] = {**parameters, "num_nodes": str(n), "size_leaf_vector": "1"}
            trees.append(tree | {"id": number})
            start += n
        return trees


class BoosterField:
    """How a model file stores trees: see `hypervlad.common.base.Field`."""

    def pack(self, value: xgboost.Booster) -> tuple[Any, Arrays]:
        return TreeArrays.from_booster(value).to_state()

    def unpack(self, packed: Any, arrays: Arrays) -> xgboost.Booster:
        trees = TreeArrays.from_state(packed, arrays)
        trees.check()
        return trees.to_booster()


def n_classes_of(booster: xgboost.Booster) -> int:
    parameters = json.loads(booster.save_config())["learner"]["learner_model_param"]
    return int(parameters["num_class"]) or 2
