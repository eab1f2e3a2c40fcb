"""Lengths as people write them: pixels, or a number with a unit."""

from __future__ import annotations

import math
import re

from hypervlad.images.metadata import length_in_nm

_PIXELS = ("", "px", "pixel", "pixels")


def length_in_pixels(length: str | float, pixel_size: float | None = None) -> float:
    """Return a length in pixels.

    Parameters
    ----------
    length : str or float
        A number of pixels, or a number with a unit: "32", "32 px", "500nm", "0.5 µm".
    pixel_size : float, optional
        nm a pixel, which a length with a unit wants.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If it is no length above 0, or has a unit where the pixel size is not known.

    Examples
    --------
    >>> from hypervlad.images.lengths import length_in_pixels
    >>> length_in_pixels("32"), length_in_pixels("0.5 um", pixel_size=2.5)
    (32.0, 200.0)
    """
    number, unit = parse_length(length)
    if unit in _PIXELS:
        return number
    if pixel_size is None:
        raise ValueError(
            f"{length} is so many pixels only where the pixel size is known, and here it is not; "
            "give the length in pixels, or the pixel size."
        )
    nm = length_in_nm(number, unit)
    assert nm is not None  # or it would not have been parsed
    return nm / pixel_size


def parse_length(length: str | float) -> tuple[float, str]:
    """Take a length apart into number and unit, "" for pixels.

    Raises
    ------
    ValueError
        If it is no length above 0, or its unit is unknown.

    Examples
    --------
    >>> from hypervlad.images.lengths import parse_length
    >>> parse_length("500nm")
    (500.0, 'nm')
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)\s*(\D*?)\s*", str(length))
    number, unit = (float(found[1]), found[2]) if found else (0.0, "")
    if not 0 < number < math.inf or (unit not in _PIXELS and length_in_nm(1, unit) is None):
        raise ValueError(
            f"{length!r} is no length; give a number of pixels, such as 32, or one with a unit, "
            "such as 500nm or 0.5um."
        )
    return number, "" if unit in _PIXELS else unit
