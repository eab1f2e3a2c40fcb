"""The trees: how many are kept, against slow oracles; those of files, refused or usable."""

import numpy as np
import pytest
import xgboost
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
def test_the_margins_are_those_of_the_linear_part_and_the_trees(n_classes, init, monkeypatch):
    boosters, train = [], xgboost.train
    monkeypatch.setattr(
        xgboost, "train", lambda *a, **k: boosters.append(train(*a, **k)) or boosters[0]
    )
    X, y = products(n_classes)
    model = BoostedSoftmaxClassifier(init=init, n_estimators=40, random_state=0).fit(X, y)
    assert model.n_estimators_ > 3
    start, inputs = np.tile(model.linear_intercept_, (300, 1)), X
    if init:
        start, inputs = start + X @ model.linear_coef_, np.hstack([X @ model.linear_coef_, X])
    matrix = xgboost.DMatrix(
        inputs.astype(np.float32), base_margin=start[:, 0] if n_classes == 2 else start
    )
    oracle, got = boosters[0].predict(matrix, output_margin=True), model.decision_function(X)
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


def make_trees(**changes):
    """Return two trees for two classes: one of five nodes and one of three."""
    return {
        "roots": np.array([[0], [5]], dtype="i4"),
        "left": np.array([1, 3, 2, 3, 4, 6, 6, 7], dtype="i4"),
        "right": np.array([2, 4, 2, 3, 4, 7, 6, 7], dtype="i4"),
        "column": np.array([1, 0, 0, 0, 0, 2, 0, 0], dtype="i4"),
        "condition": np.array([0.5, -1.0, 3.0, 4.0, 5.0, 0.1, -7.0, 8.0], dtype="f4"),
        **changes,
    }


def with_node(name, node, value):
    changed = make_trees()
    changed[name][node] = value
    return changed


def chain(n_splits):
    """Return one tree whose splits follow one another on the left."""
    nodes = np.arange(2 * n_splits + 1, dtype="i4")
    left, right = nodes.copy(), nodes.copy()
    splits = 2 * np.arange(n_splits)
    splits[1:] -= 1  # the root, then each left child
    left[splits], right[splits] = 2 * np.arange(n_splits) + 1, 2 * np.arange(n_splits) + 2
    trees = {"roots": nodes[:1, None], "left": left, "right": right, "column": 0 * nodes}
    return trees | {"condition": np.zeros(len(nodes), "f4")}


@pytest.fixture(scope="module")
def states():
    X = np.random.default_rng(0).normal(size=(24, 3))
    model = BoostedSoftmaxClassifier(init=None, n_iter_no_change=None, n_estimators=1)
    return {n: model.fit(X, np.arange(24) % n).to_state() for n in (2, 4)}


def model_with(states, trees, of_classes=2):
    """Return a model of three columns that a file with these trees would hold."""
    header, arrays = states[of_classes]
    shapes = {name: {"shape": list(array.shape)} for name, array in trees.items()}
    own = {"trees_": {"class": "Trees", "state": shapes}, "n_estimators_": len(trees["roots"])}
    values = {"linear_intercept_": arrays["linear_intercept_"]}
    values |= {f"trees_.{name}": array.copy() for name, array in trees.items()}
    header = header | {"fitted": header["fitted"] | own}
    return BoostedSoftmaxClassifier.from_state(header, values)


def predict_slowly(trees, X):
    """Descend each tree row by row; for two classes."""
    margins = np.zeros((len(X), 1))
    for row, values in enumerate(X):
        for node in trees["roots"][:, 0]:
            while trees["left"][node] != node:
                is_less = values[trees["column"][node]] < trees["condition"][node]
                node = trees["left" if is_less else "right"][node]
            margins[row] += trees["condition"][node]
    return margins


def test_trees_of_a_file_are_descended_and_saved_again(states):
    X = np.random.default_rng(0).normal(size=(300, 3)).astype("f4")
    model = model_with(states, make_trees())
    np.testing.assert_array_equal(model.tree_margins(X), predict_slowly(make_trees(), X))
    for name, value in make_trees().items():
        np.testing.assert_array_equal(model.to_state()[1][f"trees_.{name}"], value, err_msg=name)


@pytest.mark.parametrize(
    ("trees", "of_classes", "words"),
    [
        (with_node("left", 1, -1), 2, "not lead to later ones"),
        (with_node("right", 2, 4), 2, "not lead to later ones"),  # but no left child
        (with_node("left", 1, 1), 2, "not lead to later ones"),
        (with_node("right", 7, 8), 2, "not lead to later ones"),
        (with_node("right", 5, 99), 2, "not lead to later ones"),
        (with_node("roots", 1, 8), 2, "not lead to later ones"),
        (with_node("roots", 1, -1), 2, "roots: an array has values"),
        (with_node("column", 3, -1), 2, "column: an array has values"),
        (with_node("column", 0, 3), 2, "not among the 3"),
        (with_node("condition", 2, np.inf), 2, "condition: an array has values"),
        (make_trees(roots=np.empty((0, 1), dtype="i4")), 2, "0 rounds|expected 1 per round"),
        (make_trees(), 4, "expected 4 per round"),
        (make_trees(right=np.arange(9, dtype="i4")), 2, "differ in length"),
        (make_trees(left=make_trees()["left"].astype("i8")), 2, "left: an array has type int64"),
        (make_trees(left=make_trees()["left"][None]), 2, r"left: .* shape \(1, 8\)"),
        (chain(MAX_DEPTH + 1), 2, "more than 64 levels"),
    ],
)
def test_trees_that_could_harm_are_refused(states, trees, of_classes, words):
    with pytest.raises(ModelFileError, match=words):
        model_with(states, trees, of_classes)
