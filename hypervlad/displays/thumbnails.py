"""Micrographs as JPEG, as small as a screen or a page of many wants them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hypervlad.images import SkippedImage, read_image
from hypervlad.images.outcomes import outcomes_of

_QUALITY = 72
_AT_ONCE = 2  # images decoded at a time: each may take a gigabyte


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


def thumbnails(
    images: Sequence[Any],
    chosen: Iterable[int],
    side: int,
    read_options: Mapping[str, Any],
) -> Iterator[tuple[int, str]]:
    """Make small pictures of some images, in their order, few of them in memory at a time.

    Parameters
    ----------
    images : sequence of path or ndarray of shape (H, W) or (H, W, 3)
    chosen : iterable of int
        Their positions.
    side : int
        Pixels of the longer side, at most.
    read_options : mapping
        The fields of `hypervlad.images.ReadOptions`.

    Yields
    ------
    position : int
    picture : str
        A JPEG in base 64; empty if the image cannot be read (any more).
    """

    def made(image: Any, _name: str) -> str:
        pixels = read_image(image, **read_options)
        return base64.b64encode(jpeg(pixels, side, _QUALITY)).decode("ascii")

    positions = list(chosen)
    pairs = ((position, images[position]) for position in positions)
    outcomes = outcomes_of(pairs, made, _AT_ONCE)
    for position, outcome in zip(positions, outcomes, strict=True):
        yield position, "" if isinstance(outcome, SkippedImage) else outcome
