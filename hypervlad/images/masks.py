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
        An image file of two colours, black (sound) and one other, usually white (defective). Grey
        edges, left by resizing or JPEG, are cut at half of the brightest value. Or an array (H, W)
        of True and False, or of 0 and one number above it.
    shape : (int, int), optional
        Height and width of the image that it belongs to.

    Returns
    -------
    mask : ndarray of bool, shape (H, W)

    Raises
    ------
    ImageReadError
        If it cannot be read, is no mask (a file with more grey than white, an array of more than
        two values), or is of another size than the image.

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
        source = _black_and_white(read_image(Path(source), scaling="dtype"), name)
    mask = as_mask(source, name)
    if shape is not None and mask.shape != tuple(shape):
        raise ImageReadError(
            f"{name}: a mask of {mask.shape[0]} x {mask.shape[1]} pixels for an image of "
            f"{shape[0]} x {shape[1]}; a mask has the size of its image (as read: was a banner cut "
            "off?)"
        )
    return mask


def _black_and_white(values: NDArray[np.float32], name: str) -> NDArray[Any]:
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    top = float(values.max())
    n_white = np.count_nonzero(values > 0.75 * top)
    n_grey = np.count_nonzero(values > 0.25 * top) - n_white
    if n_grey > n_white:
        raise ImageReadError(
            f"{name}: expected a mask, black and white; got an image with more grey ({n_grey} "
            f"pixels) than white ({n_white}). Is it the image itself, or a map of several kinds of "
            "defects? Save a mask of each kind"
        )
    return values > top / 2


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
            f"({len(np.unique(array))} in all). Threshold it first, for instance mask > 127"
        )
    return np.asarray(defective)
