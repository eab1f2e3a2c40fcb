"""Vectors that were computed before, kept on disk by joblib and found again by digests.

A cache folder holds pickles, so it is private (created with mode 0700) and must be trusted: point
``memory=`` only at a folder that you alone can write to.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import joblib
import numpy as np
from sklearn.utils.validation import check_memory


class VectorCache:
    """Image vectors by key, in a ``joblib.Memory``.

    Parameters
    ----------
    memory : None, str, path-like or joblib.Memory
        Where to keep them; None keeps nothing.
    """

    def __init__(self, memory: str | os.PathLike[str] | joblib.Memory | None) -> None:
        if isinstance(memory, str | os.PathLike):
            memory = os.fspath(memory)
            os.makedirs(memory, mode=0o700, exist_ok=True)
        self._stored = check_memory(memory).cache(_vector, ignore=["vector"])

    def __getitem__(self, key: str) -> np.ndarray:
        if not self._stored.check_call_in_cache(key, None):
            raise KeyError(key)
        vector: np.ndarray = self._stored(key, None)
        return vector

    def keep(self, key: str, vector: np.ndarray) -> None:
        """Keep a vector under this key."""
        self._stored(key, vector)


def _vector(key: str, vector: np.ndarray | None) -> np.ndarray:
    if vector is None:
        raise KeyError(f"no vector is kept under {key}")
    return vector.copy()


def cache_key(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON-able facts, whatever their order.

    Parameters
    ----------
    facts : mapping
        Everything that a result depends on: strings, numbers, lists, None. Digests stand for
        images, weights and codebooks; torch objects have no stable hash.
    """
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
