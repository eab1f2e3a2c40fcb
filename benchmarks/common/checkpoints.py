"""Checkpoints of long runs: an interrupted run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.results import origin


def load_or_run(
    path: Path, settings: Mapping[str, Any], function: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the result of ``function()`` for these settings, from its checkpoint if there is one.

    Parameters
    ----------
    path : Path
        ``folder/name.json`` is written as ``folder/name-<digest>.npz``.
    settings : mapping
        JSON-able; all on which the result depends besides code, libraries and machine.
    function : callable
        Returns a mapping of JSON-able values and arrays.
    """
    text = json.dumps({**settings, "origin": origin()}, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = path.with_name(f"{path.stem}-{digest[:12]}.npz")
    if path.exists():
        try:
            return _read(path)
        except (OSError, ValueError, zipfile.BadZipFile):
            pass  # truncated: computed again
    result = dict(function())
    arrays = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in result.items() if name not in arrays}
    arrays["plain"] = np.array(json.dumps(plain, allow_nan=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez(unfinished, **arrays)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return _read(path)


def _read(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        kept = dict(arrays)
    plain: dict[str, Any] = json.loads(str(kept.pop("plain")))
    return plain | kept
