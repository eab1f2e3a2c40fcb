"""Worker processes that end with the process they work for; imported first, before slow modules."""

from __future__ import annotations

import functools
import os
import threading
import time

_POLL_SECONDS = 0.2


@functools.cache
def end_with(caller: int) -> None:
    """End this process within a second after the one that has started it, however that ends.

    Otherwise workers of a killed caller wait for minutes, each with a network in memory.
    """

    def watch() -> None:
        while os.getppid() == caller:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True, name="end with caller").start()
