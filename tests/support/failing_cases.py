"""Targets of the campaign that fail in each way that its runner must notice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np

from tests.campaign.case import Case


def sound(seed: int, folder: Path) -> Iterator[Case]:
    for number in range(5):
        yield Case(f"sound {seed}.{number}", lambda: print("this is no event"))


def raising(seed: int, folder: Path) -> Iterator[Case]:
    """The second case fails for any file with the letter x."""
    path = folder / "input.txt"

    def read() -> None:
        if b"x" in path.read_bytes():
            raise ZeroDivisionError("an x")

    for text in (b"abc", b"a" * 500 + b"x" + b"b" * 500, b"abc"):
        path.write_bytes(text)
        yield Case(f"{len(text)} letters", read, (path,))


def crashing(seed: int, folder: Path) -> Iterator[Case]:
    path = folder / "input.txt"
    path.write_text("deadly", encoding="utf-8")
    yield Case("sound", lambda: None)
    yield Case("crash", lambda: os.kill(os.getpid(), signal.SIGSEGV), (path,))


def hanging(seed: int, folder: Path) -> Iterator[Case]:
    yield Case("wait", lambda: Event().wait())


def growing(seed: int, folder: Path) -> Iterator[Case]:
    yield Case("large", lambda: np.ones(2**28, dtype=np.uint8).max())


def leaking(seed: int, folder: Path) -> Iterator[Case]:
    kept: list[np.ndarray] = []
    for number in range(20):
        yield Case(f"case {number}", lambda: kept.append(np.ones(2**24, dtype=np.uint8)))


def broken(seed: int, folder: Path) -> Iterator[Case]:
    yield Case("sound", lambda: None)
    raise KeyError("the generator itself is wrong")
