"""Memory given back between tests."""

import contextlib
import ctypes
import gc
import sys

import psutil

_MUCH = 1.8e9  # bytes: a process has 1.2e9 once it has imported all tests


def return_memory() -> None:
    """Free networks in cycles, and what malloc keeps, if this process has much memory."""
    if psutil.Process().memory_info().rss < _MUCH:
        return
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
