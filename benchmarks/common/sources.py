"""What a stored result depends on besides its parameters: code, libraries and machine."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

import hypervlad
from benchmarks.common.results import BENCHMARKS

PACKAGE = Path(hypervlad.__file__).resolve().parent
LIBRARIES = ("numpy", "scikit-image", "scikit-learn", "torch", "xgboost")
# Modules of the package that compute no results.
NO_RESULTS = ("cli", "datasets", "displays", "reports", "synthetic")


def versions() -> dict[str, str]:
    """Return the versions of this library, of those that compute, and of Python."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"hypervlad": hypervlad.__version__} | found | {"python": platform.python_version()}


def machine(threads: int) -> dict[str, Any]:
    """Return what times and the last digits of results depend on: threads, processor and GPU."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def peak_memory_mb() -> float | None:
    """Return the peak memory of this process so far; None where it is not known."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss starts at the peak of the parent process
        peaks = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii"))
        if peaks:
            return int(peaks[0]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    return maxrss_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def maxrss_mb(maxrss: int) -> float:
    """Return the peak memory of a process that the system reports, in MB."""
    return maxrss / 1e6 if sys.platform == "darwin" else maxrss * 1024 / 1e6


def origin(threads: int, *scripts: str, modules: Collection[str] = ()) -> dict[str, Any]:
    """Return the code (see `code_digest`), libraries and machine of a result."""
    return {
        "code": code_digest(*scripts, modules=modules),
        "versions": versions(),
        "machine": machine(threads),
    }


def code_digest(*scripts: str, modules: Collection[str] = ()) -> str:
    """Return the SHA-256 of the package's code and of these files of the benchmarks.

    Whole modules count, because a method depends on all that it calls. Comments, docstrings and
    layout do not count.

    Parameters
    ----------
    *scripts : str
        Paths below ``benchmarks/``, without ".py", such as "accuracy/methods".
    modules : collection of str
        The folders and files of the package that count; by default all that compute results.
    """
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if _counts(path, modules)]
    files += [BENCHMARKS / f"{name}.py" for name in scripts]
    return _digest_of(tuple(file.read_text(encoding="utf-8") for file in files))


def _counts(path: Path, modules: Collection[str]) -> bool:
    relative = path.relative_to(PACKAGE)
    if modules:
        return any(relative.is_relative_to(module) for module in modules)
    return relative.parts[0] not in NO_RESULTS


@functools.cache
def _digest_of(texts: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(_without_docstrings(text).encode())
    return digest.hexdigest()


def _without_docstrings(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                del body[0]
    return ast.dump(tree)
