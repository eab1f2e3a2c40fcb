"""The trees: how many are kept, against slow oracles; those of files, refused or usable."""

import numpy as np
import pytest
import xgboost
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import log_softmax

from hypervlad import BoostedSoftmaxClassifier, ModelFileError

MAX_DEPTH = 64


def products(n_classes, n=300, seed=0):
    """Classes by the product of two of four columns: no line separates them."""
    X = np.random.default_rng(seed).normal(size=(n, 4))
    return X, np.digitize(X[:, 0] * X[:, 1], [0.0] if n_classes == 2 else [-0.3, 0.3])


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("init", ["linear", None])
def test_the_margins_are_those_of_the_linear_part_and_the_trees(n_classes, init):
    X, y = products(n_classes)
    model = BoostedSoftmaxClassifier(init=init, n_estimators=40, random_state=0).fit(X, y)
    assert model.n_estimators_ > 3
    start, inputs = np.tile(model.linear_intercept_, (300, 1)), X
    if init:
        start = start + X @ model.linear_coef_
        inputs = np.hstack([X @ model.linear_coef_, X])
    matrix = xgboost.DMatrix(
        inputs.astype(np.float32), base_margin=start[:, 0] if n_classes == 2 else start
    )
    oracle = model.booster_.predict(matrix, output_margin=True)
    got = model.decision_function(X)
    np.testing.assert_allclose(got, oracle, atol=1e-5)
    np.testing.assert_array_equal(got.reshape(300, -1), start + model.tree_margins(X))
    both = got if n_classes > 2 else np.column_stack([np.zeros(300), got])
    np.testing.assert_allclose(model.predict_proba(X), np.exp(log_softmax(both, 1)), rtol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("max_rounds", "patience"), [(60, 4), (3, 4)])
def test_rounds_are_searched_as_a_model_of_each_number_would(n_classes, max_rounds, patience):
    """Two of three groups, of a tenth of the rows each, are held out; by new models each time."""
    X, y = products(n_classes, 200)
    y = np.where(np.random.default_rng(1).random(200) < 0.15, 0, y)
    weight = np.random.default_rng(2).uniform(0.5, 2, 200)
    weight /= weight.mean()
    model = BoostedSoftmaxClassifier(
        init=None,
        learning_rate=0.3,
        max_depth=2,
        n_estimators=max_rounds,
        n_iter_no_change=patience,
        random_state=0,
    ).fit(X, y, weight, groups=np.repeat([0, 1, 2], [160, 20, 20]))
    start = np.log(np.bincount(y, weight) / 200)
    start = start[1:] - start[0] if n_classes == 2 else start
    np.testing.assert_allclose(model.linear_intercept_, start)

    def matrix(rows):
        margins = np.tile(start, (200, 1))[rows]
        margins = margins[:, 0] if n_classes == 2 else margins
        return xgboost.DMatrix(X[rows], y[rows], weight=weight[rows], base_margin=margins)

    def losses(margins):
        if n_classes == 2:
            margins = np.column_stack([np.zeros(40), margins])
        return -log_softmax(margins, axis=1)[np.arange(40), y[160:]]

    objective = {"objective": "multi:softprob", "num_class": n_classes}
    options = {"objective": "binary:logistic"} if n_classes == 2 else objective
    options |= {"tree_method": "hist", "max_bin": 64, "learning_rate": 0.3, "max_depth": 2}
    gains, errors, w = [], [], weight[160:]
    for n_rounds in range(1, max_rounds + 1):
        booster = xgboost.train(options, matrix(slice(160)), n_rounds)
        margins = booster.predict(matrix(slice(160, 200)), output_margin=True)
        saved = losses(np.tile(start, (40, 1)).squeeze()) - losses(margins)
        gains.append(np.average(saved, weights=w))
        sums = [(w * (saved - gains[-1]))[half].sum() for half in (slice(20), slice(20, 40))]
        errors.append(np.sqrt(2 * np.square(sums).sum()) / w.sum())
    best = 0
    while any(gain > gains[best] for gain in gains[best + 1 : best + 1 + patience]):
        best += next(i for i in range(1, patience + 1) if gains[best + i] > gains[best])
    assert 0 < best < 50
    assert model.n_estimators_ == best + 1
    assert model.tree_gain_ == pytest.approx(gains[best], rel=1e-3)
    assert model.tree_gain_error_ == pytest.approx(errors[best], rel=1e-3)


# --- of files -------------------------------------------------------------------------------------

NODES = ("left", "right", "column", "condition", "default_left", "weight", "gain", "hessian")
NUMBERS = ("condition", "weight", "gain", "hessian")


def make_trees(**changes):
    """Return two trees for two classes: one of five nodes and one of three."""
    return {
        "n_nodes": np.array([5, 3], dtype="i4"),
        "left": np.array([1, 3, -1, -1, -1, 1, -1, -1], dtype="i4"),
        "right": np.array([2, 4, -1, -1, -1, 2, -1, -1], dtype="i4"),
        "column": np.array([1, 0, 0, 0, 0, 2, 0, 0], dtype="i4"),
        "condition": np.array([0.5, -1.0, 3.0, 4.0, 5.0, 0.1, -7.0, 8.0], dtype="f4"),
        "default_left": np.array([1, 0, 0, 0, 0, 1, 0, 0], dtype="u1"),
        **{name: np.arange(8, dtype="f4") for name in ("weight", "gain", "hessian")},
        **changes,
    }


def with_node(name, node, value):
    changed = make_trees()
    changed[name][node] = value
    return changed


def chain(n_splits):
    """Return one tree whose splits follow one another on the left."""
    n = 2 * n_splits + 1
    left, right = np.full((2, n), -1, dtype="i4")
    nodes = 2 * np.arange(n_splits)
    nodes[1:] -= 1  # the root, then each left child
    left[nodes], right[nodes] = 2 * np.arange(n_splits) + 1, 2 * np.arange(n_splits) + 2
    others = {name: np.zeros(n, dtype=make_trees()[name].dtype) for name in NODES[2:]}
    return {"n_nodes": np.array([n], dtype="i4"), "left": left, "right": right, **others}


@pytest.fixture(scope="module")
def states():
    X = np.random.default_rng(0).normal(size=(24, 3))
    model = BoostedSoftmaxClassifier(init=None, n_iter_no_change=None, n_estimators=1)
    return {n: model.fit(X, np.arange(24) % n).to_state() for n in (2, 4)}


def model_with(states, trees, of_classes=2, **counts):
    """Return a model of three columns that a file with these trees would hold."""
    header, arrays = states[of_classes]
    n_rounds = len(trees["n_nodes"]) // (1 if of_classes == 2 else of_classes)
    booster = {"n_classes": of_classes, "n_features": 3} | counts
    booster |= {name: {"shape": list(array.shape)} for name, array in trees.items()}
    fitted = header["fitted"] | {"booster_": booster, "n_estimators_": n_rounds}
    own = {"linear_intercept_": arrays["linear_intercept_"]}
    own |= {f"booster_.{name}": array.copy() for name, array in trees.items()}
    return BoostedSoftmaxClassifier.from_state(header | {"fitted": fitted}, own)


def predict_slowly(trees, X):
    """Descend each tree row by row; for two classes."""
    starts = np.cumsum(trees["n_nodes"]) - trees["n_nodes"]
    margins = np.zeros((len(X), 1))
    for row, values in enumerate(X):
        for start in starts:
            node = start
            while trees["left"][node] >= 0:
                is_less = values[trees["column"][node]] < trees["condition"][node]
                node = start + trees["left" if is_less else "right"][node]
            margins[row] += trees["condition"][node]
    return margins


def assert_same_trees(model, expected):
    _, arrays = model.to_state()
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[f"booster_.{name}"], value, err_msg=name)


def test_trees_of_a_file_are_descended(states):
    X = np.random.default_rng(0).normal(size=(50, 3)).astype("f4")
    model = model_with(states, make_trees())
    np.testing.assert_array_equal(model.tree_margins(X), predict_slowly(make_trees(), X))


@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=8, max_size=8))
@example([1e-45, -1e-45, 0.1, -0.0, 2.0**-126, 16777217.0, 7.0385307e-26, 1 / 3])
def test_numbers_of_trees_come_back(states, values):
    numbers = np.array(values, dtype="f4")
    trees = make_trees(**dict.fromkeys(NUMBERS, numbers))
    assert_same_trees(model_with(states, trees), trees)


@pytest.mark.parametrize(
    ("trees", "counts", "words"),
    [
        (with_node("left", 0, 5), {}, "not later nodes of the same tree"),  # in the next tree
        (with_node("left", 1, -2), {}, "not later nodes of the same tree"),
        (with_node("right", 2, 4), {}, "not later nodes of the same tree"),  # but no left child
        (with_node("left", 1, 1), {}, "not later nodes of the same tree"),  # a cycle of one
        (with_node("right", 0, 0), {}, "not later nodes of the same tree"),
        (with_node("left", 1, 4), {}, "reached twice or not at all"),
        (with_node("column", 3, -1), {}, "column: an array has values"),
        (with_node("column", 0, 3), {}, "not among the 3"),
        (with_node("condition", 2, np.inf), {}, "condition: an array has values"),
        (with_node("condition", 2, 3e38), {}, "whose sum exceeds"),
        (with_node("gain", 1, np.nan), {}, "gain: an array has values"),
        (with_node("default_left", 1, 2), {}, "default_left: an array has values"),
        (make_trees(n_nodes=np.array([8, 0], dtype="i4")), {}, "n_nodes: an array has values"),
        (make_trees(n_nodes=np.full(2**20, 2**30, dtype="i4")), {}, "1048576 trees"),
        (make_trees(n_nodes=np.full(2, 2**30, dtype="i4")), {}, "2147483648 nodes; expected at"),
        (make_trees(n_nodes=np.empty(0, dtype="i4")), {}, "0 trees"),
        (make_trees(), {"n_classes": 3}, "2 trees; expected 3 in each round"),
        (make_trees(), {"n_classes": 1}, "n_classes: a value must be .* not 1"),
        (make_trees(), {"n_features": 2**40}, "n_features: a value must be .* not 1099511627776"),
        (make_trees(left=make_trees()["left"].astype("i8")), {}, "left: an array has type int64"),
        (make_trees(left=make_trees()["left"][None]), {}, r"left: .* shape \(1, 8\)"),
        (chain(MAX_DEPTH + 1), {}, "more than 64 levels"),
    ],
)
def test_trees_that_could_harm_are_refused(states, trees, counts, words):
    with pytest.raises(ModelFileError, match=words):
        model_with(states, trees, **counts)
