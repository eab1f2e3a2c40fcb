"""Several views of the same rows, a linear model for each, joined into one by averaging.

Statistics of different kinds, such as VLAD and pooled features, want different regularisation.
In one vector under one penalty the longer or louder of them wins; a model for each and the mean of
their margins keeps what either knows. A mean of linear margins is linear again, so nothing that
uses the result has to know of views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hypervlad.boosting.linear import Folds, fit_linear_margins, fit_temperature
from hypervlad.boosting.margins import FloatArray
from hypervlad.boosting.rows import TrainingRows


@dataclass(frozen=True)
class JoinedMargins:
    """The linear models of all views as one.

    ``X @ coef + intercept`` is the margin of new rows, `cross_fitted` that of the training rows
    from models that did not see their groups. `Cs` and `weights` have a value for each view; what
    a view's margins are multiplied by, temperatures included, is its weight.
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
    *,
    max_directions: int | None = None,
    verbose: bool = False,
) -> JoinedMargins:
    """Fit a linear model on each view, columns side by side in X, and average their margins.

    Each view has its own C and temperature, and the mean of the cross-fitted margins another
    temperature: errors of different views cancel, so that their mean may claim more.
    """
    views = [
        fit_linear_margins(
            rows.with_columns(columns),
            n_classes,
            folds,
            Cs,
            max_directions=max_directions,
            verbose=verbose,
        )
        for columns in view_columns(widths)
    ]
    mean = np.mean([view.cross_fitted for view in views], axis=0)
    held_out, temperature = views[0].held_out, 1.0
    if len(views) > 1 and held_out.any():
        temperature, _ = fit_temperature(
            mean[held_out], rows.codes[held_out], rows.weight[held_out]
        )
    share = 1.0 / (len(views) * temperature)
    return JoinedMargins(
        coef=share * np.concatenate([view.coef for view in views]),
        intercept=share * np.sum([view.intercept for view in views], axis=0),
        Cs=tuple(view.C for view in views),
        weights=tuple(share / view.temperature for view in views),
        cross_fitted=mean / temperature,
    )


def view_columns(widths: Sequence[int]) -> list[slice]:
    """The columns of each view."""
    ends = np.cumsum(widths).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
