"""The process in which cases run, started by the runner: it may crash, hang or run out of memory.

It writes one line of JSON to a file before and after each case. What the package itself prints goes
elsewhere, with the stack of a crash or hang.
"""

import argparse
import faulthandler
import importlib
import json
import shutil
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import hypervlad
from tests.campaign.case import Case

_PACKAGE = str(Path(hypervlad.__file__).parent)
_MAX_KEPT = 3  # failures at the same place


def read_events(scratch: Path) -> list[dict[str, Any]]:
    """Return the cases that were run; the last has no ``seconds`` if it did not end."""
    file, found = scratch / "events", {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        event = json.loads(line)
        found[event["seed"], event["number"]] = event
    return list(found.values())


def keep(event: dict[str, Any], out: Path) -> None:
    """Copy the files of a case that failed, with what repeats it."""
    which = f"{event['seed']}:{event['number']}"
    folder = Path(f"{out}-{which.replace(':', '-')}")
    folder.mkdir(parents=True, exist_ok=True)
    for path in map(Path, event["files"]):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, symlinks=True, dirs_exist_ok=True)
        elif path.exists():
            shutil.copy(path, folder / path.name)
    facts = event | {"command": f"python -m tests.campaign --repeat {out.name}:{which}"}
    (folder / "failure.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def described(error: BaseException) -> dict[str, str]:
    """Return an error, and where it comes from: its type and the package's innermost line."""
    frames = traceback.extract_tb(error.__traceback__)
    within = [frame for frame in frames if frame.filename.startswith(_PACKAGE)]
    frame = (within or frames)[-1]
    place = f"{type(error).__name__} in {Path(frame.filename).name}, {frame.name}"
    return {"place": place, "detail": "".join(traceback.format_exception(error))[-8000:]}


def limit_memory(megabytes: int) -> None:
    """Let this process grow by so much at most; no system but Linux can."""
    if sys.platform.startswith("linux"):
        import resource

        status = Path("/proc/self/status").read_text(encoding="ascii")
        now = int(status.split("VmData:")[1].split()[0]) * 1024
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (now + megabytes * 2**20, hard))


class Worker:
    """Runs the cases of one target, one seed after the other.

    It ends, after at least one case, when so many seconds have passed since the very first one:
    imports and the making of material do not count.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.n_at = options, Counter[str]()
        self.first: float | None = None
        module, _, function = options.cases.partition(":")
        self.generate = getattr(importlib.import_module(module), function)
        self.events = (options.scratch / "events").open("w", encoding="utf-8", buffering=1)

    def is_late(self) -> bool:
        return self.first is None or time.monotonic() > self.first + self.options.seconds

    def report(self, event: dict[str, Any]) -> None:
        self.events.write(json.dumps(event) + "\n")
        if "place" in event:
            self.n_at[event["place"]] += 1
            if self.n_at[event["place"]] <= _MAX_KEPT:
                keep(event, self.options.out)

    def run_seed(self, seed: int) -> None:
        """Run the cases of a seed, or only the one that was asked for."""
        folder, only = self.options.scratch / str(seed), self.options.only
        folder.mkdir()
        try:
            for number, case in enumerate(self.generate(seed, folder)):
                if self.first is None:
                    self.first = time.monotonic()
                    limit_memory(self.options.megabytes)
                if only in (None, number):
                    self.run_case(case, seed, number)
                if number == only or (only is None and self.is_late()):
                    break
        except Exception as error:  # of the generator: the campaign itself is wrong
            facts = {"seed": seed, "number": -1, "name": "making a case", "files": []}
            self.report({**facts, "seconds": 0.0, **described(error)})
        shutil.rmtree(folder, ignore_errors=True)

    def run_case(self, case: Case, seed: int, number: int) -> None:
        files = list(map(str, case.files))
        facts = {"seed": seed, "number": number, "name": case.name, "files": files}
        self.report(facts)
        faulthandler.dump_traceback_later(self.options.bound, exit=True)
        began, failed = time.monotonic(), {}
        try:
            case.run()
        except BaseException as error:  # SystemExit, too, is no way to end an attack
            failed = described(error)
        seconds = time.monotonic() - began
        faulthandler.cancel_dump_traceback_later()
        self.report({**facts, "seconds": seconds, **failed})


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
    faulthandler.enable()
    warnings.simplefilter("ignore")
    worker, seed = Worker(options), options.seed
    worker.run_seed(seed)
    while options.only is None and not worker.is_late():
        seed += 1
        worker.run_seed(seed)


if __name__ == "__main__":
    main()
