"""How fitted models are taken apart into plain arrays, and put together, in each state of the code.

Attributes and model files differ between states; the arrays have the same names in all of them.
A state that renames an attribute needs a change in the functions below, nowhere else.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def codebook_arrays(codebook: Any) -> Arrays:
    """Return the projections and codewords of a codebook."""
    arrays: Arrays = {}
    for i, (mean, std, scale, components) in enumerate(codebook.projections):
        arrays |= {f"mean.{i}": mean, f"std.{i}": std, f"scale.{i}": np.array([scale])}
        if components is not None:
            arrays[f"components.{i}"] = components
    if codebook.joint is not None:
        arrays["joint"] = codebook.joint
    return arrays | {f"per_layer.{i}": words for i, words in enumerate(codebook.per_layer)}


def codebook_of(arrays: Arrays, like: Any) -> Any:
    """Return a codebook of the class of another one."""
    layer = type(like.projections[0])
    projections = tuple(
        layer(
            arrays[f"mean.{i}"],
            arrays[f"std.{i}"],
            float(arrays[f"scale.{i}"][0]),
            arrays.get(f"components.{i}"),
        )
        for i in range(_count(arrays, "mean."))
    )
    own = tuple(arrays[f"per_layer.{i}"] for i in range(_count(arrays, "per_layer.")))
    return type(like)(projections, arrays.get("joint"), own)


def boosting_arrays(boosting: Any) -> Arrays:
    """Return the linear part and the trees of a boosted softmax."""
    arrays: Arrays = {
        "classes": np.asarray(boosting.classes_, dtype=str),
        "intercept": boosting.linear_intercept_,
        "n_estimators": np.array([boosting.n_estimators_]),
    }
    if boosting.linear_coef_ is not None:
        arrays["coef"] = boosting.linear_coef_
    if boosting.tree_columns_ is not None:
        arrays["tree_columns"] = boosting.tree_columns_
    if boosting.booster_ is not None:
        arrays["booster"] = np.frombuffer(bytes(boosting.booster_.save_raw("ubj")), np.uint8)
    return arrays


def put_boosting(arrays: Arrays, into: Any) -> None:
    """Replace what a fitted boosted softmax has learnt."""
    import xgboost

    into.classes_ = arrays["classes"].astype(into.classes_.dtype)
    into.linear_intercept_ = arrays["intercept"]
    into.linear_coef_ = arrays.get("coef")
    into.n_estimators_ = int(arrays["n_estimators"][0])
    into.tree_columns_ = arrays.get("tree_columns")
    into.booster_ = None
    if "booster" in arrays:
        into.booster_ = xgboost.Booster(model_file=bytearray(arrays["booster"].tobytes()))


def window_model_arrays(model: Any) -> Arrays:
    """Return what a defect scorer has learnt of windows: codewords, or a boosted softmax."""
    learner = getattr(model, "learner", None)
    if learner is not None:
        return _under("boosting.", boosting_arrays(learner))
    mean, whitening, codewords = (getattr(model, name) for name in _fields(model))
    return {"mean": mean, "whitening": whitening, "codewords": codewords}


def window_model_of(arrays: Arrays, like: Any) -> Any:
    """Return a window model of the class of another one."""
    if "codewords" in arrays:
        return type(like)(arrays["mean"], arrays["whitening"], arrays["codewords"])
    model = copy.deepcopy(like)
    put_boosting(_below("boosting.", arrays), model.learner)
    return model


def arrays_of(kind: str, model: Any) -> Arrays:
    """Return everything that a fitted estimator needs to answer, as plain arrays.

    Parameters
    ----------
    kind : {"classifier", "scorer", "masked scorer", "alignment"}
    model : fitted estimator
    """
    arrays = _under("codebook.", codebook_arrays(model.encoder_.codebook_))
    if "scorer" in kind:
        arrays |= _under("windows.", window_model_arrays(model.model_))
        return arrays | {"threshold": np.array([model.threshold_])}
    return arrays | _under("boosting.", boosting_arrays(model.boosting_))


def with_arrays(kind: str, model: Any, arrays: Arrays) -> Any:
    """Return a copy of a fitted estimator that has learnt what the arrays say."""
    model = copy.deepcopy(model)
    encoder = model.encoder_
    encoder.codebook_ = codebook_of(_below("codebook.", arrays), encoder.codebook_)
    if "scorer" in kind:
        model.model_ = window_model_of(_below("windows.", arrays), model.model_)
        model.threshold_ = float(arrays["threshold"][0])
    else:
        put_boosting(_below("boosting.", arrays), model.boosting_)
    return model


def _fields(model: Any) -> list[str]:
    return list(type(model).__dataclass_fields__)


def _count(arrays: Arrays, prefix: str) -> int:
    return sum(name.startswith(prefix) for name in arrays)


def _under(prefix: str, arrays: Arrays) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}


def _below(prefix: str, arrays: Arrays) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
