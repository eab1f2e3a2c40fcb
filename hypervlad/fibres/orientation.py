"""The direction of fibres at each pixel of an image, from its gradients above their noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import Number, check_value
from hypervlad.fibres.axial import wrapped
from hypervlad.fibres.contrast import (
    GRADIENT_SIGMAS,
    TRUNCATE,
    BoolMap,
    FloatMap,
    GradientNoise,
    Noise,
    gaussian_smooth,
    image_gradients,
    normalised_contrast,
    subsample,
)
from hypervlad.fibres.regions import TileGrid
from hypervlad.images import Annotation, PixelSizes, ReadOptions
from hypervlad.images.errors import ImageReadError
from hypervlad.images.reading import image_name
from hypervlad.images.resampling import STRIP, at_own_sampling
from hypervlad.images.sample import Annotations, Sample, one_or_many, read_sample

_PIXELS = Number(above=0, meaning="a number of pixels")
_BAND = 512  # rows that are looked at at a time
_MIN_KEPT = 0.1
#: Of an image that spans 0 to 1: far below a step of one grey level of 16 bits.
NO_ENERGY = 1e-13
_FLOOR = 0.05  # of the half-energy level: what has less is background
# Fibre has an energy this many standard deviations above the mean of noise alone.
_DEVIATIONS = 2.5


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
        Length over which directions were averaged, in pixels: as given, times the factor by which a
        program had enlarged the image.
    pixel_size : float or None
        In nm per pixel; None if unknown.
    annotations : list of Annotation
        What was left out, as it is no sample; it is background.
    """

    orientation: FloatMap
    coherence: FloatMap
    energy: FloatMap
    mask: NDArray[np.bool_]
    sigma: float
    pixel_size: float | None
    annotations: list[Annotation]


@one_or_many()
def local_orientation(
    image: Any,
    sigma: float,
    *,
    pixel_size: float | PixelSizes | None = None,
    annotations: Annotations = "leave_out",
    read_options: Mapping[str, Any] | ReadOptions | None = None,
) -> LocalOrientation:
    """Measure the direction of the fibres at each pixel, by the structure tensor [1]_.

    Parameters
    ----------
    image : path or array, or list of these
        As in :func:`hypervlad.read_micrograph`, of any gain, offset and sign of the contrast.
        Colours are averaged.
    sigma : float
        Length over which directions are averaged, in pixels, at most half of the shorter side. A
        third of a fibre's width is enough if there is little noise.
    pixel_size, annotations, read_options
        As for `fibre_diameters`.

    Returns
    -------
    LocalOrientation, or list of them
        A list of images gives a list.

    Raises
    ------
    ValueError
        If an image, which is named, is unreadable, flat or has NaN, or a parameter is out of range.

    References
    ----------
    .. [1] J. Bigün and G. H. Granlund, "Optimal orientation detection of linear symmetry", ICCV
       1987.

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
    sample = read_sample(
        image, annotations=annotations, read_options=read_options, pixel_size=pixel_size
    )
    return orientation_of(GradientField.of(sample, sigma, image_name(image)), sample)


def orientation_of(field: GradientField, sample: Sample) -> LocalOrientation:
    """Return the directions of a field, whose maps they replace: these take much memory."""
    for top in range(0, len(field.energy), _BAND):
        rows = slice(top, top + _BAND)
        (cosine, sine), energy, fibre = field.axes[:, rows], field.energy[rows], field.fibre[rows]
        along = np.arctan2(sine, cosine)
        along *= np.float32(0.5)
        coherence = np.hypot(cosine, sine)
        coherence /= np.maximum(energy + np.float32(field.noise.energy), np.float32(NO_ENERGY))
        np.minimum(coherence, 1, out=coherence)
        field.axes[:, rows] = wrapped(along), coherence
        field.axes[:, rows] *= fibre
        energy *= fibre
    along, coherence = field.axes
    return LocalOrientation(
        along,
        coherence,
        field.energy,
        field.fibre,
        field.sigma,
        sample.pixel_size,
        sample.annotations,
    )


# --- gradients -------------------------------------------------------------------


@dataclass(eq=False)
class GradientField:
    energy: FloatMap  # averaged squared length of the gradients, less the mean of noise; (H, W)
    # Cosine and sine of twice the structure tensor's angle, times its eigenvalues' gap; (2, H, W)
    axes: FloatMap
    fibre: BoolMap  # which pixels have the energy of fibres; (H, W)
    noise: GradientNoise
    sigma: float  # of the Gaussian that averages are taken with, pixels

    @classmethod
    def of(cls, sample: Sample, sigma: Any, name: str, *, has_unit: bool = False) -> GradientField:
        """Measure gradients; a `sigma` without a unit is in pixels before any enlargement."""
        contrast = normalised_contrast(sample.grey, name)
        check_value("sigma", sigma, [_PIXELS])
        # Interpolation correlates noise: what a program has enlarged is measured as it was before.
        own, seen, factor = at_own_sampling(contrast, sample.mask, name)
        scale = float(sigma) * (1 if has_unit else factor)
        if 2 * scale > min(contrast.shape):
            height, width = contrast.shape
            enlarged = f", enlarged {factor:.3g} times by a program," if scale > sigma else ""
            raise ImageReadError(
                f"{name}: sigma={sigma!r}: {sigma:g} pixels{enlarged} are more than half of the "
                f"image of {height} x {width}; sigma is in pixels: give about a third of a fibre's "
                "width."
            )
        parts = TileGrid.of_parts(contrast.shape)
        squares = [
            parts.sums_of(_squares(contrast, each * factor, sample.mask))
            for each in GRADIENT_SIGMAS
        ]
        seen_areas = parts.sums(sample.mask)
        # Fibres that cross everywhere would all be noise: then only white noise is.
        found = Noise.of(own, seen)
        for deviation, grain in ((found.white, found.grain), (found.deviation, 0.0)):
            noises = [
                GradientNoise.of(deviation, grain, scale / factor, each, factor)
                for each in GRADIENT_SIGMAS
            ]
            energies = [
                sums - noise.energy * seen_areas
                for sums, noise in zip(squares, noises, strict=True)
            ]
            if (energies[0] > noises[0].of_sums(parts.areas)).any():
                break
        # Fine stripes in a fourth of the parts are not lost for what is coarse elsewhere.
        is_sure = energies[1] > noises[1].of_sums(parts.areas)
        kept = energies[0][is_sure] / energies[1][is_sure]
        chosen = int(len(kept) > 0 and np.quantile(kept, 0.25) < _MIN_KEPT)
        noise, smoothing = noises[chosen], GRADIENT_SIGMAS[chosen] * factor
        maps = np.empty((3, *contrast.shape), np.float32)
        for top in range(0, len(contrast), _BAND):  # which takes little memory
            rows = slice(top, min(top + _BAND, len(contrast)))
            reach = math.ceil(TRUNCATE * scale)
            start, (down, right) = _gradients_around(contrast, rows, smoothing, reach)
            # The doubled angle of gradients, y up, has the cosine right^2 - down^2 and the sine
            # -2 right down. Fibres run across gradients, which reverses both signs.
            products = down**2 + right**2, down**2 - right**2, 2 * down * right
            for averaged, product in zip(maps, products, strict=True):
                band = gaussian_smooth(product, scale)[rows.start - start :]
                averaged[rows] = band[: rows.stop - rows.start]
        energies, axes = maps[0], maps[1:]
        energies -= np.float32(noise.energy)
        # The level above which half of all energy lies follows gain and contrast, and depends
        # little on the share of background or on bright spots.
        ordered = np.maximum(np.sort(subsample(energies)), 0).astype(np.float64)
        held = np.cumsum(ordered)
        half_energy = float(ordered[np.searchsorted(held, held[-1] / 2)])
        above_noise = _DEVIATIONS * noise.energy_scatter * noise.energy
        least = max(_FLOOR * half_energy, above_noise, NO_ENERGY)
        return cls(energies, axes, (energies > least) & sample.mask, noise, scale)

    @property
    def shape(self) -> tuple[int, int]:
        return self.energy.shape[0], self.energy.shape[1]

    def fibre_pixels(self, grid: TileGrid) -> NDArray[np.float64]:
        # None in windows with no more energy than noise can give them: now and then, neighbouring
        # pixels of noise exceed any threshold together, and share a direction.
        above_noise = grid.sums(self.energy) > self.noise.of_sums(grid.areas)
        return np.asarray(grid.sums(self.fibre) * above_noise)


def _gradients_around(
    contrast: FloatMap, rows: slice, smoothing: float, reach: int
) -> tuple[int, tuple[FloatMap, FloatMap]]:
    """Return the first row, and the gradients of some rows and of `reach` more on both sides."""
    # Whole strips, which are smoothed at once: only the last digits depend on where bands begin.
    beyond = STRIP * math.ceil((reach + TRUNCATE * smoothing + 2) / STRIP)
    start = max(rows.start - beyond, 0)
    return start, image_gradients(contrast[start : rows.stop + beyond], smoothing)


def _squares(
    contrast: FloatMap, smoothing: float, mask: BoolMap
) -> Callable[[slice], NDArray[Any]]:
    def squares(rows: slice) -> FloatMap:
        start, (down, right) = _gradients_around(contrast, rows, smoothing, 0)
        here = slice(rows.start - start, rows.stop - start)
        return np.asarray((down[here] ** 2 + right[here] ** 2) * mask[rows])

    return squares
