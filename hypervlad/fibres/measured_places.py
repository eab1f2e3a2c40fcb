"""Where diameters were measured: cross lines, a map, and places left out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.fibres.axial import Interval
from hypervlad.fibres.diameters import FibreDiameters
from hypervlad.fibres.gradients import Values

#: The arrays of `FibreDiameters` with one entry per place.
PER_PLACE = ("diameters", "errors", "positions", "directions", "weights", "fibres")
_DISC = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if y * y + x * x <= 5]


def cross_lines(found: FibreDiameters, pixel_size: float | None = None) -> Values:
    """Return the lines across fibres along which diameters were measured, from edge to edge.

    Parameters
    ----------
    found : FibreDiameters
    pixel_size : float, optional
        Nanometres per pixel, if the diameters are in nm.

    Returns
    -------
    ndarray of float64, shape (n, 2, 2)
        Both ends, each as row and column, in pixels.

    Raises
    ------
    ValueError
        If the diameters are in nm and there is no pixel size, or the other way round.

    Examples
    --------
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.fibres import cross_lines, fibre_diameters
    >>> (image,), _ = make_fibre_images(1, diameter=9, size=256, random_state=0)
    >>> found = fibre_diameters(image)
    >>> ends = cross_lines(found)
    >>> len(ends) == len(found.diameters), ends.shape[1:]
    (True, (2, 2))
    """
    if (found.unit == "nm") == (pixel_size is None):
        give = "leave it out" if found.unit == "px" else "give that of the image"
        raise ValueError(
            f"the diameters are in {found.unit}, and pixel_size is {pixel_size}; {give}"
        )
    half = found.diameters / 2 / (pixel_size or 1.0)
    across = np.stack([np.cos(found.directions), np.sin(found.directions)], axis=1)
    reach = half[:, None] * across
    return np.stack([found.positions - reach, found.positions + reach], axis=1)


def diameter_map(found: FibreDiameters, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the diameters as an image, such as for a layer of napari or a signal of HyperSpy.

    Parameters
    ----------
    found : FibreDiameters
    shape : (H, W)
        Shape of the image.

    Returns
    -------
    ndarray of float32, shape (H, W)
        The diameter, in the unit of `found`, within two pixels of each place; NaN elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.fibres import diameter_map, fibre_diameters
    >>> (image,), _ = make_fibre_images(1, diameter=9, size=256, random_state=0)
    >>> drawn = diameter_map(fibre_diameters(image), image.shape)
    >>> drawn.shape, bool(np.isnan(drawn).any())
    ((256, 256), True)
    """
    drawn = np.full(shape, np.nan, np.float32)
    middle = np.rint(found.positions).astype(int)
    for offset in _DISC:
        rows, columns = (middle + offset).T
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        drawn[rows[inside], columns[inside]] = found.diameters[inside]
    return drawn


def without_places(found: FibreDiameters, left_out: ArrayLike) -> FibreDiameters:
    """Return diameters without some places, as if a person had refused them.

    Parameters
    ----------
    found : FibreDiameters
    left_out : array-like of bool, shape (n,)

    Returns
    -------
    FibreDiameters
        The interval has moved with the median; its relative width is as before.
    """
    kept = ~np.asarray(left_out, bool)
    rest = replace(found, **{name: getattr(found, name)[kept] for name in PER_PLACE})
    ratio = rest.median / found.median
    interval = Interval(ratio * found.interval.low, ratio * found.interval.high)
    reason = None if kept.any() else found.reason or "all places were left out"
    return replace(rest, interval=interval, reason=reason)
