"""Trees in model files: whatever they hold, they are refused or xgboost can use them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xgboost
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypervlad import ModelFileError
from hypervlad.models.boosting.trees import MAX_DEPTH, BoosterField, TreeArrays, tree_margins

NODES = ("left", "right", "column", "condition", "default_left", "weight", "gain", "hessian")


def make_trees(**changes):
    """Two trees for two classes: one of five nodes and one of three."""
    trees = TreeArrays(
        n_classes=2,
        n_features=3,
        n_nodes=np.array([5, 3], dtype="i4"),
        left=np.array([1, 3, -1, -1, -1, 1, -1, -1], dtype="i4"),
        right=np.array([2, 4, -1, -1, -1, 2, -1, -1], dtype="i4"),
        column=np.array([1, 0, 0, 0, 0, 2, 0, 0], dtype="i4"),
        condition=np.array([0.5, -1.0, 3.0, 4.0, 5.0, 0.1, -7.0, 8.0], dtype="f4"),
        default_left=np.array([1, 0, 0, 0, 0, 1, 0, 0], dtype="u1"),
        weight=np.arange(8, dtype="f4"),
        gain=np.arange(8, dtype="f4"),
        hessian=np.arange(8, dtype="f4"),
    )
    return dataclasses.replace(trees, **changes)


def with_node(name, node, value):
    array = getattr(make_trees(), name).copy()
    array[node] = value
    return make_trees(**{name: array})


def chain(n_splits):
    """One tree whose splits follow one another on the left."""
    n = 2 * n_splits + 1
    left, right = np.full((2, n), -1, dtype="i4")
    nodes = 2 * np.arange(n_splits)
    nodes[1:] -= 1  # the root, then each left child
    left[nodes], right[nodes] = 2 * np.arange(n_splits) + 1, 2 * np.arange(n_splits) + 2
    others = {name: np.zeros(n, dtype=getattr(make_trees(), name).dtype) for name in NODES[2:]}
    return make_trees(n_nodes=np.array([n], dtype="i4"), left=left, right=right, **others)


def predict_slowly(trees, X):
    """Descend each tree row by row; for two classes."""
    starts = np.cumsum(trees.n_nodes) - trees.n_nodes
    margins = np.zeros((len(X), 1))
    for row, values in enumerate(X):
        for start in starts:
            node = start
            while trees.left[node] >= 0:
                is_less = values[trees.column[node]] < trees.condition[node]
                node = start + (trees.left if is_less else trees.right)[node]
            margins[row] += trees.condition[node]
    return margins


def assert_same_trees(found, expected):
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


def test_the_booster_descends_the_trees():
    trees, X = make_trees(), np.random.default_rng(0).normal(size=(50, 3)).astype("f4")
    trees.check()
    np.testing.assert_array_equal(tree_margins(trees.to_booster(), X, 1), predict_slowly(trees, X))


@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=8, max_size=8))
@example([1e-45, -1e-45, 0.1, -0.0, 2.0**-126, 16777217.0, 7.0385307e-26, 1 / 3])
def test_arrays_come_back_from_the_booster(values):
    numbers = np.array(values, dtype="f4")
    trees = make_trees(condition=numbers, weight=numbers, gain=numbers, hessian=numbers)
    assert_same_trees(TreeArrays.from_booster(trees.to_booster()), trees)


def test_each_class_has_a_tree_in_each_round():
    shared = {"n_classes": 4, "n_nodes": np.array([5, 3, 5, 3], dtype="i4")}
    doubled = {name: np.tile(getattr(make_trees(), name), 2) for name in NODES}
    trees = make_trees(**shared, **doubled)
    booster = trees.to_booster()
    assert booster.num_boosted_rounds() == 1
    assert_same_trees(TreeArrays.from_booster(booster), trees)


@pytest.mark.parametrize(
    ("trees", "message"),
    [
        (with_node("left", 0, 5), "not later nodes of the same tree"),  # in the next tree
        (with_node("left", 1, -2), "not later nodes of the same tree"),
        (with_node("right", 2, 4), "not later nodes of the same tree"),  # but no left child
        (with_node("left", 1, 1), "not later nodes of the same tree"),  # a cycle of one
        (with_node("left", 1, 4), "reached twice or not at all"),
        (with_node("column", 3, -1), "not among the 3"),
        (with_node("condition", 2, np.inf), "not finite, in 'condition'"),
        (with_node("condition", 2, 3e38), "whose sum exceeds"),
        (with_node("gain", 1, np.nan), "not finite, in 'gain'"),
        (with_node("default_left", 1, 2), "other than 0 and 1"),
        (make_trees(n_nodes=np.array([8, 0], dtype="i4")), "differ in length"),
        (make_trees(n_nodes=np.full(2**20, 2**30, dtype="i4")), "1048576 trees"),
        (make_trees(n_nodes=np.full(2, 2**30, dtype="i4")), "2147483648 nodes; expected at most"),
        (make_trees(n_nodes=np.empty(0, dtype="i4")), "0 trees"),
        (make_trees(n_classes=3), "2 trees; expected 3 in each round"),
        (make_trees(n_classes=1), "trees of 1 classes"),
        (make_trees(n_features=2**40), "trees of 2 classes and 1099511627776 features"),
        (make_trees(left=make_trees().left.astype("i8")), "'left' .* type int64"),
        (make_trees(left=make_trees().left[None]), r"'left' .* shape \(1, 8\)"),
        (chain(MAX_DEPTH + 1), "more than 64 levels"),
    ],
)
def test_trees_that_could_harm_are_refused(trees, message):
    with pytest.raises(ValueError, match=message):
        trees.check()


def test_the_deepest_tree_that_is_accepted_predicts():
    trees = chain(MAX_DEPTH)
    trees.check()
    assert (tree_margins(trees.to_booster(), np.zeros((2, 3)), 1) == 0).all()


@settings(max_examples=40)
@given(
    name=st.sampled_from(["left", "right", "column", "condition", "n_nodes", "default_left"]),
    position=st.integers(0, 7),
    value=st.integers(-3, 9),
)
def test_one_changed_number_is_refused_or_predicts(name, position, value):
    array = getattr(make_trees(), name).copy()
    array[position % len(array)] = max(value, 0) if name == "default_left" else value
    trees = make_trees(**{name: array})
    try:
        trees.check()
    except ValueError:
        return
    X = np.random.default_rng(0).normal(size=(3, 3)).astype("f4")
    np.testing.assert_array_equal(tree_margins(trees.to_booster(), X, 1), predict_slowly(trees, X))


def train(**options):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 5, 60), rng.normal(size=60)])
    kinds = ["c", "q"] if options.pop("categorical", False) else None
    labels = rng.integers(0, 2, (60, 3) if "multi_strategy" in options else 60)
    matrix = xgboost.DMatrix(X, labels, feature_types=kinds, enable_categorical=kinds is not None)
    objective = {"objective": "binary:logistic", "nthread": 1, "max_depth": 2}
    return xgboost.train(objective | options, matrix, num_boost_round=2)


@pytest.mark.parametrize(
    "options",
    [
        {"categorical": True, "max_cat_to_onehot": 1},
        {"booster": "gblinear"},
        {"booster": "dart", "rate_drop": 0.5},
        {"num_parallel_tree": 2},
        {"multi_strategy": "multi_output_tree", "tree_method": "hist"},
        {"objective": "reg:squarederror"},
    ],
    ids=["categorical", "linear", "dart", "forest", "vectors", "regression"],
)
def test_boosters_that_arrays_cannot_represent_are_refused(options):
    with pytest.raises(ModelFileError, match="these trees cannot be saved"):
        BoosterField().pack(train(**options))
