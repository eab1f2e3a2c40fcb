"""What every test keeps to, so that it is green on any machine and outlives a move of the code.

    python -m tests.rules

prints the figures, and each place that breaks a rule; ``make lint`` runs it.

- No clock: only what ``CLOCKS`` lists may ask for the time or sleep. A test waits for an event by
  ``support.waiting``, and shows growth by counting calls, bytes or steps.
- Public names: tests use what the package and its parts list in ``__all__``, commands, and files.
  ``PRIVATE`` lists the exceptions, which hold at most a tenth of the lines.
- ``match=`` only where a person must act on the words: at most ``MAX_MATCHES``.
- At most ``MAX_LINES`` lines below ``tests``.
"""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent
_NAMES = (
    ".apps.review .data .evaluation .features .fibres .images .models .models.presets .particles"
)
PARTS = ["hypervlad", *(f"hypervlad{each}" for each in f"{_NAMES} .results".split())]
MAX_LINES = 30_900
MAX_MATCHES = 200
MAX_PRIVATE = 0.10

_TIME = re.compile(
    r"(\w+\.)*(perf_counter|process_time|monotonic|thread_time|time)(_ns)?|(\w+\.)*(cpu_times|sleep)"
    r"|timeit(\.\w+)?|(\w+\.)*(datetime|date)\.(now|utcnow|today)"
)

# What may ask for the time or sleep, with the reason.
CLOCKS = {
    "campaign/": "attacks are bounded in time, and a hang is a failure",
    "unit/reports/test_watching.py": "replaces the clock; other threads keep theirs",
    "support/waiting.py": "waits for an event, and fails when it never comes",
}

# Files that may use names that are not public, with the reason.
PRIVATE: dict[str, str] = {
    "unit/images/test_morphology.py": "slow oracles: no public function shows masks and hulls",
    "support/commands.py": "the one place that imports the commands",
    "support/few_crops.py": "a segmenter's 160 crops of 256 pixels take half a minute per epoch",
    "unit/windows/test_vectors.py": "slow oracles: no public function returns a window's vector",
}


class Place(NamedTuple):
    """A line that breaks a rule."""

    file: str
    line: int
    what: str


def public_names() -> dict[str, set[str]]:
    """Return what each public package lists in ``__all__``."""
    return {part: set(importlib.import_module(part).__all__) for part in PARTS}


def uses_private(tree: ast.AST, public: dict[str, set[str]]) -> Iterator[tuple[int, str]]:
    """Yield the names of the package that are not public: imported, patched, or with ``_``."""

    def is_public(module: str, name: str) -> bool:
        return module in public and (name in public[module] or f"{module}.{name}" in public)

    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] == "hypervlad":
                for alias in node.names:
                    if not is_public(module, alias.name):
                        yield node.lineno, f"{module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "hypervlad" and alias.name not in public:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"hypervlad(\.\w+)+", node.value):
                module, _, name = node.value.rpartition(".")
                if node.value not in public and not is_public(module, name):
                    yield node.lineno, node.value
        elif isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
            owner = node.value
            if not (isinstance(owner, ast.Name) and owner.id in ("self", "cls")):
                yield node.lineno, ast.unparse(node)


def uses_clock(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield what asks for the time, or sleeps."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _TIME.fullmatch(ast.unparse(node)):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "timeit"):
            yield node.lineno, f"from {node.module} import"


def is_listed(file: str, listed: dict[str, str]) -> bool:
    """Say whether a file, or a folder of it, is listed."""
    return any(file == name or (name.endswith("/") and file.startswith(name)) for name in listed)


def main() -> int:
    """Print the figures and the places that break a rule; return the exit code."""
    public = public_names()
    lines = private_lines = n_matches = n_patches = 0
    places: list[Place] = []
    used: set[str] = set()
    for path in sorted(TESTS.rglob("*.py")):
        file = path.relative_to(TESTS).as_posix()
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        n_lines = text.count("\n")
        lines += n_lines
        private = list(uses_private(tree, public))
        clocks = list(uses_clock(tree))
        if private:
            private_lines += n_lines
            if not is_listed(file, PRIVATE):
                places += [Place(file, line, f"private: {name}") for line, name in private]
        if clocks and not is_listed(file, CLOCKS):
            places += [Place(file, line, f"clock: {name}") for line, name in clocks]
        used |= {name for name in PRIVATE if private and is_listed(file, {name: ""})}
        used |= {name for name in CLOCKS if clocks and is_listed(file, {name: ""})}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                n_matches += sum(keyword.arg == "match" for keyword in node.keywords)
                called = ast.unparse(node.func)
                n_patches += called.endswith((".setattr", ".setitem", ".setenv", "mock.patch"))
    places += [Place(name, 0, "listed, but not needed") for name in {*PRIVATE, *CLOCKS} - used]
    share = private_lines / lines
    figures = [
        (f"{lines:,} lines of tests (at most {MAX_LINES:,})", lines <= MAX_LINES),
        (
            f"{share:.1%} of them in files with names that are not public "
            f"(at most {MAX_PRIVATE:.0%})",
            share <= MAX_PRIVATE,
        ),
        (f"{n_matches} times match= (at most {MAX_MATCHES})", n_matches <= MAX_MATCHES),
        (f"{n_patches} places that patch", True),
        (f"{len(places)} places that break a rule", not places),
    ]
    for place in places:
        print(f"tests/{place.file}:{place.line}: {place.what}")
    for words, is_met in figures:
        print(words if is_met else f"{words}: NOT MET")
    return int(not all(is_met for _, is_met in figures))


if __name__ == "__main__":
    sys.exit(main())
