"""Declared constraints on parameters, and the error messages for values that violate them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.wording import counted


class Constraint(Protocol):
    """A set of allowed values; ``str(constraint)`` completes "must be ..."."""

    def accepts(self, value: Any) -> bool:
        pass

    def __str__(self) -> str: ...


#: The constraints of one parameter: a value is allowed if one of them accepts it.
Alternatives: TypeAlias = Sequence[Constraint | None]


def is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)


def is_number(value: Any) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    return real and math.isfinite(value)


@dataclass(frozen=True)
class Number:
    """Finite real numbers within bounds, if given; ``above`` and ``below`` exclude the bound.

    `meaning` is what a message calls them.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    meaning: str = "a number"

    def accepts(self, value: Any) -> bool:
        return is_number(value) and self._is_within_bounds(value)

    def _is_within_bounds(self, value: Any) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        names = ("above", "at_least", "below", "at_most")
        bounds = [(name.replace("_", " "), getattr(self, name)) for name in names]
        given = [f"{words} {bound:g}" for words, bound in bounds if bound is not None]
        # "a whole number of at least 1", but "a number above 0 and below 1"
        joint = " of " if given and given[0].startswith("at ") else " " * bool(given)
        return self.meaning + joint + " and ".join(given)


class Integer(Number):
    """Whole numbers within bounds, both included; by default, from 1 on."""

    def __init__(
        self, at_least: int | None = 1, at_most: int | None = None, meaning: str = "a whole number"
    ) -> None:
        super().__init__(at_least=at_least, at_most=at_most, meaning=meaning)

    def accepts(self, value: Any) -> bool:
        return is_integer(value) and self._is_within_bounds(value)


class OneOf:
    def __init__(self, *values: str | int) -> None:
        self.values = values

    def accepts(self, value: Any) -> bool:
        return (isinstance(value, str) or is_integer(value)) and value in self.values

    def __str__(self) -> str:
        if len(self.values) == 1:
            return repr(self.values[0])
        return f"one of {', '.join(map(repr, self.values))}"


@dataclass(frozen=True)
class InstanceOf:
    """Objects of some types; `meaning` says what they are: "a HypercolumnVLAD"."""

    types: type | tuple[type, ...]
    meaning: str

    def accepts(self, value: Any) -> bool:
        return isinstance(value, self.types)

    def __str__(self) -> str:
        return self.meaning


BOOLEAN = InstanceOf((bool, np.bool_), "True or False")


@dataclass(frozen=True)
class HasMethods:
    names: tuple[str, ...]
    meaning: str

    def accepts(self, value: Any) -> bool:
        return not isinstance(value, type) and all(
            callable(getattr(value, name, None)) for name in self.names
        )

    def __str__(self) -> str:
        return self.meaning


@dataclass(frozen=True)
class ListOf:
    """Tuples, lists and one-dimensional arrays; by default, of at least one item."""

    item: Constraint
    meaning: str
    at_least: int = 1
    at_most: int | None = None

    def accepts(self, value: Any) -> bool:
        if isinstance(value, np.ndarray):
            value = value.tolist() if value.ndim == 1 else None
        return (
            isinstance(value, list | tuple)
            and len(value) >= self.at_least
            and (self.at_most is None or len(value) <= self.at_most)
            and all(self.item.accepts(each) for each in value)
        )

    def __str__(self) -> str:
        return f"{self.meaning} (each {self.item})"


class RandomState:
    """What seeds random numbers: a seed, or a NumPy generator of the older kind."""

    def accepts(self, value: Any) -> bool:
        is_seed = is_integer(value) and 0 <= value < 2**32
        return is_seed or isinstance(value, np.random.RandomState)

    def __str__(self) -> str:
        return "a seed from 0 to 2**32 - 1, a numpy.random.RandomState"


#: Of estimators that draw random numbers and show bars; as in scikit-learn, a number will do.
SEEDED: Mapping[str, Alternatives] = {
    "random_state": (RandomState(), None),
    "verbose": (BOOLEAN, Integer(at_least=0)),
}


def check_value(name: str, value: Any, alternatives: Alternatives) -> None:
    """Raise a ValueError unless a value satisfies one of several constraints; None allows None.

    >>> check_value("image_size", 224, [Integer(32), None])
    >>> check_value("image_size", "large", [Integer(32), None])
    Traceback (most recent call last):
        ...
    ValueError: image_size must be a whole number of at least 32 or None, not 'large'
    """
    if not any(
        value is None if constraint is None else constraint.accepts(value)
        for constraint in alternatives
    ):
        *others, last = [str(constraint) for constraint in alternatives]
        expected = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{name} must be {expected}, not {value!r}")


def check_parameters(
    parameters: Mapping[str, Any], constraints: Mapping[str, Alternatives]
) -> None:
    for name, alternatives in constraints.items():
        check_value(name, parameters[name], alternatives)


def check_points(name: str, points: Any) -> NDArray[np.float64]:
    """Return row and column of points, of shape (n, 2); None has none."""
    if isinstance(points, Mapping):
        raise ValueError(
            f"{name}: got a dict of {len(points)}; give the points of the image, "
            f"{name}[its name in the table], or for a list of images a list of these"
        )
    try:
        own = np.zeros((0, 2)) if points is None else np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected points of shape (n, 2) ({error})") from error
    if own.ndim != 2 or own.shape[1] != 2 or not np.isfinite(own).all():
        raise ValueError(
            f"{name}: expected points of shape (n, 2), row and column in pixels, got shape "
            f"{own.shape}"
        )
    return own


def check_side(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of pixels, at least 1; got {value!r}.")
    return int(value)


def one_each(what: str, values: Sequence[Any] | None, n_images: int) -> list[Any]:
    """Return `values`, or as many None, as a list; raise if there is not one for each image."""
    listed = [None] * n_images if values is None else list(values)
    if len(listed) != n_images:
        raise ValueError(
            f"expected one {what} for each of {counted(n_images, 'image')}; got {len(listed)}."
        )
    return listed
