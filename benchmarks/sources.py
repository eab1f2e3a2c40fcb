"""What a stored result depends on beside its parameters: code, libraries and machine."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

import hypervlad

HERE = Path(__file__).resolve().parent
PACKAGE = Path(hypervlad.__file__).resolve().parent
LIBRARIES = ("numpy", "scikit-image", "scikit-learn", "torch", "xgboost")
NO_RESULTS = ("cli", "datasets", "displays", "reports")  # rooms of the package that compute none


def versions() -> dict[str, str]:
    """Return the versions of this library, of those that compute, and of Python."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"hypervlad": hypervlad.__version__} | found | {"python": platform.python_version()}


def machine(threads: int) -> dict[str, Any]:
    """Return what times depend on, and last digits of results: threads, processor and GPU."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def origin(threads: int, *beside: str, rooms: Collection[str] = ()) -> dict[str, Any]:
    """Return the code (see `code_digest`), libraries and machine of a result."""
    return {
        "code": code_digest(*beside, rooms=rooms),
        "versions": versions(),
        "machine": machine(threads),
    }


def code_digest(*beside: str, rooms: Collection[str] = ()) -> str:
    """Return the SHA-256 of the package's code and of these modules of this folder.

    Whole modules, because a method is more than its class: what it calls counts as well. Comments,
    docstrings and layout do not. Of the package, rooms that compute results; or only these.
    """
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if _counts(path, rooms)]
    files += [HERE / f"{name}.py" for name in beside]
    return _digest_of(tuple(file.read_text(encoding="utf-8") for file in files))


def _counts(path: Path, rooms: Collection[str]) -> bool:
    room = path.relative_to(PACKAGE).parts[0]
    return room in rooms if rooms else room not in NO_RESULTS


@functools.cache
def _digest_of(texts: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(_without_words(text).encode())
    return digest.hexdigest()


def _without_words(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                del body[0]
    return ast.dump(tree)
