"""Runs cases in worker processes with bounded memory and time, and keeps what fails.

A worker runs one case after the other, and is replaced when it dies. That is a failure of the case
that was running.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tests.campaign.case import Target
from tests.campaign.worker import keep, read_events

ROOT = Path(__file__).parents[2]
_SLICE = 600.0  # seconds of a worker at most
_SEEDS = 1000  # for each worker, which takes one after the other

Event = dict[str, Any]


class Campaign:
    """Attacks on some targets; `out`, a folder for failures, is made when there is one.

    An event is a case that was run, with its place and detail if it failed.
    """

    def __init__(self, targets: Mapping[str, Target], out: Path) -> None:
        self.targets, self.out = targets, out.absolute()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False

    def run(self, names: list[str], seed: int, seconds: float, jobs: int) -> dict[str, list[Event]]:
        """Give all targets the same time, without what their workers need to start."""
        share = seconds * jobs / len(names)
        with ThreadPoolExecutor(jobs) as pool:
            try:
                found = pool.map(partial(self._run_target, seed=seed, seconds=share), names)
                return dict(zip(names, found, strict=True))
            except BaseException:  # of a person who ends it
                self._is_stopped = True
                for process in list(self._running):
                    _end(process)
                raise

    def repeat(self, name: str, seed: int, number: int) -> list[Event]:
        """Run one case again."""
        return self._run_worker(name, seed, 0.0, "--only", str(number))

    def _run_target(self, name: str, seed: int, seconds: float) -> list[Event]:
        events, seed, left = [], seed * 10**6, seconds
        while left >= 0 and not self._is_stopped:
            found = self._run_worker(name, seed, min(left, _SLICE))
            left -= max(1.0, sum(event["seconds"] for event in found))
            events += found
            seed += _SEEDS
        return events

    def _run_worker(self, name: str, seed: int, seconds: float, *more: str) -> list[Event]:
        """Run a worker until it ends."""
        target = self.targets[name]
        with tempfile.TemporaryDirectory(prefix="hypervlad-campaign-") as folder:
            scratch = Path(folder)
            (scratch / "tmp").mkdir()
            command = [sys.executable, "-m", "tests.campaign.worker", target.cases, str(seed)]
            command += [str(scratch), str(self.out / name), "--seconds", str(seconds), *more]
            command += ["--bound", str(target.seconds), "--megabytes", str(target.megabytes)]
            paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
            environment = {
                "OMP_NUM_THREADS": "1",
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "TMPDIR": str(scratch / "tmp"),  # removed even if the process is killed
            }
            with (scratch / "printed").open("wb") as printed:
                # In a session, its own children end with it.
                process = subprocess.Popen(
                    command,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=ROOT,
                    start_new_session=True,
                )
                self._running.add(process)
                code = process.wait()
                _end(process)
                self._running.discard(process)
            events = read_events(scratch)
            if code and not self._is_stopped:
                written = (scratch / "printed").read_text("utf-8", "replace")[-8000:]
                kind = "hang" if "Timeout (" in written else "crash"
                if not events or "seconds" in events[-1]:
                    events.append({"seed": seed, "number": -1, "name": "no case", "files": []})
                place = f"{kind}: {_place_in(written) or events[-1]['name']}"
                events[-1] |= {"seconds": 0.0, "place": place, "detail": f"{code}\n{written}"}
                keep(events[-1], self.out / name)
        return events


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a worker, and what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _place_in(stack: str) -> str | None:
    """Return the innermost line of the package in what faulthandler wrote."""
    for line in stack.splitlines():
        if line.lstrip().startswith(f'File "{ROOT / "hypervlad"}{os.sep}'):
            function = line.rpartition(" in ")[2]
            return f"{Path(line.split(chr(34))[1]).name}, {function}"
    return None
