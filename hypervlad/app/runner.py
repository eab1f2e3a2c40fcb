"""``Runner``: what a person has started, one task at a time, in processes beside the page."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hypervlad.app.database import Database, QueueError, StaleError
from hypervlad.common import limits
from hypervlad.common.files import parse_json
from hypervlad.common.progress import BESIDES, READ_BY_PROGRAM
from hypervlad.common.wording import counted

_N_LINES = 12  # of a command, which the page shows if it fails
# Imports modules that take long, and then waits for the command, which ends when the app is killed.
_COMMAND = """
import contextlib, importlib, json, os, signal, sys, threading
def end_with_app():
    os.read(0, 1) or signal.raise_signal(signal.SIGTERM)
for name in sys.argv[1:]:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
from hypervlad.cli import main
if line := sys.stdin.readline():
    sys.argv[1:] = json.loads(line)
    threading.Thread(target=end_with_app, daemon=True).start()
    main()
"""
_SLOW = (
    *("hypervlad.fibres.diameter_tables", "hypervlad.fibres.diameter_page"),
    *("hypervlad.fibres.alignment_page", "hypervlad.fibres.orientation_display"),
    *("hypervlad.defects.page", "hypervlad.classify.page", "hypervlad.features.encoder"),
    *("hypervlad.pages.facts", "tifffile", "openvino", "matplotlib.backends.backend_agg"),
)
_BAR = re.compile(  # as tqdm prints it: what, done, total, unit
    r"(?:(\w[^:%]*): +)?\d+%\|.*?(\d+)/(\d+) \[[\d:]+<[\d:?]+(?:, +[\d.?]+(?:s/)?(\w+))?"
)
_MAX_END = 10.0  # seconds that a process has to end once it is told to
_PAST = 3  # from this part of a bar's steps on, its pace is of now: what is resumed counts at once
# Of what commands print, the page shows at the end what begins so, with lines indented below.
_SHOWN = re.compile(
    r"(warning:|note:|held out:|trained on|accuracy|balanced accuracy|threshold:"
    r"|[\d,]+ of [\d,]+ images? (is a|are) training image)"
)


class _StoppedError(Exception):
    """A person has stopped a task."""


class Runner:
    """A task of a person: commands of hypervlad, one after the other, with what they say.

    Parameters
    ----------
    database : Database
        Knows, also after a kill, which task has not ended.
    lock : lock
        Held while a task begins.
    in_words : callable
        From a message of a command to that of the page.
    sizes : callable
        Returns the pixels of all images in the order of commands, by which the time that is left is
        estimated; empty if they are not known.

    Attributes
    ----------
    task : dict
        Its ``"kind"``, ``"choices"``, ``"state"`` ("running", "done", "stopped" or "failed"),
        ``"step"``, ``"lines"`` that were said, and how far it is, ``"done"`` of ``"total"``, which
        ``"about"`` says; empty if there is none.
    """

    def __init__(
        self,
        database: Database,
        lock: threading.RLock,
        in_words: Callable[[object], str],
        sizes: Callable[[], Sequence[int]] = list,
    ) -> None:
        self._database, self._lock, self._in_words = database, lock, in_words
        self._sizes, self._past = sizes, list[tuple[float, int]]()
        self._guard = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._waiting: subprocess.Popen[str] | None = None
        self._is_used = threading.Event()  # since the watch of the process that waits last looked
        self._watch: threading.Thread | None = None
        self._thread: threading.Thread | None = None
        self._is_stopped = self._is_closed = False
        self.task: dict[str, Any] = {}
        if known := parse_json(database.fact("task") or "null"):
            self.task = known | {"state": "stopped", "lines": [], "step": "Stopped"}

    def start(
        self, kind: str, choices: dict[str, Any], steps: Callable[..., Iterator[str]]
    ) -> None:
        """Start a task, whose steps yield words for the page, with the choices of a person."""
        with self._lock:
            self.check_idle()
            self._database.set_facts(task=json.dumps({"kind": kind, "choices": choices}))
            self._is_stopped = False
            self.task = {"kind": kind, "choices": choices, "state": "running", "lines": []}
            self.task |= {"step": "Starting", "done": 0, "total": 0, "about": ""}
        self._thread = threading.Thread(target=self._do, args=[steps, choices], daemon=True)
        self._thread.start()

    def check_idle(self) -> None:
        """Raise a StaleError if a task is running; while the lock is held, none begins."""
        if self.task.get("state") == "running":
            raise StaleError(f"{self.task['step']}: wait until it ends, or stop it")

    def close(self) -> None:
        """Stop the task, and wait for its end."""
        for _ in range(2):  # the second time, what does not end by itself
            self.stop()
            if self._thread is not None:
                self._thread.join(_MAX_END)
        self._is_closed = True
        self._is_used.set()  # so that the watch ends
        self._end_waiting()

    def make_ready(self) -> None:
        """Let a process wait for the next command, for a while, so that a preview is there soon."""
        with self._guard:
            if not self._is_closed:
                self._waiting = self._take_waiting() or _new_process(*_SLOW)
                self._is_used.set()
                if self._watch is None:
                    self._watch = threading.Thread(target=self._end_unused, daemon=True)
                    self._watch.start()

    def _end_unused(self) -> None:
        """End the process that waits once no page has wanted it for long enough."""
        while self._is_used.wait(limits.MAX_IDLE_SECONDS) and not self._is_closed:
            self._is_used.clear()
        self._end_waiting()

    def _end_waiting(self) -> None:
        with self._guard:
            self._watch = None
            if waiting := self._take_waiting():
                with waiting:  # which closes its pipes
                    waiting.terminate()

    def _take_waiting(self) -> subprocess.Popen[str] | None:
        """Take the process that waits, if it has not ended; the guard is held."""
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.poll() is None:
            return waiting
        with waiting:  # which closes its pipes
            return None

    def stop(self) -> None:
        """Stop the task, if there is one; what it has written stays, and is used later.

        A process that has been told so before is killed.
        """
        with self._guard:
            if self._process is not None:
                (self._process.kill if self._is_stopped else self._process.terminate)()
            self._is_stopped = True

    def forget(self) -> None:
        """Show no more what the last task, which has ended, had to say."""
        with self._lock:
            if self.task.get("state") != "running":
                self._database.set_facts(task="null")
                self.task = {}

    def report(self, *words: object) -> None:
        """Show what a task, or one of its commands, had to say, once."""
        lines = [part for each in words for part in self._in_words(each).split(BESIDES)]
        self.task["lines"] = [*dict.fromkeys([*self.task["lines"], *lines])]

    def run(self, *arguments: str | Path) -> None:
        """Run a command, as a step of the task; a QueueError with its last lines if it fails."""
        with self._guard:
            if self._is_stopped:
                raise _StoppedError
            process = self._process = self._take_waiting() or _new_process()
        assert process.stdin is not None
        try:
            process.stdin.write(f"{json.dumps([*map(str, arguments)])}\n")
            process.stdin.flush()
        except OSError:  # what it said before it ended, such as by `stop`, is read below
            with contextlib.suppress(OSError):  # what is left to write
                process.stdin.close()
        last, is_shown = deque[str](maxlen=_N_LINES), False
        with process:
            assert process.stdout is not None
            for line in process.stdout:  # in text, a bar's carriage returns end lines, too
                if bar := _BAR.search(line):
                    self.task |= self._progress(*bar.groups())
                elif words := self._in_words(line.strip()):
                    last.append(words)
                    is_shown = bool(_SHOWN.match(words)) or (is_shown and line.startswith(" "))
                    if is_shown:
                        self.report(words)
        with self._guard:
            self._process = None
            if self._is_stopped:
                raise _StoppedError
        if process.returncode:
            if errors := [each for each in last if each.lower().startswith("error: ")]:
                raise QueueError(errors[-1][len("error: ") :])
            self.report(*last)
            name = " ".join(each for each in arguments[:2] if isinstance(each, str))
            raise QueueError(f"hypervlad {name} ended with code {process.returncode}")

    def _progress(
        self, what: str | None, done: str, total: str, unit: str | None
    ) -> dict[str, Any]:
        """Return what a bar shows, also in words."""
        n, of = int(done), int(total)
        unit = "pass" if unit == "epoch" else unit or "step"  # as the page calls it
        about = f"{n:,} of {counted(of, unit)}"
        about = f"{what}: {about}" if what else about
        if of != self.task["total"] or n < self.task["done"]:  # another bar
            self._past = []
        sizes = self._sizes() if unit == "image" else []
        sizes = sizes if len(sizes) == of else [1] * of  # others than all images
        if not self._past or sum(sizes[:n]) > self._past[-1][1]:
            self._past.append((time.monotonic(), sum(sizes[:n])))
        past = itertools.pairwise(self._past[(len(self._past) - 1) // _PAST :])
        steps = sorted((now - since, after - before) for (since, before), (now, after) in past)
        if n < of and len(self._past) > _PAST:
            # The slowest says little of the others: an image may have a thousand particles.
            seconds, pixels = (sum(each) for each in zip(*steps[:-1], strict=True))
            minutes = math.ceil(seconds / pixels * sum(sizes[n:]) / 60)
            is_long = minutes > 2 * 60
            about += f", about {f'{minutes / 60:.0f} h' if is_long else f'{minutes} min'} left"
        return {"done": n, "total": of, "about": about}

    def _do(self, steps: Callable[..., Iterator[str]], choices: dict[str, Any]) -> None:
        """Do the steps of a task, each of which has words for the page."""
        ended = "done"
        try:
            for step in steps(**choices):
                self.task |= {"step": step, "done": 0, "total": 0, "about": ""}
            self._database.set_facts(task="null")
        except _StoppedError:
            ended = "stopped"
        except Exception as error:  # else the page would wait for ever: it shows why
            ended = "failed"
            self.report(error)
        finally:
            self.task["state"] = ended


def _new_process(*modules: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", _COMMAND, *modules],
        stdin=subprocess.PIPE,  # it ends when this process does
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {READ_BY_PROGRAM: "1", "PYTHONIOENCODING": "utf-8:replace"},
    )
