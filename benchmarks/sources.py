"""What a stored result depends on beside its parameters: the code and the libraries."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import inspect
import platform
import textwrap
from collections.abc import Sequence
from pathlib import Path

import hypervlad

HERE = Path(__file__).resolve().parent
PACKAGE = Path(hypervlad.__file__).resolve().parent
LIBRARIES = ("numpy", "scikit-image", "scikit-learn", "torch", "xgboost")


def versions() -> dict[str, str]:
    """Return the versions of this library, of those that compute, and of Python."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"hypervlad": hypervlad.__version__} | found | {"python": platform.python_version()}


def code_digest(rooms: Sequence[str], beside: Sequence[str] = (), method: object = None) -> str:
    """Return the SHA-256 of code; comments, docstrings and layout do not count.

    Parameters
    ----------
    rooms : sequence of str
        Modules of the package, folders with all that is in them.
    beside : sequence of str
        Modules of this folder.
    method : object, optional
        Its class counts too.
    """
    files = [HERE / f"{name}.py" for name in beside]
    for room in rooms:
        folder = PACKAGE / room
        files += sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]
    texts = [file.read_text(encoding="utf-8") for file in files]
    if method is not None:
        texts.append(textwrap.dedent(inspect.getsource(type(method))))
    return _digest_of(tuple(texts))


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
