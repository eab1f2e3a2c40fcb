"""The boosted softmax as plain data and back: bit by bit the same, or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from hypervlad.models import BoostedSoftmaxClassifier


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
    return BoostedSoftmaxClassifier(random_state=0, **options).fit(X, y)


def replace(header, arrays, name, array):
    arrays[name] = array
    header["fitted"][name] = {"shape": list(array.shape)}


def remove(header, arrays, name):
    header["fitted"][name] = None
    for key in [key for key in arrays if key.partition(".")[0] == name]:
        del arrays[key]


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

    @pytest.mark.parametrize(
        ("make", "n_estimators", "init"),
        [(rings, 40, "linear"), (three_rings, 40, None), (blobs, 40, "linear"), (blobs, 0, None)],
    )
    def test_restored_model_predicts_bit_by_bit(self, make, n_estimators, init):
        X, y = make()
        model = fitted(X, y, init=init, n_estimators=n_estimators)
        again = self.round_trip(self.round_trip(model))
        self.assert_same(model, again, X)
        np.testing.assert_array_equal(again.fit(X, y).predict_proba(X), model.predict_proba(X))

    @pytest.mark.parametrize(
        "names",
        [
            np.array(["a", "é", "ccc"]),
            np.array(["a", "é", "ccc"], dtype=object),
            np.array([1, 2, 3], dtype=np.int16),
            np.array([False, True]),
        ],
        ids=["str", "object", "int16", "bool"],
    )
    def test_labels_keep_their_kind(self, names):
        X, codes = blobs(len(names))
        model = fitted(X, names[codes], class_weight={names.tolist()[0]: 2.0})
        restored = self.round_trip(model)
        assert restored.classes_.dtype == restored.predict(X).dtype == names.dtype
        assert (model.predict(X) == names[codes]).mean() > 0.8
        self.assert_same(model, restored, X)

    def test_inputs_of_the_trees_are_kept(self):
        X, y = three_rings()
        X = np.column_stack([X, np.random.default_rng(1).normal(size=(400, 9))])
        model = BoostedSoftmaxClassifier(n_estimators=5, n_iter_no_change=None, random_state=0)
        model.fit(X, y, blocks=[4, 7])
        assert model.block_widths_ == (4, 7)
        assert model.booster_.num_features() == 2 * 3 + 11
        self.assert_same(model, self.round_trip(model), X)
        header, arrays = model.to_state()
        for widths, message in (
            ([4, 6], r"block_widths_ is \(4, 6\), which must .* add up to the 11 features"),
            ([0, 11], "at least 1"),
            (None, "at least 1"),
            ([11], "on 17 features, but the classifier gives them 3 or 14"),
        ):
            header["fitted"]["block_widths_"] = widths
            with pytest.raises(ValueError, match=message):
                BoostedSoftmaxClassifier.from_state(header, arrays)

    def test_feature_names_are_kept(self):
        pandas = pytest.importorskip("pandas")
        X, y = blobs()
        frame = pandas.DataFrame(X, columns=[f"vlad{i}" for i in range(6)])
        restored = self.round_trip(fitted(frame, y))
        assert restored.feature_names_in_.tolist() == list(frame.columns)
        restored.predict(frame)
        with pytest.raises(ValueError, match="feature names"):
            restored.predict(frame.rename(columns={"vlad0": "other"}))

    def test_a_gain_measured_on_one_group_can_be_saved(self):
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((9, 3)), np.array(["a"] * 6 + ["b"] * 3)
        groups = ["p", "p", "q", "q", "r", "r", "s", "s", "s"]  # one group in the hold-out
        with pytest.warns(UserWarning, match="one or two different samples"):
            model = BoostedSoftmaxClassifier(init=None, random_state=0).fit(X, y, groups=groups)
        assert model.tree_gain_error_ == np.inf
        assert self.round_trip(model).tree_gain_error_ == np.inf

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda h, a: h["parameters"].update(max_depth=0), "incomplete.*max_depth must be"),
            (lambda h, a: h["fitted"].update(feature_names_in_=["a"]), "1 column names for 2"),
            (lambda h, a: replace(h, a, "linear_intercept_", np.zeros(3)), r"\(3,\).*\(1,\)"),
            (lambda h, a: replace(h, a, "linear_coef_", np.zeros((2, 1), "f4")), "type float32"),
            (lambda h, a: replace(h, a, "linear_coef_", np.zeros((5, 1))), r"\(5, 1\).*\(2, 1\)"),
            (lambda h, a: remove(h, a, "booster_"), "n_estimators_ is .* there are no trees"),
            (lambda h, a: h["fitted"].update(n_estimators_=0), "n_estimators_ is 0.* are trees"),
            (lambda h, a: h["fitted"].update(n_estimators_=19), "20 rounds of trees.*expected 19"),
            (
                lambda h, a: h["fitted"]["booster_"].update(n_classes=4),
                "5 rounds of trees for 4 classes",
            ),
            (lambda h, a: h["fitted"]["booster_"].update(sha256=0), "unexpected keyword"),
            (lambda h, a: a.pop("booster_.left"), "incomplete.*left"),
            (lambda h, a: a.update({"booster_.other": a["booster_.left"]}), "incomplete.*other"),
            (lambda h, a: h["fitted"]["classes_"].update(values=["a", "b"]), "incomplete.*'a'"),
        ],
    )
    def test_damaged_state_is_refused(self, damage, message):
        X, y = rings()
        header, arrays = fitted(X, y, n_estimators=20).to_state()
        damage(header, arrays)
        with pytest.raises(ValueError, match=message):
            BoostedSoftmaxClassifier.from_state(header, arrays)
