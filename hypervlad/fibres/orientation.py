"""The direction of fibres at each pixel of an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.constraints import OneOf, check_value
from hypervlad.fibres.axial import AxialStatistics, axial_statistics, wrapped
from hypervlad.fibres.gradients import NO_ENERGY, FloatMap, GradientField, fibre_mask
from hypervlad.fibres.regions import TileGrid

OrientationMethod: TypeAlias = Literal["structure_tensor", "lgo"]
METHODS: tuple[str, ...] = get_args(OrientationMethod)
_MIN_WINDOW = 96  # unless fewer than three windows would fit along a side
_N_BINS = 24
_CELL = 1.31  # side of a cell over sigma
_PEAK_REACH = 2  # bins on either side of a peak that belong to it
_N_STRIP_ROWS = 8  # rows of cells whose histograms stay in the processor's cache


@dataclass(frozen=True, eq=False)
class LocalOrientation:
    """Direction of the fibres at each pixel.

    Attributes
    ----------
    orientation : ndarray of float32, shape (H, W)
        Along the fibre, radians in [0, pi), counter-clockwise from the +x axis of the displayed
        image (y up); 0 in the background.
    coherence : ndarray of float32, shape (H, W)
        From 0, no direction, to 1, one direction; 0 in the background.
    energy : ndarray of float32, shape (H, W)
        Mean squared gradient around the pixel, less that of noise, of the image scaled to span 0 to
        1; 0 in the background.
    mask : ndarray of bool, shape (H, W)
        Where directions can be measured. It is not a segmentation: it extends beyond narrow wires,
        and wires wider than about six sigma are hollow.
    sigma : float
        Length over which directions were averaged, in pixels.
    pixel_size : float or None
        In nm per pixel; None if unknown.
    method : str
        "structure_tensor" or "lgo".
    """

    orientation: FloatMap
    coherence: FloatMap
    energy: FloatMap
    mask: NDArray[np.bool_]
    sigma: float
    pixel_size: float | None
    method: str

    def statistics(self) -> AxialStatistics:
        """Return mean direction, order parameter and spread over the image, energy-weighted.

        Unlike ``AlignedFraction.statistics``, they are not corrected for noise. The intervals are
        from how much windows of the image differ; NaN if all fibres are in one window.

        Returns
        -------
        AxialStatistics

        Raises
        ------
        ValueError
            If the image is all background.

        Examples
        --------
        >>> import numpy as np
        >>> from hypervlad.fibres import local_orientation
        >>> rows = np.sin(0.6 * np.arange(96))[:, None] * np.ones(96)
        >>> found = local_orientation(rows, sigma=2).statistics()
        >>> found.mean, found.order, round(found.order_interval.high, 3)
        (0.0, 1.0, 1.0)
        """
        if not self.mask.any():
            raise ValueError("the image is all background: it has no mean direction.")
        return axial_statistics(
            self.orientation[self.mask], self.energy[self.mask], groups=self._windows()
        )

    def _windows(self) -> NDArray[np.intp]:
        shorter = min(self.mask.shape)
        side = max(shorter // 4, min(_MIN_WINDOW, shorter // 3), 2)
        grid = TileGrid.over(self.mask.shape, side)
        numbers = grid.expand(np.arange(grid.size).reshape(grid.shape))
        return np.asarray(numbers[self.mask])


def local_orientation(
    image: ArrayLike, sigma: float, *, method: OrientationMethod = "structure_tensor"
) -> LocalOrientation:
    """Measure the direction of the fibres at each pixel.

    Parameters
    ----------
    image : array-like of shape (H, W)
        A grey image of any gain, offset and sign of the contrast.
    sigma : float
        Length over which directions are averaged, in pixels, at most half of the shorter side. A
        third of a fibre's width is enough if there is little noise.
    method : {"structure_tensor", "lgo"}, default="structure_tensor"
        "structure_tensor" [1]_, or "lgo", local gradient orientation [2]_ [3]_: across the highest
        peak of a histogram of gradients.

    Returns
    -------
    LocalOrientation

    Raises
    ------
    ValueError
        If the image is flat, has colours or holds NaN, or a parameter is out of range.

    References
    ----------
    .. [1] J. Bigün and G. H. Granlund, "Optimal orientation detection of linear symmetry", ICCV
       1987.
    .. [2] J.-Y. Tinevez, "Directionality", https://imagej.net/plugins/directionality, after Z.-Q.
       Liu, "Scale space approach to directional analysis of images", Applied Optics 30, 1991.
    .. [3] M. H. Modarres, R. Aversa, S. Cozzini, R. Ciancio, A. Leto and G. P. Brandino, "Neural
       network for nanoscience scanning electron microscope image recognition", Scientific Reports
       7, 13282, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.fibres import local_orientation
    >>> y, x = np.mgrid[:64, :64]
    >>> stripes = np.sin(0.5 * (x * np.sin(np.pi / 6) + y * np.cos(np.pi / 6)))
    >>> found = local_orientation(stripes, sigma=3)
    >>> float(np.rad2deg(np.median(found.orientation)).round()), bool(found.mask.all())
    (30.0, True)
    """
    check_value("method", method, [OneOf(*METHODS)])
    return orientation_of(GradientField.of_image(image, sigma), method)


def orientation_of(
    field: GradientField, method: OrientationMethod, pixel_size: float | None = None
) -> LocalOrientation:
    if method == "lgo":
        along, coherence, energy = histogram_peaks(field.down, field.right, field.sigma)
        energy -= np.float32(field.noise.energy)
        fibre = fibre_mask(energy, field.noise)
    else:
        along, coherence = _along_and_coherence(field)
        energy, fibre = field.energy, field.fibre
    along *= fibre
    coherence *= fibre
    size = None if pixel_size is None else float(pixel_size)
    return LocalOrientation(along, coherence, energy * fibre, fibre, field.sigma, size, method)


def _along_and_coherence(field: GradientField) -> tuple[FloatMap, FloatMap]:
    cosine, sine = field.axes
    along = np.arctan2(sine, cosine)
    along *= np.float32(0.5)
    coherence = np.hypot(cosine, sine)
    coherence /= np.maximum(field.energy_with_noise, np.float32(NO_ENERGY))
    np.minimum(coherence, 1, out=coherence)
    return wrapped(along), coherence


def histogram_peaks(
    down: FloatMap, right: FloatMap, sigma: float
) -> tuple[FloatMap, FloatMap, FloatMap]:
    """Return the direction of the highest peak, the order and the energy around each pixel.

    A window is a cell of about 1.3 sigma with its eight neighbours, weighted 1, 2, 1.
    """
    side = min(max(2, round(_CELL * sigma)), *down.shape)
    grid = TileGrid.over(down.shape, side)
    strips = [_peaks(table) for table in _smoothed_strips(down, right, grid)]
    along, order, energy = (grid.expand(np.concatenate(rows)) for rows in zip(*strips, strict=True))
    return along, order, energy


def direction_histograms(
    down: FloatMap, right: FloatMap, grid: TileGrid, n_bins: int
) -> NDArray[np.float64]:
    """Return a histogram of the directions across the gradients of each window.

    Sums of squared lengths, shape (n_rows, n_columns, n_bins), each shared between the two nearest
    bins; the centre of bin k is at k pi / n_bins.
    """
    # Across (right, -down), y up, is (down, right).
    place = np.arctan2(right, down)
    place *= np.float32(n_bins / np.pi)
    place += np.float32(n_bins)
    low = place.astype(np.intp)
    place -= low
    n_rows, n_columns = grid.shape
    start = n_bins * np.arange(grid.size).reshape(n_rows, n_columns)
    start = np.repeat(start, np.diff(grid.columns), axis=1)
    energy = right * right
    energy += down * down
    place *= energy
    energy -= place
    sums = np.zeros(grid.size * n_bins)
    for step, weights in ((0, energy), (1, place)):
        index = (low + step) % n_bins
        for row, (top, stop) in zip(start, pairwise(grid.rows), strict=True):
            index[top:stop] += row
        sums += np.bincount(index.ravel(), weights.ravel(), len(sums))
    return sums.reshape(n_rows, n_columns, n_bins)


def bin_axes(n_bins: int) -> NDArray[np.complex128]:
    """Return exp(2 i theta) of the centre of each bin."""
    axes: NDArray[np.complex128] = np.exp(2j * np.pi * np.arange(n_bins) / n_bins)
    return axes


def _smoothed_strips(
    down: FloatMap, right: FloatMap, grid: TileGrid
) -> Iterator[NDArray[np.float32]]:
    """Yield mean histograms of rows of cells, each averaged with its neighbours."""
    n_rows = grid.shape[0]
    for start in range(0, n_rows, _N_STRIP_ROWS):
        stop = min(start + _N_STRIP_ROWS, n_rows)
        first, last = max(start - 1, 0), min(stop + 1, n_rows)
        rows = grid.rows[first : last + 1]
        own = slice(int(rows[0]), int(rows[-1]))
        strip = TileGrid(rows - rows[0], grid.columns)
        table = direction_histograms(down[own], right[own], strip, _N_BINS).astype(np.float32)
        table /= strip.areas[..., None].astype(np.float32)
        missing = (int(first == start), int(last == stop))
        table = np.pad(table, (missing, (1, 1), (0, 0)), mode="edge")
        yield _with_neighbours(_with_neighbours(table, 0), 1)


def _with_neighbours(table: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    along = np.moveaxis(table, axis, 0)
    mean = along[1:-1] * np.float32(0.5)
    for ends in (along[:-2], along[2:]):
        mean += np.float32(0.25) * ends
    return np.moveaxis(mean, 0, axis)


def _peaks(table: NDArray[np.float32]) -> tuple[FloatMap, FloatMap, FloatMap]:
    n_bins = table.shape[-1]
    axes = bin_axes(n_bins).astype(np.complex64)
    energy = table.sum(axis=-1)
    # Three bins together, so that a peak on a bin's edge is as high as one in its centre.
    wide = table + np.roll(table, 1, axis=-1) + np.roll(table, -1, axis=-1)
    near = (wide.argmax(axis=-1)[..., None] + np.arange(-_PEAK_REACH, _PEAK_REACH + 1)) % n_bins
    around = (np.take_along_axis(table, near, axis=-1) * axes[near]).sum(axis=-1)
    along = wrapped(np.angle(around) * np.float32(0.5))
    resultant = np.abs(table @ axes)
    order = np.minimum(resultant / np.maximum(energy, np.finfo(np.float32).tiny), 1)
    return along, order, energy
