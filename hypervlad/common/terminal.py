"""Progress bars and lines on stderr, which services and pythonw do not have, or closed."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm


def can_print(stream: Any) -> bool:
    return stream is not None and not getattr(stream, "closed", False)


def is_terminal(stream: Any) -> bool:
    return can_print(stream) and bool(stream.isatty())


def print_line(text: str) -> None:
    """Print a line on stderr, above any progress bar."""
    if can_print(sys.stderr):
        tqdm.write(text, file=sys.stderr)


class ProgressBar(tqdm):
    """tqdm's progress bar, hidden where there is no stderr."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if not can_print(sys.stderr):
            options["disable"] = True
        super().__init__(*arguments, **options)
