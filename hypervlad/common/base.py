"""What all estimators share: checked parameters, seeded parts, and a state without pickle."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import reprlib
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from hypervlad.common.constraints import Alternatives, Constraint, check_parameters, check_value
from hypervlad.common.limits import ALLOWED_LABEL_BYTES, MAX_LABEL_PADDING, MAX_QUOTED
from hypervlad.common.modelfile import ModelFileError, write_model

Arrays: TypeAlias = dict[str, NDArray[Any]]

_LABEL_KINDS = "biufUO"
_LABEL_DTYPE = re.compile(r"object|[<>|][biuf][1248]|[<>]U[1-9][0-9]{0,8}")
# What content raises that is not that of a model; ArithmeticError by numbers that are too large.
_UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


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
        nested = isinstance(value, Estimator)
        header, arrays = (
            value.to_state(include_backbone=include_backbone) if nested else value.to_state()
        )
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
            self.field.unpack(header, _arrays_of(str(number), arrays))
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


def _packed_fields(owner: Any, **of_parts: Any) -> tuple[dict[str, Any], Arrays]:
    """Return the `stored_fields` of an object as JSON and arrays; options are for its parts."""
    header, arrays = dict[str, Any](), Arrays()
    for name, field in stored_fields(type(owner)).items():
        if _may_be_missing(field) and not hasattr(owner, name):
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
        return _packed_fields(self)

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        """Undo ``to_state``; a ValueError or TypeError for what cannot be such a part."""
        remaining, found = dict(arrays), dict[str, Any]()
        for name, field in stored_fields(cls).items():
            try:
                found[name] = field.unpack(header[name], _arrays_of(name, remaining))
            except KeyError as error:
                raise ValueError(f"{name} is missing") from error
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if remaining or len(header) > len(found):
            raise ValueError(f"unknown entries {sorted({*header, *remaining} - set(found))}")
        return cls(**found)


class PartParameter(NamedTuple):
    """A parameter that is an estimator: where ``fit`` leaves it, and what None stands for."""

    attribute: str
    default: Callable[..., BaseEstimator]  # called with parameters of the part


class Estimator(BaseEstimator):
    """An estimator with declared parameter constraints, of which a file holds its `stored_fields`.

    Rules across parameters or fitted attributes go into `check_parameters` and `_check_state`.

    Attributes
    ----------
    _parameter_constraints : dict of str to list of Constraint or None
        For every parameter: see :func:`hypervlad.common.constraints.check_value`.
    _kind : str
        Of its model file; listed in :mod:`hypervlad.loading`.
    _part_parameters : dict of str to PartParameter
    _unsaved_parameters : frozenset of str
        What belongs to a machine or a run and not to the model; defaults after loading.
    """

    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {}
    _kind: ClassVar[str]
    _part_parameters: ClassVar[Mapping[str, PartParameter]] = {}
    _unsaved_parameters: ClassVar[frozenset[str]] = frozenset(
        {"device", "memory", "n_jobs", "tile_size", "verbose"}
    )

    def set_params(self, **params: Any) -> Self:
        """Set parameters as in scikit-learn, those of a part that is None in a new default one."""
        for name, part in self._part_parameters.items():
            prefix = f"{name}__"
            own = {
                key.removeprefix(prefix): params[key] for key in params if key.startswith(prefix)
            }
            if own and params.get(name, getattr(self, name)) is None:
                part.default().set_params(**own)  # a ValueError unless there are such parameters
                params = {key: params[key] for key in params if not key.startswith(prefix)}
                params[name] = part.default(**own)  # some depend on others, taps on the network
        super().set_params(**params)
        return self

    def _new_part(self, name: str, seed: int | None, **parameters: Any) -> Any:
        """Return a seeded copy of a part, by default of a new one with these parameters."""
        own = getattr(self, name)
        part = self._part_parameters[name].default(**parameters) if own is None else own
        return seeded_clone(part, seed, verbose=getattr(self, "verbose", False))

    def check_parameters(self) -> None:
        """Raise a ValueError that names the first unusable parameter; ``fit`` begins with it."""
        check_parameters(self.get_params(deep=False), self._parameter_constraints)
        for name in self._part_parameters:
            if isinstance(part := getattr(self, name), Estimator):
                part.check_parameters()

    def save(self, path: str | os.PathLike[str], *, include_backbone: bool = False) -> None:
        """Write the fitted model to one file, without pickle, or raise a ModelFileError.

        Parameters
        ----------
        path : path-like
            By convention ``*.hvlad``. Read it back with :func:`hypervlad.load`.
        include_backbone : bool, default=False
            Store the network's weights in the file as well, for machines that lack them.
        """
        write_model(path, self._kind, *self.to_state(include_backbone=include_backbone))

    def to_state(self, *, include_backbone: bool = False) -> tuple[dict[str, Any], Arrays]:
        """Return the fitted model as JSON and arrays, by default without the network's weights."""
        check_is_fitted(self)
        fitted, arrays = _packed_fields(self, include_backbone=include_backbone)
        return {"parameters": self._parameters_to_save(), "fitted": fitted}, arrays

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the model that :meth:`to_state` stored; a ModelFileError if parts do not fit."""
        name = "parameters"
        try:
            model = cls(**cls._parameters_from(header["parameters"]))
            fitted, remaining = dict(header["fitted"]), dict(arrays)
            for name, field in stored_fields(cls).items():
                if _may_be_missing(field) and name not in fitted:
                    continue
                own = _arrays_of(name, remaining)
                setattr(model, name, field.unpack(fitted.pop(name), own))
            name = "the whole"
            if fitted or remaining:
                raise ValueError(f"unknown entries {sorted(fitted) + sorted(remaining)}")
            for parameter, (attribute, _) in cls._part_parameters.items():
                if (part := getattr(model, attribute, None)) is not None:
                    setattr(model, parameter, clone(part))
            model.check_parameters()
            model._check_state()
        except ModelFileError:
            raise
        except _UNFIT as error:
            raise ModelFileError(
                f"the {cls.__name__} is incomplete "
                f"({type(error).__name__} in {name}: {str(error)[:MAX_QUOTED]}): it was "
                "written by another version of hypervlad, or not by hypervlad; train it again"
            ) from error
        return model

    def _check_state(self) -> None:
        """Raise a ValueError where loaded attributes do not fit together."""

    def _parameters_to_save(self) -> dict[str, Any]:
        left_out = self._unsaved_parameters | set(self._part_parameters)
        parameters = self.get_params(deep=False).items()
        return {name: to_json(value) for name, value in parameters if name not in left_out}

    @classmethod
    def _parameters_from(cls, packed: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters from a model file, only those that `_parameters_to_save` writes.

        A ``memory`` from a file, for example, would be a folder of pickles to open.
        """
        left_out = cls._unsaved_parameters | set(cls._part_parameters)
        expected = set(cls._get_param_names()) - left_out
        unknown, missing = sorted(set(packed) - expected), sorted(expected - set(packed))
        if unknown or missing:
            raise ValueError(f"unknown parameters {unknown}, missing parameters {missing}")
        return {name: from_json(value) for name, value in packed.items()}


class ImageEstimator(Estimator):
    """An estimator whose X is a list of images: paths and arrays, not a table of numbers."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


def seeded_clone(part: BaseEstimator, seed: int | None, *, verbose: bool | int = False) -> Any:
    """Return an unfitted copy of a part, with the seed wherever a ``random_state`` is None.

    If `verbose` is given and not False, a part of hypervlad gets it, too.
    """
    part = clone(part)
    for name, value in part.get_params().items():
        if value is None and (name == "random_state" or name.endswith("__random_state")):
            part.set_params(**{name: seed})
    if verbose and isinstance(part, Estimator):
        part.set_params(verbose=verbose)
    return part


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


def _may_be_missing(field: Field) -> bool:
    return isinstance(field, Maybe) and field.may_be_missing


def _below(name: str, own: Arrays) -> Arrays:
    return {f"{name}.{key}" if key else name: array for key, array in own.items()}


def _arrays_of(name: str, remaining: Arrays) -> Arrays:
    """Take from the arrays those that `_below` has put below a name."""
    own = [key for key in remaining if key == name or key.startswith(f"{name}.")]
    return {key.removeprefix(name).removeprefix("."): remaining.pop(key) for key in own}
