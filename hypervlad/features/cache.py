"""A cache on disk: values by digest in a ``joblib.Memory``, which itself knows no digests of files.

A cache folder holds pickles, so it is private (created with mode 0700) and must be trusted.
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
    """Values by key, in a ``joblib.Memory``; with None, nothing is kept."""

    def __init__(self, memory: Memory) -> None:
        if isinstance(memory, str | os.PathLike):
            memory = os.fspath(memory)
            os.makedirs(memory, mode=0o700, exist_ok=True)
        self._stored = check_memory(memory).cache(_value, ignore=["value"])

    def find(self, key: str) -> Any:
        """Return the value of a key; None if there is none, or its file is damaged."""
        try:
            return self._stored(key, None)
        except KeyError:
            return None

    def keep(self, key: str, value: Any) -> None:
        """Keep a value; one that the key has already stays."""
        self._stored(key, value)

    def replace(self, key: str, value: Any) -> None:
        self._stored.call(key, value)


def _value(key: str, value: Any) -> Any:
    if value is None:
        raise KeyError(f"no value of {key}")
    return value


class ResultCache:
    """Results of one computation by image, in a ``memory``; without one, nothing is kept.

    ``fingerprint`` is what a result depends on except the image. Results kept under the name of a
    ``run`` are not found under the same name: their last digits depend on the other images in the
    batch, which is computed again as a whole if it was interrupted.
    """

    def __init__(
        self, memory: Memory, fingerprint: Mapping[str, Any], run: str | None = None
    ) -> None:
        self._cache = None if memory is None else Cache(memory)
        self._fingerprint = dict(fingerprint)
        self._run = run

    def find(self, key: str) -> Any:
        if self._cache is None:
            return None
        kept = self._cache.find(self._key(key))
        if kept is None:
            return None
        run, result = kept
        of_this_run = run is not None and run == self._run
        return None if of_this_run else result

    def keep(self, key: str, result: Any) -> None:
        if self._cache is not None:
            self._cache.keep(self._key(key), (self._run, result))

    def _key(self, key: str) -> str:
        return cache_key({**self._fingerprint, "image": key})


class PathIndex:
    """Facts about files by path and `file_stamp`; ``reading``: how files are read."""

    def __init__(self, cache: Cache, reading: Mapping[str, Any]) -> None:
        self.cache, self.reading = cache, dict(reading)

    def entry(self, path: Any) -> IndexEntry | None:
        """Return the entry of a file as it is now; None if this is no path to a file."""
        stamp = self.stamp(path)
        return None if stamp is None else IndexEntry(self, path, stamp)

    def stamp(self, path: Any) -> str | None:
        if not isinstance(path, str | os.PathLike):
            return None
        stamp = file_stamp(path)
        if stamp is None:
            return None
        size, time = stamp
        return cache_key(
            {
                "file": os.path.normcase(os.path.realpath(path)),
                "size": size,
                "time": time,
                "reading": self.reading,
            }
        )


class IndexEntry:
    """One file in a `PathIndex`; ``facts`` is None if nothing is known about it."""

    def __init__(self, index: PathIndex, path: Any, stamp: str) -> None:
        self._index, self._path, self._stamp = index, path, stamp
        self.facts = index.cache.find(stamp)

    def keep(self, facts: Any) -> None:
        """Keep what reading the file has found, unless it has changed meanwhile."""
        if facts != self.facts and self._index.stamp(self._path) == self._stamp:
            self._index.cache.replace(self._stamp, facts)


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
        locations = [place for place in (folder / "joblib", folder) if (place / _VALUES).is_dir()]
        if not locations:
            raise ValueError(f"{folder} holds no cache; give the folder that was given to --cache")
        self._values = locations[0] / _VALUES  # a user's own Memory may hold other values
        self._memory = joblib.Memory(locations[0], verbose=0)

    def usage(self) -> CacheUsage:
        items = self._items()
        return CacheUsage(len(items), sum(item.size for item in items))

    def reduce(self, max_bytes: int) -> CacheUsage:
        """Remove the least recently used values until the rest is no larger than this."""
        items = sorted(self._items(), key=lambda item: item.last_access)
        n_bytes = sum(item.size for item in items)
        for item in items:
            if n_bytes <= max_bytes:
                break
            self._memory.store_backend.clear_location(item.path)
            n_bytes -= item.size
        return self.usage()

    def clear(self) -> None:
        self.reduce(0)

    def _items(self) -> list[Any]:
        items = self._memory.store_backend.get_items()
        return [item for item in items if self._values in Path(item.path).parents]


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
