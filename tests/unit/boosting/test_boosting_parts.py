"""The parts of the boosted softmax against slow, readable oracles."""

from __future__ import annotations

import math
from dataclasses import replace

import joblib
import numpy as np
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression

from hypervlad.evaluation import group_folds
from hypervlad.models import BoostedSoftmaxClassifier
from hypervlad.models.boosting import linear, trees
from hypervlad.models.boosting.linear import (
    FeatureBlocks,
    block_columns,
    block_shares,
    distinct_rows,
    fit_blocks,
    fit_linear_margins,
    row_space,
)
from hypervlad.models.boosting.logistic import (
    fit_temperature,
    log_losses,
    margin_offset,
    n_margins,
    probabilities,
)
from hypervlad.models.boosting.trees import (
    clustered_mean,
    search_rounds,
    training_matrix,
    tree_margins,
    xgboost_parameters,
)


def naive_probabilities(margins):
    table = []
    for row in margins:
        scores = [0.0, float(row[0])] if len(row) == 1 else [float(m) for m in row]
        top = max(scores)
        exps = [math.exp(s - top) for s in scores]
        table.append([e / sum(exps) for e in exps])
    return np.array(table)


def grouped_data(n=90, n_features=5, n_classes=3, per_group=3, seed=0):
    """Rows of one group share a shift, so that a model that saw the group knows it."""
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // per_group
    y = groups % n_classes
    shift = rng.normal(size=(groups.max() + 1, n_features))
    X = shift[groups] + 0.3 * rng.normal(size=(n, n_features)) + 0.5 * y[:, None]
    return X, y, groups


def training_rows(X, y, groups=None, weight=None):
    weight = np.ones(len(y)) if weight is None else weight
    return distinct_rows(X, np.asarray(y, dtype=np.intp), weight, groups)


def assert_same_margins(space, X, atol):
    """Coefficients for the row space and for the columns of X give the same margins."""
    coef = np.random.default_rng(1).normal(size=(space.Z.shape[1], 2))
    intercept = np.array([1.0, 2.0])
    own_coef, own_intercept = space.in_columns(coef, intercept)
    margins = X.astype(np.float64) @ own_coef + own_intercept
    np.testing.assert_allclose(margins, space.Z @ coef + intercept, atol=atol)


class TestMargins:
    @pytest.mark.parametrize("n_columns", [1, 3, 5])
    def test_probabilities_and_losses_by_loops(self, n_columns):
        rng = np.random.default_rng(0)
        margins = 5 * rng.normal(size=(40, n_columns))
        expected = naive_probabilities(margins)
        np.testing.assert_allclose(probabilities(margins), expected, rtol=1e-12)
        codes = rng.integers(0, expected.shape[1], 40)
        losses = [-math.log(expected[i, codes[i]]) for i in range(40)]
        np.testing.assert_allclose(log_losses(margins, codes), losses, rtol=1e-9)

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_offsets_multiply_the_odds(self, n_classes):
        rng = np.random.default_rng(0)
        margins, ratio = rng.normal(size=(7, n_margins(n_classes))), rng.uniform(1, 9, n_classes)
        scaled = ratio * probabilities(margins)
        expected = scaled / scaled.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probabilities(margins + margin_offset(ratio)), expected)


class TestDistinctRows:
    def test_by_loops(self):
        rng = np.random.default_rng(0)
        X = rng.integers(0, 2, size=(60, 2)).astype(float)
        codes, groups = rng.integers(0, 2, 60), rng.integers(0, 3, 60)
        weight = rng.integers(0, 3, 60).astype(float)
        expected: dict[tuple, float] = {}
        for i in range(60):
            if weight[i]:
                key = (*X[i], codes[i], groups[i])
                expected[key] = expected.get(key, 0) + weight[i]
        rows = distinct_rows(X, codes, weight, groups)
        scale = np.mean(list(expected.values()))
        names = {}  # group codes are numbered by first appearance
        for g in groups:
            names.setdefault(int(g), len(names))
        got = {
            (*x, c, g): w
            for x, c, g, w in zip(rows.X, rows.codes, rows.groups, rows.weight, strict=True)
        }
        assert len(got) == len(rows) == len(expected)
        for (a, b, c, g), w in expected.items():
            assert got[(a, b, c, names[g])] == pytest.approx(w / scale)

    def test_equal_vectors_form_a_group_without_groups(self):
        X = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 0.0], [3.0, -0.0], [5.0, 5.0]])
        rows = training_rows(X, [0, 1, 0, 1, 1])
        assert len(rows) == 5
        for vector, n in (([1, 2], 1), ([3, 0], 1)):
            assert len(set(rows.groups[(vector == rows.X).all(axis=1)])) == n
        assert len(set(rows.groups)) == 3

    def test_float32_and_float64_of_equal_values_sort_alike(self):
        X = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
        y = np.arange(30) % 2
        single, double = training_rows(X, y), training_rows(X.astype(np.float64), y)
        np.testing.assert_array_equal(single.X, double.X)

    @pytest.mark.parametrize("n_columns", [3, 400])
    def test_the_last_digits_do_not_change_the_order(self, n_columns):
        """The folds depend on it, and the last digits on the batches of the network."""
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(60, n_columns)), np.arange(60) % 2
        X[40:50] = X[:10]
        digits = 1e-7 * rng.normal(size=X.shape)
        digits[40:50] = digits[:10]
        rows, others = training_rows(X, y), training_rows(X + digits, y)
        np.testing.assert_array_equal(others.at, rows.at)
        np.testing.assert_array_equal(others.groups, rows.groups)

    def test_the_order_is_random(self):
        """The first rows are a sample of all, and the folds are not slices of the data."""
        X = np.arange(400.0)[:, None]
        first = training_rows(X, np.arange(400) % 2).X[:100, 0]
        assert 150 < first.mean() < 250
        assert first.std() > 80


class TestLinear:
    @pytest.mark.parametrize("n_classes", [2, 4])
    @pytest.mark.parametrize("n_features", [5, 80])
    def test_refit_is_a_plain_logistic_regression(self, n_features, n_classes):
        """In the row space of wide data too, and after all scales are put back."""
        X, y, groups = grouped_data(60, n_features, n_classes)
        X = 1e3 * X + 7
        rows = training_rows(X, y, groups)
        folds = group_folds(rows.codes, rows.groups, random_state=0)
        fit = fit_linear_margins(rows, n_classes, folds, [3.0], ratio=np.ones(n_classes))
        centred = rows.X - rows.X.mean(axis=0)
        scale = np.sqrt((centred**2).sum() / len(rows))
        oracle = LogisticRegression(C=3.0, tol=1e-8, max_iter=10_000)
        oracle.fit(centred / scale, rows.codes)
        expected = oracle.decision_function(centred / scale).reshape(len(rows), -1)
        got = (rows.X @ fit.coef + fit.intercept) * fit.temperature
        np.testing.assert_allclose(got, expected, atol=3e-2)

    @pytest.mark.parametrize(("shape", "most"), [((20, 300), None), ((60, 80), 30), ((80, 60), 30)])
    def test_row_space_keeps_all_products(self, shape, most):
        X = np.random.default_rng(0).normal(size=shape)
        space = row_space(X, most)
        if most is None:
            assert space.Z.shape == (20, 19)  # centred rows: one dimension less
        centred = (X - X.mean(axis=0)) / space.scale
        np.testing.assert_allclose(space.Z @ space.Z.T, centred @ centred.T, atol=1e-9)
        assert_same_margins(space, X, atol=1e-8)
        assert (np.diag(centred @ centred.T)).mean() == pytest.approx(1.0)

    def test_tiny_features_are_not_constant(self):
        X = grouped_data()[0]
        large, tiny = row_space(X), row_space(1e-170 * X)
        assert tiny.scale == pytest.approx(1e-170 * large.scale)
        np.testing.assert_allclose(tiny.Z, large.Z)

    def test_cross_fitted_margins_by_loops(self):
        X, y, groups = grouped_data()
        rows = training_rows(X, y, groups)
        folds = group_folds(rows.codes, rows.groups, n_splits=4, random_state=0)
        fit = fit_linear_margins(rows, 3, folds, [0.1, 1.0, 10.0], ratio=np.ones(3))
        centred = rows.X - rows.X.mean(axis=0)
        Z = centred / np.sqrt((centred**2).sum() / len(rows))
        losses = {}
        for C in (0.1, 1.0, 10.0):
            margins = np.zeros((len(rows), 3))
            for train, test in folds:
                model = LogisticRegression(C=C, tol=1e-8, max_iter=10_000)
                margins[test] = model.fit(Z[train], rows.codes[train]).decision_function(Z[test])
            temperatures = np.geomspace(0.1, 10, 400)
            by_temperature = [
                np.mean(-np.log(naive_probabilities(margins / t)[np.arange(len(y)), rows.codes]))
                + 0.5 * (min(np.log(t), 0) / 0.3) ** 2 / len(rows)
                for t in temperatures
            ]
            best = int(np.argmin(by_temperature))
            losses[C] = (by_temperature[best], temperatures[best], margins)
        _, temperature, margins = losses[fit.C]
        assert min(losses, key=lambda C: losses[C][0]) == fit.C
        assert fit.temperature == pytest.approx(temperature, rel=0.03)
        np.testing.assert_allclose(fit.cross_fitted * fit.temperature, margins, atol=1e-2)

    def test_temperature_finds_the_factor(self):
        rng = np.random.default_rng(0)
        margins = 2 * rng.normal(size=(20_000, 3))
        codes = np.array([rng.choice(3, p=p) for p in probabilities(margins)])
        weight = np.ones(len(codes))
        temperature, loss = fit_temperature(4 * margins, codes, weight)
        assert temperature == pytest.approx(4.0, rel=0.05)
        assert loss == pytest.approx(log_losses(margins, codes).mean(), rel=1e-3)

    def test_temperature_of_few_separated_rows_is_not_extreme(self):
        margins = np.array([[3.0], [-3.0], [4.0], [-4.0]])
        temperature, _ = fit_temperature(margins, np.array([1, 0, 1, 0]), np.ones(4))
        assert 0.6 < temperature < 1.0

    def test_nothing_restrains_claiming_less(self):
        right = np.arange(10) < 7
        margins = np.where(right, 6.0, -6.0)[:, None]
        temperature, _ = fit_temperature(margins, np.ones(10, dtype=int), np.ones(10))
        assert temperature == pytest.approx(6 / np.log(0.7 / 0.3), rel=1e-3)

    def test_without_folds_the_middle_is_taken(self):
        rows = training_rows(np.eye(4), [0, 0, 1, 1])
        fit = fit_linear_margins(rows, 2, [], [1000.0, 0.1, 1.0], ratio=np.ones(2))
        assert (fit.C, fit.temperature) == (1.0, 1.0)
        assert not fit.held_out.any()


class TestTrees:
    @pytest.mark.parametrize("n_classes", [2, 3])
    @pytest.mark.parametrize("init", ["linear", None])
    def test_margins_add_up(self, n_classes, init):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(300, 4))
        y = np.digitize((X[:, 0] * X[:, 1]), [0.0] if n_classes == 2 else [-0.3, 0.3])
        model = BoostedSoftmaxClassifier(init=init, n_jobs=1, random_state=0).fit(X, y)
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
        np.testing.assert_allclose(
            model.predict_proba(X), naive_probabilities(got.reshape(300, -1)), rtol=1e-9
        )
        added = tree_margins(model.booster_, inputs, start.shape[1])
        np.testing.assert_array_equal(model.tree_margins(X), added)
        np.testing.assert_array_equal(got.reshape(300, -1), start + added)

    def test_trees_are_trained_from_the_cross_fitted_margins_of_all_rows(self, monkeypatch):
        seen = []
        original = trees.training_matrix

        def spy(rows, base_margin, parameters):
            seen.append((len(rows), base_margin))
            return original(rows, base_margin, parameters)

        monkeypatch.setattr(trees, "training_matrix", spy)
        rng = np.random.default_rng(0)
        X = rng.normal(size=(200, 2))
        model = BoostedSoftmaxClassifier(n_jobs=1, random_state=0).fit(X, X[:, 0] * X[:, 1] > 0)
        assert model.n_estimators_ > 0
        sizes = [n for n, _ in seen]
        assert sizes == [160] * 5 + [200]
        in_sample = np.sort((X @ model.linear_coef_ + model.linear_intercept_)[:, 0])
        assert np.abs(np.sort(seen[-1][1][:, 0]) - in_sample).max() > 1e-3

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_bins_of_wide_rows_are_found_in_a_sample(self, n_classes, monkeypatch):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(600, 5))
        y = np.digitize((X[:, 0] * X[:, 1]), [0.0] if n_classes == 2 else [-0.3, 0.3])
        model = BoostedSoftmaxClassifier(
            init=None, n_iter_no_change=None, n_estimators=40, n_jobs=1, random_state=0
        )
        exact = model.fit(X, y).decision_function(X)
        monkeypatch.setattr(trees, "_MAX_BINNED_VALUES", 0)
        monkeypatch.setattr(trees, "_MIN_BINNED_ROWS", 600)
        np.testing.assert_array_equal(model.fit(X, y).decision_function(X), exact)
        monkeypatch.setattr(trees, "_MIN_BINNED_ROWS", 200)
        sampled = model.fit(X, y).decision_function(X)
        assert np.abs(sampled - exact).max() > 1e-3
        assert model.score(X, y) > 0.95
        shuffled = rng.permutation(600)
        again = model.fit(X[shuffled], y[shuffled]).decision_function(X)
        np.testing.assert_allclose(again, sampled, atol=1e-5)

    def test_pieces_of_rows_are_all_the_rows(self, monkeypatch):
        X, y, _ = grouped_data(n=90)
        model = BoostedSoftmaxClassifier(n_estimators=20, n_jobs=1, random_state=0)
        whole = model.fit(X, y).decision_function(X)
        monkeypatch.setattr(trees, "_CHUNK", 7)
        np.testing.assert_allclose(model.fit(X, y).decision_function(X), whole, atol=1e-5)

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_rounds_are_searched_as_one_model_per_split_would(self, n_classes):
        """Against new models of one, two, three... rounds, each trained at once."""
        rng = np.random.default_rng(0)
        X = rng.normal(size=(150, 3))
        noisy = X[:, 0] * X[:, 1] + 0.8 * rng.normal(size=150)
        y = np.digitize(noisy, [0.0] if n_classes == 2 else [-0.3, 0.3])
        rows = training_rows(X, y, np.arange(150) // 2, rng.uniform(0.5, 2, 150))
        folds = group_folds(rows.codes, rows.groups, n_splits=3, random_state=0)[:2]
        base = 0.1 * rng.normal(size=(150, n_margins(n_classes)))
        parameters = xgboost_parameters(n_classes, 1, learning_rate=0.3, max_depth=2)
        start = log_losses(base, rows.codes)
        gains = []
        for n_rounds in range(1, 31):
            saved = np.full(150, np.nan)
            for train, test in folds:
                matrix = training_matrix(rows.take(train), base[train], parameters)
                booster = xgboost.train(parameters, matrix, num_boost_round=n_rounds)
                margins = base[test] + tree_margins(booster, rows.X[test], base.shape[1])
                saved[test] = start[test] - log_losses(margins, rows.codes[test])
            tested = ~np.isnan(saved)
            gains.append(clustered_mean(saved[tested], rows.weight[tested], rows.groups[tested]))
        best = 0
        while any(gain > gains[best][0] for gain, _ in gains[best + 1 : best + 5]):
            best += next(i for i in range(1, 5) if gains[best + i][0] > gains[best][0])
        assert 0 < best < 26
        search = search_rounds(rows, base, folds, parameters, max_rounds=99, patience=4)
        assert search.n_rounds == best + 1
        assert (search.gain, search.gain_error) == pytest.approx(gains[best], rel=1e-4)
        cut = search_rounds(rows, base, folds, parameters, max_rounds=2, patience=4)
        assert cut.n_rounds == 1 + np.argmax([gain for gain, _ in gains[:2]])

    def test_clustered_error_by_loops(self):
        rng = np.random.default_rng(0)
        values, weight = rng.normal(size=30), rng.uniform(0.5, 2, 30)
        groups = rng.integers(0, 7, 30)
        mean, error = clustered_mean(values, weight, groups)
        expected_mean = sum(v * w for v, w in zip(values, weight, strict=True)) / sum(weight)
        total = 0.0
        for g in set(groups.tolist()):
            total += (
                sum(weight[i] * (values[i] - expected_mean) for i in range(30) if groups[i] == g)
                ** 2
            )
        n_groups = len(set(groups.tolist()))
        expected_error = math.sqrt(n_groups / (n_groups - 1) * total) / sum(weight)
        assert mean == pytest.approx(expected_mean)
        assert error == pytest.approx(expected_error)
        assert clustered_mean(values, weight, np.zeros(30, dtype=int))[1] == math.inf


class TestBlocks:
    def test_margins_are_the_tempered_mean_of_one_model_per_block(self):
        rows = training_rows(*grouped_data())
        n_features = rows.X.shape[1]
        folds = group_folds(rows.codes, rows.groups, n_splits=3, random_state=0)
        widths = [2, n_features - 2]
        joined = fit_blocks(rows, 3, folds, [0.1, 1.0, 10.0], widths, ratio=np.ones(3))
        parts = [
            fit_linear_margins(
                rows.with_features(rows.X[:, columns]), 3, folds, [0.1, 1.0, 10.0], ratio=np.ones(3)
            )
            for columns in (slice(0, 2), slice(2, n_features))
        ]
        # 30 groups, each of one class: 10 for a class. In loops, as the docstring has it.
        counts = [1 / (1 + width / (400 * 10)) for width in widths]
        shares = [count / sum(counts) for count in counts]
        mean = sum(s * part.cross_fitted for s, part in zip(shares, parts, strict=True))
        temperature, _ = fit_temperature(mean, rows.codes, rows.weight)
        np.testing.assert_allclose(joined.cross_fitted, mean / temperature)
        separate = [
            rows.X[:, columns] @ part.coef + part.intercept
            for columns, part in zip(block_columns(widths), parts, strict=True)
        ]
        expected = sum(s * m for s, m in zip(shares, separate, strict=True)) / temperature
        np.testing.assert_allclose(rows.X @ joined.coef + joined.intercept, expected, atol=1e-9)
        for weight, share, part in zip(joined.weights, shares, parts, strict=True):
            assert weight == pytest.approx(share / (temperature * part.temperature))

    def test_narrow_blocks_count_more_where_rows_are_few(self):
        few, more, many = [block_shares([1_000, 8_000, 8_000], n) for n in (1, 10, 1e6)]
        assert few[0] > more[0] > many[0]
        np.testing.assert_allclose(many, 1 / 3, atol=1e-3)
        for shares in (few, more, many):
            assert shares.sum() == pytest.approx(1)
            assert shares[1] == shares[2]

    def test_without_anything_to_hold_out_the_mean_stands(self):
        rows = training_rows(*grouped_data())
        half = np.hstack([rows.X, rows.X])
        twice = replace(rows, source=half, at=np.arange(len(rows)))
        joined = fit_blocks(twice, 3, [], [1.0], [rows.X.shape[1]] * 2, ratio=np.ones(3))
        assert joined.weights == (0.5, 0.5)


@pytest.mark.parametrize("most", [1024, 8])
def test_a_part_that_never_changes_says_nothing(most, monkeypatch):
    monkeypatch.setattr(linear, "MAX_DIRECTIONS", most)
    rng = np.random.default_rng(0)
    codes = np.arange(40) % 2
    speaking = rng.standard_normal((40, 3)) + codes[:, None]
    X = np.hstack([speaking, np.full((40, 50), 2.0)])
    model = BoostedSoftmaxClassifier(n_estimators=0, random_state=0)
    model.fit(X, codes, blocks=[3, 50])
    alone = model.predict_proba(X)
    assert np.isfinite(alone).all()
    assert not model.linear_coef_[3:].any()


def test_many_directions_are_cut_to_the_main_ones():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 50)) * np.geomspace(1, 0.01, 50)
    whole, cut = row_space(X), row_space(X, max_directions=24)
    assert cut.Z.shape == (60, 24)
    assert (whole.centre == cut.centre).all()
    assert whole.scale == cut.scale
    # What is left out is what the best 24 directions leave out.
    lost = np.square(whole.Z).sum() - np.square(cut.Z).sum()
    least = (np.linalg.svd(whole.Z, compute_uv=False)[24:] ** 2).sum()
    assert lost == pytest.approx(least, rel=1e-9)
    assert_same_margins(cut, X, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "most"),
    [((60, 200), None), ((60, 200), 20), ((200, 60), 20), ((60, 9), 20)],
)
def test_rows_taken_from_a_row_space_are_those_of_their_own(shape, most):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal(shape) * np.geomspace(1, 0.01, shape[1]) + 3).astype(np.float32)
    rows = rng.permutation(len(X))[:50]
    taken = row_space(X, most).take(rows)
    np.testing.assert_allclose(taken.Z.mean(axis=0, dtype=float), 0, atol=1e-6)
    assert np.square(taken.Z).sum() == pytest.approx(len(rows), rel=1e-5)
    if most != 20 or min(shape) < 40:  # all directions are kept
        own = row_space(X[rows], most)
        np.testing.assert_allclose(taken.Z @ taken.Z.T, own.Z @ own.Z.T, atol=1e-5)
    assert_same_margins(taken, X[rows], atol=2e-4)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
def test_both_ways_to_principal_directions_span_the_same_space(shape, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape) * np.geomspace(1, 1e-3, shape[1])
    by_gram = row_space(X, 20)
    monkeypatch.setattr(linear, "_MAX_GRAM_SIDE", 1)
    by_random_vectors = row_space(X, 20)
    products = by_gram.Z @ by_gram.Z.T
    np.testing.assert_allclose(by_random_vectors.Z @ by_random_vectors.Z.T, products, atol=0.01)


def test_learners_that_share_blocks_are_those_that_do_not():
    X, y, groups = grouped_data(90, 200, 3)
    X = np.hstack([X, X[:, :150] ** 2, X[:, :5]])
    widths = [200, 150, 5]
    train = np.flatnonzero(groups % 4 > 0)
    alone = BoostedSoftmaxClassifier(n_estimators=0, Cs=10.0, random_state=0)
    alone.fit(X[train], y[train], groups=groups[train], blocks=widths)
    shared = BoostedSoftmaxClassifier(n_estimators=0, Cs=10.0, random_state=0)
    blocks = FeatureBlocks(X, widths)[train]
    shared.fit(X[train], y[train], groups=groups[train], blocks=blocks)
    np.testing.assert_allclose(shared.predict_proba(X), alone.predict_proba(X), atol=2e-3)


def test_blocks_of_other_rows_are_an_error():
    X, y, groups = grouped_data(90, 20, 3)
    blocks = FeatureBlocks(X, [20])
    with pytest.raises(ValueError, match="FeatureBlocks of 90 rows, but X has 60"):
        BoostedSoftmaxClassifier().fit(X[:60], y[:60], groups=groups[:60], blocks=blocks)


@pytest.mark.parametrize("context", ["multiprocessing", "threading"])
def test_folds_run_in_threads_whatever_the_joblib_context(context, monkeypatch):
    X, y, groups = grouped_data(90, 20, 3)

    def coef():
        model = BoostedSoftmaxClassifier(n_estimators=0, random_state=0)
        return model.fit(X, y, groups=groups).linear_coef_

    expected = coef()
    monkeypatch.setattr(linear, "_MAX_VALUES_OF_ONE_THREAD", 0)
    with joblib.parallel_config(backend=context, n_jobs=2):
        np.testing.assert_array_equal(coef(), expected)


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e37])
def test_many_rows_in_single_precision_at_any_scale(factor, monkeypatch):
    monkeypatch.setattr(linear, "MAX_DIRECTIONS", 20)
    X, y, _ = grouped_data(400, 30, 4)
    space = row_space((X * factor).astype(np.float32), max_directions=20)
    assert np.isclose(np.square(space.Z, dtype=np.float64).sum(1).mean(), 1, rtol=0.2)
    model = BoostedSoftmaxClassifier(n_estimators=0, random_state=0)
    scores = [model.fit(each, y).score(each, y) for each in (X, (X * factor).astype(np.float32))]
    assert scores[1] >= scores[0] - 0.02


def test_small_directions_of_many_rows_are_kept():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 200)).astype(np.float32)
    X[:, 0] *= 1000
    assert row_space(X, max_directions=50).Z.shape == (300, 50)


def test_margins_of_many_rows_far_from_the_origin():
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((300, 30)) + 1e4).astype(np.float32)
    space = row_space(X, max_directions=20).take(np.arange(250))
    assert_same_margins(space, X[:250], atol=2e-3)
