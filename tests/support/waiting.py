"""Waiting for an event, in place of sleeping and hoping."""

import time
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 300.0  # seconds: no machine on which tests can run at all is so slow


def wait_until(condition, what):
    """Return what a condition returns once that is true; time only decides when to give up."""
    deadline, pause = time.monotonic() + PATIENCE, 0.01
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(pause := min(1.3 * pause, 0.1))  # what is asked costs time, too
    return found
