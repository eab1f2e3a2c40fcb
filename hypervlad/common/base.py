"""What all estimators share: checked parameters, seeded parts, and a state without pickle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from hypervlad.common.constraints import Alternatives, check_parameters
from hypervlad.common.limits import MAX_QUOTED
from hypervlad.common.modelfile import ModelFileError, write_model
from hypervlad.common.stored import (
    Arrays,
    arrays_of,
    from_json,
    may_be_missing,
    packed_fields,
    stored_fields,
    to_json,
)

# What content raises that is not that of a model; ArithmeticError by numbers that are too large.
_UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class PartParameter(NamedTuple):
    """A parameter that is an estimator: where ``fit`` leaves it, and what None stands for."""

    attribute: str
    default: Callable[..., BaseEstimator]  # called with parameters of the part


class Estimator(BaseEstimator):
    """An estimator with declared parameter constraints, of which a file holds its `stored_fields`.

    Rules across parameters or fitted attributes go into `check_parameters` and `_check_state`.
    """

    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {}  # of each: see `check_value`
    _kind: ClassVar[str]  # of its model file; listed in `hypervlad.loading`
    _part_parameters: ClassVar[Mapping[str, PartParameter]] = {}
    # What belongs to a machine or a run and not to the model; defaults after loading.
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
        fitted, arrays = packed_fields(self, include_backbone=include_backbone)
        return {"parameters": self._parameters_to_save(), "fitted": fitted}, arrays

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the model that :meth:`to_state` stored; a ModelFileError if parts do not fit."""
        name = "parameters"
        try:
            model = cls(**cls._parameters_from(header["parameters"]))
            fitted, remaining = dict(header["fitted"]), dict(arrays)
            for name, field in stored_fields(cls).items():
                if may_be_missing(field) and name not in fitted:
                    continue
                own = arrays_of(name, remaining)
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
