"""Pixel arrays from users and decoders: checks, and conversion to (H, W) or (H, W, 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.errors import ImageReadError

_LAYOUT = "expected an array of shape (height, width), (height, width, 3) or (height, width, 4)"


def as_pixels(array: Any, name: str, max_pixels: int | None = None) -> NDArray:
    """Convert an array of pixels to (H, W) or (H, W, 3) without changing its values.

    Parameters
    ----------
    array : array-like with ``__array__``
        Bool, integer or float, of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a fourth
        channel is treated as alpha and dropped.
    name : str
        Name of the image in errors.
    max_pixels : int, optional
        Largest height x width.

    Returns
    -------
    pixels : ndarray of shape (H, W) or (H, W, 3)
        May share memory with `array`; native byte order; long doubles become float64.

    Raises
    ------
    ImageReadError
        If the array is empty, has another shape or type, contains NaN or infinity, or is larger
        than `max_pixels`.
    """
    pixels = _to_numpy(array, name)
    _check_type(pixels, name)
    pixels = _check_shape(pixels, name)
    check_size(pixels.shape[0], pixels.shape[1], name, max_pixels)
    if pixels.dtype.kind == "f":
        pixels = _check_finite(pixels, name)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def check_size(height: int, width: int, name: str, max_pixels: int | None) -> None:
    """Raise `ImageReadError` if an image has no pixels, or more than `max_pixels`."""
    if height < 1 or width < 1:
        raise ImageReadError(
            f"{name}: an image of {height} x {width} pixels has no pixels; export or copy it again"
        )
    if max_pixels is not None and height * width > max_pixels:
        raise ImageReadError(
            f"{name}: {height} x {width} pixels is more than max_pixels={max_pixels:,}; crop or "
            "bin the image, or raise max_pixels if you trust the file and have the memory"
        )


def _to_numpy(array: Any, name: str) -> NDArray:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ImageReadError(
            f"{name}: a masked array with masked pixels; fill them first with array.filled(value)"
        )
    try:
        return np.asarray(array)
    except Exception as error:  # a foreign __array__ may raise anything, e.g. a tensor on a GPU
        raise ImageReadError(
            f"{name}: this {type(array).__name__} does not convert to a NumPy array ({error}); "
            "convert it first (a torch tensor: tensor.detach().cpu().numpy())"
        ) from error


def _check_type(pixels: NDArray, name: str) -> None:
    kind = pixels.dtype.kind
    if kind in "buif":
        return
    if kind == "c":
        raise ImageReadError(
            f"{name}: complex pixels ({pixels.dtype}); give the modulus, np.abs(image), or the "
            "real or the imaginary part"
        )
    if kind in "US":
        raise ImageReadError(
            f"{name}: an array of text ({pixels.dtype}), not of pixels; paths go in a list, one "
            "per image"
        )
    raise ImageReadError(
        f"{name}: an array of type {pixels.dtype}, not of numbers; expected bool, integers or "
        "floats (images of different sizes go in a list, one array per image)"
    )


def _check_shape(pixels: NDArray, name: str) -> NDArray:
    shape = pixels.shape
    if 0 in shape:
        raise ImageReadError(f"{name}: an array of shape {shape} has no pixels; {_LAYOUT}")
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim == 3:
        if shape[2] == 1:
            return pixels[:, :, 0]
        if shape[2] in (3, 4):
            return pixels[:, :, :3]
        if shape[0] in (1, 3, 4):
            raise ImageReadError(
                f"{name}: an array of shape {shape} has its channels first; {_LAYOUT}: "
                "use np.moveaxis(image, 0, -1)"
            )
        raise ImageReadError(
            f"{name}: an array of shape {shape} looks like a stack, not one image; {_LAYOUT}: "
            "read its images one by one, or as a list"
        )
    remedy = "read its images one by one, or as a list" if pixels.ndim > 3 else "reshape it"
    raise ImageReadError(
        f"{name}: an array of {pixels.ndim} dimensions, shape {shape}; {_LAYOUT}: {remedy}"
    )


def _check_finite(pixels: NDArray, name: str) -> NDArray:
    if pixels.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # overflow to infinity is reported below
            pixels = pixels.astype(np.float64)
    finite = np.isfinite(pixels)
    if finite.all():
        return pixels
    n_nan = int(np.isnan(pixels).sum())
    n_infinite = finite.size - int(finite.sum()) - n_nan
    raise ImageReadError(
        f"{name}: {n_nan} NaN and {n_infinite} infinite values among {finite.size} pixel values; "
        "replace them first, for example with np.nan_to_num(image), or leave the image out"
    )
