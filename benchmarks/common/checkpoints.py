"""Checkpoints of long runs: an interrupted run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.common.results import origin


def load_or_run(
    path: Path, settings: Mapping[str, Any], function: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the result of ``function()`` for these settings, from its checkpoint if there is one.

    Parameters
    ----------
    path : Path
        ``folder/name.json`` is written as ``folder/name-<digest>.json``, with its arrays beside it.
    settings : mapping
        JSON-able; all on which the result depends besides code, libraries and machine.
    function : callable
        Returns a mapping of JSON-able values and arrays.
    """
    settings = {**settings, "origin": origin()}
    digest = _digest(settings)
    path = path.with_name(f"{path.stem}-{digest[:12]}.json")
    kept = _read(path, digest)
    if kept is not None:
        return kept
    result = dict(function())
    arrays = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
    for name, value in arrays.items():
        if value.dtype.hasobject:
            raise TypeError(f"{name} is an array of objects, which only a pickle could hold")
    plain = {name: value for name, value in result.items() if name not in arrays}
    content = {"digest": digest, "settings": settings, "arrays": sorted(arrays), "result": plain}
    text = _as_json(content, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if arrays:
        _replace(path.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
    # Last, because its presence means that the checkpoint is complete.
    _replace(path, lambda file: file.write(text.encode("utf-8")))
    return {**json.loads(text)["result"], **arrays}


def _read(path: Path, digest: str) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["digest"] != digest or _digest(content["settings"]) != digest:
            return None
        result: dict[str, Any] = content["result"]
        if content["arrays"]:
            with (
                open(path.with_suffix(".npz"), "rb") as file,
                np.load(file, allow_pickle=False) as arrays,
            ):
                result |= {name: arrays[name] for name in content["arrays"]}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None  # missing, truncated or edited by hand: computed again
    return result


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file that is either complete or absent."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as file:
            write(file)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(_as_json(settings).encode()).hexdigest()


def _as_json(content: Mapping[str, Any], indent: int | None = None) -> str:
    return json.dumps(content, sort_keys=True, indent=indent, allow_nan=False)
