"""Files: written completely or not at all, by one process at a time; JSON that others have written.

Nothing is written through a symbolic link.
"""

# All that is written goes through `replace_when_complete`. In a folder that others can write to, a
# file may be replaced by a link to one of ours, so links are refused. Folders on the way to a file
# may be links. Hard links are refused only for locks and databases, which are written in place.

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hypervlad.common.limits import MAX_JSON_DIGITS, MAX_JSON_NESTING, MAX_JSON_VALUES, MAX_QUOTED

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCKED_BYTE = 1 << 30
_JUNCTION = 0xA0000003  # stat.IO_REPARSE_TAG_MOUNT_POINT, which Python has on Windows only


class LinkError(FileExistsError):
    """What is to be written is a link; the message names it, and what a symbolic one points to."""


def refuse_link(path: str | os.PathLike[str]) -> None:
    """Raise a LinkError if a path is a symbolic link or a junction of Windows."""
    status = _status(path)
    if status is not None and (
        stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == _JUNCTION
    ):
        raise LinkError(
            f"{os.fspath(path)} is a link to {os.path.realpath(path)}, and links are not followed "
            "here; give the name of the file itself, or remove the link."
        )


def refuse_links(path: str | os.PathLike[str]) -> None:
    """Raise a LinkError if a file that is written in place is a link, or has a hard link."""
    refuse_link(path)
    status = _status(path)
    if status is not None and stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise LinkError(_second_name(path))


def _status(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (OSError, ValueError):
        return None


def _second_name(path: str | os.PathLike[str]) -> str:
    return (
        f"{os.fspath(path)} has another name on this disk (a hard link), and what is written here "
        "would appear there too; put a copy in its place, or remove it."
    )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise an OSError if a file cannot have this name: it is a link, a folder or a device."""
    refuse_link(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{os.fspath(path)} is a folder; give the name of a file.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileExistsError(f"{os.fspath(path)} is not an ordinary file; give another name.")


@contextlib.contextmanager
def naming(path: str | os.PathLike[str], draft: Path | None = None) -> Iterator[None]:
    """Let an OSError that names no file, as that of a full disk, or a draft, name this one."""
    try:
        yield
    except OSError as error:
        # One without a number says all in its message.
        if error.errno is not None and error.filename in (None, str(draft)):
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def new_folder(folder: Path, mode: int = 0o777) -> Iterator[None]:
    """Create a folder if there is none; if the block fails, do not leave a new one behind empty.

    By default, everybody may use it, as far as the user's umask allows.
    """
    created = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode, parents=True, exist_ok=True)
    try:
        with naming(folder):
            yield
    except BaseException:
        inside = [Path(parent) for parent, _, _ in os.walk(folder, topdown=False)]
        for each in [*inside, *created[1:]] if created else []:
            with contextlib.suppress(OSError):  # something is in it
                each.rmdir()
        raise


@contextlib.contextmanager
def replace_when_complete(
    path: str | os.PathLike[str],
    *,
    flush: bool = True,
    draft_folder: str | os.PathLike[str] | None = None,
) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    The bytes go to a temporary file in `draft_folder` (by default beside `path`), which is moved
    over `path` at the end, and removed if anything fails. The folder of `path` is created if there
    is none. With ``flush=False``, a power cut may leave a damaged file. An OSError names the file.
    """
    check_writable(path)
    target = Path(os.path.abspath(path))
    folder = target.parent if draft_folder is None else Path(draft_folder)
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    with new_folder(target.parent):
        try:
            with naming(path, temporary):
                # Not tempfile: its files are private, and a model on a shared disk should not be.
                with open(temporary, "xb", opener=_open_without_links) as stream:
                    yield stream
                    stream.flush()
                    if flush:
                        os.fsync(stream.fileno())
                move_into_place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def append_line(path: str | os.PathLike[str], line: bytes) -> None:
    """Append a line to a file, written in place; it is on the disk at the end."""
    refuse_links(path)
    with naming(path), open(path, "ab", opener=_open_without_links) as stream:
        stream.write(line + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def move_into_place(draft: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Move a complete file over another one on the same disk, if that is no link."""
    check_writable(path)
    os.replace(draft, path)


def move_to_new_name(draft: Path, path: Path) -> None:
    """Move a complete file to a new name on the same disk; a FileExistsError if that is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        try:
            os.replace(draft, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    else:
        os.unlink(draft)


def file_digest(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open_without_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


# --- one process at a time ------------------------------------------------------------------------


class LockedError(RuntimeError):
    """Another process writes the same output; the message names it and its machine."""


@contextlib.contextmanager
def exclusive_lock(path: str | os.PathLike[str], output: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a lock file, which names this process, until the context ends.

    A LockedError names `output` if another process or thread holds the lock. The lock is the
    operating system's: a file that a killed process left behind locks nothing. Where the file
    system has no locks, nothing is locked.
    """
    refuse_links(path)
    lock_file = _locked(Path(path), output)
    try:
        os.truncate(lock_file, 0)
        os.write(lock_file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        if sys.platform == "win32":  # an open file cannot be removed
            os.close(lock_file)
        with contextlib.suppress(OSError):
            os.unlink(path)
        if sys.platform != "win32":
            os.close(lock_file)


def _locked(path: Path, output: str | os.PathLike[str]) -> int:
    """Return the descriptor of a lock file, locked."""
    while True:
        lock_file = _open_lock_file(path)
        try:
            if not _lock(lock_file):
                owner = os.read(lock_file, 200).decode("utf-8", "replace").strip()
                raise LockedError(
                    f"{os.fspath(output)}: another run writes it now ({owner or 'just started'}); "
                    "wait until that ends, or stop it."
                )
            status = os.fstat(lock_file)
            if path.exists() and os.path.samestat(status, path.stat()):
                if not stat.S_ISREG(status.st_mode):
                    raise FileExistsError(f"{path} is not an ordinary file; remove it.")
                if status.st_nlink > 1:
                    raise LinkError(_second_name(path))
                return lock_file
        except BaseException:
            os.close(lock_file)
            raise
        os.close(lock_file)  # its owner has removed it just now


def _open_lock_file(path: Path) -> int:
    try:
        return _open_without_links(str(path), os.O_RDWR | os.O_CREAT)
    except PermissionError as error:
        if not path.exists():
            raise
        raise PermissionError(
            error.errno,
            f"another user (number {path.stat().st_uid}) writes the same output, or has left "
            "this file; wait until their run ends, or ask them to remove it",
            str(path),
        ) from error


def _lock(lock_file: int) -> bool:
    try:
        if sys.platform == "win32":  # a byte beyond the text, which stays readable
            os.lseek(lock_file, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(lock_file, msvcrt.LK_NBLCK, 1)
            os.lseek(lock_file, 0, os.SEEK_SET)
        else:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # the file system has no locks
        pass
    return True


# --- JSON, also that others have written ----------------------------------------------------------


def json_text(value: Any, indent: int | None = None) -> bytes:
    """Return a value as JSON for `parse_json`; a ValueError for what neither of them knows.

    A caller's numbers and arrays may be NumPy's.
    """

    def plain(own: Any) -> Any:
        if not hasattr(own, "tolist"):
            raise ValueError(f"{own!r}: JSON can store text, numbers and lists, not this")
        return own.tolist()

    return json.dumps(value, indent=indent, allow_nan=False, default=plain).encode()


def parse_json(
    text: str | bytes, max_values: int = MAX_JSON_VALUES, *, none_if_not_finite: bool = False
) -> Any:
    """Parse JSON, a string or UTF-8, from an untrusted source; a ValueError if it could do harm.

    All numbers of the result are finite and fit 64 bits, no key occurs twice, there are at most
    `max_values` values (by default a million), nested at most 32 deep, and all texts can be written
    as UTF-8 with the error handler "surrogateescape". NaN and infinite numbers, which many programs
    write, are errors or become None.
    """
    if isinstance(text, bytes):
        text = text.decode()
    if not isinstance(text, str):  # a column of a database may hold anything
        raise ValueError(f"{text!r} is no text")
    if count_values(text) > max_values:
        raise ValueError(f"more than {max_values} values; split it")

    def number(text: str) -> float | None:
        if math.isfinite(value := float(text)):
            return value
        if none_if_not_finite:
            return None
        raise ValueError(f"the number {text[:MAX_JSON_DIGITS]} is not finite")

    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=number,
            parse_float=number,
            parse_int=_bounded_integer,
        )
    except RecursionError:
        raise ValueError("lists and objects are nested too deeply") from None
    level = [value]
    for _ in range(MAX_JSON_NESTING + 1):
        _check_texts(level)
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in ((*each, *each.values()) if isinstance(each, dict) else each)
        ]
        if not level:
            return value
    raise ValueError(f"lists and objects are nested more than {MAX_JSON_NESTING} deep")


def count_values(text: str) -> int:
    """Return how many values JSON has at most: one of these stands before each but the first."""
    return sum(map(text.count, ",:[{"))


def _check_texts(values: list[Any]) -> None:
    try:
        "".join(each for each in values if isinstance(each, str)).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        found = error.object[error.start : error.start + 1]
        raise ValueError(f"a text contains {found!r}, which is no character") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict[str, Any]()
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:MAX_QUOTED]!r} occurs twice")
        found[key] = value
    return found


def _bounded_integer(text: str) -> int:
    if len(text) > MAX_JSON_DIGITS:
        raise ValueError(f"the whole number {text[:MAX_JSON_DIGITS]}... has more than 64 bits")
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"the whole number {text} has more than 64 bits")
    return value
