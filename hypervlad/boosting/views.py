"""Several views of the same rows, a linear model for each, joined into one by weights.

Statistics of different kinds, such as VLAD and pooled features, want different regularisation.
In one vector under one penalty the longer or louder of them wins; a model for each and a weighted
sum of their margins keeps what either knows. A weighted sum of linear margins is linear again, so
nothing that uses the result has to know of views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from .linear import Folds, LinearMargins, fit_linear_margins
from .margins import FloatArray, IntArray, log_losses
from .rows import TrainingRows

# Standard deviation of a log weight around equal weights. The data can halve or double a weight
# early; only many rows can silence a view.
_LOG_WEIGHT_SPREAD = 0.5


@dataclass(frozen=True)
class JoinedMargins:
    """The linear models of all views as one.

    ``X @ coef + intercept`` is the margin of new rows, `cross_fitted` that of the training rows
    from models that did not see their groups. `Cs` and `weights` have a value for each view; a
    view's temperature is in its weight.
    """

    coef: FloatArray
    intercept: FloatArray
    Cs: tuple[float, ...]
    weights: tuple[float, ...]
    cross_fitted: FloatArray


def fit_views(
    rows: TrainingRows,
    n_classes: int,
    folds: Folds,
    Cs: Sequence[float],
    widths: Sequence[int],
    verbose: bool = False,
) -> JoinedMargins:
    """Fit a linear model on each view, columns side by side in X, and weigh them.

    The weights have the lowest log loss on the cross-fitted margins, under a prior that holds them
    near equal shares: a stacked generalisation with a number a view (Wolpert 1992; Breiman,
    "Stacked regressions", Machine Learning 24, 1996).
    """
    views = [
        fit_linear_margins(rows.with_columns(columns), n_classes, folds, Cs, verbose)
        for columns in view_columns(widths)
    ]
    shares = _shares(views, rows)
    parts = list(zip(shares, views, strict=True))
    return JoinedMargins(
        coef=np.concatenate([share * view.coef for share, view in parts]),
        intercept=np.sum([share * view.intercept for share, view in parts], axis=0),
        Cs=tuple(view.C for view in views),
        weights=tuple(float(share) / view.temperature for share, view in parts),
        cross_fitted=np.sum([share * view.cross_fitted for share, view in parts], axis=0),
    )


def view_columns(widths: Sequence[int]) -> list[slice]:
    """The columns of each view."""
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]


def _shares(views: Sequence[LinearMargins], rows: TrainingRows) -> NDArray[np.float64]:
    held_out = views[0].held_out
    if len(views) == 1 or not held_out.any():
        return np.full(len(views), 1.0 / len(views))
    margins = np.stack([view.cross_fitted[held_out] for view in views])
    return stacking_weights(margins, rows.codes[held_out], rows.weight[held_out])


def stacking_weights(
    margins: FloatArray, codes: IntArray, weight: FloatArray
) -> NDArray[np.float64]:
    """Positive weights of the views' margins, (V, n, n_margins), that make labels most likely."""
    equal = -np.log(len(margins))

    def penalised(log_weights: FloatArray) -> float:
        joined = np.tensordot(np.exp(log_weights), margins, axes=1)
        prior = 0.5 * (((log_weights - equal) / _LOG_WEIGHT_SPREAD) ** 2).sum()
        return float(weight @ log_losses(joined, codes) + prior)

    found = minimize(penalised, np.full(len(margins), equal), method="L-BFGS-B")
    return np.exp(found.x)
