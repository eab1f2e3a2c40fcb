"""Worker processes that end with the process they work for.

A module of its own because a worker imports it first, before others that take seconds: a worker
whose caller is killed meanwhile must not wait for work that never comes.
"""

from __future__ import annotations

import functools
import os
import threading
import time

_POLL_SECONDS = 0.2


@functools.cache
def end_with(caller: int) -> None:
    """End this process within a second after the one that has started it, however that ends.

    Workers of a killed caller would wait for minutes, each with a network in memory; on Windows,
    where a process does not notice, they do. (PR_SET_PDEATHSIG would end them with the thread.)
    """

    def watch() -> None:
        while os.getppid() == caller:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True, name="end with caller").start()
