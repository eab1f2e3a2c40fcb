"""One scale for all: images that know their pixel size, brought to the same nm per pixel."""

from __future__ import annotations

import hashlib

from hypervlad.images import ImageReadError

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
    shape: tuple[int, ...],
    own_pixel_size: float | None,
    pixel_size: float | None,
    minimum: int,
    name: str = "image",
) -> tuple[int, int] | None:
    """Return the size at which an image has this pixel size; None if that cannot be known.

    Parameters
    ----------
    shape : tuple of int
        Of the image, (H, W) or (H, W, 3), pixels.
    own_pixel_size : float or None
        Of the image, nanometres per pixel; None if not known.
    pixel_size : float or None
        Wanted, nanometres per pixel; None for no common scale.
    minimum : int
        The shortest side that the network takes, pixels.
    name : str, default="image"
        What to call the image in an error.

    Raises
    ------
    ImageReadError
        If a side would be below ``minimum``, or height x width above ``MOST_PIXELS``.
    """
    if pixel_size is None or own_pixel_size is None:
        return None
    size = resampled_size(shape, own_pixel_size, pixel_size)
    if min(size) >= minimum and size[0] * size[1] <= MOST_PIXELS:
        return size
    if size[0] * size[1] > MOST_PIXELS:
        limit = f"more than the {MOST_PIXELS:,} pixels that are computed at most"
        remedy = "a larger pixel_size"
    else:
        limit = f"less than the {minimum} pixels a side that the network needs"
        remedy = "a smaller pixel_size"
    height, width = shape[:2]
    raise ImageReadError(
        f"{name}: its {height} x {width} pixels of {own_pixel_size:.4g} nm would become "
        f"{size[0]:,} x {size[1]:,} at pixel_size={pixel_size:g} nm, {limit}; use {remedy}, "
        "correct the pixel size in the file if it is wrong, or leave the image out"
    )


def digest_at(digest: str, own_pixel_size: float | None, pixel_size: float | None) -> str:
    """Return an image's digest that tells its pixel size too, if it will be resampled.

    Equal pixels of another pixel size then are other images: for the cache, the codebook's pool and
    the choice of pixels. Without a common scale, or a pixel size, it is the digest of the pixels.
    """
    if pixel_size is None or own_pixel_size is None:
        return digest
    return hashlib.sha256(f"{digest} {float(own_pixel_size)!r} nm".encode("ascii")).hexdigest()
