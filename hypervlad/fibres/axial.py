"""Statistics of axes: directions without a sign, so that theta and theta + pi are the same.

With weights w, Z = sum w exp(2 i theta) / sum w (Mardia and Jupp 2000, "Directional Statistics",
section 9.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import polygamma

from hypervlad.statistics.groups import (
    NORMAL_FACTOR,
    Interval,
    left_out_interval,
    student_factor,
    sums_without,
)

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
_ROUNDING = 1e-12
_UNKNOWN = Interval(math.nan, math.nan)
_MAX_ORDER = 1 - 1e-9  # of which the inverse hyperbolic tangent is finite


@dataclass(frozen=True)
class AxialStatistics:
    """Mean direction, order and spread of a set of axes.

    Attributes
    ----------
    mean : float
        Radians in [0, pi); 0 if no direction is preferred.
    order : float
        Order parameter S of a two-dimensional nematic, 0 to 1.
    spread : float
        Axial circular standard deviation, sqrt(-2 ln S) / 2, radians; infinite where S is 0.
    mean_interval, order_interval, spread_interval : Interval
        95 % intervals; NaN with one group, or none.
    """

    mean: float
    order: float
    spread: float
    mean_interval: Interval = _UNKNOWN
    order_interval: Interval = _UNKNOWN
    spread_interval: Interval = _UNKNOWN

    @classmethod
    def of(cls, resultant: Any) -> AxialStatistics:
        return cls(
            float(direction_of(resultant)), float(order_of(resultant)), float(spread_of(resultant))
        )


def axial_statistics(
    angles: ArrayLike, weights: ArrayLike | None = None, *, groups: ArrayLike | None = None
) -> AxialStatistics:
    """Return mean direction, order parameter and spread of axes.

    Parameters
    ----------
    angles : array-like of float
        Radians; any shape.
    weights : array-like of float, optional
        At least 0, of the same shape; equal by default. An angle of weight 0 may be NaN.
    groups : array-like, optional
        Of the same shape, for 95 % intervals: axes of one group are not independent. Give
        ``range(n)`` for independent axes. One group gives NaN. The intervals are Student's, with
        the standard error of the jackknife of groups, which counts as no smaller than if each axis
        was drawn on its own, and for order and spread, on the scale of the inverse hyperbolic
        tangent of the order, than if the mean directions of groups were normal. Where there may be
        no order, any direction may be the mean.

    Returns
    -------
    AxialStatistics

    Raises
    ------
    ValueError
        If there is no weight, or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.fibres import axial_statistics
    >>> found = axial_statistics(np.deg2rad([170, 175, 0, 5, 10]))
    >>> np.rad2deg([found.mean, found.spread]).round(1), round(found.order, 2)
    (array([0. , 7.1]), 0.97)
    """
    theta, weight = _checked(angles, weights)
    return statistics_of_axes(weight * np.exp(2j * theta), weight, groups)


def statistics_of_axes(
    axes: ComplexArray, weight: FloatArray, groups: ArrayLike | None, excess: float = 0.0
) -> AxialStatistics:
    """Return `axial_statistics` of axes w exp(2 i theta), or of sums of these, and of their w.

    Of the squared spread, in square radians, up to this `excess` may come from the measurement.
    """
    resultant = complex(axes.sum() / weight.sum())
    found = AxialStatistics.of(resultant)
    if groups is None:
        return found
    of_groups, totals = _sums_of_groups(axes, weight, groups)
    with np.errstate(invalid="ignore"):  # one group: 0 / 0
        without = np.asarray(sums_without(of_groups) / sums_without(totals))
    away = 0.5 * np.angle(without * np.conj(resultant))  # -pi / 2 to pi / 2 about the mean
    scaled, each = (np.arctanh(np.minimum(order_of(of), _MAX_ORDER)) for of in (resultant, without))
    # What the same axes would vary by if each was drawn on its own: groups can be alike by chance.
    order = min(max(found.order, _ROUNDING), _MAX_ORDER)
    turned = axes * (np.conj(resultant) / order) - weight * found.order
    of_mean = np.square(turned.imag).sum() / (2 * order * weight.sum()) ** 2
    of_order = np.square(turned.real).sum() / ((1 - order**2) * weight.sum()) ** 2
    # What is lost between groups is about a variance of their directions, and the logarithm of one
    # from n normal values varies by this much: few groups can differ too little by chance.
    lost = math.log(max(np.abs(of_groups).sum() / totals.sum() / order, 1.0))
    n = len(totals)
    of_few = float(polygamma(1, max(n - 1, 1) / 2)) * (student_factor(n) / NORMAL_FACTOR) ** 2
    of_order = max(of_order, (order * lost / (1 - order**2)) ** 2 * of_few)
    *ends, _ = left_out_interval(scaled, each, least=of_order, unbiased=True)
    low, high = np.tanh(np.maximum(ends, 0))
    # Where there may be no order, any direction may be the mean.
    reach = np.pi / 2
    if low != 0:
        reach = min(float(left_out_interval(0.0, away, least=of_mean)[1]), reach)
    # Rounded where all axes are parallel, and beyond the bias where they cancel.
    low = np.minimum(low, found.order)
    high = np.maximum(high, np.tanh(left_out_interval(scaled, each, least=of_order)[1]))
    high = min(float(np.maximum(high, found.order)) * math.exp(2 * excess), 1.0)
    return replace(
        found,
        mean_interval=Interval(float(found.mean - reach), float(found.mean + reach)),
        order_interval=Interval(float(low), high),
        spread_interval=Interval(float(spread_of(high)), float(spread_of(low))),
    )


def axial_difference(one: Any, other: Any) -> Any:
    """Return the angle between axes, radians, 0 to pi / 2.

    Parameters
    ----------
    one, other : float or array-like
        Radians.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.fibres import axial_difference
    >>> float(np.rad2deg(axial_difference(np.deg2rad(178), np.deg2rad(3))).round(6))
    5.0
    """
    apart = np.mod(np.subtract(one, other), np.pi)
    return np.minimum(apart, np.pi - apart)


def wrapped(angles: Any) -> Any:
    """Return axes between -pi and pi as radians in [0, pi)."""
    turned = np.asarray(angles)
    half = turned.dtype.type(np.pi)
    inside = np.where(turned < 0, turned + half, turned)
    # What is just below 0 would round up to pi, which is 0.
    return np.where(inside < half, inside, turned.dtype.type(0))


def direction_of(resultant: Any) -> Any:
    return wrapped(0.5 * np.angle(resultant))


def order_of(resultant: Any) -> Any:
    """Return S from Z, without rounding errors at 0 and 1."""
    length = np.minimum(np.abs(resultant), 1)
    return np.where(length < _ROUNDING, 0.0, length)


def spread_of(resultant: Any) -> Any:
    """Return the axial circular standard deviation from Z, radians."""
    length = order_of(resultant)
    with np.errstate(divide="ignore"):
        return np.sqrt(-2 * np.log(length)) / 2 + 0.0  # of -0.0 makes 0.0


def _checked(angles: ArrayLike, weights: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    theta = np.asarray(angles, dtype=np.float64).ravel()
    if weights is None:
        weight = np.ones_like(theta)
    else:
        weight = np.asarray(weights, dtype=np.float64)
        if weight.shape != np.shape(angles):
            raise ValueError(
                f"weights have shape {weight.shape}, angles {np.shape(angles)}: give one for each."
            )
        weight = weight.ravel()
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise ValueError(
            "expected finite weights of at least 0, at least one of them above 0; got "
            f"{len(weight)} with the sum {weight.sum()}."
        )
    used = weight > 0
    if not np.isfinite(theta[used]).all():
        raise ValueError("angles that have a weight must be finite; got NaN or infinity.")
    # So that sums of the largest and the smallest weights neither overflow nor vanish.
    return np.where(used, theta, 0), weight / weight.max()


def _sums_of_groups(
    axes: ComplexArray, weight: FloatArray, groups: ArrayLike
) -> tuple[ComplexArray, FloatArray]:
    """Return the sums of axes and of weights of each group that has a weight."""
    names = np.asarray(groups).ravel()
    if names.shape != weight.shape:
        raise ValueError(f"expected a group for each of {len(weight)} axes; got {len(names)}.")
    used = weight > 0
    own = np.unique(names[used], return_inverse=True)[1]
    real, imaginary, totals = (
        np.bincount(own, part[used]).astype(np.float64) for part in (axes.real, axes.imag, weight)
    )
    return real + 1j * imaginary, totals
