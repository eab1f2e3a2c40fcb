"""What programs share: their options, measurements in turns, and processes of their own."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.common.results import BENCHMARKS, CHECKPOINTS

T = TypeVar("T")


def new_parser(
    text: str | None, out: Path | None = None, checkpoints: str = "", threads: int = 0
) -> argparse.ArgumentParser:
    """Return a parser with the options that are given a default: --out, --checkpoints, --threads.

    Parameters
    ----------
    text : str
        The docstring of the program; its first line is shown.
    out : Path, optional
        Stored result that a run replaces.
    checkpoints : str
        Folder below ``.checkpoints/``.
    threads : int
    """
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    if out:
        parser.add_argument("--out", type=Path, default=out, help="where results are stored")
    if checkpoints:
        parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / checkpoints)
    if threads:
        parser.add_argument("--threads", type=int, default=threads)
    return parser


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add --backbone and --weights."""
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="pretrained", help="'pretrained' or a file")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; sets the number of threads."""
    options = parser.parse_args(argv)
    if "threads" in options:
        torch.set_num_threads(options.threads)
    return options


def timed(
    function: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> Callable[[], float]:
    """Return a function that returns the seconds of a call, including the queue of a GPU."""

    def seconds() -> float:
        began = clock()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return clock() - began

    return seconds


def in_turns(measures: Mapping[str, Callable[[], T]], n_rounds: int) -> dict[str, list[T]]:
    """Return what each function returns in every round; a first round, not kept, warms up.

    Functions take turns, so that a noisy machine is noisy for all, in alternating order.
    """
    found: dict[str, list[T]] = {name: [] for name in measures}
    for number in range(n_rounds + 1):
        for name in list(measures)[:: -1 if number % 2 else 1]:
            value = measures[name]()
            if number:
                found[name].append(value)
    return found


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in a process of its own; all values must be JSON-able."""
    module, name = function.__module__, function.__name__
    if module == "__main__":
        module = sys.modules[module].__spec__.name  # type: ignore[union-attr]
    code = f"import json, sys; from {module} import {name} as call; "
    code += "print(json.dumps(call(*json.loads(sys.argv[1]))))"
    printed, _ = run_python(["-c", code, json.dumps(arguments, default=str)])
    return json.loads(printed.splitlines()[-1])


def run_python(
    arguments: Sequence[str], folder: Path = BENCHMARKS.parent
) -> tuple[str, dict[str, float]]:
    """Run Python in a process of its own; return what it prints, and what it takes.

    That is: ``seconds``, those of all its threads (``processor``), and ``peak_mb`` of memory, which
    begins with the peak of the process that calls this. Where that one is large, the process that
    it starts calls `peak_memory_mb`.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds, process.returncode = time.perf_counter() - started, os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)}: exit code {process.returncode}")
    processor, peak_mb = used.ru_utime + used.ru_stime, _as_mb(used.ru_maxrss)
    return printed, {"seconds": seconds, "processor": processor, "peak_mb": peak_mb}


def peak_memory_mb(pid: int | str = "self") -> float:
    """Return the peak memory of a process so far; except on Linux, only of this one, else NaN."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        if peaks := re.findall(r"VmHWM:\s*(\d+) kB", status):
            return int(peaks[0]) * 1024 / 1e6
    import resource  # not on Windows

    own = _as_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return own if pid == "self" else math.nan


def _as_mb(maxrss: int) -> float:
    return maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
