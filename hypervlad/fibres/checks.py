"""What images and parameters may be, told to whom gives others."""

from __future__ import annotations

import numbers
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.arrays import as_pixels

FloatMap = NDArray[np.float32]


def as_contrast(image: Any) -> FloatMap:
    """Return a grey image scaled to span 0 to 1, so that gain and offset no longer matter.

    Parameters
    ----------
    image : array-like of shape (H, W)

    Raises
    ------
    ValueError
        If it is not one grey image of finite, differing values.
    """
    pixels = as_pixels(image, "the image")
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
    halved -= kind(low / 2)
    halved /= kind(high / 2 - low / 2)
    return halved.astype(np.float32, copy=False)


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
