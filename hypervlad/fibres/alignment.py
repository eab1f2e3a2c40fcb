"""The coherently aligned fraction of an image, window by window."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.constraints import HasMethods, Integer, Number, OneOf, check_value
from hypervlad.common.progress import note_doubt
from hypervlad.fibres.axial import (
    AxialStatistics,
    direction_of,
    order_of,
    spread_of,
    statistics_of_axes,
)
from hypervlad.fibres.contrast import FloatMap, GradientNoise
from hypervlad.fibres.orientation import NO_ENERGY, GradientField, LocalOrientation, orientation_of
from hypervlad.fibres.regions import AlignedRegion, TileGrid, label_windows, regions_of
from hypervlad.images import Annotation, PixelSizes, ReadOptions
from hypervlad.images.errors import ImageReadError
from hypervlad.images.metadata import length_in_pixels, parse_length
from hypervlad.images.options import PIXEL_SIZE, check_read_options
from hypervlad.images.reading import image_name
from hypervlad.images.sample import Annotations, one_or_many, read_sample
from hypervlad.images.sample import Sample as ImageSample
from hypervlad.statistics.groups import Interval, Sample, widened

DEFAULT_WINDOW = 32
DEFAULT_TOLERANCE = float(np.deg2rad(20))
DEFAULT_SIGMA = 1.75
WINDOW = Integer(at_least=2, meaning="a whole number of pixels")
ANGLE = Number(above=0, at_most=np.pi / 2, meaning="an angle in radians (of degrees np.deg2rad)")
DEFAULT_METHOD: Literal["structure_tensor"] = "structure_tensor"
METHOD = (
    OneOf(DEFAULT_METHOD),
    HasMethods(("aligned_proba",), "a model with a method aligned_proba(image, rows, columns)"),
)
_MIN_FIBRE = 0.1  # share of fibre below which a window is background
# Between which multiples of the tolerance the measured spread of windows lies whose true spread is
# the tolerance, and how much of the squared spread of all fibres comes from the measurement, at
# crossings, ends and in grain, square radians: of 210 drawn images, 95 %.
_MEASURED, EXCESS = (0.78, 1.57), 0.05
# Of windows of twice the size, drawn wires at random align 6 to 69 % as often, those of which 60 %
# are aligned mostly 72 to 90 %. What is less than the first is said, of fractions above the second.
_MOSTLY, _NOTED, _LEAST_BLOCKS = 0.6, 0.2, 12
_OF_WINDOW = (
    "the fraction depends on the window: this image ({:.0%} of windows of {} px are aligned, about "
    "{:.0%} of those of {} px); a window that one or two fibres fill counts as aligned, also where "
    "fibres lie at random, and one with ends of fibres often does not: choose one of several "
    "fibres' widths, below their length"
)
_UNSURE = 0.2  # probability by a model, up to 1 less this, of windows that may be aligned or not


@dataclass(frozen=True, eq=False)
class AlignedFraction:
    """The coherently aligned fraction of an image, and its windows.

    Attributes
    ----------
    fraction : float
        Area of the aligned windows over that of all windows with fibres; NaN without any.
    fibre_fraction : float
        The same, counted in fibre pixels (`LocalOrientation.mask`) instead of area.
    labels : ndarray of int32, shape (H, W)
        Number of the region at each pixel; 0 where it is not aligned.
    regions : tuple of AlignedRegion
        The largest first.
    aligned, background : ndarray of bool, shape (n_rows, n_columns)
        Whether each window is aligned, or background.
    angle : ndarray of float64, shape (n_rows, n_columns)
        Mean direction of each window, radians in [0, pi); 0 in the background.
    order : ndarray of float64, shape (n_rows, n_columns)
        Order parameter S of each window, 0 to 1; 0 in the background.
    spread : ndarray of float64, shape (n_rows, n_columns)
        Axial circular standard deviation of each window, radians; infinite in the background.
    proba : ndarray of float64, shape (n_rows, n_columns), or None
        Probability by a model that each window is aligned; None without a model.
    rows, columns : ndarray of int, shape (n_rows + 1,) and (n_columns + 1,)
        Edges: window (i, j) is ``image[rows[i]:rows[i + 1], columns[j]:columns[j + 1]]``.
    window : int
        The requested side, in pixels.
    tolerance : float
        In radians.
    statistics : AxialStatistics or None
        Statistics of all windows with fibres, weighted by energy and corrected for noise, with
        intervals from how much parts of the image differ; None without any such window.
    fraction_range : Interval
        Between which `fraction` is as far as directions can be measured: windows whose spread is
        near the tolerance, or whose probability is near one half, may be aligned or not.
    fraction_interval : Interval
        95 % interval of `fraction`, from both; NaN with one part, or none.
    expected_fraction : float or None
        Mean of a model's probabilities over the windows with fibres, by area; None without a model
        or without fibres. Less biased than `fraction` where many windows are uncertain.
    annotations : list of Annotation
        What was left out, as it is no sample.
    reason : str or None
        Why nothing was measured, and fractions are NaN: the image is flat.
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
    fraction_range: Interval = field(default_factory=lambda: Interval(math.nan, math.nan))
    fraction_interval: Interval = field(default_factory=lambda: Interval(math.nan, math.nan))
    expected_fraction: float | None = None
    annotations: list[Annotation] = field(default_factory=list)
    reason: str | None = None

    @property
    def window_sides(self) -> tuple[float, float]:
        """Mean width and height of the windows, in pixels."""
        return float(np.diff(self.columns).mean()), float(np.diff(self.rows).mean())


@runtime_checkable
class AlignmentModel(Protocol):
    """A model that classifies windows as aligned or not, such as an `AlignmentClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad import make_fibre_images
    >>> from hypervlad.fibres import aligned_fraction
    >>> class AllAligned:
    ...     def aligned_proba(self, image, rows, columns):
    ...         return np.ones((len(rows) - 1, len(columns) - 1))
    >>> (image,), _ = make_fibre_images(1, aligned=0.5, size=128, random_state=0)
    >>> aligned_fraction(image, AllAligned(), window=32).expected_fraction
    1.0
    """

    def aligned_proba(
        self, image: ArrayLike, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> ArrayLike:
        """Return the probability that each window is aligned.

        Parameters
        ----------
        image : ndarray of float32, shape (H, W)
            Grey, 0 to 1.
        rows, columns : ndarray of int, shape (n_rows + 1,) and (n_columns + 1,)
            Edges of the windows, as in `AlignedFraction`.

        Returns
        -------
        array-like of float, shape (n_rows, n_columns)
            0 to 1.
        """
        ...


AlignmentMethod: TypeAlias = Literal["structure_tensor"] | AlignmentModel


@one_or_many()
def aligned_fraction(
    image: Any,
    method: AlignmentMethod = DEFAULT_METHOD,
    window: int = DEFAULT_WINDOW,
    tolerance: float = DEFAULT_TOLERANCE,
    *,
    sigma: float = DEFAULT_SIGMA,
    annotations: Annotations = "leave_out",
    read_options: Mapping[str, Any] | ReadOptions | None = None,
) -> AlignedFraction:
    """Measure the coherently aligned fraction of an image, and its regions.

    The image is divided into windows, side by side. A window is aligned if the axial circular
    standard deviation of its directions (see `local_orientation`), sqrt(-2 ln R) / 2, is below the
    tolerance. It is background if less than a tenth of it is fibre, or if its energy may be noise.
    Adjacent aligned windows whose mean directions differ by no more than that are one region.

    Parameters
    ----------
    image : path or array, or list of these
        As for `local_orientation`.
    method : "structure_tensor" or AlignmentModel, default="structure_tensor"
        With a model, windows whose probability is above one half are aligned; directions, regions
        and background are as without it.
    window : int, default=32
        Side of a window in pixels; adjusted a little so that windows cover all of the image.
    tolerance : float, default=0.349
        Radians; the default is 20 degrees.
    sigma : float, default=1.75
        Length over which gradients are averaged, in pixels.
    annotations, read_options
        As for `fibre_diameters`.

    Returns
    -------
    AlignedFraction, or list of them
        All background, with a `reason`, if the image is flat. A list of images gives a list.

    Raises
    ------
    ImageReadError
        If an image cannot be read, holds NaN or is smaller than the window; it is named.
    ValueError
        If a parameter is out of range, or a model does not return one probability for each window.

    Warns
    -----
    UserWarning
        If far fewer windows of twice the size are aligned, without a model: single fibres may fill
        the windows.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.fibres import aligned_fraction
    >>> y, x = np.mgrid[:128, :128]
    >>> image = np.sin(0.6 * np.where(x < 64, x, y))  # vertical left, horizontal right
    >>> found = aligned_fraction(image)
    >>> found.fraction, [round(float(np.rad2deg(r.mean_angle))) for r in found.regions]
    (1.0, [90, 0])
    """
    _check_rule(window, tolerance)
    check_value("method", method, METHOD)
    sample = read_sample(image, annotations=annotations, read_options=read_options)
    name, grey = image_name(image), sample.grey
    if grey.min() == grey.max():
        grid = TileGrid.over(grey.shape, check_window(window, grey.shape, name))
        none = WindowSums(np.zeros(grid.shape, complex), *np.zeros((2, *grid.shape)))
        empty = classify_windows(none, grid, window, tolerance)
        return replace(empty, annotations=sample.annotations, reason="the image is flat")
    field = GradientField.of(sample, sigma, name)
    found = _fraction(field, grey, method, window, tolerance, name)
    return replace(found, annotations=sample.annotations)


def _fraction(
    field: GradientField,
    grey: FloatMap,
    method: AlignmentMethod,
    window: int,
    tolerance: float,
    name: str,
) -> AlignedFraction:
    grid = TileGrid.over(field.shape, check_window(window, field.shape, name))
    proba = None if isinstance(method, str) else _proba_of(method, grey, grid)
    sums = _window_sums(field, grid)
    found = classify_windows(sums, grid, window, tolerance, proba)
    if proba is None and found.fraction > _NOTED:
        of_double = _fraction_of_double(sums, grid, tolerance)
        if of_double < _MOSTLY * found.fraction:
            note_doubt(name, _OF_WINDOW.format(found.fraction, window, of_double, 2 * window))
    return found


def _fraction_of_double(sums: WindowSums, grid: TileGrid, tolerance: float) -> float:
    """Return the aligned fraction in windows of twice the size; infinite if there are few."""
    n_rows, n_columns = (n // 2 for n in grid.shape)
    axes, weights, fibre, areas = (
        each[: 2 * n_rows, : 2 * n_columns].reshape(n_rows, 2, n_columns, 2).sum(axis=(1, 3))
        for each in (sums.axes, sums.weights, sums.fibre, grid.areas)
    )
    counted = (fibre >= _MIN_FIBRE * areas) & (weights > 0)
    if counted.sum() < _LEAST_BLOCKS:
        return math.inf
    aligned = spread_of(axes[counted] / weights[counted]) < tolerance
    return float(np.average(aligned, weights=areas[counted]))


def background_windows(grey: NDArray[np.float32], window: int, name: str) -> NDArray[np.bool_]:
    """Return the background of `aligned_fraction`, from the energy of gradients alone."""
    sample = ImageSample(grey, np.ones(grey.shape, bool), None, [])
    field = GradientField.of(sample, DEFAULT_SIGMA, name)
    grid = TileGrid.over(field.shape, check_window(window, field.shape, name))
    return np.asarray(field.fibre_pixels(grid) < _MIN_FIBRE * grid.areas)


def aligned_fraction_of_map(
    orientation: ArrayLike, window: int = DEFAULT_WINDOW, tolerance: float = DEFAULT_TOLERANCE
) -> AlignedFraction:
    """Return the coherently aligned fraction of a map of directions, such as a true one.

    Parameters
    ----------
    orientation : array-like of shape (H, W)
        Radians, counter-clockwise from the +x axis of the displayed image; NaN in the background.
    window : int, default=32
    tolerance : float, default=0.349
        As in `aligned_fraction`.

    Returns
    -------
    AlignedFraction

    Raises
    ------
    ValueError
        If the map or parameters are not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.fibres import aligned_fraction_of_map
    >>> rng = np.random.default_rng(0)
    >>> orientation = np.where(np.arange(96) < 64, 3.1, rng.uniform(0, np.pi, (64, 96)))
    >>> round(aligned_fraction_of_map(orientation).fraction, 3)
    0.667
    """
    theta = np.asarray(orientation, dtype=np.float64)
    if theta.ndim != 2:
        raise ValueError(f"expected a map of directions of shape (H, W); got shape {theta.shape}.")
    if np.isinf(theta).any():
        raise ValueError("directions are radians, or NaN in the background; got infinity.")
    _check_rule(window, tolerance)
    grid = TileGrid.over(theta.shape, check_window(window, theta.shape, "the map"))
    mask = np.isfinite(theta)
    counts = grid.sums(mask)
    sums = WindowSums(grid.sums(mask * np.exp(2j * np.where(mask, theta, 0))), counts, counts)
    return classify_windows(sums, grid, window, tolerance, is_true=True)


@dataclass(frozen=True, eq=False)
class WindowSums:
    axes: NDArray[np.complex128]  # of w exp(2 i theta)
    weights: NDArray[np.float64]  # of w
    fibre: NDArray[np.float64]  # number of fibre pixels


def classify_windows(
    sums: WindowSums,
    grid: TileGrid,
    window: int,
    tolerance: float,
    proba: NDArray[np.float64] | None = None,
    is_true: bool = False,
) -> AlignedFraction:
    """Return the aligned fraction, of directions that are measured or true."""
    background = (sums.fibre < _MIN_FIBRE * grid.areas) | (sums.weights <= 0)
    counted = ~background
    is_empty = not counted.any()
    resultant = np.where(background, 0, sums.axes) / np.where(background, 1, sums.weights)
    spread, angle = spread_of(resultant), direction_of(resultant)
    parts = grid.numbers_in(TileGrid.of_parts((grid.rows[-1], grid.columns[-1])))
    # Windows that are aligned, that surely are, and that may be.
    limits = (1.0, *_MEASURED) if proba is None else (0.5, 1 - _UNSURE, _UNSURE)
    limits, excess = (limits[:1] * 3, 0.0) if is_true else (limits, EXCESS)
    is_below = (spread < each * tolerance for each in limits)
    aligned, *ends = is_below if proba is None else (proba > each for each in limits)
    aligned &= counted
    labels, regions = regions_of(
        label_windows(aligned, angle, tolerance), sums.axes, sums.weights, sums.fibre, grid
    )
    share = Sample(spread[counted], grid.areas[counted], parts[counted]).share(aligned[counted])
    reach = [_mean(each, grid.areas, counted) for each in ends]
    return AlignedFraction(
        fraction=_mean(aligned, grid.areas, counted),
        fibre_fraction=_mean(aligned, sums.fibre, counted),
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
        window=int(window),
        tolerance=float(tolerance),
        statistics=None
        if is_empty
        else statistics_of_axes(sums.axes[counted], sums.weights[counted], parts[counted], excess),
        fraction_range=Interval(*reach),
        fraction_interval=Interval(*widened(share, *reach)),
        expected_fraction=None if proba is None or is_empty else _mean(proba, grid.areas, counted),
    )


def check_window(window: Any, shape: tuple[int, ...], name: str, given: str = "") -> int:
    check_value(f"{name}: window={given}" if given else "window", window, [WINDOW])
    if window > min(shape[:2]):
        raise ImageReadError(
            f"{name}: window={given or window}: larger than the image of {shape[0]} x {shape[1]} "
            f"pixels; choose a window of at most {min(shape[:2])}."
        )
    return int(window)


def _check_rule(window: Any, tolerance: Any) -> None:
    check_value("window", window, [WINDOW])
    check_value("tolerance", tolerance, [ANGLE])


def _window_sums(field: GradientField, grid: TileGrid) -> WindowSums:
    def weighted(rows: slice) -> FloatMap:
        # Each direction has the weight of the energy that supports it, and less where wires end or
        # cross, as those places have much energy but no direction.
        energy = np.maximum(field.energy[rows], 0)
        lengths = _lengths(field.axes[:, rows], energy, field.noise)
        coherence = np.minimum(lengths / np.maximum(energy, np.float32(NO_ENERGY)), 1)
        weight: FloatMap = np.sqrt(coherence) * field.fibre[rows]
        return np.stack([*field.axes[:, rows], lengths]) * weight

    cosine, sine, lengths = grid.sums_of(weighted)
    axes = cosine + 1j * sine
    return WindowSums(axes, np.maximum(lengths, np.abs(axes)), field.fibre_pixels(grid))


def _lengths(axes: FloatMap, energy: FloatMap, noise: GradientNoise) -> FloatMap:
    """Return the differences q of the tensor's eigenvalues, less the contribution of noise.

    With the variance v of q due to noise, sqrt(q^2 - v) is unbiased for large q.
    """
    cosine, sine = axes
    squares = cosine**2
    squares += sine**2
    # Noise on the edges of fibres, and noise on noise.
    squares -= energy * np.float32(2 * noise.energy * noise.axis_scatter**2)
    squares -= np.float32((noise.energy * noise.axis_scatter) ** 2)
    return np.asarray(np.sqrt(np.maximum(squares, 0, out=squares), out=squares))


def _proba_of(model: AlignmentModel, grey: FloatMap, grid: TileGrid) -> NDArray[np.float64]:
    proba = np.asarray(model.aligned_proba(grey, grid.rows, grid.columns), dtype=np.float64)
    if proba.shape != grid.shape or not ((proba >= 0) & (proba <= 1)).all():
        raise ValueError(
            f"{type(model).__name__}.aligned_proba: expected a probability, 0 to 1, for each of "
            f"{grid.shape[0]} x {grid.shape[1]} windows; got shape {proba.shape}."
        )
    return proba


def _mean(values: NDArray[Any], amounts: NDArray[np.float64], counted: NDArray[np.bool_]) -> float:
    whole = float(amounts[counted].sum())
    return float((amounts * values)[counted].sum()) / whole if whole else float("nan")


# --- one image as a person describes it, with units of length -----------------------------------


@dataclass(frozen=True, eq=False)
class AlignmentResult:
    """Directions of one image, and its aligned regions.

    Attributes
    ----------
    pixels : ndarray of float32, shape (H, W)
        Grey, in [0, 1].
    sample : ndarray of bool, shape (H, W)
        Where the image shows the sample: not where it was drawn into; that is background.
    annotations : list of Annotation
        What was left out, as it is no sample.
    orientation : LocalOrientation
        Direction at each pixel, with the pixel size if it is known.
    aligned : AlignedFraction
        The aligned windows and regions.
    digest : str
        Of the image's pixels, by which copies are told.
    """

    pixels: NDArray[np.float32]
    sample: NDArray[np.bool_]
    annotations: list[Annotation]
    orientation: LocalOrientation
    aligned: AlignedFraction
    digest: str

    @property
    def statistics(self) -> AxialStatistics | None:
        """Those of the aligned fraction."""
        return self.aligned.statistics

    @property
    def fibre_share(self) -> float:
        """Share of the sample's pixels that are not background."""
        return float(self.orientation.mask[self.sample].mean())


@dataclass(frozen=True)
class AlignmentRecipe:
    """Parameters by which directions and aligned regions of images are found.

    Parameters
    ----------
    method : "structure_tensor" or AlignmentModel, default="structure_tensor"
        As for `aligned_fraction`.
    window : int, float or str, default=32
        Side of a window in pixels, or with a unit, such as "500nm", which needs a known pixel size.
    tolerance : float, default=0.349
        Radians; the default is 20 degrees.
    sigma : float or str, default=1.75
        Length over which gradients are averaged, in pixels or with a unit.
    pixel_size : float or PixelSizes, optional
        nm per pixel, for images whose file does not contain it, or of single files.
    annotations : {"leave_out", "keep"}, default="leave_out"
    read_options : dict or ReadOptions, optional
        As for `fibre_diameters`.

    Raises
    ------
    ValueError
        If a parameter is not as described.

    Examples
    --------
    >>> from hypervlad import make_fibre_images
    >>> from hypervlad.fibres import AlignmentRecipe
    >>> (image,), _ = make_fibre_images(1, aligned=1, size=128, random_state=0)
    >>> AlignmentRecipe(window="64nm", pixel_size=2.0).find(image).aligned.window
    32
    """

    method: Any = DEFAULT_METHOD
    window: int | float | str = DEFAULT_WINDOW
    tolerance: float = DEFAULT_TOLERANCE
    sigma: float | str = DEFAULT_SIGMA
    pixel_size: float | PixelSizes | None = None
    annotations: Annotations = "leave_out"
    read_options: Mapping[str, Any] | ReadOptions | None = None

    def __post_init__(self) -> None:
        check_value("method", self.method, METHOD)
        parse_length(self.window)
        parse_length(self.sigma)
        check_value("tolerance", self.tolerance, [ANGLE])
        check_value("pixel_size", self.pixel_size, PIXEL_SIZE)
        check_read_options(self.read_options)

    @property
    def method_name(self) -> str:
        """The name of the method, or of the model's class."""
        return self.method if isinstance(self.method, str) else type(self.method).__name__

    def find(self, image: Any) -> Any:
        """Read an image, and find its directions and its aligned regions.

        Parameters
        ----------
        image : path or array, or list of these

        Returns
        -------
        AlignmentResult, or list of them
            A list of images gives a list.

        Raises
        ------
        ValueError
            If an image cannot be read, is flat or smaller than the window, or if lengths have a
            unit and its pixel size is unknown; it is named.

        Warns
        -----
        UserWarning
            If the pixels are not square: then the pixel size is ignored.
        """
        return one_or_many()(self._find)(image)

    def _find(self, image: Any) -> AlignmentResult:
        name = image_name(image)
        sample = read_sample(
            image,
            annotations=self.annotations,
            read_options=self.read_options,
            pixel_size=self.pixel_size,
        )
        size, given = sample.pixel_size, ""
        try:
            length, sigma = (length_in_pixels(each, size) for each in (self.window, self.sigma))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if parse_length(self.window)[1]:
            given = f"{self.window}, {length:.3g} px at {size:.4g} nm per pixel"
        window = check_window(round(length), sample.grey.shape, name, given)
        _, unit = parse_length(self.sigma)
        field = GradientField.of(sample, sigma, name, has_unit=unit != "")
        aligned = _fraction(field, sample.grey, self.method, window, self.tolerance, name)
        grey, mask, _, left_out, digest = sample
        directions = orientation_of(field, sample)
        return AlignmentResult(grey, mask, left_out, directions, aligned, digest)
