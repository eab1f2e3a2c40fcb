"""``Previews``: micrographs as the browser shows them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import asdict

from hypervlad.app.particles import QueuedImage, QueuedParticle
from hypervlad.common.limits import MAX_DECODING, MAX_WAITING_PREVIEWS
from hypervlad.images import ReadOptions, read_image
from hypervlad.images.files import encode_jpeg

SCREEN = 1024  # pixels, of the longer side
THUMBNAIL = 192
WHOLE = 8192  # browsers cannot show larger images reliably
SIDES = {"image": SCREEN, "small": THUMBNAIL, "whole": WHOLE}
_QUALITY = 92
_CACHE_BYTES = 64 * 2**20
_Key = tuple[QueuedImage, int, ReadOptions]


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
        key = (image, side, options)
        if found := self._found(key):
            return found
        if not self._slots.acquire(blocking=False):
            raise BusyError("other previews are being made; try again")
        try:
            with self._decoding:
                return self._found(key) or self._cache(key, jpeg(*key))
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
    else:
        pixels = read_image(image, **asdict(options))
    return encode_jpeg(pixels, side, _QUALITY)
