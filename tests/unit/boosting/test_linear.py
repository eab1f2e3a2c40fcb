"""The linear part of the boosted softmax against loops and scikit-learn's regression.

With as many groups as folds, each group is a fold, whatever the order of the rows.
"""

import numpy as np
import pytest
import xgboost
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from hypervlad import BoostedSoftmaxClassifier

N_FOLDS = 5
SMALL = pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")


def grouped(n=90, n_features=5, n_classes=3, n_groups=N_FOLDS, seed=0):
    """Rows of one group share a shift, so that a model that saw the group knows it."""
    rng = np.random.default_rng(seed)
    y, groups = np.arange(n) % n_classes, np.arange(n) // n_classes % n_groups
    shift = rng.normal(size=(n_groups, n_features))
    X = shift[groups] + 0.6 * rng.normal(size=(n, n_features)) + 0.5 * y[:, None]
    return X, y, groups


def linear(**options):
    return BoostedSoftmaxClassifier(n_estimators=0, random_state=0, **options)


# --- slow oracles ---------------------------------------------------------------------------------


def scaled(X):
    """Centre the rows, and divide them by one number, so that their mean squared length is 1."""
    centred = X - X.mean(axis=0)
    return centred / np.sqrt((centred**2).sum() / len(X))


def regression(Z, y, C, weight=None):
    return LogisticRegression(C=C, tol=1e-8, max_iter=10_000).fit(Z, y, sample_weight=weight)


def cross_fitted(Z, y, groups, C):
    margins = np.zeros((len(y), 1 if y.max() == 1 else y.max() + 1))
    for group in set(groups.tolist()):
        test = groups == group
        found = regression(Z[~test], y[~test], C).decision_function(Z[test])
        margins[test] = found.reshape(test.sum(), -1)
    return margins


def losses(margins, y):
    if margins.shape[1] == 1:
        margins = np.hstack([np.zeros_like(margins), margins])
    return -log_softmax(margins, axis=1)[np.arange(len(y)), y]


def tempered(margins, y):
    """Return the lowest loss and its temperature; to claim more has a prior of width 0.3."""
    tried = np.exp(np.linspace(np.log(0.05), np.log(50), 800))
    sums = [losses(margins / t, y).sum() + 0.5 * (min(np.log(t), 0) / 0.3) ** 2 for t in tried]
    return float(min(sums)), float(tried[np.argmin(sums)])


# --- one block ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize(("C", "tolerance"), [(0.1, 2e-3), (3.0, 1e-2)])
def test_the_margins_are_those_of_a_plain_regression(n_classes, C, tolerance):
    """Also of wide rows, of any scale and with weights."""
    for n_features in (5, 140):
        X, y, groups = grouped(120, n_features, n_classes)
        X, weight = 1e3 * X + 7, np.random.default_rng(0).uniform(0.5, 2, 120)
        model = linear(Cs=C).fit(X, y, weight, groups=groups)
        expected = regression(scaled(X), y, C, weight / weight.mean())
        (factor,) = model.block_weights_  # 1 / temperature
        got = model.decision_function(X) / factor
        of_classes = got if n_classes == 2 else got - got.mean(axis=1, keepdims=True)
        oracle = expected.decision_function(scaled(X))
        np.testing.assert_allclose(of_classes, oracle, atol=tolerance)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("spread", [0.1, 0.5, 3.0])
def test_penalty_and_temperature_are_those_of_the_lowest_held_out_loss(n_classes, spread):
    """Of separable classes, where claiming more is restrained, and of buried ones."""
    X, y, groups = grouped(90, 5, n_classes, seed=3)
    X = spread * X + 2 * np.eye(5)[y]
    grid = (0.1, 1.0, 10.0)
    model = linear(Cs=grid).fit(X, y, groups=groups)
    found = {C: tempered(cross_fitted(scaled(X), y, groups, C), y) for C in grid}
    best = min(found, key=lambda C: found[C][0])
    assert (best,) == model.C_
    assert model.block_weights_[0] == pytest.approx(1 / found[best][1], rel=0.03)


def test_trees_start_from_cross_fitted_margins(monkeypatch):
    X, y, groups = grouped(90, 5)
    starts, original = [], xgboost.train

    def train(parameters, matrix, *args, **options):
        starts.append(matrix.get_base_margin().reshape(90, -1))
        return original(parameters, matrix, *args, **options)

    monkeypatch.setattr(xgboost, "train", train)
    options = {"n_estimators": 1, "n_iter_no_change": None}
    model = BoostedSoftmaxClassifier(Cs=1.0, **options).fit(X, y, groups=groups)
    expected = cross_fitted(scaled(X), y, groups, 1.0) * model.block_weights_[0]
    (start,) = starts
    start, expected = (each - each.mean(axis=1, keepdims=True) for each in (start, expected))
    order = [np.lexsort(each.round(2).T) for each in (start, expected)]
    np.testing.assert_allclose(start[order[0]], expected[order[1]], atol=0.02)
    own = X @ model.linear_coef_
    assert np.abs(np.sort(start[:, 0]) - np.sort((own.T - own.mean(axis=1))[0])).max() > 0.1


@SMALL
def test_without_anything_to_hold_out_the_middle_penalty_is_taken():
    model = linear(Cs=[1000.0, 0.1, 1.0]).fit(np.eye(4), [0, 0, 1, 1], groups=[0, 0, 1, 1])
    assert (model.C_, model.block_weights_) == ((1.0,), (1.0,))
    model.fit(np.eye(4), [0, 0, 1, 1], groups=[0, 0, 1, 1], blocks=[2, 2])
    assert model.block_weights_ == (0.5, 0.5)


# --- invariances ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "dtype"), [(1e-170, "f8"), (1e-30, "f8"), (1e30, "f8"), (1e-30, "f4"), (3e37, "f4")]
)
def test_the_unit_of_the_features_does_not_matter(factor, dtype):
    X, y, groups = grouped()
    expected = linear().fit(X, y, groups=groups).predict_proba(X)
    other = (factor * X).astype(dtype)
    found = linear().fit(other, y, groups=groups).predict_proba(other)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.full  # more than 2,048 rows and columns: 20 seconds
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_of_many_wide_rows_the_principal_directions_are_used(noise):
    X, y, groups = grouped(2100, 20, 3)
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(2100, 20)))[0]
    wide = (X @ axes.T + noise * rng.normal(size=(2100, 2100)) / 45 + 3).astype(np.float32)
    expected = linear(Cs=1.0).fit(X, y, groups=groups).predict_proba(X)
    model = linear(Cs=1.0).fit(wide, y, groups=groups)
    np.testing.assert_allclose(model.predict_proba(wide), expected, atol=5e-3 + noise)
    assert np.linalg.matrix_rank(model.linear_coef_) == 3


@pytest.mark.parametrize("n_columns", [3, 400])
def test_the_last_digits_do_not_change_the_folds(n_columns):
    """The last digits depend on the batches of the network."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, n_columns)), np.arange(60) % 2
    X[40:50] = X[:10]
    digits = 1e-7 * rng.normal(size=X.shape)
    digits[40:50] = digits[:10]
    one, other = (linear(Cs=1.0).fit(each, y) for each in (X, X + digits))
    np.testing.assert_allclose(one.block_weights_, other.block_weights_, rtol=1e-3)
    single = linear(Cs=1.0).fit(X.astype(np.float32), y)
    double = linear(Cs=1.0).fit(X.astype(np.float32).astype(float), y)
    assert single.block_weights_ == double.block_weights_


# --- several blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [[2, 3], [5, 300], [40, 40, 1000]])
def test_the_margins_of_blocks_are_averaged_and_tempered(widths):
    X, y, groups = grouped(90, sum(widths))
    joined = linear(Cs=1.0).fit(X, y, groups=groups, blocks=widths)
    assert joined.block_widths_ == tuple(widths)
    ends = np.cumsum(widths)
    columns = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
    alone = [linear(Cs=1.0).fit(X[:, own], y, groups=groups) for own in columns]
    # Five groups of each class; a block of 400 columns for each counts half as much.
    counts = np.array([1 / (1 + width / (400 * N_FOLDS)) for width in widths])
    shares = counts / counts.sum()
    mean = sum(
        share * cross_fitted(scaled(X[:, own]), y, groups, 1.0) * each.block_weights_[0]
        for share, own, each in zip(shares, columns, alone, strict=True)
    )
    _, temperature = tempered(mean, y)
    for share, own, each, weight in zip(shares, columns, alone, joined.block_weights_, strict=True):
        assert weight == pytest.approx(share / temperature * each.block_weights_[0], rel=0.02)
        np.testing.assert_allclose(
            joined.linear_coef_[own], share / temperature * each.linear_coef_, rtol=0.02
        )
    parts = sum(
        share / temperature * each.decision_function(X[:, own])
        for share, own, each in zip(shares, columns, alone, strict=True)
    )
    np.testing.assert_allclose(joined.decision_function(X), parts, rtol=0.02, atol=0.02)


# --- ties and extremes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models():
    """Models whose margins are their columns, by the number of these."""
    found = {}
    for n_columns in (1, 3):
        X, y, _ = grouped(30, n_columns, n_columns if n_columns > 1 else 2)
        found[n_columns] = linear(Cs=1.0).fit(X, y)
        found[n_columns].linear_coef_ = np.eye(n_columns)
        found[n_columns].linear_intercept_ = np.zeros(n_columns)
    return found


@given(noise=arrays(np.float64, (4, 3), elements=st.floats(-4e-7, 4e-7)), level=st.floats(-30, 30))
@example(noise=np.array([[0.0, 1e-17, 0.0]]), level=0.0)
def test_the_first_class_wins_a_tie_whatever_the_last_digits_are(models, noise, level):
    assert not models[3].predict(level + noise).any()
    assert not models[1].predict(noise[:, :1]).any()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_separable_classes_and_huge_features_stay_finite(n_classes):
    y = np.arange(60) % n_classes
    X = 1e6 * np.eye(n_classes)[y] + np.random.default_rng(0).normal(size=(60, n_classes))
    model = linear(Cs=1e6).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert model.score(X, y) == 1


def test_margins_and_features_beyond_single_precision():
    X, y, _ = grouped()
    options = {"n_iter_no_change": None, "n_estimators": 2}
    model = BoostedSoftmaxClassifier(**options).fit(X, y)
    model.linear_coef_ *= 1e6
    largest = np.full((1, 5), np.finfo(np.float32).max)
    assert np.abs(largest @ model.linear_coef_).max() > largest[0, 0]
    assert np.isfinite(model.predict_proba(largest)).all()
    beyond = np.where(np.arange(90)[:, None] == 3, -1e39, X)
    for call in (lambda: model.fit(beyond, y), lambda: model.predict(beyond)):
        with pytest.raises(ValueError, match="beyond the range of float32"):
            call()
