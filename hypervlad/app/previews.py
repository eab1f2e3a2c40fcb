"""``Previews``: micrographs as the browser shows them, and the part of one that is in view."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from hypervlad.app.database import QueueError
from hypervlad.app.particles import QueuedImage, QueuedParticle
from hypervlad.common.limits import MAX_DECODING, MAX_WAITING_PREVIEWS
from hypervlad.images import Micrograph, ReadOptions, read_image, read_micrograph
from hypervlad.images.files import encode_jpeg, file_stamp
from hypervlad.images.reading import read_named
from hypervlad.objects.results_folder import write_tiff
from hypervlad.pages.colours import stretch_contrast

SCREEN = 1024  # pixels, of the longer side
THUMBNAIL = 192
WHOLE = 8192  # browsers cannot show larger images reliably
SIDES = {"image": SCREEN, "small": THUMBNAIL, "whole": WHOLE}
_QUALITY = 92
_DRAWN = 2048  # pixels, of the longer side of a picture with lines
_RIM, _STROKE = 4, 2  # pixels of it
_CACHE_BYTES = 64 * 2**20
MAX_PREVIEWS = 20  # of a task that are kept
_PART = 1024  # pixels of the image, of the sides of the part that is looked at
_MAX_WHOLE = 1.5 * _PART**2  # pixels of an image that is looked at whole
Line = tuple[float, float, float, float]
_Key = tuple[QueuedImage, int, ReadOptions, tuple[int, int] | None]


class BusyError(Exception):
    """Too many previews are being made; the browser requests this one again a moment later."""


class Previews:
    """Micrographs as 8-bit JPEG for the browser; the latest ones are cached."""

    def __init__(self) -> None:
        self._cached: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_DECODING + MAX_WAITING_PREVIEWS)
        self._decoding = threading.BoundedSemaphore(MAX_DECODING)

    def get(self, image: QueuedImage, side: int, options: ReadOptions) -> bytes:
        """Return what `jpeg` does; raise `BusyError` if too many other requests are waiting."""
        file = image.micrograph if isinstance(image, QueuedParticle) else image
        key = image, side, options, file_stamp(file)
        if found := self._found(key):
            return found
        with self._slot():
            return self._found(key) or self._cache(key, jpeg(*key[:3]))

    def drawn(self, path: Path, options: ReadOptions, lines: Iterable[tuple[Line, str]]) -> bytes:
        """Return what `with_lines` does; raise `BusyError` as `get`."""
        with self._slot():
            return with_lines(path, options, lines)

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            raise BusyError("other previews are being made; try again")
        try:
            with self._decoding:
                yield
        finally:
            self._slots.release()

    def _found(self, key: _Key) -> bytes | None:
        with self._guard:
            if key in self._cached:
                self._cached.move_to_end(key)
            return self._cached.get(key)

    def _cache(self, key: _Key, picture: bytes) -> bytes:
        with self._guard:
            if key not in self._cached:
                self._cached[key] = picture
                self._bytes += len(picture)
            while self._bytes > _CACHE_BYTES and len(self._cached) > 1:
                self._bytes -= len(self._cached.popitem(last=False)[1])
        return picture


def jpeg(image: QueuedImage, side: int, options: ReadOptions) -> bytes:
    """Return a micrograph, as the model reads it, as JPEG of at most `side` pixels a side.

    A particle is shown outlined among its surroundings.
    """
    if isinstance(image, QueuedParticle):
        pixels = image.picture(side, SCREEN)
    elif side == WHOLE:
        pixels = read_opened(image, options).pixels
        _read.cache_clear()
    else:
        pixels = read_image(image, **asdict(options))
    return encode_jpeg(pixels, side, _QUALITY)


def with_lines(path: Path, options: ReadOptions, lines: Iterable[tuple[Line, str]]) -> bytes:
    """Return an image as JPEG, with lines in their colours: from x and y to x and y, in pixels."""
    pixels = stretch_contrast(read_opened(path, options).pixels)
    sides = pixels.shape[1], pixels.shape[0]
    scale = min(_DRAWN / max(sides), max(1, SCREEN // max(sides)))
    picture = Image.fromarray((255 * pixels).astype(np.uint8))
    picture = picture.resize([max(1, round(scale * side)) for side in sides], reducing_gap=2.0)
    picture = picture.convert("RGB")
    draw = ImageDraw.Draw(picture)
    # The middle of the first pixel is at 0, and in the picture half a pixel from its edge.
    ends = [([scale * (end + 0.5) for end in line], colour) for line, colour in lines]
    for line, _ in ends:  # so that they are seen on any ground
        draw.line(line, "black", _RIM)
    for line, colour in ends:
        draw.line(line, colour, _STROKE)
    return encode_jpeg(np.asarray(picture) / 255, WHOLE, _QUALITY)


def read_opened(path: Path, options: ReadOptions) -> Micrograph:
    """Read an image that is opened; it is kept until all of it is shown, so it is read once."""
    return _read(path, file_stamp(path), options)


@functools.lru_cache(1)
def _read(path: Path, stamp: tuple[int, int] | None, options: ReadOptions) -> Micrograph:
    return read_micrograph(path, **asdict(options))


class Part(NamedTuple):
    """The part of a large image that is in view, in pixels of the image."""

    top: int
    left: int
    height: int
    width: int

    @property
    def words(self) -> str:
        return f"the part in view, {self.width:,} x {self.height:,} pixels"


def part_in_view(shape: Sequence[int], middle: str) -> Part | None:
    """Return the part of an image that a preview looks at; None of a small image: all of it.

    `shape` begins with the height and the width; `middle` is that of what is in view, as shares of
    both: "0.5 0.25" is at half the width, and a quarter of the height.
    """
    extents = int(shape[0]), int(shape[1])
    if extents[0] * extents[1] <= _MAX_WHOLE:
        return None
    try:
        x, y = (min(1.0, max(0.0, float(share))) for share in middle.split())
    except ValueError as error:
        raise QueueError(f"expected the middle of what is in view, got {middle!r}") from error
    sides = [min(_PART, extent) for extent in extents]
    top, left = (
        min(max(0, round(share * extent) - side // 2), extent - side)
        for share, extent, side in zip((y, x), extents, sides, strict=True)
    )
    return Part(top, left, sides[0], sides[1])


def write_part(image: Path, part: Part, folder: Path, options: ReadOptions) -> Path:
    """Write a part of an image into a folder, as a TIFF of the image's name; return its path.

    It is read as the whole image with these options: scaled by all of it, and the default options
    read the same from the TIFF.
    """
    micrograph = read_named(image, options, image.name, with_digest=False)
    rows = slice(part.top, part.top + part.height)
    pixels = micrograph.pixels[rows, part.left : part.left + part.width]
    is_stored = options.scaling == "auto" and micrograph.metadata["dtype"] == "uint8"
    if pixels.ndim == 3 or is_stored:
        pixels = np.rint(255 * pixels).astype(np.uint8)
    path = folder / image.name
    write_tiff(path, pixels, micrograph.pixel_size, flush=False, level=1)
    return path
