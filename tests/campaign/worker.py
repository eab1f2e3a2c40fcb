"""The process in which cases run, started by the runner: it may crash, hang or run out of memory.

It writes one line of JSON to its standard output before and after each case; whatever the package
itself prints goes to standard error, with the stack of a crash or hang.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hypervlad
from tests.campaign.case import Case, Generate

_PACKAGE = str(Path(hypervlad.__file__).parent)


def keep(files: Iterable[Path], folder: Path) -> None:
    """Copy the files of a case that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, symlinks=True, dirs_exist_ok=True)
        elif path.exists():
            shutil.copy(path, folder / path.name)


def folder_of(out: Path, seed: int, number: int) -> Path:
    """Return where the files of a case that failed are kept."""
    return Path(f"{out}-{seed}-{number}")


def place_of(error: BaseException) -> str:
    """Return where an error comes from: its type and the package's innermost line."""
    frames = traceback.extract_tb(error.__traceback__)
    within = [frame for frame in frames if frame.filename.startswith(_PACKAGE)]
    frame = (within or frames)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, {frame.name}"


def described(error: BaseException) -> dict[str, str]:
    detail = "".join(traceback.format_exception(error))[-8000:]
    return {"place": place_of(error), "detail": detail}


def limit_memory(megabytes: int) -> None:
    """Let this process grow by so much at most; no system but Linux can."""
    if sys.platform.startswith("linux"):
        import resource

        status = Path("/proc/self/status").read_text(encoding="ascii")
        now = int(status.split("VmData:")[1].split()[0]) * 1024
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (now + megabytes * 2**20, hard))


class Worker:
    """Runs the cases of one target, one seed after the other, and reports each.

    It ends, after at least one case, when so many seconds have passed since the very first one:
    imports and the making of material do not count.
    """

    def __init__(self, options: argparse.Namespace, report: Callable[[dict[str, Any]], None]):
        self.options, self.report = options, report
        self.first: float | None = None

    def is_late(self) -> bool:
        return self.first is None or time.monotonic() > self.first + self.options.seconds

    def run_seed(self, generate: Generate, seed: int) -> None:
        """Run the cases of a seed, or only the one that was asked for."""
        folder, only = self.options.scratch / str(seed), self.options.only
        folder.mkdir(parents=True)
        try:
            for number, case in enumerate(generate(seed, folder)):
                if self.first is None:
                    self.first = time.monotonic()
                    limit_memory(self.options.megabytes)
                if only in (None, number):
                    self.run_case(case, seed, number)
                if number == only or (only is None and self.is_late()):
                    break
        except Exception as error:  # of the generator: the campaign itself is wrong
            facts = {"seed": seed, "number": -1, "name": "making a case"}
            self.report({**facts, "files": []})
            self.report({**facts, "seconds": 0.0, "failed": described(error)})
        shutil.rmtree(folder, ignore_errors=True)

    def run_case(self, case: Case, seed: int, number: int) -> None:
        facts = {"seed": seed, "number": number, "name": case.name}
        self.report({**facts, "files": list(map(str, case.files))})
        faulthandler.dump_traceback_later(self.options.bound, exit=True)
        began, failed = time.monotonic(), None
        try:
            case.run()
        except BaseException as error:  # SystemExit, too, is no way to end an attack
            failed = described(error)
        seconds = time.monotonic() - began
        faulthandler.cancel_dump_traceback_later()
        if failed is not None:
            keep(case.files, folder_of(self.options.out, seed, number))
        self.report({**facts, "seconds": seconds, "failed": failed})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", help="module:function")
    parser.add_argument("seed", type=int, help="the first; then those after it")
    parser.add_argument("scratch", type=Path)
    parser.add_argument("out", type=Path, help="the begin of the folders of failures")
    parser.add_argument("--seconds", type=float, required=True, help="of all cases together")
    parser.add_argument("--bound", type=float, required=True, help="seconds of one case")
    parser.add_argument("--megabytes", type=int, required=True)
    parser.add_argument("--only", type=int, help="run only this case of the seed")
    options = parser.parse_args()
    # The package may print: its output must not be mistaken for events.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    faulthandler.enable()
    warnings.simplefilter("ignore")

    def report(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    module, _, function = options.cases.partition(":")
    generate = getattr(importlib.import_module(module), function)
    worker, seed = Worker(options, report), options.seed
    worker.run_seed(generate, seed)
    while options.only is None and not worker.is_late():
        seed += 1
        worker.run_seed(generate, seed)
    events.close()


if __name__ == "__main__":
    main()
