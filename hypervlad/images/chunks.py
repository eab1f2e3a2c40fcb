"""Arrays that are stored in chunks, as by HDF5 and Zarr, and pages of several images."""

from __future__ import annotations

import bisect
import importlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.limits import ALLOWED_CHUNK_VALUES, MAX_CHUNK_OVERHEAD, MAX_CHUNKS
from hypervlad.images.errors import ImageReadError
from hypervlad.images.formats import check_page
from hypervlad.images.pixels import check_size


def frame_of_page(n_frames: Sequence[int], page: int, name: str) -> tuple[int, int, dict[str, Any]]:
    """Return the number of the image that contains a page, the frame in it, and metadata of pages.

    Pages are the frames of all images, one image after the other.
    """
    ends = list(itertools.accumulate(n_frames))
    check_page(page, ends[-1], name, "image")
    number = bisect.bisect_right(ends, page)
    frame = page - ends[number] + n_frames[number]
    return number, frame, {"page": page, "n_pages": ends[-1]}


@dataclass(frozen=True)
class ChunkedArray:
    """An array of which `read` returns the chunk at a place of the grid; None if none is stored."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[tuple[int, ...]], NDArray[Any] | None]
    fill: Any = 0  # value of what is not stored


def check_stored(n_stored: int, n_bytes: int) -> None:
    """Raise an error if a compressed chunk is much longer than what it contains."""
    if n_stored > 2 * n_bytes + MAX_CHUNK_OVERHEAD:
        raise ValueError(f"a chunk of {n_stored} bytes for {n_bytes}")


def decompress(codec: str, data: bytes, n_bytes: int) -> bytes:
    """Return at most `n_bytes` of data; an error if there are more."""
    module = importlib.import_module("imagecodecs")  # takes longer than decoding an image
    options = {"header": True} if codec == "lz4" else {}  # the length, as numcodecs writes it
    found: bytes = getattr(module, f"{codec}_decode")(data, out=n_bytes, **options)
    return found


def read_plane(
    array: ChunkedArray, where: Sequence[int | None], name: str, max_pixels: int | None
) -> NDArray[Any]:
    """Return a part of an array: at the given indices, and all along axes of which it is None.

    The caller has compared the size of this part with `max_pixels`.
    """
    axes = list(zip(array.shape, array.chunks, where, strict=True))
    if min(array.chunks, default=0) < 1:
        raise ImageReadError(f"{name}: damaged file: chunks of shape {array.chunks}")
    limit = None if max_pixels is None else max(max_pixels, ALLOWED_CHUNK_VALUES)
    n_bytes = array.dtype.itemsize
    check_size(1, math.prod(array.chunks), f"{name}: chunks", limit, n_bytes=n_bytes)
    grid = [range(-(-n // c)) if at is None else [at // c] for n, c, at in axes]
    n_chunks = math.prod(map(len, grid))
    if n_chunks > MAX_CHUNKS:
        raise ImageReadError(
            f"{name}: its image is stored in {n_chunks:,} chunks, and at most {MAX_CHUNKS:,} are "
            "read; store it in larger chunks, or as TIFF"
        )
    plane = np.full([n for n, _, at in axes if at is None], array.fill, array.dtype)
    inside = tuple(slice(None) if at is None else at % c for _, c, at in axes)
    whole = [c for _, c, at in axes if at is None]
    is_stored = False
    for place in itertools.product(*grid):
        chunk = array.read(place)
        if chunk is None:
            continue
        is_stored = True
        starts = [p * c for p, (_, c, at) in zip(place, axes, strict=True) if at is None]
        target = plane[tuple(slice(a, a + c) for a, c in zip(starts, whole, strict=True))]
        target[...] = chunk[inside][tuple(map(slice, target.shape))]
    if not is_stored:
        raise not_stored(name)
    return plane


def not_stored(name: str) -> ImageReadError:
    return ImageReadError(
        f"{name}: none of the pixels that it describes are stored; copy or export it again"
    )
