"""Micrographs as JPEG for the browser: 8-bit, scaled to the screen or at full size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path

from hypervlad.images import ReadOptions, read_image
from hypervlad.images.files import encode_jpeg

SCREEN = 1024  # pixels, of the longer side
THUMBNAIL = 192
WHOLE = 8192  # browsers cannot show larger images reliably

_QUALITY = 92
_CACHE_BYTES = 64 * 2**20
_MAX_DECODING = 2  # images decoded at a time: each may need a gigabyte
_MAX_WAITING = 2  # further requests that may wait; the other threads of the server are for clicks


_Key = tuple[Path, int, ReadOptions]


class BusyError(Exception):
    """Too many previews are being made; the browser requests this one again a moment later."""


class Previews:
    """Makes previews of image files and caches the latest ones."""

    def __init__(self) -> None:
        self._cached: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()
        self._slots = threading.BoundedSemaphore(_MAX_DECODING + _MAX_WAITING)
        self._decoding = threading.BoundedSemaphore(_MAX_DECODING)

    def get(self, path: Path, side: int, options: ReadOptions) -> bytes:
        """Return a micrograph as JPEG.

        Parameters
        ----------
        path : Path
        side : int
            Maximum number of pixels of the longer side; smaller images keep their size.
        options : ReadOptions
            Those of the model, so that people judge the pixels that it has judged.

        Returns
        -------
        bytes

        Raises
        ------
        ImageReadError
            If the file cannot be read.
        BusyError
            If too many other requests are waiting.
        """
        key = (path, side, options)
        found = self._found(key)
        if found is not None:
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


def jpeg(path: Path, side: int, options: ReadOptions) -> bytes:
    """Return a micrograph as JPEG; see `Previews.get`."""
    return encode_jpeg(read_image(path, **asdict(options)), side, _QUALITY)
