"""What the classifier accepts: ranges of its parameters, weights, the range of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import _check_sample_weight

from hypervlad.boosting.margins import FloatArray

if TYPE_CHECKING:
    from hypervlad.boosting.classifier import BoostedSoftmaxClassifier

_INTEGERS = {
    "n_estimators": 0,
    "max_depth": 1,
    "max_bin": 2,
    "max_linear_directions": 1,
    "max_tree_features": 1,
    "n_iter_no_change": 1,
    "n_splits": 2,
}
_MAY_BE_NONE = ("max_linear_directions", "max_tree_features", "n_iter_no_change")
_SHARES = ("learning_rate", "subsample", "colsample_bytree")
_NOT_NEGATIVE = ("min_child_weight", "reg_lambda")


def check_parameters(model: BoostedSoftmaxClassifier) -> None:
    """ValueError that names the first parameter out of range, its value and what is allowed."""
    if model.init is not None and model.init != "linear":
        raise ValueError(f'init must be "linear" or None; got {model.init!r}.')
    for name, lowest in _INTEGERS.items():
        value = getattr(model, name)
        if name in _MAY_BE_NONE and value is None:
            continue
        if not isinstance(value, Integral) or isinstance(value, bool) or value < lowest:
            raise ValueError(f"{name} must be a whole number, at least {lowest}; got {value!r}.")
    for name in _SHARES:
        _check_real(name, getattr(model, name), "in (0, 1]", lambda v: 0 < v <= 1)
    for name in _NOT_NEGATIVE:
        _check_real(name, getattr(model, name), "not negative", lambda v: v >= 0)
    _check_real("validation_fraction", model.validation_fraction, "in (0, 1)", lambda v: 0 < v < 1)
    check_cs(model.Cs)
    check_class_weight(model.class_weight)


def _check_real(name: str, value: Any, allowed: str, is_allowed: Any) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and np.isfinite(value) and is_allowed(value)):
        raise ValueError(f"{name} must be a number, {allowed}; got {value!r}.")


def check_cs(Cs: Any) -> None:
    """Raise unless it is a positive number or several."""
    values = np.atleast_1d(np.asarray(Cs))
    positive = values.dtype.kind in "iuf" and bool((values > 0).all() and np.isfinite(values).all())
    if values.ndim != 1 or not values.size or not positive:
        raise ValueError(f"Cs must be a positive number or several of them; got {Cs!r}.")


def check_class_weight(class_weight: Any) -> None:
    """Raise unless it is None, "balanced" or positive numbers by label."""
    if isinstance(class_weight, Mapping):
        for label, value in class_weight.items():
            _check_real(f"class_weight[{label!r}]", value, "positive", lambda v: v > 0)
    elif class_weight is not None and class_weight != "balanced":
        raise ValueError(f'class_weight must be None, "balanced" or a dict; got {class_weight!r}.')


def checked_weight(sample_weight: ArrayLike | None, X: NDArray[Any]) -> FloatArray:
    """Weights of the rows of X, ones if None; ValueError if one is negative."""
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if (weight < 0).any():
        raise ValueError(f"sample_weight must not be negative; the smallest is {weight.min():g}.")
    return weight


def checked_views(views: Sequence[int] | None, n_features: int) -> list[int]:
    """Numbers of columns of the views; ValueError unless they are whole and cover X."""
    widths = [n_features] if views is None else list(views)
    whole = all(isinstance(w, Integral) and not isinstance(w, bool) and w > 0 for w in widths)
    if not widths or not whole or sum(widths) != n_features:
        raise ValueError(
            f"views are whole numbers of columns, each at least 1, that add up to the {n_features} "
            f"columns of X; got {views!r}."
        )
    return [int(width) for width in widths]


def check_float32(X: NDArray[Any]) -> None:
    """ValueError for features that would turn infinite in xgboost, which holds them as float32."""
    if X.dtype != np.float32 and max(X.max(), -X.min()) > np.finfo(np.float32).max:
        raise ValueError("X has values beyond the range of float32 (about 3.4e38); rescale it.")
