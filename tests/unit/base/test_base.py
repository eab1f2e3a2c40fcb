"""The base of all estimators: checks, seeds and states follow from what a class declares."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hypervlad import ModelFileError
from hypervlad.common.base import (
    Array,
    ArrayDict,
    Estimator,
    Field,
    ImageEstimator,
    Labels,
    Maybe,
    Part,
    PartParameter,
    Record,
    Value,
    Values,
    from_json,
    seeded_clone,
    to_json,
)
from hypervlad.common.constraints import Boolean, Integer
from hypervlad.common.modelfile import read_model


@dataclass(frozen=True)
class Curve:
    loss: tuple[float, ...]
    name: str


class Inner(Estimator):
    _kind = "test_inner"
    _parameter_constraints: ClassVar = {"k": [Integer()], "verbose": [Boolean()]}
    _fitted_state: ClassVar[dict[str, Field]] = {"centres_": Array("float64", 2)}
    _unsaved_parameters = frozenset({"verbose", "memory"})

    def __init__(
        self, k: int = 2, memory: Any = None, random_state: Any = None, verbose: Any = False
    ) -> None:
        self.k, self.memory = k, memory
        self.random_state, self.verbose = random_state, verbose

    def fit(self) -> Inner:
        self.check_parameters()
        self.centres_ = np.arange(2.0 * self.k).reshape(self.k, 2)
        return self


class Outer(ImageEstimator):
    _kind = "test_outer"
    _fitted_state: ClassVar[dict[str, Field]] = {
        "inner_": Part(Inner),
        "classes_": Labels(),
        "n_": Value(int),
        "gain_": Value(float, may_be_infinite=True),
        "taps_": Values(str),
        "curve_": Record(Curve),
        "weights_": ArrayDict(),
        "extra_": Maybe(Array("int64", 1)),
        "names_in_": Maybe(Values(str), may_be_missing=True),
    }
    _part_parameters: ClassVar = {"inner": PartParameter("inner_", Inner)}

    def __init__(self, inner: Any = None, sizes: Any = (1, 2), class_weight: Any = None) -> None:
        self.inner, self.sizes, self.class_weight = inner, sizes, class_weight

    def fit(self) -> Outer:
        self.inner_ = self._new_part("inner", None).fit()
        self.classes_ = np.array(["fibre", "matrix"])
        self.n_, self.gain_, self.taps_ = 3, float("inf"), ("a", "b")
        self.curve_ = Curve((0.5, 0.25), "held out")
        self.weights_ = {"conv.weight": np.ones((2, 3), np.float32)}
        self.extra_ = None
        return self

    def _check_state(self) -> None:
        if len(self.classes_) != self.inner_.k:
            raise ValueError("as many classes as centres are needed")


def state() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    model = Outer(Inner(random_state=3), class_weight={0: np.float32(2.0), 1: 1.0}).fit()
    return model.to_state()


def test_a_state_comes_back_as_it_was(tmp_path: Any) -> None:
    model = Outer(Inner(random_state=3), class_weight={0: np.float32(2.0), 1: 1.0}).fit()
    model.save(tmp_path / "model.hvlad")
    content = read_model(tmp_path / "model.hvlad", kind="test_outer")
    loaded = Outer.from_state(content.header, content.arrays)
    assert loaded.class_weight == {0: 2.0, 1: 1.0}
    assert loaded.sizes == (1, 2)
    assert (loaded.n_, loaded.gain_, loaded.taps_) == (3, float("inf"), ("a", "b"))
    assert loaded.curve_ == model.curve_
    assert loaded.extra_ is None
    assert not hasattr(loaded, "names_in_")
    np.testing.assert_array_equal(loaded.classes_, model.classes_)
    np.testing.assert_array_equal(loaded.inner_.centres_, model.inner_.centres_)
    np.testing.assert_array_equal(loaded.weights_["conv.weight"], np.ones((2, 3)))
    # The parameter is an unfitted copy of the fitted part.
    assert loaded.inner.random_state == 3
    assert not hasattr(loaded.inner, "centres_")


def test_fields_that_may_be_missing_are_kept_where_they_are_there() -> None:
    model = Outer().fit()
    model.extra_, model.names_in_ = np.array([4, 5]), ("x", "y")
    loaded = Outer.from_state(*model.to_state())
    np.testing.assert_array_equal(loaded.extra_, [4, 5])
    assert loaded.names_in_ == ("x", "y")


Header = dict[str, Any]
Arrays = dict[str, np.ndarray]
DAMAGES: dict[str, Callable[[Header, Arrays], Any]] = {
    "an unknown parameter": lambda h, _: h["parameters"].update(memory="/tmp/pickles"),
    "a missing parameter": lambda h, _: h["parameters"].pop("sizes"),
    "an unsaved parameter of a part": lambda h, _: of_inner(h).update(memory="/tmp/pickles"),
    "a parameter out of range": lambda h, _: of_inner(h).update(k=0),
    "a missing attribute": lambda h, _: h["fitted"].pop("n_"),
    "a missing attribute that may be None": lambda h, _: h["fitted"].pop("extra_"),
    "a number that is too large": lambda h, _: h["fitted"].update(gain_=10**400),
    "labels that are too large": lambda h, _: set_labels(h, dtype="<i8", values=[10**30, 1]),
    "labels that are not texts": lambda h, _: set_labels(h, dtype="object", values=["a", None]),
    "an unknown attribute": lambda h, _: h["fitted"].update(more_=1),
    "a missing array": lambda _, a: a.pop("inner_.centres_"),
    "an unknown array": lambda _, a: a.update(more=np.zeros(1)),
    "an array of another type": lambda _, a: a.update({"inner_.centres_": np.zeros((2, 2), "f4")}),
    "an array of another shape": lambda _, a: a.update({"weights_.conv.weight": np.zeros((3, 2))}),
    "an array of fewer rows": lambda _, a: a.update({"inner_.centres_": np.zeros((1, 2))}),
    "a part of another class": lambda h, _: h["fitted"]["inner_"].update({"class": "Outer"}),
    "a text for a number": lambda h, _: h["fitted"].update(n_="3"),
    "a boolean for a number": lambda h, _: h["fitted"].update(n_=True),
    "a text for a list": lambda h, _: h["fitted"].update(taps_="ab"),
    "a single label": lambda h, _: set_labels(h, values=["fibre"]),
    "labels of dates": lambda h, _: set_labels(h, dtype="<M8[D]"),
    "a record with another field": lambda h, _: h["fitted"]["curve_"].update(more=1),
    "parts that do not fit": lambda h, _: set_labels(h, values=["a", "b", "c"]),
}


def of_inner(header: Header) -> Header:
    """Return the parameters of the part."""
    return header["fitted"]["inner_"]["state"]["parameters"]


def set_labels(header: Header, **changes: Any) -> None:
    header["fitted"]["classes_"].update(changes)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_state_that_does_not_fit_is_refused(damage: str) -> None:
    header, arrays = copy.deepcopy(state())
    DAMAGES[damage](header, arrays)
    message = r"(Outer|Inner) is incomplete .*; train it again"
    if damage == "a parameter out of range":
        message = "k must be a whole number of at least 1, not 0"
    with pytest.raises(ModelFileError, match=message):
        Outer.from_state(header, arrays)


@pytest.mark.parametrize(
    ("field", "packed", "message"),
    [
        (Labels(), {"dtype": "<U100000000", "values": ["a", "b"]}, "2 characters in all"),
        (Labels(), {"dtype": "<U1", "values": ["a", "bc"]}, "not of type <U1"),
        (Labels(), {"dtype": "<i8", "values": [1, 2.5]}, "not of type <i8"),
        (Labels(), {"dtype": "<i8", "values": [True, 2]}, "not of type <i8"),
        (Labels(), {"dtype": "(2,)i8", "values": [1, 2]}, "unexpected type"),
        (Labels(), {"dtype": [["a", "i8"]], "values": [1, 2]}, "unexpected type"),
        (Labels(), {"dtype": "<U1", "values": "ab"}, "expected at least two"),
        (Labels(), {"dtype": "<U1", "values": ["b", "a"]}, "not sorted and distinct"),
        (Labels(), {"dtype": "object", "values": ["a", "a"]}, "not sorted and distinct"),
        (Value(float), "nan", "not of type float"),
        (Value(float), "inf", "not of type float"),
        (Value(float, may_be_infinite=True), "nan", "not of type float"),
        (Value(float, may_be_infinite=True), "1e400", "not of type float"),
        (Value(int, Integer(1, 5)), 6, "at most 5, not 6"),
        (Values(int), [1, None], "not of type int"),
    ],
)
def test_values_that_no_model_has_are_refused(field: Any, packed: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        field.unpack(packed, {})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e30])
def test_arrays_out_of_range_are_refused(value: float) -> None:
    whole = np.array([1.0, value])
    with pytest.raises(ValueError, match=r"values from .* expected numbers from -1e\+30"):
        Array("float64", 1).unpack({"shape": [2]}, {"": whole})
    if not np.isfinite(value):
        with pytest.raises(ValueError, match="array 'w' are not finite"):
            ArrayDict().unpack({"w": [2]}, {"w": whole})


def test_a_number_that_could_not_be_loaded_is_not_saved() -> None:
    for field in (Value(float), Value(float, may_be_infinite=True)):
        with pytest.raises(ModelFileError, match="the value nan cannot be saved"):
            field.pack(np.nan)


def test_a_message_quotes_little_of_the_file() -> None:
    header, arrays = state()
    header["fitted"]["n_"] = "x" * 1_000_000
    with pytest.raises(ModelFileError) as error:
        Outer.from_state(header, arrays)
    assert len(str(error.value)) < 1000


def test_what_would_need_pickle_is_not_saved() -> None:
    model = Outer().fit()
    model.inner_ = LogisticRegression()
    with pytest.raises(ModelFileError, match="only Inner can be stored without pickle"):
        model.to_state()
    model = Outer().fit()
    model.classes_ = np.array([None, 3], dtype=object)
    with pytest.raises(ModelFileError, match="only if every one is a string"):
        model.to_state()
    model.classes_ = np.array(["2026-01-01", "2026-01-02"], dtype="M8[D]")
    with pytest.raises(ModelFileError, match="cannot be saved; use strings"):
        model.to_state()


def test_parts_are_seeded_where_they_have_no_seed() -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    assert seeded_clone(pipeline, 5).get_params()["logisticregression__random_state"] == 5
    assert seeded_clone(Inner(random_state=1), 5).random_state == 1
    assert seeded_clone(Inner(), 5, verbose=True).verbose
    assert not seeded_clone(Inner(), 5).verbose
    original = Inner()
    seeded_clone(original, 5, verbose=True)
    assert original.random_state is None


def test_a_list_of_images_is_no_table() -> None:
    tags = Outer().__sklearn_tags__()
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: (
        st.lists(each).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.booleans(), each, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_parameters_survive_json(value: Any) -> None:
    assert from_json(to_json(value)) == value


def test_other_parameters_become_plain(tmp_path: Any) -> None:
    assert to_json(np.float64(0.5)) == 0.5
    assert to_json(np.array([1, 2])) == [1, 2]
    assert to_json(tmp_path) == str(tmp_path)
    assert to_json(np.random.RandomState(0)) is None
    assert from_json(to_json(Curve((1.0,), "a"))) == {"loss": (1.0,), "name": "a"}
