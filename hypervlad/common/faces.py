"""Packages whose names are defined elsewhere, and imported on first use."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

Face = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def attach_stub(package: str, file: str) -> Face:
    """Return a package's ``__getattr__``, ``__dir__`` and ``__all__``, of its stub.

    The stub beside it, ``__init__.pyi``, has nothing but ``from module import name as name``, a
    line for each. lazy_loader does the same for names that are defined below the package.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text("utf-8"))
    places: dict[str, str] = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            places |= {each.name: str(node.module) for each in node.names}
    names = sorted(places)

    def __getattr__(name: str) -> Any:  # noqa: N807  # of modules, PEP 562
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = places[name]
        found = vars(import_module(module)).get(name) or import_module(f"{module}.{name}")
        vars(sys.modules[package])[name] = found
        return found

    def __dir__() -> list[str]:  # noqa: N807  # of modules, PEP 562
        return names.copy()

    return __getattr__, __dir__, names
