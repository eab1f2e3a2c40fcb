"""The boosted softmax as an estimator: conformance, small classes, labels, weights, state."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs, make_circles

from hypervlad.models import BoostedSoftmaxClassifier

SMALL = "ignore:Classes with only one or two:UserWarning"


def blobs(n=120, n_classes=3, n_features=6, spread=3.0, seed=0):
    return make_blobs(n, n_features, centers=n_classes, cluster_std=spread, random_state=seed)


def rings(n=400, seed=0):
    """Two classes that no line separates."""
    return make_circles(n, noise=0.1, factor=0.5, random_state=seed)


def three_rings(n=450, seed=0):
    rng, y = np.random.default_rng(seed), np.arange(n) % 3
    angle, radius = rng.uniform(0, 2 * np.pi, n), 1 + y + 0.15 * rng.normal(size=n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]), y


def fitted(X, y, **options):
    groups = options.pop("groups", None)
    return BoostedSoftmaxClassifier(random_state=0, n_jobs=1, **options).fit(X, y, groups=groups)


class TestTrees:
    def test_they_stay_where_lines_fail(self):
        for make in (rings, three_rings):
            X, y = make()
            X_new, y_new = make(seed=1)
            model, linear = fitted(X, y, learning_rate=0.5), fitted(X, y, n_estimators=0)
            assert model.n_estimators_ > 5
            assert model.tree_gain_ > 2 * model.tree_gain_error_
            assert linear.score(X_new, y_new) < 0.65
            assert model.score(X_new, y_new) > 0.9

    def test_they_go_where_they_are_noise(self):
        rng, kept = np.random.default_rng(0), 0
        for seed in range(6):
            X, y = rng.normal(size=(80, 30)), rng.integers(0, 3, 80)
            model = fitted(X, y)
            kept += model.n_estimators_ > 0
            assert (model.trees_ is None) == (model.n_estimators_ == 0), seed
        assert kept <= 1

    def test_without_rounds_plain_boosting_is_the_prior(self):
        X, y = blobs(n=60)
        y = np.where(np.arange(60) < 40, 0, y)
        shares = np.bincount(y) / 60
        roots = np.sqrt(shares) / np.sqrt(shares).sum()
        for prior, expected in {"training": shares, "sqrt": roots, "uniform": [1 / 3] * 3}.items():
            model = fitted(X, y, init=None, n_estimators=0, prior=prior)
            np.testing.assert_allclose(model.predict_proba(X[:2]), np.tile(expected, (2, 1)))


class TestSmallClasses:
    @pytest.mark.parametrize("init", ["linear", None])
    @pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (1, 1, 1), (30, 30, 1), (5, 1, 2)])
    def test_never_crash(self, sizes, init):
        y = np.repeat(np.arange(len(sizes)), sizes)
        X = np.random.default_rng(0).normal(size=(len(y), 4)) + 3 * y[:, None]
        with pytest.warns(UserWarning, match="only one or two different samples or groups"):
            model = fitted(X, y, init=init, n_estimators=20)
        proba = model.predict_proba(X)
        assert proba.shape == (len(y), len(sizes))
        assert np.isfinite(proba).all()
        assert (proba > 0).all()

    def test_warning_names_classes_and_counts_groups_not_rows(self):
        X, y = blobs(n=60)
        groups = np.arange(60)
        groups[y == 1] = 100
        with pytest.warns(UserWarning, match=r"groups: 1 \(1\)\. They"):
            fitted(X, y, groups=groups)

    @pytest.mark.filterwarnings(SMALL)
    def test_equal_features_with_different_labels(self):
        for X in (np.ones((4, 2)), np.zeros((4, 9))):
            model = fitted(X, ["a", "a", "a", "b"], n_estimators=5, prior="training")
            # Nothing can be held out: equal vectors are one group.
            assert model.n_estimators_ == 0
            np.testing.assert_allclose(model.predict_proba(X[:1]), [[0.75, 0.25]], atol=1e-3)

    @pytest.mark.filterwarnings(SMALL)
    def test_trees_do_not_suppress_a_class_of_one_group(self):
        """As they would if they were trained on held-out rows only."""
        X, y = three_rings(300)
        X = np.vstack([X, X[:40] + np.array([2.0, 0.0])])
        y, groups = np.append(y, [3] * 40), np.append(np.arange(300), [300] * 40)
        model = fitted(X, y, groups=groups, n_estimators=20, n_iter_no_change=None)
        assert model.score(X[300:], y[300:]) >= 0.9  # 0.90 to 0.95 with versions of xgboost


def overlapping(seed=0, n=600):
    """One feature, two normal classes one apart; every fifth sample is of the second."""
    rng, y = np.random.default_rng(seed), (np.arange(n) % 5 == 0).astype(int)
    return rng.normal(size=(n, 1)) + y[:, None], y


class TestPrior:
    def test_probabilities_are_those_of_the_expected_shares(self):
        """The posterior of two normal classes is known for any shares."""
        X, y = overlapping(n=2000)
        points = np.linspace(-1, 2, 7)[:, None]
        ratio = np.exp(points[:, 0] - 0.5)  # of the densities
        rare = {"training": 0.2, "sqrt": 1 / 3, "uniform": 0.5}
        for prior, share in [*rare.items(), ({0: 1, 1: 9}, 0.9)]:
            model = fitted(X, y, prior=prior, n_estimators=0, Cs=10.0)
            proba = model.predict_proba(points)[:, 1]
            expected = share * ratio / (share * ratio + 1 - share)
            np.testing.assert_allclose(proba, expected, atol=0.04)

    @pytest.mark.full  # a thousand points, several times
    def test_shares_are_those_of_the_weighted_samples(self):
        X, y = overlapping()
        weight = np.where(y == 1, 4.0, 1.0)  # as many of both
        priors = ("training", "sqrt", "uniform", {0: 1, 1: 1})
        first, *others = [
            BoostedSoftmaxClassifier(prior=prior, Cs=1.0, random_state=0)
            .fit(X, y, weight)
            .predict_proba(X)
            for prior in priors
        ]
        for other in others:
            np.testing.assert_allclose(other, first, atol=1e-9)


class TestWeights:
    def test_integer_weights_are_copies(self):
        X, y = three_rings(300)
        weight = np.random.default_rng(0).integers(0, 4, len(y))
        weighted = BoostedSoftmaxClassifier(n_estimators=20, random_state=0).fit(X, y, weight)
        repeated = fitted(X.repeat(weight, axis=0), y.repeat(weight), n_estimators=20)
        assert weighted.n_estimators_ == repeated.n_estimators_ > 0
        np.testing.assert_array_equal(weighted.predict_proba(X), repeated.predict_proba(X))

    def test_order_of_rows_does_not_matter(self):
        X, y = three_rings(300)
        groups, order = np.arange(300) // 3, np.random.default_rng(0).permutation(300)
        straight = fitted(X, y, groups=groups, n_estimators=20).decision_function(X)
        shuffled = fitted(X[order], y[order], groups=groups[order], n_estimators=20)
        np.testing.assert_array_equal(straight, shuffled.decision_function(X))

    def test_rows_without_weight_may_be_anything(self):
        X, y = blobs()
        weight = np.append(np.ones(len(y)), 0)
        model = BoostedSoftmaxClassifier(random_state=0, n_jobs=1).fit(
            np.vstack([X, [[1e6] * 6]]), np.append(y, 99), weight
        )
        assert 99 not in model.classes_
        np.testing.assert_array_equal(model.predict_proba(X), fitted(X, y).predict_proba(X))


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"prior": {0: 0.5, 1: 0.5}}, "name every class: missing 2, unknown none; the classes"),
            (
                {"prior": {0: 0.5, 1: 0.4, 2: 0.1, 3: 0.1}},
                "prior must name every class: missing none, unknown 3; the classes are 0, 1, 2",
            ),
            ({"prior": {0: 1e-300, 1: 1.0, 2: 1.0}}, "prior must not differ by a factor above"),
            ({"sample_weight": np.append(np.ones(29), 1e-13)}, "sample_weight .* 1e-13 to 1\\.$"),
            ({"sample_weight": np.linspace(-2, 1, 30)}, "not be negative; the smallest is -2"),
            ({"groups": [1, 2]}, "X has 30 rows but groups has 2"),
            *(
                ({"blocks": blocks}, "blocks are whole numbers of columns.*the 6 columns")
                for blocks in ([3.7, 3], [True, 5], [7, -1], [3, 2], [])
            ),
        ],
    )
    def test_what_does_not_fit_the_rows(self, options, words):
        X, y = blobs(n=30)
        given = {k: v for k, v in options.items() if k != "prior"}
        own = {k: v for k, v in options.items() if k == "prior"}
        with pytest.raises(ValueError, match=words):
            BoostedSoftmaxClassifier(**own).fit(X, y, **given)


class TestState:
    def test_feature_names_are_kept(self):
        pandas = pytest.importorskip("pandas")
        X, y = blobs()
        frame = pandas.DataFrame(X, columns=[f"vlad{i}" for i in range(6)])
        restored = BoostedSoftmaxClassifier.from_state(*fitted(frame, y).to_state())
        assert restored.feature_names_in_.tolist() == list(frame.columns)
        restored.predict(frame)
        with pytest.raises(ValueError):
            restored.predict(frame.rename(columns={"vlad0": "other"}))
