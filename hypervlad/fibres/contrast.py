"""What images and parameters may be, told to whom gives others."""

from __future__ import annotations

import numbers
import os
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from hypervlad.images.arrays import as_pixels

FloatMap = NDArray[np.float32]
BoolMap = NDArray[np.bool_]
_MAX_SAMPLE = 2**18


def as_contrast(image: Any, where: BoolMap | None = None) -> FloatMap:
    """Return a grey image scaled so that gain and offset no longer matter.

    All but a thousandth of the pixels at either end span 0 to 1, and what goes beyond -1 or 2 is
    cut there, so that hot pixels do not press the rest together.

    Parameters
    ----------
    image : array-like of shape (H, W)
    where : ndarray of bool, shape (H, W), optional
        Pixels that are looked at; all by default. The others are replaced by the nearest of them,
        and may be anything.

    Raises
    ------
    ValueError
        If it is not one grey image of finite, differing values.
    """
    if isinstance(image, str | os.PathLike):
        raise ValueError(
            f"expected an array of pixels, got the path {os.fspath(image)!r}: read it first, with "
            "hypervlad.read_image(path)."
        )
    pixels = as_pixels(image if where is None else filled(image, where), "the image")
    if pixels.ndim != 2:
        raise ValueError(
            f"the image has colours, shape {pixels.shape}; a direction needs one brightness a "
            "pixel: give one channel, or their mean, image.mean(axis=2)."
        )
    if min(pixels.shape) < 3:
        raise ValueError(
            f"the image has {pixels.shape[0]} x {pixels.shape[1]} pixels; a gradient needs 3 x 3."
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not low < high:
        raise ValueError(
            f"the image is flat: all {pixels.shape[0]} x {pixels.shape[1]} pixels are {low:g}, so "
            "there is no direction to see; leave it out."
        )
    # In the wider type, so that a large offset costs no digits; halved, so that the span of the
    # largest numbers does not overflow.
    kind = np.float64 if pixels.dtype.itemsize > 2 else np.float32
    halved: NDArray[Any] = pixels * kind(0.5)
    low, high = _ends(subsample(halved, where), low / 2, high / 2)
    halved -= kind(low)
    halved /= kind(high - low)
    return np.clip(halved, -1, 2, out=halved).astype(np.float32, copy=False)


def subsample(values: NDArray, where: BoolMap | None = None) -> NDArray:
    """Return about a quarter of a million values, evenly placed; all if there are no more."""
    step = max(1, int(np.sqrt(values.size / _MAX_SAMPLE)))
    few = values[::step, ::step]
    return few.ravel() if where is None else few[where[::step, ::step]]


def _ends(values: NDArray[Any], least: float, most: float) -> tuple[float, float]:
    """Return what nearly all values lie between; least and most if nearly all are alike."""
    if not values.size:
        return least, most
    rank = int(values.size / 1000)
    ordered = np.partition(values, (rank, values.size - 1 - rank))
    low, high = float(ordered[rank]), float(ordered[values.size - 1 - rank])
    return (low, high) if low < high else (least, most)


def check_mask(mask: Any, shape: tuple[int, ...]) -> BoolMap | None:
    """Return where to look, an array of bool of the image's shape; None for everywhere."""
    if mask is None:
        return None
    where = np.asarray(mask)
    if where.dtype != bool or where.shape != shape:
        raise ValueError(
            f"mask: expected an array of bool of the image's shape {shape}, True where to look; "
            f"got {where.dtype} of shape {where.shape}."
        )
    if not where.any():
        raise ValueError("mask: False everywhere; there is nothing to look at.")
    return where


def filled(image: Any, where: BoolMap) -> NDArray[Any]:
    """Return an image whose pixels outside of a mask are the nearest inside."""
    nearest = distance_transform_edt(~where, return_distances=False, return_indices=True)
    return np.asarray(np.asarray(image)[tuple(nearest)])


def check_sigma(sigma: Any, pixel_size: float | None, shape: tuple[int, ...]) -> float:
    """Return a scale in pixels, from one in pixels or in nm, at most half of the shorter side."""
    unit = "pixels" if pixel_size is None else "nm"
    scale = check_positive("sigma", sigma, unit) / (pixel_size or 1)
    if 2 * scale > min(shape):
        advice = (
            "sigma is in pixels unless a pixel size is given"
            if pixel_size is None
            else f"with pixel_size={pixel_size:g} nm, sigma is in nm"
        )
        raise ValueError(
            f"sigma={sigma!r}: {scale:g} pixels are more than half of the image of {shape[0]} x "
            f"{shape[1]}; {advice}: give about a third of a fibre's width."
        )
    return scale


def check_positive(name: str, value: Any, unit: str = "pixels") -> float:
    """Return a length above 0."""
    if not _is_number(value) or not 0 < value < np.inf:
        raise ValueError(f"{name}={value!r}: expected a number of {unit} above 0.")
    return float(value)


def check_share(name: str, value: Any) -> float:
    """Return a share, 0 and 1 included."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r}: expected a share, 0 to 1.")
    return float(value)


def check_tolerance(tolerance: Any) -> float:
    """Return an angle in radians, up to a quarter turn."""
    if not _is_number(tolerance) or not 0 < tolerance <= np.pi / 2:
        raise ValueError(
            f"tolerance={tolerance!r}: expected an angle in radians above 0, at most pi / 2; for "
            "degrees np.deg2rad(20)."
        )
    return float(tolerance)


def check_window(window: Any, shape: tuple[int, ...]) -> int:
    """Return the side of a window in pixels, no larger than the image."""
    if isinstance(window, bool) or not isinstance(window, numbers.Integral) or int(window) < 2:
        raise ValueError(f"window={window!r}: expected a whole number of pixels, at least 2.")
    if int(window) > min(shape[:2]):
        raise ValueError(
            f"window={window}: larger than the image of {shape[0]} x {shape[1]} pixels; choose a "
            f"window of at most {min(shape[:2])}."
        )
    return int(window)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return one of several words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}.")
    return value


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
