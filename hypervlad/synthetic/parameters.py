"""Checks of the parameters of the makers of synthetic images."""

from __future__ import annotations

import numbers
from typing import Any


def check_count(n: Any, name: str = "n") -> int:
    """Return a number of images, at least 1; ``name`` is the parameter's.

    Raises
    ------
    ValueError
    """
    if isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < 1:
        raise ValueError(f"{name}={n!r}: expected the number of images, an integer of at least 1.")
    return int(n)


def check_size(size: Any, smallest: int) -> tuple[int, int]:
    """Return height and width, given as a pair or as one number.

    Raises
    ------
    ValueError
    """
    extents = (size, size) if isinstance(size, numbers.Integral) else size
    if (
        isinstance(size, bool)
        or not isinstance(extents, tuple | list)
        or len(extents) != 2
        or not all(isinstance(e, numbers.Integral) and int(e) >= smallest for e in extents)
    ):
        raise ValueError(
            f"size={size!r}: expected an integer or (height, width) in pixels, at least {smallest} "
            "each."
        )
    return int(extents[0]), int(extents[1])
