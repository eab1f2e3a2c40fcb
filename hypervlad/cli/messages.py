"""Errors in one sentence, warnings in one line, progress on stderr."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shlex
import signal
import sqlite3
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import typer

from hypervlad.cli.options import common, use_own
from hypervlad.common.progress import by_reader, is_terminal, print_line
from hypervlad.common.wording import counted, printable

# In the advice of errors, as Python has it.
_PARAMETER = re.compile(
    r"(?<![(\w])(weights|image_size|tile_size|pixel_size)=(?:\"([^\"]+)\"|([\w.-]+))"
)

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
# Of torch, on CPU and GPU.
_OUT_OF_MEMORY = re.compile("can't allocate memory|not enough memory:|out of memory", re.IGNORECASE)
_LESS_MEMORY = {
    "jobs": "--jobs 1",
    "tile_size": "a smaller --tile-size",
    "backbone": "a smaller image_size or tile_size (--set)",
}


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn every exception of a command into one sentence and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        try:
            use_own(options)
            with _plain_warnings(), _terminable():
                command(*args, **options)
        except (typer.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt as error:
            echo(
                "\nstopped; no incomplete file is left (extract, diameters and particles find "
                "continue with --resume)",
                err=True,
            )
            raise typer.Exit(143 if isinstance(error, _Terminated) else 130) from None
        except Exception as error:
            if common().debug:
                raise
            echo(f"error: {sentence_of(error, options)}", err=True)
            raise typer.Exit(2) from None

    return wrapped


def sentence_of(error: Exception, known: Collection[str] = ()) -> str:
    """Return what a user should read of an error, in one line.

    `known` parameters of the command become options in the sentence, and it advises no others.
    """

    def as_option(found: re.Match[str]) -> str:
        name, value = found[1], found[2] or found[3]
        if name == "pixel_size":  # the encoder's: that of images has no value in any advice
            return f"--resample-to {value}" if "resample_to" in known else found[0]
        if name in known:
            return f"--{name.replace('_', '-')} {value}"
        return f"--set {name}={value}" if "backbone" in known else found[0]

    text = _PARAMETER.sub(as_option, " ".join(str(error).split()))
    if isinstance(error, OSError) and error.strerror and (error.filename or error.errno in _FULL):
        is_full = error.errno in _FULL and error.strerror == os.strerror(error.errno or 0)
        remedy = "; make room on this disk, or give another folder" if is_full else ""
        return f"{error.filename or 'the results'}: {error.strerror}{remedy}"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        tried = [by_reader(advice, "") for name, advice in _LESS_MEMORY.items() if name in known]
        tried.append("copies of the largest images at a reduced size")
        advice = f"close other programs, or try {' or '.join(filter(None, tried))}"
        return f"not enough memory ({text or 'no details'}); {advice}"
    if isinstance(error, sqlite3.OperationalError):
        asked = "is the disk full, or another program using it?"
        return f"the folder's database is not available ({text}); {asked}"
    if isinstance(error, ValueError | OSError | ImportError | RuntimeError) and text:
        return text
    return (
        f"unexpected {type(error).__name__}: {text}; this is a bug in hypervlad, please report it "
        "with the output of 'hypervlad --debug ...'"
    )


def report_left_out(reasons: list[str], n_images: int) -> None:
    """Name the images that were left out: in a warning if that is accepted and others remain."""
    from hypervlad.images import ImageReadError
    from hypervlad.images.errors import reasons_in_line

    if not reasons:
        return
    message = f"{len(reasons)} of {counted(n_images, 'image')} left out: {reasons_in_line(reasons)}"
    if not common().skips or len(reasons) == n_images:
        raise ImageReadError(message)
    warn(message)


class _Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, with its workers and without incomplete files."""

    def stop(*_: Any) -> None:
        raise _Terminated

    before = signal.getsignal(signal.SIGTERM)
    # Only the main thread may set handlers.
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or before in (None, signal.SIG_IGN):
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show each warning, and each skipped image, once, without a source line."""
    # Python's own record is cleared when a library changes the warning filters.
    shown: set[Any] = set()

    def show(message: Warning | str, *_place: Any, **_more: Any) -> None:
        skipped = getattr(message, "skipped", ())
        parts: set[Any] = {(each.name, each.reason) for each in skipped} or {str(message)}
        if parts <= shown:
            return
        shown.update(parts)
        print_line(printable(f"warning: {message}"))

    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def hint_at_bad_files() -> Iterator[None]:
    """Say how to find or skip all unreadable files, where one of them stops a command."""
    from hypervlad.images import ImageReadError

    try:
        yield
    except ImageReadError as error:
        raise ImageReadError(
            f"{error} ('hypervlad check' lists unreadable files; --on-error skip leaves them out)"
        ) from error


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Do the same for a fit, without a warning in words of Python: commands print their own."""
    from hypervlad.classify.fitting import NeverPredictedWarning

    with hint_at_bad_files(), warnings.catch_warnings():
        warnings.simplefilter("ignore", NeverPredictedWarning)
        yield


def echo(text: str | bytes, *, err: bool = False, nl: bool = True) -> None:
    """Print text with control characters as escapes; bytes only change in a terminal."""
    if isinstance(text, bytes):
        if not is_terminal(sys.stdout):
            typer.echo(text, err=err, nl=nl)
            return
        text = text.decode("utf-8", "backslashreplace")
    typer.echo(printable(text), err=err, nl=nl)


def quoted(path: object) -> str:
    """Return a path as it is typed into a command."""
    return f'"{path}"' if os.name == "nt" else shlex.quote(str(path))


def warn(text: str) -> None:
    echo(f"warning: {text}", err=True)


def say(text: str) -> None:
    """Print a progress message on stderr, unless ``--quiet``."""
    if not common().quiet:
        echo(text, err=True)
