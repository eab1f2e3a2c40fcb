"""One scale for all: images that know their pixel size, brought to the same nm per pixel."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Iterable, Iterator

from hypervlad.images import ImageReadError, Micrograph, UnknownPixelSizeWarning

# Measured on a CPU, an image of this size takes 1 GB on mobilenet_v2 and 2.4 GB on VGG-16: what a
# laptop can give.
MOST_PIXELS = 2048**2


def resampled_size(
    shape: tuple[int, ...], own_pixel_size: float, pixel_size: float
) -> tuple[int, int]:
    """Return the size of an image at another scale.

    Parameters
    ----------
    shape : tuple of int
        Of the image, (H, W) or (H, W, 3), pixels.
    own_pixel_size, pixel_size : float
        Of the image and wanted, nanometres per pixel.

    Returns
    -------
    tuple of int
        Height and width, pixels.

    Examples
    --------
    >>> resampled_size((600, 1200), own_pixel_size=0.5, pixel_size=2.0)
    (150, 300)
    """
    # Absurd metadata may lead to infinity, which has no whole number.
    height, width = (round(min(n * own_pixel_size / pixel_size, 1e12)) for n in shape[:2])
    return height, width


def size_at(
    micrograph: Micrograph, pixel_size: float | None, minimum: int, name: str | None = None
) -> tuple[int, int] | None:
    """Return the size at which a micrograph has this pixel size; None if that cannot be known.

    Parameters
    ----------
    micrograph : Micrograph
    pixel_size : float or None
        Wanted, nanometres per pixel; None for no common scale.
    minimum : int
        The shortest side that the network takes, pixels.
    name : str, optional
        What to call the image in an error; its path by default.

    Raises
    ------
    ImageReadError
        If a side would be below ``minimum``, or height x width above ``MOST_PIXELS``.
    """
    own = micrograph.pixel_size
    if pixel_size is None or own is None:
        return None
    size = resampled_size(micrograph.pixels.shape, own, pixel_size)
    if min(size) >= minimum and size[0] * size[1] <= MOST_PIXELS:
        return size
    if size[0] * size[1] > MOST_PIXELS:
        limit = f"more than the {MOST_PIXELS:,} pixels that are computed at most"
        remedy = "a larger pixel_size"
    else:
        limit = f"less than the {minimum} pixels a side that the network needs"
        remedy = "a smaller pixel_size"
    height, width = micrograph.pixels.shape[:2]
    raise ImageReadError(
        f"{name or micrograph.source or 'image'}: its {height} x {width} pixels of {own:.4g} nm "
        f"would become {size[0]:,} x {size[1]:,} at pixel_size={pixel_size:g} nm, {limit}; use "
        f"{remedy}, correct the pixel size in the file if it is wrong, or leave the image out"
    )


def at_scale(
    micrographs: Iterable[tuple[int, Micrograph]],
    pixel_size: float | None,
    n_images: int | None,
) -> Iterator[tuple[int, Micrograph]]:
    """Give images that will be resampled a digest that tells their pixel size; note the others.

    With ``pixel_size=None`` all pass as they are. Else equal pixels of another pixel size become
    other images: for the cache, the codebook's pool and the choice of pixels.

    Parameters
    ----------
    micrographs : iterable of (int, Micrograph)
    pixel_size : float or None
        Nanometres per pixel.
    n_images : int or None
        Of how many images a warning should speak; None for no warning.

    Warns
    -----
    UnknownPixelSizeWarning
        Once, after the last image, if any knows no pixel size.
    """
    unknown: list[str] = []
    for position, micrograph in micrographs:
        own = micrograph.pixel_size
        if pixel_size is not None and own is not None:
            digest = _digest_at(micrograph.digest, own)
            micrograph = dataclasses.replace(micrograph, digest=digest)
        elif pixel_size is not None:
            place = f"image {position} of the list (counted from 0)"
            unknown.append(micrograph.source or place)
        yield position, micrograph
    if unknown and n_images is not None:
        warnings.warn(UnknownPixelSizeWarning.about(unknown, n_images), stacklevel=2)


def _digest_at(digest: str, pixel_size: float) -> str:
    return hashlib.sha256(f"{digest} {float(pixel_size)!r} nm".encode("ascii")).hexdigest()
