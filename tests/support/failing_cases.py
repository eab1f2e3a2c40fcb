"""Targets of the campaign that fail in each way that its runner must notice."""

import os
import signal
from threading import Event

import numpy as np

from tests.campaign.case import Case


def sound(seed, folder):
    for number in range(5):
        yield Case(f"sound {seed}.{number}", lambda: print("this is no event"))


def raising(seed, folder):
    """The second case fails for any file with the letter x."""
    path = folder / "input.txt"

    def read():
        if b"x" in path.read_bytes():
            raise ZeroDivisionError("an x")

    for text in (b"abc", b"a" * 500 + b"x" + b"b" * 500, b"abc"):
        path.write_bytes(text)
        yield Case(f"{len(text)} letters", read, (path,))


def crashing(seed, folder):
    path = folder / "input.txt"
    path.write_text("deadly", encoding="utf-8")
    yield Case("sound", lambda: None)
    yield Case("crash", lambda: os.kill(os.getpid(), signal.SIGSEGV), (path,))


def hanging(seed, folder):
    yield Case("wait", lambda: Event().wait())


def growing(seed, folder):
    yield Case("large", lambda: np.ones(2**28, dtype=np.uint8).max())


def leaking(seed, folder):
    kept = []
    for number in range(20):
        yield Case(f"case {number}", lambda: kept.append(np.ones(2**24, dtype=np.uint8)))


def broken(seed, folder):
    yield Case("sound", lambda: None)
    raise KeyError("the generator itself is wrong")
