"""Runs cases in worker processes with bounded memory and time, and keeps what fails.

A worker runs one case after the other. It is replaced when it dies, and killed when a case takes
too long or too much memory. Each of these is a failure of the case that was running.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from tests.campaign.targets import Target

ROOT = Path(__file__).parents[2]
_MIB = 2**20
_START_SECONDS = 120.0  # for imports, and for whatever a target makes before its first case
_MAX_KEPT = 3  # examples of failures at the same place
_MAX_SLICE = 600.0  # seconds
_SEEDS = 1000  # for each worker, which takes one after the other


@dataclass(frozen=True)
class Failure:
    """A case that failed.

    Attributes
    ----------
    target, name : str
    seed, number : int
        Which case it is.
    kind : {"exception", "crash", "hang", "memory", "leak"}
        "memory": the case took more than its bound. "leak": this one and those before it, in one
        process, together have not given back as much.
    place : str
        Where it failed; failures at the same place count as one finding.
    detail : str
        The traceback.
    command : str
        Repeats it.
    """

    target: str
    name: str
    seed: int
    number: int
    kind: str
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
    growth: int = 0  # bytes: the most by which a case grew its process
    growth_name: str = ""
    failures: list[Failure] = field(default_factory=list)
    n_failures: int = 0
    n_at: dict[str, int] = field(default_factory=dict)  # failures by place


@dataclass
class _Running:
    """The case that a worker runs now."""

    number: int = -1
    name: str = "before the first case"
    files: list[str] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    rss: int = 0
    failed: dict[str, Any] | None = None  # the event, if it raised


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
        self._stop = threading.Event()

    def run(self, seconds: float, jobs: int) -> None:
        """Give all targets the same time, again and again, in so many workers at once.

        The time that workers need to start is not counted.
        """
        share = seconds * jobs / len(self.targets)
        n_sweeps = max(1, round(share / _MAX_SLICE), jobs // len(self.targets))
        with (
            tempfile.TemporaryDirectory(prefix="hypervlad-campaign-") as scratch,
            ThreadPoolExecutor(jobs) as pool,
        ):
            slices = [
                pool.submit(self._run_slice, name, share / n_sweeps, Path(scratch))
                for _ in range(n_sweeps)
                for name in self.targets
            ]
            try:
                for each in slices:
                    each.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def repeat(self, name: str, seed: int, number: int) -> None:
        """Run one case again."""
        with tempfile.TemporaryDirectory(prefix="hypervlad-campaign-") as scratch:
            self._run_worker(name, seed, 0.0, Path(scratch), only=number)

    def _run_slice(self, name: str, seconds: float, scratch: Path) -> None:
        left = seconds
        while left >= 0 and not self._stop.is_set():
            with self._lock:
                seed = next(self._seeds[name])
            place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=scratch))
            left -= max(1.0, self._run_worker(name, seed, left, place))
            shutil.rmtree(place, ignore_errors=True)

    def _run_worker(
        self, name: str, seed: int, seconds: float, scratch: Path, only: int | None = None
    ) -> float:
        """Run a worker until it ends; return the seconds since its first case."""
        outcome, began = self.outcomes[name], None
        with self._lock:
            outcome.n_workers += 1
        with _Watched(self.targets[name], seed, seconds, scratch, only) as worker:
            for event in worker.events(self._stop):
                if began is None and event["event"] == "begin":
                    began = time.monotonic()
                self._note(name, outcome, event)
        return 0.0 if began is None else time.monotonic() - began

    def _note(self, name: str, outcome: Outcome, event: dict[str, Any]) -> None:
        with self._lock:
            if event["event"] == "begin":
                outcome.n_cases += event["number"] >= 0
            elif event["event"] == "end":
                if event["seconds"] > outcome.slowest:
                    outcome.slowest, outcome.slowest_name = event["seconds"], event["name"]
                if event["growth"] > outcome.growth:
                    outcome.growth, outcome.growth_name = event["growth"], event["name"]
            elif event["event"] == "failure":
                self._keep(name, outcome, event)

    def _keep(self, name: str, outcome: Outcome, event: dict[str, Any]) -> None:
        """Count a failure; keep the first few at a place with their files."""
        outcome.n_failures += 1
        key = f"{event['kind']}: {event['place']}"
        outcome.n_at[key] = outcome.n_at.get(key, 0) + 1
        if outcome.n_at[key] > _MAX_KEPT:
            return
        which = f"{name}:{event['seed']}:{event['number']}"
        facts = {key: event[key] for key in ("name", "seed", "number", "kind", "place", "detail")}
        command = f"python -m tests.campaign --repeat {which}"
        failure = Failure(target=name, **facts, command=command)
        outcome.failures.append(failure)
        folder = self.out / which.replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for path in map(Path, event["files"]):
            if path.is_dir():
                shutil.copytree(path, folder / path.name, symlinks=True, dirs_exist_ok=True)
            elif path.exists():
                shutil.copy(path, folder / path.name)
        text = json.dumps(asdict(failure), indent=1)
        (folder / "failure.json").write_text(text, encoding="utf-8")
        self.log(f"{name}: {key}: {event['name']} ({folder})")


class _Watched:
    """A worker process, its events, and the failures of its cases that only a parent can see."""

    def __init__(
        self, target: Target, seed: int, seconds: float, scratch: Path, only: int | None
    ) -> None:
        self._target, self._seed, self._scratch = target, seed, scratch / "cases"
        self._stderr = (scratch / "stderr.txt").open("w+", encoding="utf-8", errors="replace")
        command = [sys.executable, "-m", "tests.campaign.worker", target.cases, str(seed)]
        command += [str(self._scratch), "--seconds", str(seconds)]
        paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        (scratch / "tmp").mkdir()
        self._process = subprocess.Popen(
            command if only is None else [*command, "--only", str(only)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=scratch,
            env={
                "OMP_NUM_THREADS": "1",
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "TMPDIR": str(scratch / "tmp"),  # removed even if the process is killed
            },
            text=True,
            encoding="utf-8",
            start_new_session=True,  # so that its own children end with it
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stderr.close()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)

    def _kill(self) -> None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()

    def events(self, stop: threading.Event) -> Iterator[dict[str, Any]]:
        """Yield the worker's events, and a "failure" for each case that failed, until it ends."""
        running, first_rss = _Running(), 0
        while not stop.is_set():
            try:
                line = self._lines.get(timeout=0.1)
            except queue.Empty:
                excess = self._excess(running)
                if excess:
                    yield from self._failures(running, excess)
                    return
                continue
            if line is None:
                if self._process.wait() != 0:
                    yield from self._failures(running, "crash")
                return
            event = json.loads(line)
            if event["event"] == "seed":
                self._seed = event["seed"]
            elif event["event"] == "begin":
                rss = event.get("rss", 0)
                first_rss = first_rss or rss
                running = _Running(event["number"], event["name"], event["files"], rss=rss)
                if rss - first_rss > self._target.megabytes * _MIB:
                    yield from self._failures(running, "leak")
                    return
            elif event["event"] == "seed done":
                shutil.rmtree(self._scratch / str(self._seed), ignore_errors=True)
            elif event["event"] == "failed":
                running.failed, running.since = event, time.monotonic()
            elif event["event"] == "end":
                yield event | {"name": running.name}
                if running.failed is not None:
                    yield from self._failures(running, "exception")
                elif event["growth"] > self._target.megabytes * _MIB:
                    yield from self._failures(running, "memory")
                running = _Running(name="between cases")
                continue
            yield event

    def _excess(self, running: _Running) -> str | None:
        """Return what bound the case has exceeded."""
        seconds = self._target.seconds if running.number >= 0 else _START_SECONDS
        if time.monotonic() - running.since > seconds:
            return "hang"
        if running.rss and self._memory() - running.rss > self._target.megabytes * _MIB:
            return "memory"
        return None

    def _memory(self) -> int:
        """Return the memory of the worker and all processes that it started, in bytes."""
        total = 0
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(self._process.pid)
            for process in [own, *own.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
        return total

    def _failures(self, running: _Running, kind: str) -> Iterator[dict[str, Any]]:
        if running.failed is not None:  # whatever came later, while the file was made smaller
            place, detail, files = (running.failed[key] for key in ("place", "detail", "files"))
            kind = "exception"
        else:
            detail, files = self._stack(kind), running.files
            place = _place_in_stack(detail) or running.name
        yield {
            "event": "failure",
            "kind": kind,
            "seed": self._seed,
            "number": running.number,
            "name": running.name,
            "place": place,
            "detail": detail,
            "files": files,
        }

    def _stack(self, kind: str) -> str:
        """Return the end of standard error: the stack where it crashed or hangs."""
        if kind in ("hang", "memory") and hasattr(signal, "SIGUSR1"):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)  # faulthandler writes the stack
            time.sleep(0.3)
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 8000))
        ended = f"exit code {self._process.returncode}\n" if kind == "crash" else ""
        return ended + self._stderr.read()


def _place_in_stack(stack: str) -> str | None:
    """Return the innermost line of the package in what faulthandler wrote."""
    inner = f'"{ROOT / "hypervlad"}{os.sep}'
    for line in stack.splitlines():
        if line.lstrip().startswith(f"File {inner}"):
            function = line.rpartition(" in ")[2]
            return f"{Path(line.split(chr(34))[1]).name}, {function}"
    return None
