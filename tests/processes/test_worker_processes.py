"""Workers end within a second after their caller is killed, at whatever moment."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest
from support.paths import ROOT

# A caller with workers that hold their task for minutes: two at work, or two that still start.
CALLER = """
import time
from hypervlad.features.encoder.parallel import map_tasks

def work(_, number):
    print("working", flush=True)
    time.sleep(300)

list(map_tasks(work, "any", range(9), 2))
"""


@pytest.mark.slow  # starts processes
@pytest.mark.skipif(os.name == "nt", reason="promised on Linux and macOS only")
@pytest.mark.parametrize("moment", ["at work", "while they start"])
def test_workers_end_within_a_second(moment: str) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with caller:
        assert caller.stdout is not None
        if moment == "at work":
            assert [caller.stdout.readline() for _ in range(2)] == ["working\n"] * 2
        while len(workers := psutil.Process(caller.pid).children(recursive=True)) < 2:
            time.sleep(0.01)
        caller.kill()
        killed = time.monotonic()
        while alive := [each for each in workers if is_alive(each)]:
            assert time.monotonic() - killed < 20, alive
            time.sleep(0.01)
    took = time.monotonic() - killed
    assert took < (1 if moment == "at work" else 5)  # an interpreter that starts ends its imports


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended may wait for its parent to notice."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
