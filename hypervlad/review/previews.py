"""Micrographs as a browser can show them: 8-bit, scaled to the screen or at full size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from hypervlad.images import read_image
from hypervlad.images.files import encode_jpeg

SCREEN = 1024  # pixels, of the longer side
THUMBNAIL = 192
WHOLE = 8192  # more than that, browsers show badly or not at all

_QUALITY = 92
_CACHE_BYTES = 64 * 2**20
_AT_ONCE = 2  # images decoded at a time: each may take a gigabyte
_WAITING = 2  # more may wait for that; the server's other threads are for clicks


class BusyError(Exception):
    """So many pictures are being made that this one is to be asked for again a moment later."""


class Previews:
    """Makes pictures of files, and keeps them while they are likely to be asked for again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int], bytes] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()
        self._turns = threading.BoundedSemaphore(_AT_ONCE + _WAITING)
        self._decoding = threading.BoundedSemaphore(_AT_ONCE)

    def get(self, path: Path, side: int) -> bytes:
        """Return a JPEG picture of a micrograph.

        Parameters
        ----------
        path : Path
        side : int
            The longer side has at most so many pixels; smaller images stay as they are.

        Returns
        -------
        bytes

        Raises
        ------
        ImageReadError
            If the file cannot be read.
        BusyError
            If others wait already.
        """
        key = (path, side)
        found = self._found(key)
        if found is not None:
            return found
        if not self._turns.acquire(blocking=False):
            raise BusyError("other pictures are being made; ask again")
        try:
            with self._decoding:
                return self._found(key) or self._keep(key, jpeg(path, side))
        finally:
            self._turns.release()

    def _found(self, key: tuple[Path, int]) -> bytes | None:
        with self._guard:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[Path, int], picture: bytes) -> bytes:
        with self._guard:
            if key not in self._kept:
                self._kept[key] = picture
                self._bytes += len(picture)
            while self._bytes > _CACHE_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return picture


def jpeg(path: Path, side: int) -> bytes:
    """Return a micrograph as JPEG; see `Previews.get`."""
    return encode_jpeg(read_image(path), side, _QUALITY)
