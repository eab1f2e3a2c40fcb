"""What a model file holds of parts: attributes that say how they are stored, without pickle."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import reprlib
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import Constraint, check_value
from hypervlad.common.limits import ALLOWED_LABEL_BYTES, MAX_LABEL_PADDING
from hypervlad.common.modelfile import ModelFileError

Arrays: TypeAlias = dict[str, NDArray[Any]]

_LABEL_KINDS = "biufUO"
_LABEL_DTYPE = re.compile(r"object|[<>|][biuf][1248]|[<>]U[1-9][0-9]{0,8}")


class Field(Protocol):
    """How one fitted attribute is stored: partly as JSON, partly as named arrays."""

    def pack(self, value: Any) -> tuple[Any, Arrays]:
        """Return JSON and arrays."""

    def unpack(self, packed: Any, arrays: Arrays) -> Any:
        """Undo `pack`; a KeyError, TypeError or ValueError where it does not fit."""


class Stateful(Protocol):
    """A part of a model that converts itself into JSON and named arrays, and back."""

    def to_state(self) -> tuple[dict[str, Any], Arrays]: ...

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self: ...


@dataclasses.dataclass(frozen=True)
class Value:
    """A finite number, a boolean or a string that satisfies `allowed`, if given.

    Numbers may be those of `also`, too: "inf", "-inf" or "nan".
    """

    kind: type
    allowed: Constraint | None = None
    also: tuple[str, ...] = ()

    def pack(self, value: Any) -> tuple[Any, Arrays]:
        value = self.kind(value)
        if self.kind is not float or np.isfinite(value):
            return value, {}
        if str(value) not in self.also:
            raise ModelFileError(f"a model with the value {value} cannot be saved")
        return str(value), {}  # JSON has no infinity and no NaN

    def unpack(self, packed: Any, arrays: Arrays) -> Any:
        if packed in self.also:
            return float(packed)
        expected = {float: int | float, int: int, bool: bool, str: str}[self.kind]
        if not isinstance(packed, expected) or isinstance(packed, bool) != (self.kind is bool):
            raise TypeError(f"{reprlib.repr(packed)} is not of type {self.kind.__name__}")
        value = self.kind(packed)
        if self.allowed is not None:
            check_value("a value", value, [self.allowed])
        return value


@dataclasses.dataclass(frozen=True)
class Labels:
    """At least two class labels: strings, numbers or booleans; by default, sorted and distinct."""

    distinct: bool = True

    def pack(self, value: Any) -> tuple[Any, Arrays]:
        values = value.tolist()
        if value.dtype.kind not in _LABEL_KINDS:
            raise ModelFileError(
                f"class labels of type {value.dtype} cannot be saved; "
                "use strings, integers, floats or booleans"
            )
        if value.dtype.kind == "O" and not _all_texts(values):
            raise ModelFileError(
                "class labels of type object can be saved only if every one is a string; use "
                "strings, integers, floats or booleans, not a mixture"
            )
        dtype = "object" if value.dtype.kind == "O" else value.dtype.str
        return {"dtype": dtype, "values": values}, {}

    def unpack(self, packed: Any, arrays: Arrays) -> Any:
        name, values = packed["dtype"], packed["values"]
        if not isinstance(name, str) or not _LABEL_DTYPE.fullmatch(name):
            raise ValueError(f"class labels have the unexpected type {reprlib.repr(name)}")
        dtype = np.dtype(name)
        if not isinstance(values, list) or len(values) < 2:
            raise ValueError(f"class labels are {reprlib.repr(values)}; expected at least two")
        if dtype.kind in "UO":
            if not _all_texts(values):
                raise ValueError("class labels are not all strings")
            n_stored = sum(map(len, values))
            if len(values) * dtype.itemsize > ALLOWED_LABEL_BYTES + MAX_LABEL_PADDING * n_stored:
                raise ValueError(f"class labels of {n_stored} characters in all have type {name}")
        labels = np.array(values, dtype=dtype)
        found = labels.tolist()
        if found != values or [type(each) for each in found] != [type(each) for each in values]:
            raise ValueError(f"class labels {reprlib.repr(values)} are not of type {name}")
        if self.distinct and not (labels[:-1] < labels[1:]).all():
            raise ValueError(f"class labels {reprlib.repr(values)} are not sorted and distinct")
        return labels


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of finite numbers, of exactly this type and number of dimensions, within bounds.

    With the default bounds, -1e30 and 1e30, products with features in single precision are finite.
    """

    dtype: str
    ndim: int
    at_least: float = -1e30
    at_most: float = 1e30

    def pack(self, value: Any) -> tuple[Any, Arrays]:
        return {"shape": list(value.shape)}, {"": np.asarray(value, dtype=self.dtype)}

    def unpack(self, packed: Any, arrays: Arrays) -> Any:
        array = self.checked(arrays[""])
        if list(array.shape) != packed["shape"]:
            raise ValueError(
                f"an array has shape {array.shape}; expected {reprlib.repr(packed['shape'])}"
            )
        return array

    def checked(self, array: NDArray[Any], name: str = "an array") -> NDArray[Any]:
        """Return an array from a file; ValueError for another type, rank or range of values."""
        if array.dtype != self.dtype or array.ndim != self.ndim:
            raise ValueError(
                f"{name} has type {array.dtype} and shape {array.shape}; "
                f"expected {self.dtype} and {self.ndim} dimensions"
            )
        # Not finite: the extremes of an array with NaN are NaN.
        if array.size and not (array.min() >= self.at_least and array.max() <= self.at_most):
            raise ValueError(
                f"{name} has values from {array.min()} to {array.max()}; expected numbers from "
                f"{self.at_least:g} to {self.at_most:g}"
            )
        return array


class ArrayDict:
    def pack(self, value: Any) -> tuple[Any, Arrays]:
        return {name: list(array.shape) for name, array in value.items()}, dict(value)

    def unpack(self, packed: Any, arrays: Arrays) -> Any:
        if {name: list(array.shape) for name, array in arrays.items()} != dict(packed):
            raise ValueError("some arrays are missing, superfluous or of another shape")
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(f"values of the array {name!r} are not finite")
        return dict(arrays)


@dataclasses.dataclass(frozen=True)
class Record:
    """A dataclass of values that JSON knows; tuples come back as tuples."""

    kind: type

    def pack(self, value: Any) -> tuple[Any, Arrays]:
        return {name: to_json(each) for name, each in dataclasses.asdict(value).items()}, {}

    def unpack(self, packed: Any, arrays: Arrays) -> Any:
        fields = {each.name for each in dataclasses.fields(self.kind) if each.init}
        if set(packed) != fields:
            raise ValueError(
                f"{self.kind.__name__} has fields {sorted(fields)}, not {list(packed)}"
            )
        return self.kind(**{name: from_json(value) for name, value in packed.items()})


class Part:
    """A part with its own state, of one of several classes."""

    def __init__(self, *kinds: type[Stateful]) -> None:
        self.kinds = {kind.__name__: kind for kind in kinds}

    def pack(self, value: Any, *, include_backbone: bool = False) -> tuple[Any, Arrays]:
        kind = type(value).__name__
        if kind not in self.kinds:
            raise ModelFileError(
                f"a model with a {kind} cannot be saved: only {' or '.join(self.kinds)} can be "
                "stored without pickle"
            )
        # Only estimators have a network below them.
        own = {"include_backbone": include_backbone} if hasattr(value, "get_params") else {}
        header, arrays = value.to_state(**own)
        return {"class": kind, "state": header}, arrays

    def unpack(self, packed: Any, arrays: Arrays) -> Any:
        return self.kinds[packed["class"]].from_state(packed["state"], arrays)


@dataclasses.dataclass(frozen=True)
class Each:
    """A sequence of values of one field."""

    field: Field
    sequence: Callable[[Iterable[Any]], Any] = tuple

    def pack(self, value: Any) -> tuple[Any, Arrays]:
        headers, arrays = [], Arrays()
        for number, each in enumerate(value):
            header, own = self.field.pack(each)
            headers.append(header)
            arrays |= _below(str(number), own)
        return headers, arrays

    def unpack(self, packed: Any, arrays: Arrays) -> Any:
        if not isinstance(packed, list):
            raise TypeError(f"{reprlib.repr(packed)} is not a list")
        return self.sequence(
            self.field.unpack(header, arrays_of(str(number), arrays))
            for number, header in enumerate(packed)
        )


@dataclasses.dataclass(frozen=True)
class Maybe:
    """An attribute that may be None; a fitted estimator lacks it only if it `may_be_missing`."""

    field: Field
    may_be_missing: bool = False

    def pack(self, value: Any) -> tuple[Any, Arrays]:
        if value is None:
            return None, {}
        return self.field.pack(value)

    def unpack(self, packed: Any, arrays: Arrays) -> Any:
        return None if packed is None else self.field.unpack(packed, arrays)


def _stored_fields(kind: type) -> dict[str, Field]:
    """Return the attributes of a class that a model file holds: those annotated with a `Field`.

    Such as ``n_images_: Annotated[int, Value(int)]``.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    stored = {name: hint for name, hint in hints.items() if hasattr(hint, "__metadata__")}
    return {name: hint.__metadata__[0] for name, hint in stored.items()}


stored_fields: Callable[[type], dict[str, Field]] = functools.cache(_stored_fields)


def packed_fields(owner: Any, **of_parts: Any) -> tuple[dict[str, Any], Arrays]:
    """Return the `stored_fields` of an object as JSON and arrays; options are for its parts."""
    header, arrays = dict[str, Any](), Arrays()
    for name, field in stored_fields(type(owner)).items():
        if may_be_missing(field) and not hasattr(owner, name):
            continue
        options = of_parts if isinstance(field, Part) else {}
        header[name], own = field.pack(getattr(owner, name), **options)
        arrays |= _below(name, own)
    return header, arrays


class StoredPart:
    """A dataclass in a model, of which a file holds the `stored_fields`.

    Cached properties are neither copied nor pickled.
    """

    def __getstate__(self: Any) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}

    def to_state(self) -> tuple[dict[str, Any], Arrays]:
        return packed_fields(self)

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        """Undo ``to_state``; a ValueError or TypeError for what cannot be such a part."""
        remaining, found = dict(arrays), dict[str, Any]()
        for name, field in stored_fields(cls).items():
            try:
                found[name] = field.unpack(header[name], arrays_of(name, remaining))
            except KeyError as error:
                raise ValueError(f"{name} is missing") from error
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if remaining or len(header) > len(found):
            raise ValueError(f"unknown entries {sorted({*header, *remaining} - set(found))}")
        return cls(**found)


def to_json(value: Any) -> Any:
    """Return a parameter as JSON knows it; `from_json` undoes it.

    Dictionaries become pairs. Tuples, lists and arrays come back as tuples, numbers of NumPy as
    Python's, paths as absolute paths, and a random generator or what says `is_unsaved` as None.
    """
    if isinstance(value, np.random.RandomState) or getattr(value, "is_unsaved", False):
        return None
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.path.abspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {"pairs": [[to_json(key), to_json(each)] for key, each in value.items()]}
    if isinstance(value, np.ndarray | list | tuple):
        return [to_json(each) for each in value]
    return value


def from_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {from_json(key): from_json(each) for key, each in value["pairs"]}
    return tuple(from_json(each) for each in value) if isinstance(value, list) else value


def _all_texts(values: list[Any]) -> bool:
    return all(isinstance(each, str) for each in values)


def may_be_missing(field: Field) -> bool:
    return isinstance(field, Maybe) and field.may_be_missing


def _below(name: str, own: Arrays) -> Arrays:
    return {f"{name}.{key}" if key else name: array for key, array in own.items()}


def arrays_of(name: str, remaining: Arrays) -> Arrays:
    """Take from the arrays those that `_below` has put below a name."""
    own = [key for key in remaining if key == name or key.startswith(f"{name}.")]
    return {key.removeprefix(name).removeprefix("."): remaining.pop(key) for key in own}
