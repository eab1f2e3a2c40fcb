"""The cache on disk: what was computed from images and files, by digest, in a ``joblib.Memory``.

A key is the digest of an image or file and of all else that its value depends on: see
`Cache`. The folder holds pickles, so it is private (created with mode 0700) and must be trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import joblib
import numpy as np
from sklearn.utils.validation import check_memory

from hypervlad.images.files import file_stamp

# Where joblib keeps the values of the function `_value` of this module.
_VALUES = Path(*__name__.split("."), "_value")
Memory: TypeAlias = str | os.PathLike[str] | joblib.Memory | None


def absolute_memory(memory: Memory) -> Memory:
    return os.path.abspath(memory) if isinstance(memory, str | os.PathLike) else memory


class Cache:
    """Values of one kind, such as vectors, in a ``memory``; with None, nothing is kept.

    ``depends_on`` is what a value depends on except the image or file, as JSON. What was kept under
    the name of a ``run`` is not found under the same name: the last digits of vectors depend on the
    other images in the batch, which is computed again as a whole if it was interrupted.
    """

    def __init__(
        self, memory: Memory, depends_on: Mapping[str, Any], run: str | None = None
    ) -> None:
        self._run, self._stored = run, None
        if memory is not None:
            if isinstance(memory, str | os.PathLike):
                memory = os.fspath(memory)
                os.makedirs(memory, mode=0o700, exist_ok=True)
            self._stored = check_memory(memory).cache(_value, ignore=["value"])
            self._depends_on = dict(depends_on)

    def find(self, digest: str) -> Any:
        """Return the value of an image or file; None if there is none, or its file is damaged."""
        if self._stored is None:
            return None
        try:
            run, value = self._stored(self._key(digest), None)
        except KeyError:
            return None
        return None if run is not None and run == self._run else value

    def keep(self, digest: str, value: Any) -> None:
        if self._stored is not None:
            self._stored.call(self._key(digest), (self._run, value))

    def _key(self, digest: str) -> str:
        return cache_key({**self._depends_on, "of": digest})


def _value(key: str, value: Any) -> Any:
    if value is None:
        raise KeyError(f"no value of {key}")
    return value


def file_key(path: Any) -> str | None:
    """Return a digest of a file's path, size and times; None if this is no path to a file."""
    if not isinstance(path, str | os.PathLike) or (stamp := file_stamp(path)) is None:
        return None
    size, time = stamp
    place = os.path.normcase(os.path.realpath(path))
    return cache_key({"file": place, "size": size, "time": time})


@dataclass(frozen=True)
class CacheUsage:
    n_entries: int
    n_bytes: int


class CacheFolder:
    """A cache folder, of ``memory=`` or ``--cache``: its size, and how to reduce it."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; give the one that was given to --cache")
        # joblib inserts a folder of its own if the location is a string, not if it is a Path.
        places = [place / _VALUES for place in (folder / "joblib", folder)]
        if not any(place.is_dir() for place in places):
            raise ValueError(f"{folder} holds no cache; give the folder that was given to --cache")
        # Of this folder alone: a user's own Memory may hold other values.
        self._memory = joblib.Memory(next(filter(Path.is_dir, places)), verbose=0)

    def usage(self) -> CacheUsage:
        items = self._memory.store_backend.get_items()
        return CacheUsage(len(items), sum(item.size for item in items))

    def reduce(self, max_bytes: int) -> None:
        """Remove the least recently used values until the rest is no larger than this."""
        self._memory.reduce_size(bytes_limit=max_bytes)


_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(text: str) -> int:
    """Return a size in bytes.

    >>> parse_size("1.5GB")
    1500000000
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B?)\s*", text.upper())
    # Someone who writes 20 and means gigabytes must not lose a cache.
    if found is None or (not found[2] and float(found[1])):
        raise ValueError(f"{text!r} is not a size; write it like 500MB or 20GB")
    return round(float(found[1]) * _UNITS[found[2].rstrip("B") + "B"])


def cache_key(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON-able facts, whatever their order."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of named arrays: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
