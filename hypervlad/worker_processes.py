"""Worker processes that end with the process they work for.

This is a module of its own because it is the first that a worker imports, before torch, which takes
seconds: a worker whose caller is killed meanwhile must not wait for work that never comes.
"""

from __future__ import annotations

import functools
import os
import threading
import time

_POLL_SECONDS = 0.2


@functools.cache
def end_with(caller: int) -> None:
    """End this process within a second after another one, however that ends.

    If the caller is killed, workers would wait for minutes for their next task or to return their
    results, each with a network in memory. On Windows, where a process does not see that its parent
    has ended, they do. (Linux could kill them at once, by PR_SET_PDEATHSIG, but it would do so when
    the thread of the caller ends that has started them.)

    Parameters
    ----------
    caller : int
        Process number of the process that has started this one.
    """

    def watch() -> None:
        while os.getppid() == caller:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True, name="end with caller").start()
