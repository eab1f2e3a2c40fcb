"""The file of a queue: its tables, and connections that lose nothing they have acknowledged."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from hypervlad.review.records import QueueError

VERSION = 1
APPLICATION = 0x48564C51  # "HVLQ", in the file's header
FILE = "queue.sqlite"
_PATIENCE = 20.0  # seconds to wait for another window's write

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE categories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    folded TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('model', 'person'))
);
CREATE TABLE training (
    row INTEGER PRIMARY KEY, name TEXT NOT NULL, label TEXT NOT NULL, path BLOB
);
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    name BLOB NOT NULL,
    place INTEGER,
    kind TEXT NOT NULL,
    scores TEXT NOT NULL,
    reason TEXT NOT NULL,
    novelty REAL NOT NULL,
    nearest TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'labelled', 'skipped')),
    category INTEGER REFERENCES categories,
    event INTEGER REFERENCES events,
    client TEXT,
    leased_until REAL,
    CHECK ((state = 'labelled') = (category IS NOT NULL))
);
CREATE INDEX items_in_order ON items (state, place);
CREATE INDEX items_in_hand ON items (client) WHERE client IS NOT NULL;
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    click TEXT NOT NULL UNIQUE,
    client TEXT NOT NULL,
    time REAL NOT NULL,
    what TEXT NOT NULL CHECK (what IN ('label', 'skip', 'undo', 'again')),
    item INTEGER REFERENCES items,
    category INTEGER REFERENCES categories,
    outcome TEXT NOT NULL CHECK (outcome IN ('kept', 'late', 'nothing')),
    told TEXT NOT NULL,
    undone_by INTEGER REFERENCES events
);
CREATE INDEX events_of_client ON events (client, number);
"""


def create(folder: Path) -> contextlib.AbstractContextManager[sqlite3.Connection]:
    """Make the file of a queue: it appears, with what is written in the block, whole or not at all.

    Raises
    ------
    QueueError
        If there is one, whose labels would be lost.
    """
    check_free(folder)
    return _created(folder)


def check_free(folder: Path) -> None:
    """Find out before hours of work that a queue would be in the way, or what is left of one.

    Raises
    ------
    QueueError
    """
    if folder.exists() and not folder.is_dir():
        raise QueueError(f"{folder}: a file; give a folder, which is made if need be")
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        if (folder / name).exists():
            raise QueueError(
                f"{folder}: holds a queue already, with its labels, or a part of one ({name}); "
                "give another folder, or remove this one if they are not needed"
            )


@contextlib.contextmanager
def _created(folder: Path) -> Iterator[sqlite3.Connection]:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb"):
            pass  # private: whoever reads the link in it can label
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            connection.executescript(_TABLES)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            with transaction(connection):
                yield connection
        finally:
            connection.close()
        check_free(folder)
        os.replace(temporary, folder / FILE)
    finally:
        temporary.unlink(missing_ok=True)


def connect(folder: Path) -> sqlite3.Connection:
    """Open a queue's file so that what is committed survives the process and a power cut.

    Write-ahead log, flushed to the disk at every commit: readers never wait for a writer, and
    several processes may use one queue (of one machine: not over a network share).

    Raises
    ------
    QueueError
        If there is no queue, or it is damaged or of another version.
    """
    path = folder / FILE
    if not path.is_file():
        raise QueueError(f"{folder}: no queue here; make one with 'hypervlad review start'")
    connection = sqlite3.connect(
        path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
    )
    try:
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        for setting in ("synchronous = FULL", "fullfsync = ON", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {setting}")
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.DatabaseError) and not _is_passing(error):
            raise QueueError(f"{path}: cannot be opened as a queue ({error})") from error
        raise
    connection.row_factory = sqlite3.Row
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do all of a block or nothing; one writer at a time, from the first line on."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _is_passing(error: sqlite3.DatabaseError) -> bool:
    """Say whether another process only holds the file for the moment."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what it says in detail
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise QueueError(f"{path}: a database, but no queue of hypervlad")
    if version != VERSION:
        raise QueueError(
            f"{path}: a queue of version {version}, and this hypervlad knows {VERSION}; use the "
            "version that made it, or make a new queue"
        )
