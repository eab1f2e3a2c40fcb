"""`AlignmentRecipe`: directions and alignment of image files, with units of length."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import Integer, OneOf, check_value
from hypervlad.fibres.alignment import (
    ANGLE,
    DEFAULT_SIGMA,
    DEFAULT_TOLERANCE,
    DEFAULT_WINDOW,
    METHOD,
    AlignedFraction,
    check_window,
    fraction_of_field,
)
from hypervlad.fibres.axial import AxialStatistics
from hypervlad.fibres.gradients import GradientField
from hypervlad.fibres.orientation import LocalOrientation, orientation_of
from hypervlad.images import PixelSizes
from hypervlad.images.metadata import length_in_pixels, parse_length
from hypervlad.images.options import PIXEL_SIZE, check_read_options
from hypervlad.images.sample import read_grey


@dataclass(frozen=True, eq=False)
class AlignmentResult:
    """Directions of one image, and its aligned regions.

    Attributes
    ----------
    pixels : ndarray of float32, shape (H, W)
        Grey, in [0, 1].
    orientation : LocalOrientation
        Direction at each pixel, with the pixel size if it is known.
    aligned : AlignedFraction
        The aligned windows and regions.
    statistics : AxialStatistics or None
        Statistics of the directions, weighted by energy; None if all pixels are background.
    """

    pixels: NDArray[np.float32]
    orientation: LocalOrientation
    aligned: AlignedFraction
    statistics: AxialStatistics | None

    @property
    def fibre_share(self) -> float:
        """Share of the image's pixels that are not background."""
        return float(self.orientation.mask.mean())


@dataclass(frozen=True)
class AlignmentRecipe:
    """Parameters by which directions and aligned regions of images are found.

    Parameters
    ----------
    method : {"structure_tensor", "lgo"} or AlignmentModel, default="structure_tensor"
        As in `aligned_fraction`.
    window : int, float or str, default=32
        Side of a window in pixels, or with a unit, such as "500nm", which needs a known pixel size.
    tolerance : float, default=0.349
        Radians; the default is 20 degrees.
    sigma : float or str, default=1.75
        Length over which gradients are averaged, in pixels or with a unit.
    pixel_size : float or PixelSizes, optional
        nm per pixel, for images whose file does not contain it, or of single files.
    banner : {"keep", "remove"}, default="keep"
        Whether an instrument's information bar is cut off.
    channel : int, optional
        Channel to analyse, counted from 0; by default the mean of colours.
    page : int, optional
        Page of a file, counted from 0; by default the first, with a warning if there are more.

    Raises
    ------
    ValueError
        If a parameter is not as described.

    Examples
    --------
    >>> from hypervlad import make_nanowire_images
    >>> from hypervlad.fibres import AlignmentRecipe
    >>> (image,), _ = make_nanowire_images(1, aligned=1, size=128, random_state=0)
    >>> AlignmentRecipe(window="64nm", pixel_size=2.0).find(image).aligned.window
    32
    """

    method: Any = "structure_tensor"
    window: int | float | str = DEFAULT_WINDOW
    tolerance: float = DEFAULT_TOLERANCE
    sigma: float | str = DEFAULT_SIGMA
    pixel_size: float | PixelSizes | None = None
    banner: str = "keep"
    channel: int | None = None
    page: int | None = None

    def __post_init__(self) -> None:
        check_value("method", self.method, METHOD)
        parse_length(self.window)
        parse_length(self.sigma)
        check_value("tolerance", self.tolerance, [ANGLE])
        check_value("banner", self.banner, [OneOf("keep", "remove")])
        for name in ("channel", "page"):
            check_value(name, getattr(self, name), [Integer(at_least=0), None])
        check_value("pixel_size", self.pixel_size, PIXEL_SIZE)

    @property
    def method_name(self) -> str:
        """The name of the method, or of the model's class."""
        return self.method if isinstance(self.method, str) else type(self.method).__name__

    def find(self, image: Any) -> AlignmentResult:
        """Read one image, and find its directions and its aligned regions.

        Parameters
        ----------
        image : path or array

        Returns
        -------
        AlignmentResult

        Raises
        ------
        ValueError
            If it cannot be read, is flat or smaller than the window, or if lengths have a unit and
            its pixel size is unknown.

        Warns
        -----
        UserWarning
            If the pixels are not square: then the pixel size is ignored.
        """
        names = ("banner", "channel", "page", "pixel_size")
        options = check_read_options({each: getattr(self, each) for each in names})
        read = read_grey(image, options)
        try:
            return self._find(read.pixels, read.pixel_size)
        except ValueError as error:
            raise ValueError(f"{_named(image)}{error}") from error

    def _find(self, pixels: NDArray[np.float32], pixel_size: float | None) -> AlignmentResult:
        window = self._window_of(pixels.shape, pixel_size)
        field = GradientField.of_image(pixels, length_in_pixels(self.sigma, pixel_size))
        orientation = orientation_of(
            field, "lgo" if self.method == "lgo" else "structure_tensor", pixel_size
        )
        aligned = fraction_of_field(field, pixels, self.method, window, self.tolerance)
        statistics = orientation.statistics() if orientation.mask.any() else None
        return AlignmentResult(pixels, orientation, aligned, statistics)

    def _window_of(self, shape: tuple[int, ...], pixel_size: float | None) -> int:
        length = length_in_pixels(self.window, pixel_size)
        try:
            return check_window(round(length), shape)
        except ValueError as error:
            if parse_length(self.window)[1] == "":
                raise
            size = (
                f"{length:.3g} pixel{'' if length == 1 else 's'} at {pixel_size:.4g} nm per pixel"
            )
            raise ValueError(f"{self.window} is {size}: {error}") from error


def _named(image: Any) -> str:
    return f"{os.fspath(image)}: " if isinstance(image, str | os.PathLike) else ""
