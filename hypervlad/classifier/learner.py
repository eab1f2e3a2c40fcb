"""What a `MicrographClassifier` needs of its learner: any classifier with ``predict_proba``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils.validation import has_fit_parameter


class ProbabilisticClassifier:
    """The constraint on the parameter: classifiers of scikit-learn with ``predict_proba``."""

    def accepts(self, value: Any) -> bool:
        return (
            isinstance(value, BaseEstimator)
            and is_classifier(value)
            and hasattr(value, "predict_proba")
        )

    def __str__(self) -> str:
        return "a BoostedSoftmaxClassifier, another scikit-learn classifier with predict_proba"


def learner_has_margins(model: Any) -> bool:
    """Return whether a model's learner, fitted or not, has a ``decision_function``."""
    learner = getattr(model, "boosting_", model.boosting)
    return learner is None or hasattr(learner, "decision_function")


def accepted_by(learner: Any, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return those of "groups" and "sample_weight" that the learner's ``fit`` takes.

    Raises
    ------
    ValueError
        If weights are given and the learner takes none.

    Warns
    -----
    UserWarning
        If groups are given and the learner takes none.
    """
    accepted = {name: own for name, own in given.items() if has_fit_parameter(learner, name)}
    kind = type(learner).__name__
    if "sample_weight" in given and "sample_weight" not in accepted:
        raise ValueError(
            f"sample_weight is given, but the learner, {kind}, takes none: leave it out or "
            "use boosting= with a learner whose fit takes it"
        )
    if "groups" in given and "groups" not in accepted:
        warnings.warn(
            f"the learner, a {kind}, takes no groups: its own inner splits, if it has any, do "
            "not keep groups together, so parameters chosen by them are optimistic",
            UserWarning,
            stacklevel=4,
        )
    return accepted


def fit_silently(
    learner: Any, vectors: NDArray[np.floating], labels: NDArray[Any], fit_params: Mapping[str, Any]
) -> Any:
    """Fit without messages and warnings: the fit on all images has given them already."""
    if "verbose" in learner.get_params():
        learner.set_params(verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return learner.fit(vectors, labels, **fit_params)


def class_probabilities(learner: Any, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return probabilities (n, n_classes), also of no image, which a learner may not accept."""
    if not len(vectors):
        return np.empty((0, len(learner.classes_)))
    return np.asarray(learner.predict_proba(vectors))
