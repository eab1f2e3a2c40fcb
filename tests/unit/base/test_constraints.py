"""Declared constraints: what they accept, and what their messages say."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hypervlad.common.constraints import (
    Boolean,
    Constraint,
    HasMethods,
    InstanceOf,
    Integer,
    ListOf,
    Number,
    OneOf,
    RandomState,
    check_parameters,
    check_value,
)


@pytest.mark.parametrize(
    ("constraint", "allowed", "refused"),
    [
        (Integer(), [1, 7, np.int64(3)], [0, -1, 1.0, True, np.bool_(True), "1", None]),
        (Integer(0, at_most=3), [0, 3], [-1, 4]),
        (Integer(None), [-5, 0], [0.5]),
        (Number(above=0, below=1), [0.5, Fraction(1, 3), np.float32(0.1)], [0, 1, True, "0.5"]),
        (Number(at_least=0, at_most=1), [0, 1, 0.0], [-1e-9, 1.1, float("nan"), float("inf")]),
        (Number(), [-1e300, 0], [float("-inf"), None, 1j]),
        (OneOf("raise", "skip"), ["raise"], ["Skip", None, 0, ["raise"]]),
        (OneOf(1, 2, 4, 8), [2, np.int32(8)], [3, 2.0, True, "2"]),
        (Boolean(), [True, np.bool_(False)], [0, 1, "True", None]),
        (InstanceOf((str, bytes), "a text"), ["a", b"a"], [1, None]),
        (HasMethods(("fit",), "an estimator"), [type("F", (), {"fit": len})()], [1, str, None]),
        (ListOf(Integer(), "numbers"), [[1], (1, 2), np.array([3])], [[], [0], "12", 1, [[1]]]),
        (ListOf(Integer(), "numbers", at_least=0), [[], ()], [{1}]),
        (RandomState(), [0, 2**32 - 1, np.random.RandomState(0)], [-1, 2**32, 1.5, True, "a"]),
    ],
)
def test_constraints_accept_and_refuse(
    constraint: Constraint, allowed: list[Any], refused: list[Any]
) -> None:
    for value in allowed:
        assert constraint.accepts(value), value
        check_value("x", value, [constraint])
    for value in refused:
        assert not constraint.accepts(value), value
        with pytest.raises(ValueError, match="x must be"):
            check_value("x", value, [constraint])


@pytest.mark.parametrize(
    ("alternatives", "message"),
    [
        ([Integer(32), None], "must be a whole number of at least 32 or None, not 'a'"),
        ([Integer(None)], "must be a whole number, not 'a'"),
        ([Number(above=0, at_most=1)], "must be a number above 0 and at most 1, not 'a'"),
        ([Number(at_least=2, meaning="a width in nm")], "must be a width in nm of at least 2, not"),
        ([OneOf("x", "y"), Boolean()], "must be one of 'x', 'y' or True or False, not 'a'"),
        ([OneOf("auto"), Integer()], "must be 'auto' or a whole number of at least 1, not 'a'"),
        ([ListOf(OneOf(1, 2), "turns")], r"must be turns \(each one of 1, 2\), not 'a'"),
        ([InstanceOf(bytes, "some bytes")], "must be some bytes, not 'a'"),
    ],
)
def test_messages_say_what_is_allowed_and_what_was_given(
    alternatives: list[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"size {message}"):
        check_value("size", "a", alternatives)


def test_the_first_parameter_that_is_not_allowed_is_named() -> None:
    constraints = {"a": [Integer()], "b": [Boolean()], "c": [None]}
    check_parameters({"a": 1, "b": True, "c": None}, constraints)
    with pytest.raises(ValueError, match="b must be True or False, not 3"):
        check_parameters({"a": 1, "b": 3, "c": 4}, constraints)
