"""Memory given back between tests."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys


def return_memory() -> None:
    """Free networks in cycles, and what malloc keeps."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
