"""The progress of a call: how many images it has to do with, and what it writes on stderr.

Services and pythonw have no stderr, or a closed one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from tqdm.auto import tqdm

_n_images: ContextVar[int | None] = ContextVar("n_images", default=None)


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


@contextlib.contextmanager
def announced(n_images: int) -> Iterator[None]:
    """Announce how many images the block has to do with; calls inside it do not change that.

    Not for generators, whose callers would be in the block, too.

    >>> with announced(1000), announced(1):
    ...     n_announced()
    1000
    >>> n_announced()
    1
    """
    token = _n_images.set(n_images) if _n_images.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _n_images.reset(token)


def n_announced() -> int:
    """Return the number of images announced, 1 if none were."""
    n_images = _n_images.get()
    return 1 if n_images is None else n_images
