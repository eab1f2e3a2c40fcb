"""Softmax regression on averaged features: the head of a network, fitted on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.base import Array, Value
from hypervlad.common.constraints import Number
from hypervlad.evaluation.splits import group_folds
from hypervlad.models.boosting.linear import TrainingRows, fit_linear_margins
from hypervlad.models.boosting.logistic import with_exact_ties

FloatArray = NDArray[np.float64]
_FOLDS = 5
_CS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # inverse strengths of the L2 penalty
_SMALLEST = 1e-30  # scale and temperature in a file


@dataclass(frozen=True, eq=False)
class SoftmaxHead:
    """Softmax regression on features that are centred by a mean and divided by a scale."""

    mean: FloatArray  # (p,)
    scale: FloatArray  # (p,)
    coef: FloatArray  # (p, n_classes)
    intercept: FloatArray  # (n_classes,)
    temperature: float = 1.0

    def margins(self, features: NDArray[np.floating]) -> FloatArray:
        """Return the margins (n, n_classes) of features (n, p)."""
        standardised = (features.astype(np.float64) - self.mean) / self.scale
        return with_exact_ties((standardised @ self.coef + self.intercept) / self.temperature)

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return header and arrays."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"temperature": arrays.pop("temperature")}, arrays

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> SoftmaxHead:
        """Undo `to_state`; ValueError for arrays that cannot be a head."""
        found: dict[str, Any] = {
            name: _ARRAYS[name].checked(array, name) for name, array in arrays.items()
        }
        positive = Number(at_least=_SMALLEST, at_most=1 / _SMALLEST)
        head = cls(**found, temperature=Value(float, positive).unpack(header["temperature"], {}))
        n_features, n_classes = head.coef.shape
        shapes = (head.mean.shape, head.scale.shape, head.intercept.shape)
        if shapes != ((n_features,), (n_features,), (n_classes,)):
            raise ValueError(f"the head's arrays do not fit: {head.coef.shape} and {shapes}")
        return head


_ARRAYS = {
    "mean": Array("float64", 1),
    "scale": Array("float64", 1, at_least=_SMALLEST),
    "coef": Array("float64", 2),
    "intercept": Array("float64", 1),
}


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head whose coefficients minimise the mean loss plus half the penalty x squared norm."""

    head: SoftmaxHead
    C: float
    penalty: float


def fit_head(
    features: NDArray[np.floating],
    codes: NDArray[np.intp],
    groups: NDArray[np.intp],
    n_classes: int,
    seed: int,
) -> FittedHead:
    """Fit a head by logistic regression on features (n, p).

    C and the temperature are those with the lowest log-loss on the test rows of grouped inner
    folds. If no group can be held out, C is the middle one and the temperature is 1.
    """
    exact = features.astype(np.float64)
    rows = TrainingRows(exact, np.arange(len(codes)), codes, np.ones(len(codes)), groups)
    folds = group_folds(codes, groups, n_splits=_FOLDS, random_state=seed)
    found = fit_linear_margins(rows, n_classes, folds, list(_CS), ratio=np.ones(n_classes))
    mean = exact.mean(axis=0)
    # One number, so that a C means the same for any network; some channels hardly ever respond.
    scale = float(np.sqrt(((exact - mean) ** 2).sum(axis=1).mean())) or 1.0
    coef, intercept = found.coef * found.temperature, found.intercept * found.temperature
    intercept = intercept + mean @ coef
    coef = coef * scale
    penalty = 1 / (found.C * len(codes))
    if n_classes == 2:  # the log-odds of the second class become the difference of two margins
        coef, intercept = np.hstack([-coef, coef]) / 2, np.append(-intercept, intercept) / 2
        penalty *= 2  # the squared norm is half that of the log-odds' coefficients
    head = SoftmaxHead(mean, np.full_like(mean, scale), coef, intercept, found.temperature)
    return FittedHead(head, found.C, penalty)
