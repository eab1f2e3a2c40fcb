"""Runs cases in worker processes with bounded memory and time, and keeps what fails.

A worker runs one case after the other, and is replaced when it dies. That is a failure of the case
that was running.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign.case import Target
from tests.campaign.worker import folder_of, keep

ROOT = Path(__file__).parents[2]
_MAX_KEPT = 3  # examples of failures at the same place
_SLICE = 600.0  # seconds
_SEEDS = 1000  # for each worker, which takes one after the other


@dataclass(frozen=True)
class Failure:
    """A case that failed, where (at the same place counts as one finding), and what repeats it.

    Too much memory is an exception or a crash.
    """

    target: str
    name: str
    seed: int
    number: int
    kind: str  # exception, crash or hang
    place: str
    detail: str
    command: str


@dataclass
class Outcome:
    """What came of the cases of one target."""

    n_cases: int = 0
    n_workers: int = 0
    slowest: float = 0.0  # seconds
    slowest_name: str = ""
    failures: list[Failure] = field(default_factory=list)
    n_at: dict[str, int] = field(default_factory=dict)  # failures by place

    @property
    def n_failures(self) -> int:
        return sum(self.n_at.values())


class Campaign:
    """Attacks on some targets, for a while; campaigns of different seeds have different cases.

    The folder `out`, for failures, is made when there is one. `log` gets one line for each.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        seed: int,
        out: Path,
        log: Callable[[str], None] = print,
    ) -> None:
        self.targets, self.out, self.log = dict(targets), out, log
        self.outcomes = {name: Outcome() for name in targets}
        self._seeds = {name: itertools.count(seed * 10**6, _SEEDS) for name in targets}
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._is_stopped = False

    def run(self, seconds: float, jobs: int) -> None:
        """Give all targets the same time, again and again, in so many workers at once.

        The time that workers need to start is not counted.
        """
        share = seconds * jobs / len(self.targets)
        n_sweeps = max(1, round(share / _SLICE), jobs // len(self.targets))
        with ThreadPoolExecutor(jobs) as pool:
            names = [name for _ in range(n_sweeps) for name in self.targets]
            slices = [pool.submit(self._run_slice, name, share / n_sweeps) for name in names]
            try:
                for each in slices:
                    each.result()
            except BaseException:
                self._is_stopped = True
                for process in list(self._running):
                    _end(process)
                raise

    def repeat(self, name: str, seed: int, number: int) -> None:
        """Run one case again."""
        self._run_worker(name, seed, 0.0, only=number)

    def _run_slice(self, name: str, seconds: float) -> None:
        left = seconds
        while left >= 0 and not self._is_stopped:
            with self._lock:
                seed = next(self._seeds[name])
            left -= max(1.0, self._run_worker(name, seed, left))

    def _run_worker(self, name: str, seed: int, seconds: float, only: int | None = None) -> float:
        """Run a worker until it ends; return the seconds of its cases."""
        target, used = self.targets[name], 0.0
        self.outcomes[name].n_workers += 1
        with tempfile.TemporaryDirectory(prefix="hypervlad-campaign-") as folder:
            scratch, errors = Path(folder), Path(folder, "stderr.txt")
            (scratch / "tmp").mkdir()
            command = [sys.executable, "-m", "tests.campaign.worker", target.cases, str(seed)]
            command += [str(scratch / "cases"), str(self.out.absolute() / name)]
            command += ["--seconds", str(seconds), "--bound", str(target.seconds)]
            command += ["--megabytes", str(target.megabytes)]
            command += [] if only is None else ["--only", str(only)]
            environment = {"OMP_NUM_THREADS": "1", **os.environ}
            paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
            environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
            # Removed even if the process is killed; in a session, its own children end with it.
            environment |= {"TMPDIR": str(scratch / "tmp")}
            with (
                errors.open("w", encoding="utf-8") as stderr,
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=environment,
                    cwd=ROOT,
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,
                ) as process,
            ):
                self._running.add(process)
                last: dict[str, Any] = {"seed": seed, "number": -1, "name": "before the first case"}
                assert process.stdout is not None
                for line in process.stdout:
                    last = json.loads(line)
                    used += last.get("seconds", 0.0)
                    self._note(name, last)
                code = process.wait()
                _end(process)
                self._running.discard(process)
            if code and not self._is_stopped:
                written = errors.read_text("utf-8", "replace")[-8000:]
                is_hang = "Timeout (" in written
                detail = f"exit code {code}\n{written}"
                facts = {"place": _place_in(written) or last["name"], "detail": detail}
                self._note(name, last | {"failed": facts}, "hang" if is_hang else "crash")
                keep(map(Path, last.get("files", [])), self._folder(name, last))
        return used

    def _folder(self, name: str, event: dict[str, Any]) -> Path:
        return folder_of(self.out / name, event["seed"], event["number"])

    def _note(self, name: str, event: dict[str, Any], kind: str = "exception") -> None:
        """Count a case that begins or ends; describe the first few failures at a place."""
        with self._lock:
            outcome = self.outcomes[name]
            outcome.n_cases += "files" in event and kind == "exception" and event["number"] >= 0
            if event.get("seconds", 0.0) > outcome.slowest:
                outcome.slowest, outcome.slowest_name = event["seconds"], event["name"]
            if event.get("failed") is None:
                return
            key = f"{kind}: {event['failed']['place']}"
            outcome.n_at[key] = outcome.n_at.get(key, 0) + 1
            if outcome.n_at[key] > _MAX_KEPT:
                return
            which = {"name": event["name"], "seed": event["seed"], "number": event["number"]}
            command = f"python -m tests.campaign --repeat {name}:{event['seed']}:{event['number']}"
            failure = Failure(name, **which, kind=kind, **event["failed"], command=command)
            outcome.failures.append(failure)
            folder = self._folder(name, event)
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(asdict(failure), indent=1)
            (folder / "failure.json").write_text(text, encoding="utf-8")
            self.log(f"{name}: {key}: {event['name']} ({folder})")


def _end(process: subprocess.Popen[str]) -> None:
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
