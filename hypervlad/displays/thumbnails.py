"""Small pictures of many micrographs, as text that a page can hold."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hypervlad.images import SkippedImage, read_image
from hypervlad.images.files import encode_jpeg
from hypervlad.images.reading import read_in_order

_QUALITY = 72
_AT_ONCE = 2  # images decoded at a time: each may take a gigabyte


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
        return base64.b64encode(encode_jpeg(pixels, side, _QUALITY)).decode("ascii")

    positions = list(chosen)
    pairs = ((position, images[position]) for position in positions)
    outcomes = read_in_order(pairs, made, _AT_ONCE)
    for position, outcome in zip(positions, outcomes, strict=True):
        yield position, "" if isinstance(outcome, SkippedImage) else outcome
