"""Micrographs as JPEG, as small as a screen or a page of many wants them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def jpeg(pixels: NDArray[np.floating[Any]], side: int, quality: int) -> bytes:
    """Encode an image.

    Parameters
    ----------
    pixels : ndarray of shape (H, W) or (H, W, 3)
        In [0, 1].
    side : int
        The longer side has at most so many pixels; a smaller image stays as it is.
    quality : int
        From 1 to 95. Below 90 few bytes count for more than sharp colours, and than time.

    Returns
    -------
    bytes

    Examples
    --------
    >>> jpeg(np.zeros((600, 1000)), side=100, quality=72)[:2]
    b'\\xff\\xd8'
    """
    picture = Image.fromarray(np.round(255.0 * np.clip(pixels, 0.0, 1.0)).astype(np.uint8))
    if max(picture.size) > side:
        # Whole blocks first, by their mean: a scan of 100 megapixels costs little more than its
        # reading.
        picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    is_compact = quality < 90
    how = {"subsampling": 2, "optimize": True} if is_compact else {"subsampling": 0}
    picture.save(stream, "JPEG", quality=quality, **how)
    return stream.getvalue()
