"""The boosted softmax as plain data and back: bit by bit the same, or refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_blobs

from hypervlad.boosting import BoostedSoftmaxClassifier


def blobs(n_classes=3):
    """Classes that lines separate: no trees are kept."""
    return make_blobs(120, 6, centers=n_classes, cluster_std=3.0, random_state=0)


def rings(n_classes=2):
    """Classes that lines do not separate: trees are kept."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % n_classes
    angle, radius = rng.uniform(0, 2 * np.pi, 400), 1 + y + 0.15 * rng.normal(size=400)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]), y


def three_rings():
    return rings(3)


def fitted(X, y, **options):
    return BoostedSoftmaxClassifier(random_state=0, n_jobs=1, **options).fit(X, y)


class TestState:
    def round_trip(self, model):
        header, arrays = model.to_state()
        # As a file would: JSON text, and copies of the bytes.
        header = json.loads(json.dumps(header))
        arrays = {
            k: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for k, a in arrays.items()
        }
        return BoostedSoftmaxClassifier.from_state(header, arrays)

    def assert_same(self, model, restored, X):
        for method in ("predict", "predict_proba", "decision_function"):
            expected, got = getattr(model, method)(X), getattr(restored, method)(X)
            assert expected.dtype == got.dtype
            np.testing.assert_array_equal(got, expected)
        assert repr(restored.get_params()) == repr(model.get_params())

    @pytest.mark.parametrize("init", ["linear", None])
    @pytest.mark.parametrize("n_estimators", [0, 40])
    @pytest.mark.parametrize("make", [rings, three_rings, blobs])
    def test_restored_model_predicts_bit_by_bit(self, make, n_estimators, init):
        X, y = make()
        model = fitted(X, y, init=init, n_estimators=n_estimators)
        self.assert_same(model, self.round_trip(model), X)

    @pytest.mark.parametrize(
        "names",
        [
            np.array(["a", "é", "ccc"]),
            np.array(["a", "é", "ccc"], dtype=object),
            np.array([-7, 3, 2**40]),
            np.array([1, 2, 3], dtype=np.int16),
            np.array([0.0, 1.0, 3.0]),
        ],
        ids=["str", "object", "int64", "int16", "float"],
    )
    def test_labels_keep_their_kind(self, names):
        X, codes = blobs()
        model = fitted(X, names[codes], class_weight={names.tolist()[0]: 2.0})
        restored = self.round_trip(model)
        assert restored.classes_.dtype == names.dtype
        self.assert_same(model, restored, X)

    def test_columns_of_the_trees_are_kept(self):
        X, y = rings()
        X = np.column_stack([np.random.default_rng(1).normal(size=(400, 9)), X])
        model = fitted(X, y, init=None, max_tree_features=4, n_estimators=10)
        assert len(model.tree_columns_) == 4
        self.assert_same(model, self.round_trip(model), X)
        header, arrays = model.to_state()
        for columns in ([0, 1, 2, 11], [-1, 0, 1, 2], [[0, 1, 2, 3]], [0.0, 1.0, 2.0, 3.0]):
            damaged = {**arrays, "tree_columns": np.array(columns)}
            with pytest.raises(ValueError, match="column numbers below 11"):
                BoostedSoftmaxClassifier.from_state(header, damaged)
        del arrays["tree_columns"]
        with pytest.raises(ValueError, match="on 4 features, but the classifier gives it 11"):
            BoostedSoftmaxClassifier.from_state(header, arrays)

    def test_boolean_labels(self):
        X, codes = blobs(n_classes=2)
        model = fitted(X, codes == 1)
        self.assert_same(model, self.round_trip(model), X)

    def test_feature_names_are_kept(self):
        pandas = pytest.importorskip("pandas")
        X, y = blobs()
        frame = pandas.DataFrame(X, columns=[f"vlad{i}" for i in range(6)])
        restored = self.round_trip(fitted(frame, y))
        assert restored.feature_names_in_.tolist() == list(frame.columns)
        restored.predict(frame)
        with pytest.raises(ValueError, match="feature names"):
            restored.predict(frame.rename(columns={"vlad0": "other"}))

    def test_numpy_parameters_and_generators_are_json(self):
        X, y = blobs()
        model = BoostedSoftmaxClassifier(
            learning_rate=np.float64(0.2),
            max_depth=np.int64(2),
            Cs=np.array([1.0, 10.0]),
            random_state=np.random.RandomState(0),
            n_jobs=1,
        ).fit(X, y)
        restored = self.round_trip(model)
        assert restored.random_state is None
        assert restored.Cs == (1.0, 10.0)
        np.testing.assert_array_equal(restored.predict_proba(X), model.predict_proba(X))

    def test_restored_model_can_be_saved_again_and_refitted(self):
        X, y = rings()
        model = fitted(X, y)
        twice = self.round_trip(self.round_trip(model))
        self.assert_same(model, twice, X)
        np.testing.assert_array_equal(twice.fit(X, y).predict_proba(X), model.predict_proba(X))

    def test_a_gain_that_one_group_told_of_can_be_saved(self):
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((9, 3)), np.array(["a"] * 6 + ["b"] * 3)
        groups = ["p", "p", "q", "q", "r", "r", "s", "s", "s"]  # one group in the hold-out
        with pytest.warns(UserWarning, match="one or two different samples"):
            model = BoostedSoftmaxClassifier(random_state=0).fit(X, y, groups=groups)
        assert model.tree_gain_error_ == np.inf
        assert self.round_trip(model).tree_gain_error_ == np.inf

    def test_unfitted_model_has_no_state(self):
        with pytest.raises(sklearn.exceptions.NotFittedError):
            BoostedSoftmaxClassifier().to_state()

    def test_labels_of_other_kinds_cannot_be_saved(self):
        X, y = blobs(n_classes=2)
        model = fitted(X, y)
        model.classes_ = np.array([b"a", b"b"])
        with pytest.raises(ValueError, match="cannot be saved"):
            model.to_state()
        model.classes_ = np.array([1, "b"], dtype=object)
        with pytest.raises(ValueError, match="only if every one is a string"):
            model.to_state()

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda h, a: h.pop("classes"), "incomplete.*classes"),
            (lambda h, a: h.pop("parameters"), "incomplete.*parameters"),
            (lambda h, a: h["parameters"].update(depth=3), "incomplete.*depth"),
            (lambda h, a: h["fitted"].pop("C_"), "incomplete.*C_"),
            (lambda h, a: a.pop("intercept"), "incomplete.*intercept"),
            (lambda h, a: a.update(intercept=np.zeros(3)), r"'intercept'.*\(3,\).*expected \(1,\)"),
            (lambda h, a: a.update(coef=np.zeros((2, 1), "f4")), "'coef'.*float32"),
            (lambda h, a: a.update(coef=np.zeros((5, 1))), r"'coef'.*\(5, 1\)"),
            (lambda h, a: a.pop("booster"), "arrays lack a 'booster'"),
            (lambda h, a: h["fitted"].update(n_estimators_=0), "arrays hold a 'booster'"),
            (lambda h, a: a.update(booster=a["booster"][:100]), "bytes are damaged"),
            (lambda h, a: h.pop("booster_sha256"), "bytes are damaged"),
            (lambda h, a: a.update(booster=a["booster"].astype("f4")), "row of uint8"),
            (lambda h, a: h["classes"].update(values=[1]), "has 1 class labels"),
            (lambda h, a: h["classes"].update(values=["a", "b"]), "incomplete.*'a'"),
            (lambda h, a: h["classes"].update(dtype="M8[D]"), "unexpected type"),
        ],
    )
    def test_damaged_state_is_refused(self, damage, message):
        X, y = rings()
        header, arrays = fitted(X, y, n_estimators=20).to_state()
        damage(header, arrays)
        with pytest.raises(ValueError, match=message):
            BoostedSoftmaxClassifier.from_state(header, arrays)

    def test_booster_of_other_width_is_refused(self):
        X, y = rings()
        header, arrays = fitted(X, y, init=None, n_estimators=5).to_state()
        header["n_features_in"] = 7
        with pytest.raises(
            ValueError, match="trained on 2 features, but the classifier gives it 7"
        ):
            BoostedSoftmaxClassifier.from_state(header, arrays)

    def test_what_xgboost_does_not_read_is_refused(self):
        X, y = rings()
        header, arrays = fitted(X, y, n_estimators=5).to_state()
        arrays["booster"] = np.frombuffer(b"{}", dtype=np.uint8)
        header["booster_sha256"] = hashlib.sha256(b"{}").hexdigest()
        with pytest.raises(ValueError, match="not a model that this xgboost reads"):
            BoostedSoftmaxClassifier.from_state(header, arrays)
