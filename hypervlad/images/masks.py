"""Masks: which pixels of an image are defective, from a file or an array."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.errors import ImageReadError
from hypervlad.images.outcomes import name_of
from hypervlad.images.reading import read_image


def read_mask(source: Any, *, shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Read a mask: True where there is a defect.

    Parameters
    ----------
    source : path or array
        An image file of two colours, black (sound) and one other, usually white (defective), in
        any format that `read_image` reads without loss; or an array (H, W) of True and False, or
        of 0 and one number above it.
    shape : (int, int), optional
        Height and width of the image that it belongs to.

    Returns
    -------
    mask : ndarray of bool, shape (H, W)

    Raises
    ------
    ImageReadError
        If it cannot be read, holds anything but two values, or is of another size than the image.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.images import read_mask
    >>> read_mask(np.array([[0, 255], [0, 0]], dtype=np.uint8))
    array([[False,  True],
           [False, False]])
    """
    name = name_of(source)
    if isinstance(source, str | os.PathLike):
        # Whole types onto [0, 1]: percentiles would lose a defect of few pixels.
        source = read_image(Path(source), scaling="dtype")
        if source.ndim == 3 and (source == source[..., :1]).all():
            source = source[..., 0]
    mask = as_mask(source, name)
    if shape is not None and mask.shape != tuple(shape):
        raise ImageReadError(
            f"{name}: a mask of {mask.shape[0]} x {mask.shape[1]} pixels for an image of "
            f"{shape[0]} x {shape[1]}; a mask has the size of its image (as read: was a banner cut "
            "off?)"
        )
    return mask


def as_mask(mask: Any, name: str) -> NDArray[np.bool_]:
    """Return a mask as booleans of shape (H, W).

    Raises
    ------
    ImageReadError
        If it is not two-dimensional, is empty, or holds more than 0 and one value above it.
    """
    array = np.asarray(mask)
    if array.ndim != 2 or not array.size:
        raise ImageReadError(
            f"{name}: expected a mask of shape (H, W), not empty; got shape {array.shape}"
        )
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise ImageReadError(
            f"{name}: expected a mask of True and False, or 0 and 255; got type {array.dtype}"
        )
    defective = array != 0
    others = np.unique(array[defective])
    if len(others) > 1 or not (others > 0).all():
        raise ImageReadError(
            f"{name}: expected a mask of 0 (sound) and one value above it (defective); got values "
            f"{', '.join(f'{value:g}' for value in np.unique(array)[:5])} "
            f"({len(np.unique(array))} in all). Threshold it first, for instance mask > 127; in a "
            "JPEG file such values come from its compression"
        )
    return np.asarray(defective)
