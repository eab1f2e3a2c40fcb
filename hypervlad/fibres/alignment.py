"""What share of an image is coherently aligned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter1d

from hypervlad.fibres.axial import AxialStatistics, direction_of, order_of, spread_of
from hypervlad.fibres.background import (
    DEFAULT_FLOOR,
    NO_ENERGY,
    GradientNoise,
    beyond_noise,
    fibre_mask,
    gradient_noise,
)
from hypervlad.fibres.contrast import (
    BoolMap,
    as_contrast,
    check_choice,
    check_mask,
    check_positive,
    check_share,
    check_sigma,
    check_tolerance,
    check_window,
    filled,
)
from hypervlad.fibres.gradients import (
    DEFAULT_GRADIENT_SIGMA,
    Tensor,
    averaged_tensor,
    bin_axes,
    direction_histograms,
    gradients_of,
    smoothed,
)
from hypervlad.fibres.orientation import METHODS, OrientationMethod
from hypervlad.fibres.regions import AlignedRegion, label_windows, regions_of
from hypervlad.fibres.tiles import TileGrid

DEFAULT_WINDOW = 32
DEFAULT_TOLERANCE = float(np.deg2rad(20))
DEFAULT_MIN_FIBRE = 0.1
DEFAULT_SIGMA = 1.75
FloatMap = NDArray[np.float32]
_BINS = 36
_BASELINE_BINS = 9  # an eighth of a turn: wide enough for noise to average out
_BASELINE_SHARE = 0.1  # least of a baseline, over the mean of the histogram


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


@runtime_checkable
class AlignmentModel(Protocol):
    """Whatever tells aligned windows from others, such as a learnt classifier."""

    def aligned_proba(
        self, image: ArrayLike, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> ArrayLike:
        """Return how probable it is that each window is aligned.

        Parameters
        ----------
        image : array-like of shape (H, W)
            As the user gave it.
        rows, columns : ndarray of int, shape (n_rows + 1,) and (n_columns + 1,)
            Edges: window (i, j) is ``image[rows[i]:rows[i + 1], columns[j]:columns[j + 1]]``. The
            sides of windows differ by a pixel at most.

        Returns
        -------
        array-like of float, shape (n_rows, n_columns)
            0 to 1.
        """
        ...


AlignmentMethod: TypeAlias = OrientationMethod | AlignmentModel


def aligned_fraction(
    image: ArrayLike,
    method: AlignmentMethod = "structure_tensor",
    window: int = DEFAULT_WINDOW,
    tolerance: float = DEFAULT_TOLERANCE,
    *,
    sigma: float = DEFAULT_SIGMA,
    gradient_sigma: float = DEFAULT_GRADIENT_SIGMA,
    floor: float = DEFAULT_FLOOR,
    min_fibre: float = DEFAULT_MIN_FIBRE,
    mask: ArrayLike | None = None,
) -> AlignedFraction:
    """Find out what share of an image is coherently aligned, and its regions.

    The image is cut into windows, side by side. A window is aligned if its directions have an
    axial circular standard deviation, sqrt(-2 ln R) / 2, below the tolerance, and background if
    hardly any of it is fibre, or it holds no more than noise may give a window by chance. Aligned
    windows that share a side and whose mean directions differ by at most the tolerance are of one
    region.

    "structure_tensor": R is the length of the sum, over the window, of w exp(2 i theta), over the
    sum of w, the difference q of the eigenvalues times the square root of the coherence: each
    direction has as its weight the energy that points to it, and a little less where wires end or
    cross, as those places have no direction but much energy. Noise turns directions at random,
    which the sum of vectors averages out but the sum of their lengths does not; so
    sqrt(q^2 - v), the unbiased value for large q, is taken for q, v being the variance that noise
    gives it.

    "lgo": R is that of the histogram of the gradients' directions in the window, each weighted by
    its squared length (see `local_orientation`), above a baseline, as the Gaussian that
    Directionality fits stands on one. The baseline is what noise adds, and above that the lowest
    mean of nine neighbouring of 36 bins, at least a tenth of the mean: the ends, crossings and
    shadows of wires give gradients every which way.

    A model: it says how probable it is that each window is aligned, and those above one half are.
    Background, mean directions and regions are from the structure tensor.

    Parameters
    ----------
    image : array-like of shape (H, W)
        Grey; of any gain, offset and sign of the contrast.
    method : {"structure_tensor", "lgo"} or AlignmentModel, default="structure_tensor"
    window : int, default=32
        Side of a window in pixels. Where the image is no multiple of it, windows are a little
        larger or smaller, so that all of the image counts.
    tolerance : float, default=20 degrees
        Radians.
    sigma : float, default=1.75
        Over what length gradients are averaged, in pixels; of "lgo", to find the background only.
    gradient_sigma : float, default=1.0
        Of the Gaussian, in pixels, before gradients are taken.
    floor : float, default=0.05
        What is background, as in `local_orientation`.
    min_fibre : float, default=0.1
        Share of a window that must be fibre, else the window is background.
    mask : array-like of bool, shape (H, W), optional
        Where to look; all over by default. Elsewhere is background, as in `local_orientation`.

    Returns
    -------
    AlignedFraction

    Notes
    -----
    Of synthetic wires (`make_nanowire_images`) 7 pixels wide that cover half of the image, 384 to
    512 pixels a side, the fraction differs from the true one by 0.03 on average, by either method,
    without noise as where noise has half of the contrast for its standard deviation; five images
    from not at all to all aligned differ by up to 0.04 on average. Beyond that it errs more, by
    0.05 on average: too low where wires are 15 pixels wide, or cover a fifth of the image; by the
    structure tensor too high where they cover four fifths; and too low by 0.06, or 0.08 by "lgo",
    where the image is as noisy and blurred by 2.5 pixels besides.

    White noise is background, and its fraction not-a-number. Noise that is blurred, as in an
    enlarged image, is not told from fibres that lie anyhow: its windows count, and are not aligned;
    of those blurred by two pixels or more, one in a hundred may be.

    Raises
    ------
    ValueError
        If the image is flat, has colours, holds NaN or is smaller than the window, or a parameter
        is out of range, or a model does not say one probability for each window.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.fibres import aligned_fraction
    >>> y, x = np.mgrid[:128, :128]
    >>> image = np.sin(0.6 * np.where(x < 64, x, y))  # upright on the left, level on the right
    >>> found = aligned_fraction(image)
    >>> found.fraction, [round(float(np.rad2deg(r.mean_angle))) for r in found.regions]
    (1.0, [90, 0])
    """
    where = check_mask(mask, np.shape(image)[:2])
    contrast = as_contrast(image, where)
    side, limit = check_window(window, contrast.shape), check_tolerance(tolerance)
    least, share = check_share("min_fibre", min_fibre), check_share("floor", floor)
    inner = check_positive("gradient_sigma", gradient_sigma)
    scale = check_sigma(sigma, None, contrast.shape)
    model = _model_of(method)
    grid = TileGrid.over(contrast.shape, side)
    down, right = gradients_of(contrast, inner)
    noise = gradient_noise(contrast, scale, inner, where)
    summed = _gradient_sums if method == "lgo" else _tensor_sums
    sums = summed(down, right, grid, scale, noise, share, where)
    proba = None
    if model is not None:
        looked_at = image if where is None else filled(image, where)
        proba = _proba_of(model, looked_at, grid)
    return classify_windows(sums, grid, side, limit, least, proba)


def _tensor_sums(
    down: FloatMap,
    right: FloatMap,
    grid: TileGrid,
    sigma: float,
    noise: GradientNoise,
    floor: float,
    where: BoolMap | None,
) -> WindowSums:
    tensor = averaged_tensor(down, right, sigma)
    energy = tensor.energy
    energy -= np.float32(noise.energy)
    mask = fibre_mask(energy, noise, floor, where)
    fibre = grid.sums(mask) * beyond_noise(energy, noise, grid)
    np.maximum(energy, 0, out=energy)
    lengths = _lengths(tensor, noise)
    clear = _clearness(lengths, energy) * mask
    axes = grid.sums(tensor.cosine * clear) + 1j * grid.sums(tensor.sine * clear)
    weights = np.maximum(grid.sums(lengths * clear), np.abs(axes))
    return WindowSums(axes, weights, fibre)


def _lengths(tensor: Tensor, noise: GradientNoise) -> FloatMap:
    """Return the differences of the eigenvalues, without what noise adds to them."""
    squares = tensor.cosine**2
    squares += tensor.sine**2
    # Noise on the edges of fibres, and noise on noise.
    squares -= tensor.energy * np.float32(2 * noise.energy * noise.axis_scatter**2)
    squares -= np.float32((noise.energy * noise.axis_scatter) ** 2)
    return np.asarray(np.sqrt(np.maximum(squares, 0, out=squares), out=squares))


def _clearness(lengths: FloatMap, energy: FloatMap) -> FloatMap:
    """Return the square root of the coherence: less where wires end or cross."""
    coherence = lengths / np.maximum(energy, np.float32(NO_ENERGY))
    np.minimum(coherence, 1, out=coherence)
    return np.asarray(np.sqrt(coherence, out=coherence))


def _gradient_sums(
    down: FloatMap,
    right: FloatMap,
    grid: TileGrid,
    sigma: float,
    noise: GradientNoise,
    floor: float,
    where: BoolMap | None,
) -> WindowSums:
    energy = smoothed(down * down + right * right, sigma)
    energy -= np.float32(noise.energy)
    mask = fibre_mask(energy, noise, floor, where)
    fibre = grid.sums(mask) * beyond_noise(energy, noise, grid)
    looked_at = grid.areas
    if where is not None:
        down, right, looked_at = down * where, right * where, grid.sums(where)
    table = direction_histograms(down, right, grid, _BINS)
    axes = table @ bin_axes(_BINS)
    above = table.sum(axis=-1) - _BINS * _baseline(table, noise.energy * looked_at)
    return WindowSums(axes, np.maximum(above, np.abs(axes)), fibre)


def _baseline(table: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the level on which a histogram's peaks stand."""
    of_noise = noise / _BINS
    lowest = uniform_filter1d(table, _BASELINE_BINS, axis=-1, mode="wrap").min(axis=-1)
    least = _BASELINE_SHARE * np.maximum(table.mean(axis=-1) - of_noise, 0)
    return np.asarray(of_noise + np.maximum(lowest - of_noise, least))


def _model_of(method: Any) -> AlignmentModel | None:
    if isinstance(method, AlignmentModel) and not isinstance(method, type):
        return method
    if not isinstance(method, str):
        raise ValueError(
            f"method={method!r}: expected one of {', '.join(map(repr, METHODS))}, or a model with "
            "a method aligned_proba(image, rows, columns)."
        )
    check_choice("method", method, METHODS)
    return None


def _proba_of(model: AlignmentModel, image: ArrayLike, grid: TileGrid) -> NDArray[np.float64]:
    said = model.aligned_proba(image, grid.rows, grid.columns)
    proba = np.asarray(said, dtype=np.float64)
    if proba.shape != grid.shape or not ((proba >= 0) & (proba <= 1)).all():
        raise ValueError(
            f"{type(model).__name__}.aligned_proba: expected a probability, 0 to 1, for each of "
            f"{grid.shape[0]} x {grid.shape[1]} windows; got shape {proba.shape}."
        )
    return proba


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
    grid = TileGrid.over(theta.shape, side)
    axes = weight * np.exp(2j * np.where(mask, theta, 0))
    sums = WindowSums(grid.sums(axes), grid.sums(weight), grid.sums(mask))
    return classify_windows(sums, grid, side, limit, least)


def classify_windows(
    sums: WindowSums,
    grid: TileGrid,
    window: int,
    tolerance: float,
    min_fibre: float,
    proba: NDArray[np.float64] | None = None,
) -> AlignedFraction:
    """Apply the rule, or a model's judgement in its place.

    Parameters
    ----------
    sums : WindowSums
    grid : TileGrid
    window : int
    tolerance, min_fibre : float
    proba : ndarray of shape (n_rows, n_columns), optional
        A window that a model finds more probably aligned than not is; its spread is not asked.
    """
    background = (sums.fibre < min_fibre * grid.areas) | (sums.weights <= 0)
    resultant = np.where(background, 0, sums.axes) / np.where(background, 1, sums.weights)
    spread, angle = spread_of(resultant), direction_of(resultant)
    alike = spread < tolerance if proba is None else proba > 0.5
    aligned = alike & ~background
    labels, regions = regions_of(
        label_windows(aligned, angle, tolerance), sums.axes, sums.weights, sums.fibre, grid
    )
    return AlignedFraction(
        fraction=_share(grid.areas, aligned, background),
        fibre_fraction=_share(sums.fibre, aligned, background),
        labels=grid.expand(labels.astype(np.int32)),
        regions=regions,
        aligned=aligned,
        background=background,
        angle=angle,
        order=order_of(resultant),
        spread=spread,
        proba=proba,
        rows=grid.rows,
        columns=grid.columns,
        window=window,
        tolerance=tolerance,
        statistics=_statistics(sums, ~background),
        expected_fraction=None if proba is None else _expected(grid.areas, proba, ~background),
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
