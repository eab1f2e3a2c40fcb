"""The process in which cases run, started by the runner: it may crash, hang or run out of memory.

It writes one line of JSON to its standard output for each event; whatever the package itself prints
goes to standard error, with the stack of a crash or hang.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import hypervlad
from tests.campaign.case import Case, Generate

_PACKAGE = str(Path(hypervlad.__file__).parent)
_SHRINKING = 5.0  # seconds for making a failing file smaller


class Worker:
    """Runs the cases of one target, one seed after the other, and reports each event.

    Each seed gets an empty folder in `scratch`.
    """

    def __init__(
        self, generate: Generate, scratch: Path, report: Callable[[dict[str, Any]], None]
    ) -> None:
        self.generate, self.scratch, self.report = generate, scratch, report
        self._process = psutil.Process()
        self._began: float | None = None

    def is_late(self, seconds: float) -> bool:
        """Return whether so many seconds have passed since the first case."""
        return self._began is None or time.monotonic() > self._began + seconds

    def run_seed(self, seed: int, seconds: float, only: int | None = None) -> None:
        """Run the cases of a seed, or only the one of this number.

        It ends early, after at least one case, when so many seconds have passed since the very
        first case: imports and the making of material do not count.
        """
        folder = self.scratch / str(seed)
        folder.mkdir(parents=True)
        self.report({"event": "seed", "seed": seed})
        try:
            for number, case in enumerate(self.generate(seed, folder)):
                if self._began is None:
                    self._began = time.monotonic()
                if only is None or number == only:
                    self._run_case(number, case, folder)
                if number == only or (only is None and self.is_late(seconds)):
                    break
        except Exception as error:  # of the generator: the campaign itself is wrong
            self.report({"event": "begin", "number": -1, "name": "making a case", "files": []})
            self.report({"event": "failed", **_described(error), "files": []})
            self.report({"event": "end", "seconds": 0.0, "growth": 0})
        self.report({"event": "seed done", "seed": seed})

    def _run_case(self, number: int, case: Case, folder: Path) -> None:
        files = [str(path) for path in case.files]
        before = self._process.memory_info().rss
        begun = {"event": "begin", "number": number, "name": case.name, "files": files}
        self.report(begun | {"rss": before})
        has_peak = _forget_peak()
        began = time.perf_counter()
        error = _error_of(case)
        seconds = time.perf_counter() - began
        if error is not None:
            kept = _copied(case.files, folder / f"failed-{number}")
            self.report({"event": "failed", **_described(error), "files": kept})
            if len(kept) == 1 and Path(kept[0]).is_file():
                shrink_file(case, error, Path(kept[0]))
        growth = max(0, (_peak() if has_peak else self._process.memory_info().rss) - before)
        self.report({"event": "end", "seconds": seconds, "growth": growth})


def place_of(error: BaseException) -> str:
    """Return where an error comes from: its type and the package's innermost line."""
    frames = traceback.extract_tb(error.__traceback__)
    within = [frame for frame in frames if frame.filename.startswith(_PACKAGE)]
    frame = (within or frames)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, {frame.name}"


def shrink_file(case: Case, error: BaseException, small: Path) -> None:
    """Make a copy of a case's file smaller, as long as the case fails at the same place."""
    path, place = case.files[0], place_of(error)

    def fails(data: bytes) -> bool:
        path.write_bytes(data)
        found = _error_of(case)
        return found is not None and place_of(found) == place

    small.write_bytes(shrunk(small.read_bytes(), fails, time.monotonic() + _SHRINKING))


def shrunk(data: bytes, fails: Callable[[bytes], bool], until: float) -> bytes:
    """Remove blocks of halving length from bytes until a time, as long as they still fail."""
    length = len(data) // 2
    while length:
        start = 0
        while start < len(data):
            if time.monotonic() > until:
                return data
            shorter = data[:start] + data[start + length :]
            if fails(shorter):
                data = shorter
            else:
                start += length
        length //= 2
    return data


def _error_of(case: Case) -> BaseException | None:
    try:
        case.run()
    except BaseException as error:  # SystemExit, too, is no way to end an attack
        return error
    return None


def _described(error: BaseException) -> dict[str, Any]:
    return {
        "place": place_of(error),
        "detail": "".join(traceback.format_exception(error))[-8000:],
    }


def _copied(files: tuple[Path, ...], folder: Path) -> list[str]:
    kept = []
    for path in files:
        folder.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, folder / path.name, symlinks=True)
        elif path.exists():
            shutil.copy(path, folder / path.name)
        else:
            continue
        kept.append(str(folder / path.name))
    return kept


def _forget_peak() -> bool:
    """Let the record of this process's peak memory begin anew; False where there is none.

    Without this, the peak of an earlier case, or of making the material, would be blamed on a case.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # not Linux, or a container that forbids it
        return False
    return True


def _peak() -> int:
    """Return the peak memory in bytes since `_forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", help="module:function")
    parser.add_argument("seed", type=int, help="the first; then those after it")
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--only", type=int, help="run only this case of the seed")
    arguments = parser.parse_args()
    # The package may print: its output must not be mistaken for events.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    faulthandler.enable()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)
    warnings.simplefilter("ignore")

    def report(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    module, _, function = arguments.cases.partition(":")
    worker = Worker(getattr(importlib.import_module(module), function), arguments.scratch, report)
    seed = arguments.seed
    while True:
        worker.run_seed(seed, arguments.seconds, arguments.only)
        seed += 1
        if arguments.only is not None or worker.is_late(arguments.seconds):
            break
    events.close()


if __name__ == "__main__":
    main()
