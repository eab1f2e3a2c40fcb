"""Patches and whole images as the arrays that a patch network takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2gray

from hypervlad.encoder.parameters import check_read_options
from hypervlad.images import ImageReadError, ReadOptions, read_micrographs
from hypervlad.images.errors import image_name

FloatArray = NDArray[np.float32]


def patch_options(read_options: Any) -> ReadOptions:
    """Return how patches and whole images are read: scaled by their type, never by their own greys.

    Raises
    ------
    ValueError
        If a scaling is asked for that depends on what else is in the picture.
    """
    options = check_read_options(read_options)
    if options.scaling in ("percentile", "minmax"):
        raise ValueError(
            f"read_options: scaling={options.scaling!r} would scale each patch by its own greys, "
            'unlike the image around it; expected "dtype" or (low, high)'
        )
    return replace(options, scaling="dtype") if options.scaling == "auto" else options


def read_patches(
    images: list[Any],
    options: ReadOptions,
    patch: int | None = None,
    n_channels: int | None = None,
) -> FloatArray:
    """Read square patches of one size.

    Parameters
    ----------
    images : list of n paths and arrays
    options : ReadOptions
    patch : int, optional
        Side in pixels; that of the first one by default.
    n_channels : int, optional
        1 or 3; by default 3 if some are in colour.

    Returns
    -------
    ndarray of float32, shape (n, n_channels, patch, patch)
        In [0, 1].

    Raises
    ------
    ImageReadError
        If one cannot be read, or is of another size.
    """
    read = []
    for i, micrograph in read_micrographs(images, options=options):
        height, width = micrograph.pixels.shape[:2]
        side = height if patch is None else patch
        if (height, width) != (side, side):
            raise ImageReadError(
                f"{image_name(images[i], i)}: {height} x {width} pixels; expected a square patch"
                + ("" if patch is None else f" of {side} x {side}, as the others are")
                + "; cut images with hypervlad.windows.cut_patches"
            )
        patch = side
        read.append(micrograph.pixels)
    if n_channels is None:
        n_channels = 3 if any(pixels.ndim == 3 for pixels in read) else 1
    return np.stack([np.moveaxis(with_channels(each, n_channels), -1, 0) for each in read])


def read_whole(image: Any, options: ReadOptions, n_channels: int) -> FloatArray:
    """Read an image of any size as (H, W, n_channels).

    Raises
    ------
    ImageReadError
        If it cannot be read.
    """
    ((_, micrograph),) = read_micrographs([image], options=options)
    return with_channels(micrograph.pixels, n_channels)


def with_channels(pixels: FloatArray, n_channels: int) -> FloatArray:
    """Return an image as (H, W, n_channels): grey as three equal colours, colours as their grey."""
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], n_channels, axis=2)
    return pixels if n_channels == 3 else rgb2gray(pixels).astype(np.float32)[..., None]
