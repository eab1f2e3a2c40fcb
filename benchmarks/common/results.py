"""Stored results, and the state of code, libraries and machine that they are of."""

from __future__ import annotations

import ast
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import xgboost

import hypervlad

Facts = dict[str, Any]
BENCHMARKS = Path(__file__).resolve().parents[1]
RESULTS = BENCHMARKS / "results"
CHECKPOINTS = BENCHMARKS / ".checkpoints"
PACKAGE = Path(hypervlad.__file__).resolve().parent
LIBRARIES = ("numpy", "scikit-image", "scikit-learn", "torch")


def load_result(path: Path) -> Facts:
    """Return a stored result."""
    content: Facts = json.loads(path.read_text(encoding="utf-8"))
    return content


def save_result(path: Path, facts: Mapping[str, Any], **json_options: Any) -> None:
    """Write a result as JSON, with the state of the code unless each row names its own."""
    of_rows = any("measured" in row for row in facts.get("rows", ()))
    content = facts if of_rows else {"measured": measured_now(), **facts}
    text = json.dumps(content, **({"indent": 1} | json_options))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(text + "\n", encoding="utf-8", newline="\n")
    os.replace(unfinished, path)


def origin() -> Facts:
    """Return the code, libraries and machine of a result measured now."""
    machine = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    found["xgboost"] = xgboost.__version__
    versions = {"hypervlad": hypervlad.__version__} | found | {"python": platform.python_version()}
    return {"code": code_digest(), "versions": versions, "machine": machine}


@functools.cache
def code_digest() -> str:
    """Return the SHA-256 of the code of package and benchmarks, without comments and docstrings."""
    files = [*PACKAGE.rglob("*.py"), *BENCHMARKS.rglob("*.py")]
    digest = hashlib.sha256()
    for file in sorted(path for path in files if path.parent.name != "tests"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            first = body[0] if isinstance(body, list) and body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del node.body[0]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def measured_now() -> dict[str, str]:
    """Return the revision of this checkout, with "+" if its code differs, and today's date."""
    revision = _git("rev-parse", "--short", "HEAD") or "unknown"
    code = ":/", ":(top,exclude)benchmarks/results"
    changed = "+" if _git("status", "--porcelain", "--untracked-files=no", "--", *code) else ""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"revision": revision + changed, "date": today}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(BENCHMARKS), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""  # no git here
    return done.stdout.strip() if done.returncode == 0 else ""


def measured_line(*results: Mapping[str, Any]) -> str:
    """Return the revisions and dates of stored results as one sentence in Markdown.

    The state that most rows share comes first; the rows of other states are named.
    """
    rows_of: dict[str, list[tuple[str, str]]] = {}
    for result in results:
        for row, measured in _states(result):
            state = f"revision `{measured['revision']}` ({measured['date']})"
            rows_of.setdefault(state, []).append(row)
    first = max(rows_of, key=lambda state: len(rows_of[state]))
    others = [f"; {_named(rows)}: {state}" for state, rows in rows_of.items() if state != first]
    return f"*Measured at {first}{''.join(others)}.*"


def _named(rows: Iterable[tuple[str, str]]) -> str:
    """Name rows, each method once with all its data sets."""
    sets: dict[str, dict[str, None]] = {}
    for name, where in rows:
        sets.setdefault(name, {})[where] = None
    return ", ".join(
        f"{name} ({', '.join(of_name)})" if any(of_name) else name for name, of_name in sets.items()
    )


def _states(result: Mapping[str, Any]) -> Iterable[tuple[tuple[str, str], Mapping[str, str]]]:
    """Yield the method, the data and the state of each row that has its own, else of the result."""
    rows = [row for row in result.get("rows", []) if "measured" in row]
    for row in rows:
        name = row.get("label", row.get("method"))
        where = row.get("data", result.get("data", ""))
        size = f", {row['n_images']:,} images" if "n_images" in row else ""
        yield (str(name), f"{where}{size}"), row["measured"]
    if not rows:
        yield (str(result.get("surface", "")), ""), result["measured"]
