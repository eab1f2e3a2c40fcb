"""The rule by which a window is coherently aligned, and what of an image is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.fibres.axial import AxialStatistics, direction_of, order_of, spread_of
from hypervlad.fibres.checks import check_share, check_tolerance, check_window
from hypervlad.fibres.lattice import Lattice
from hypervlad.fibres.regions import AlignedRegion, label_windows, regions_of

DEFAULT_WINDOW = 32
DEFAULT_TOLERANCE = float(np.deg2rad(20))
DEFAULT_MIN_FIBRE = 0.1
DEFAULT_SIGMA = 1.75


@dataclass(frozen=True, eq=False)
class AlignedFraction:
    """What of an image is coherently aligned, window by window.

    Attributes
    ----------
    fraction : float
        Area of the aligned windows over that of all windows that are not background; not-a-number
        if all are background.
    fibre_fraction : float
        The same of fibre pixels, instead of all pixels of the windows. Where it is an image's,
        those are the pixels where directions can be seen, wires and what is about two sigma
        beside them: no segmentation (see `LocalOrientation.mask`).
    labels : ndarray of int32, shape (H, W)
        Number of the region at each pixel; 0 where it is not aligned.
    regions : tuple of AlignedRegion
        The largest first; region k has the label k + 1.
    aligned, background : ndarray of bool, shape (n_rows, n_columns)
        Of each window.
    angle : ndarray of float64, shape (n_rows, n_columns)
        Mean direction of each window, radians in [0, pi); 0 in the background.
    order : ndarray of float64, shape (n_rows, n_columns)
        Order parameter S of each window, 0 to 1; 0 in the background.
    spread : ndarray of float64, shape (n_rows, n_columns)
        Axial circular standard deviation of each window, radians; infinite in the background.
    proba : ndarray of float64, shape (n_rows, n_columns), or None
        How probable a model found it that each window is aligned; None without a model.
    rows, columns : ndarray of int, shape (n_rows + 1,) and (n_columns + 1,)
        Edges of the windows: window (i, j) is
        ``image[rows[i]:rows[i + 1], columns[j]:columns[j + 1]]``.
    window : int
        Side asked for, in pixels.
    tolerance : float
        Radians.
    statistics : AxialStatistics or None
        Mean direction, order parameter and spread over all windows that are not background, from
        the sums that windows are judged by, so what noise does to them is taken off; None if all
        are background. `LocalOrientation.statistics` is of the directions of pixels as they were
        found, noise and all, and has intervals.
    expected_fraction : float or None
        Area of the windows that are not background, each times the probability that a model gives
        it, over the area of all of them: what the fraction is on average if the probabilities are
        right; less biased than counting windows above one half where much is doubtful. None
        without a model, or if all are background.
    """

    fraction: float
    fibre_fraction: float
    labels: NDArray[np.int32]
    regions: tuple[AlignedRegion, ...]
    aligned: NDArray[np.bool_]
    background: NDArray[np.bool_]
    angle: NDArray[np.float64]
    order: NDArray[np.float64]
    spread: NDArray[np.float64]
    proba: NDArray[np.float64] | None
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    window: int
    tolerance: float
    statistics: AxialStatistics | None = None
    expected_fraction: float | None = None


@dataclass(frozen=True, eq=False)
class WindowSums:
    """What the rule needs to know of each window.

    Attributes
    ----------
    axes : ndarray of complex128, shape (n_rows, n_columns)
        Sum of w exp(2 i theta).
    weights : ndarray of float64, shape (n_rows, n_columns)
        Sum of w.
    fibre : ndarray of float64, shape (n_rows, n_columns)
        Fibre pixels.
    """

    axes: NDArray[np.complex128]
    weights: NDArray[np.float64]
    fibre: NDArray[np.float64]


def aligned_fraction_of_map(
    orientation: ArrayLike,
    weights: ArrayLike | None = None,
    window: int = DEFAULT_WINDOW,
    tolerance: float = DEFAULT_TOLERANCE,
    *,
    min_fibre: float = DEFAULT_MIN_FIBRE,
) -> AlignedFraction:
    """Return what is coherently aligned of a map of directions, such as a true one.

    Parameters
    ----------
    orientation : array-like of shape (H, W)
        Radians, counter-clockwise from the +x axis as seen; not-a-number in the background.
    weights : array-like of shape (H, W), optional
        Of the directions, at least 0; all alike by default.
    window, tolerance, min_fibre
        As in `aligned_fraction`.

    Returns
    -------
    AlignedFraction

    Raises
    ------
    ValueError
        If maps or parameters are not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.fibres import aligned_fraction_of_map
    >>> rng = np.random.default_rng(0)
    >>> orientation = np.where(np.arange(96) < 64, 3.1, rng.uniform(0, np.pi, (64, 96)))
    >>> found = aligned_fraction_of_map(orientation)
    >>> round(found.fraction, 3), len(found.regions), round(found.regions[0].mean_angle, 3)
    (0.667, 1, 3.1)
    """
    theta = np.asarray(orientation, dtype=np.float64)
    if theta.ndim != 2:
        raise ValueError(f"expected a map of directions of shape (H, W); got shape {theta.shape}.")
    if np.isinf(theta).any():
        raise ValueError("directions are radians, or NaN in the background; got infinity.")
    side, limit = check_window(window, theta.shape), check_tolerance(tolerance)
    least = check_share("min_fibre", min_fibre)
    mask = np.isfinite(theta)
    weight = np.where(mask, _checked_weights(weights, theta.shape), 0)
    lattice = Lattice.over(theta.shape, side)
    axes = weight * np.exp(2j * np.where(mask, theta, 0))
    sums = WindowSums(lattice.sums(axes), lattice.sums(weight), lattice.sums(mask))
    return judged(sums, lattice, side, limit, least)


def judged(
    sums: WindowSums,
    lattice: Lattice,
    window: int,
    tolerance: float,
    min_fibre: float,
    proba: NDArray[np.float64] | None = None,
) -> AlignedFraction:
    """Apply the rule, or a model's judgement in its place.

    Parameters
    ----------
    sums : WindowSums
    lattice : Lattice
    window : int
    tolerance, min_fibre : float
    proba : ndarray of shape (n_rows, n_columns), optional
        A window that a model finds more probably aligned than not is; its spread is not asked.
    """
    background = (sums.fibre < min_fibre * lattice.areas) | (sums.weights <= 0)
    resultant = np.where(background, 0, sums.axes) / np.where(background, 1, sums.weights)
    spread, angle = spread_of(resultant), direction_of(resultant)
    alike = spread < tolerance if proba is None else proba > 0.5
    aligned = alike & ~background
    labels, regions = regions_of(
        label_windows(aligned, angle, tolerance), sums.axes, sums.weights, sums.fibre, lattice
    )
    return AlignedFraction(
        fraction=_share(lattice.areas, aligned, background),
        fibre_fraction=_share(sums.fibre, aligned, background),
        labels=lattice.painted(labels.astype(np.int32)),
        regions=regions,
        aligned=aligned,
        background=background,
        angle=angle,
        order=order_of(resultant),
        spread=spread,
        proba=proba,
        rows=lattice.rows,
        columns=lattice.columns,
        window=window,
        tolerance=tolerance,
        statistics=_statistics(sums, ~background),
        expected_fraction=None if proba is None else _expected(lattice.areas, proba, ~background),
    )


def _statistics(sums: WindowSums, counted: NDArray[np.bool_]) -> AxialStatistics | None:
    if not counted.any():
        return None
    resultant = complex(sums.axes[counted].sum() / sums.weights[counted].sum())
    return AxialStatistics(
        float(direction_of(resultant)), float(order_of(resultant)), float(spread_of(resultant))
    )


def _expected(
    areas: NDArray[np.float64], proba: NDArray[np.float64], counted: NDArray[np.bool_]
) -> float | None:
    whole = float(areas[counted].sum())
    return float((areas * proba)[counted].sum()) / whole if whole else None


def _share(
    amounts: NDArray[np.float64], aligned: NDArray[np.bool_], background: NDArray[np.bool_]
) -> float:
    whole = float(amounts[~background].sum())
    return float(amounts[aligned].sum()) / whole if whole else float("nan")


def _checked_weights(weights: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if weights is None:
        return np.ones(shape)
    table = np.asarray(weights, dtype=np.float64)
    if table.shape != shape or not np.isfinite(table).all() or (table < 0).any():
        raise ValueError(
            f"expected finite weights of at least 0, one for each of {shape[0]} x {shape[1]} "
            f"directions; got shape {table.shape}, from {table.min()} to {table.max()}."
        )
    return table
