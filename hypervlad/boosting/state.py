"""A fitted classifier as plain data: a JSON header and arrays, and back, without pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xgboost
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hypervlad.boosting.classifier import BoostedSoftmaxClassifier

_FITTED_NUMBERS = ("n_estimators_", "tree_gain_", "tree_gain_error_")
_FITTED_BY_VIEW = ("C_", "view_weights_")
_LABEL_KINDS = "biufUO"


def pack(model: BoostedSoftmaxClassifier) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a fitted model."""
    header: dict[str, Any] = {
        "parameters": _pack_parameters(model.get_params(deep=False)),
        "classes": pack_labels(model.classes_),
        "n_features_in": int(model.n_features_in_),
        "fitted": {name: _json_number(getattr(model, name)) for name in _FITTED_NUMBERS}
        | {name: _listed(getattr(model, name)) for name in _FITTED_BY_VIEW},
    }
    if hasattr(model, "feature_names_in_"):
        header["feature_names_in"] = [str(name) for name in model.feature_names_in_]
    arrays: dict[str, NDArray[Any]] = {"intercept": model.linear_intercept_}
    if model.linear_coef_ is not None:
        arrays["coef"] = model.linear_coef_
    if model.tree_columns_ is not None:
        arrays["tree_columns"] = model.tree_columns_.astype(np.int64)
    if model.booster_ is not None:
        raw = bytes(model.booster_.save_raw("ubj"))
        arrays["booster"] = np.frombuffer(raw, dtype=np.uint8)
        header["booster_sha256"] = hashlib.sha256(raw).hexdigest()
    return header, arrays


def unpack(
    model_class: type[BoostedSoftmaxClassifier],
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> BoostedSoftmaxClassifier:
    """The model that `pack` took apart; ValueError if the pieces do not fit."""
    try:
        model = model_class(**_unpack_parameters(header["parameters"]))
        model.classes_ = unpack_labels(header["classes"])
        model.n_features_in_ = int(header["n_features_in"])
        for name in _FITTED_NUMBERS:
            setattr(model, name, _number(header["fitted"][name]))
        for name in _FITTED_BY_VIEW:
            values = header["fitted"][name]
            setattr(model, name, None if values is None else tuple(map(float, values)))
        if "feature_names_in" in header:
            model.feature_names_in_ = np.array(header["feature_names_in"], dtype=object)
        intercept = arrays["intercept"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "The state is incomplete or not one of BoostedSoftmaxClassifier: "
            f"{error}. Use the header and arrays that to_state gave; if they come from a file, "
            "another version of hypervlad wrote it, or not hypervlad: train the model again."
        ) from error
    n_columns = 1 if len(model.classes_) == 2 else len(model.classes_)
    model.linear_intercept_ = _shaped("intercept", intercept, (n_columns,))
    model.linear_coef_ = None
    if "coef" in arrays:
        model.linear_coef_ = _shaped("coef", arrays["coef"], (model.n_features_in_, n_columns))
    model.tree_columns_ = None
    if "tree_columns" in arrays:
        model.tree_columns_ = _checked_columns(arrays["tree_columns"], model.n_features_in_)
    model.booster_ = None
    if "booster" in arrays:
        model.booster_ = _unpack_booster(arrays["booster"], header.get("booster_sha256"), model)
    if bool(model.n_estimators_) != (model.booster_ is not None):
        raise ValueError(
            f"The state speaks of {model.n_estimators_} rounds of trees but its arrays "
            f"{'lack' if model.booster_ is None else 'hold'} a 'booster'."
        )
    return model


def _json_number(value: float | None) -> float | str | None:
    """JSON knows no infinity: the error of a gain that one hold-out image told of."""
    return value if value is None or np.isfinite(value) else str(value)


def _number(value: float | str | None) -> float | None:
    return float(value) if isinstance(value, str) else value


def _listed(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)


def _shaped(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    if array.shape != shape or array.dtype != np.float64:
        raise ValueError(
            f"Array {name!r} of the classifier's state has shape {array.shape} and type "
            f"{array.dtype}; expected {shape} and float64."
        )
    return np.array(array)


def _checked_columns(columns: NDArray[Any], n_features: int) -> NDArray[np.intp]:
    fits = columns.dtype == np.int64 and columns.ndim == 1
    if not fits or ((columns < 0) | (columns >= n_features)).any():
        raise ValueError(
            "Array 'tree_columns' of the classifier's state must be a row of int64 column numbers "
            f"below {n_features}; got {columns.dtype} {columns.shape}."
        )
    return columns.astype(np.intp)


def _unpack_booster(
    array: NDArray[Any], digest: str | None, model: BoostedSoftmaxClassifier
) -> xgboost.Booster:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(
            f"The booster's bytes are a row of uint8; got {array.dtype} {array.shape}."
        )
    raw = array.tobytes()
    # Before xgboost sees them: truncated bytes end the whole process in its version 2.1.
    if hashlib.sha256(raw).hexdigest() != digest:
        raise ValueError("The booster's bytes are damaged: they do not have the header's SHA-256.")
    parameters = {"verbosity": 0, "nthread": model._n_threads()}
    try:
        booster = xgboost.Booster(parameters, model_file=bytearray(raw))
        n_features = booster.num_features()
    except xgboost.core.XGBoostError as error:
        raise ValueError("The booster's bytes are not a model that this xgboost reads.") from error
    columns = model.tree_columns_
    expected = model.n_features_in_ if columns is None else len(columns)
    if n_features != expected:
        raise ValueError(
            f"The booster was trained on {n_features} features, "
            f"but the classifier gives it {expected}."
        )
    return booster


def pack_labels(labels: NDArray[Any]) -> dict[str, Any]:
    """Return labels as JSON knows them, with their kind."""
    if labels.dtype.kind not in _LABEL_KINDS:
        raise ValueError(
            f"Labels of type {labels.dtype} cannot be saved; "
            "use strings, integers, floats or booleans."
        )
    values = labels.tolist()
    if labels.dtype.kind == "O" and not all(isinstance(value, str) for value in values):
        raise ValueError("Labels of type object can be saved only if every one is a string.")
    return {"dtype": "object" if labels.dtype.kind == "O" else labels.dtype.str, "values": values}


def unpack_labels(packed: Mapping[str, Any]) -> NDArray[Any]:
    """Undo `pack_labels`."""
    dtype = np.dtype(packed["dtype"])
    if dtype.kind not in _LABEL_KINDS:
        raise ValueError(f"The state's labels have the unexpected type {packed['dtype']!r}.")
    labels = np.array(packed["values"], dtype=dtype)
    if labels.ndim != 1 or len(labels) < 2:
        raise ValueError(
            f"The state has {labels.size} class labels; a classifier has at least two."
        )
    return labels


def _pack_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    packed = {name: _plain(value) for name, value in parameters.items()}
    weights = parameters["class_weight"]
    if isinstance(weights, Mapping):
        # JSON turns keys into strings: pairs keep the labels' kind.
        packed["class_weight"] = [[_plain(key), _plain(value)] for key, value in weights.items()]
    if isinstance(parameters["random_state"], np.random.RandomState):
        packed["random_state"] = None  # a generator has moved on: there is nothing to repeat
    return packed


def _unpack_parameters(packed: Mapping[str, Any]) -> dict[str, Any]:
    parameters = dict(packed)
    weights = parameters["class_weight"]
    if isinstance(weights, list):
        parameters["class_weight"] = dict(weights)
    if isinstance(parameters["Cs"], list):
        parameters["Cs"] = tuple(parameters["Cs"])
    return parameters


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    return value
