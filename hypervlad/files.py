"""Writing files: complete or not at all, never through a symbolic link, one process at a time.

Whatever hypervlad writes, a model, a table, a page, the parts of an extraction, goes through
`replace_when_complete`. Where other people can write to a folder, a file in it may be replaced by a
link to one of ours, which a program that follows links would overwrite. So links are refused, those
to an output that a user has named too: the message says what the link points to. Folders on the way
to a file may be links.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCKED_BYTE = 1 << 30


class LinkError(FileExistsError):
    """A file or folder that is to be written is a symbolic link; the message names both."""


def refuse_link(path: str | os.PathLike[str]) -> None:
    """Raise if a path is a symbolic link, whatever it points to.

    Raises
    ------
    LinkError
    """
    if os.path.islink(path):
        raise LinkError(
            f"{os.fspath(path)} is a link to {os.path.realpath(path)}, and links are not followed "
            "here; give the name of the file itself, or remove the link."
        )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise if a file cannot be put under this name: it is a link, a folder or a device.

    Raises
    ------
    OSError
    """
    refuse_link(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{os.fspath(path)} is a folder; give the name of a file.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileExistsError(f"{os.fspath(path)} is not an ordinary file; give another name.")


@contextlib.contextmanager
def replace_when_complete(
    path: str | os.PathLike[str],
    *,
    flush: bool = True,
    draft_folder: str | os.PathLike[str] | None = None,
) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    The bytes go to a temporary file, which is flushed to the disk and then moved over `path`. If
    that is interrupted, by Ctrl-C for example, the temporary file is removed and `path` stays as it
    was.

    Parameters
    ----------
    path : path-like
        Its folder must exist.
    flush : bool, default=True
        If False, a power cut may leave a damaged file: for many small ones that can be recreated.
    draft_folder : path-like, optional
        Where the temporary file is, on the same disk; by default beside `path`.

    Yields
    ------
    binary stream

    Raises
    ------
    LinkError
        If `path` is a symbolic link.
    OSError
        If it is a folder or a device, or cannot be written.
    """
    check_writable(path)
    target = Path(os.path.abspath(path))
    folder = target.parent if draft_folder is None else Path(draft_folder)
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        # Not tempfile: its files are private, and a model on a shared disk should not be.
        with open(temporary, "xb", opener=_open_without_links) as stream:
            yield stream
            stream.flush()
            if flush:
                os.fsync(stream.fileno())
        move_into_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def move_into_place(draft: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Move a complete file over another one on the same disk.

    Raises
    ------
    LinkError
        If `path` is a symbolic link.
    OSError
    """
    check_writable(path)
    os.replace(draft, path)


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits."""
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

    The lock belongs to the operating system, which releases it when the process ends in any way: a
    file that a killed process left behind locks nothing. Where the file system has no locks, as
    some network drives, nothing is locked.

    Parameters
    ----------
    path : path-like
        The lock file; removed at the end.
    output : path-like
        What it protects, for the message.

    Raises
    ------
    LockedError
        If another process, or another thread of this one, holds the lock.
    LinkError
        If `path` is a symbolic link.
    """
    refuse_link(path)
    lock_file = _locked(Path(path), output)
    try:
        os.truncate(lock_file, 0)
        os.write(lock_file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        _remove_and_release(path, lock_file)


def _remove_and_release(path: str | os.PathLike[str], lock_file: int) -> None:
    if sys.platform == "win32":  # an open file cannot be removed
        os.close(lock_file)
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    with contextlib.suppress(OSError):
        os.unlink(path)
    os.close(lock_file)


def _locked(path: Path, output: str | os.PathLike[str]) -> int:
    """Return the descriptor of a lock file, locked."""
    while True:
        lock_file = _open_without_links(str(path), os.O_RDWR | os.O_CREAT)
        try:
            if not _lock(lock_file):
                owner = os.read(lock_file, 200).decode("utf-8", "replace").strip()
                raise LockedError(
                    f"{os.fspath(output)}: another run writes it now ({owner or 'just started'}); "
                    "wait until that ends, or stop it."
                )
            if path.exists() and os.path.samestat(os.fstat(lock_file), path.stat()):
                return lock_file
        except BaseException:
            os.close(lock_file)
            raise
        os.close(lock_file)  # its owner ended and removed it before we had the lock


def _lock(lock_file: int) -> bool:
    """Lock an open file; return whether no other process holds it."""
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
        return True
    return True
