"""How many images the current call of the package has to do with, for choices that pay for many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_n_images: ContextVar[int | None] = ContextVar("n_images", default=None)


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
