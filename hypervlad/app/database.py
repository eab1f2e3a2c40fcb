"""Databases of what people do: connections, facts, and the tables of a queue."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from hypervlad.app.particles import QueuedImage, stored
from hypervlad.common.files import move_to_new_name, new_folder, refuse_links

FILE = "queue.sqlite"
_TIMEOUT = 20.0  # seconds to wait for another process's write
_MAX_SCORES = 9  # the number of category keys on the page

_FACTS = "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
_TABLES = """
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
    path BLOB NOT NULL UNIQUE,  -- or the values of a QueuedParticle, see `stored`
    name BLOB NOT NULL,
    place INTEGER,
    kind TEXT NOT NULL,
    scores TEXT NOT NULL,
    predicted INTEGER NOT NULL REFERENCES categories,
    confidence REAL NOT NULL,
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
    what TEXT NOT NULL CHECK (what IN ('label', 'skip', 'undo', 'again', 'correct')),
    item INTEGER REFERENCES items,
    category INTEGER REFERENCES categories,
    outcome TEXT NOT NULL CHECK (outcome IN ('kept', 'late', 'nothing')),
    message TEXT NOT NULL,
    undone_by INTEGER REFERENCES events
);
CREATE INDEX events_of_client ON events (client, number);
CREATE TABLE corrected (
    event INTEGER NOT NULL REFERENCES events,
    item INTEGER NOT NULL REFERENCES items,
    state TEXT NOT NULL,
    category INTEGER REFERENCES categories,
    previous INTEGER REFERENCES events,
    PRIMARY KEY (event, item)
) WITHOUT ROWID;
"""


class Kind(NamedTuple):
    """What is in a database, and the words of errors about it."""

    name: str
    file: str
    application: int  # in the header of the file
    version: int
    tables: str
    missing: str
    taken: str  # what to do where there is one already
    remedy: str

    @property
    def files(self) -> tuple[str, str, str]:
        """The file and those beside it: SQLite would create the target of a link."""
        return self.file, f"{self.file}-wal", f"{self.file}-shm"


QUEUE = Kind(
    *("queue", FILE, 0x48564C51, 3, _TABLES),  # "HVLQ"
    "make one with 'hypervlad review start'",
    "give another folder, or remove this one if its labels are not needed",
    "restore an earlier copy of its folder, or start another queue",
)

# --- records ---

# "kept": the click took effect; "late": another window was first, so that it is only in the log;
# "nothing": there was nothing to undo.
Outcome = Literal["kept", "late", "nothing"]


class QueueError(ValueError):
    """A queue cannot be created, opened or used; the message says why and what to do."""


class UnknownError(QueueError):
    """There is no such image, or no such class, in the queue."""


class StaleError(QueueError):
    """What a window has shown has been changed since."""


@dataclass(frozen=True)
class Entry:
    """An image or a particle of a new queue, as a model judged it.

    `place` is its position in the queue, None if the model was sure. `scores` starts with the most
    probable category, `nearest` with the row of the nearest training image.
    """

    name: str
    image: QueuedImage
    place: int | None
    kind: str
    scores: list[tuple[str, float]]
    reason: str
    novelty: float
    nearest: list[int]


@dataclass(frozen=True)
class TrainingImage:
    """A training image of the model: its name, its category, and where it is if known."""

    name: str
    label: str
    image: QueuedImage | None


class ClickResult(NamedTuple):
    """The outcome of a click, in words unless it took effect, and the image that was clicked."""

    outcome: Outcome
    message: str
    item: int | None


# --- a database ---


def check_free(folder: Path, kind: Kind = QUEUE) -> None:
    """Raise if a folder has a database, or files of one, whose content would be lost."""
    if folder.exists() and not folder.is_dir():
        raise QueueError(f"{folder}: a file; give a folder, which is created if it does not exist")
    for name in kind.files:
        refuse_links(folder / name)
        if (folder / name).exists():
            raise QueueError(
                f"{folder}: holds a {kind.name} already, or a part of one ({name}); {kind.taken}"
            )


@contextlib.contextmanager
def created(folder: Path, kind: Kind = QUEUE) -> Iterator[sqlite3.Connection]:
    """Create a database, which is there when the block has ended, or not at all."""
    check_free(folder, kind)
    with new_folder(folder, 0o700):
        temporary = folder / f".{secrets.token_hex(8)}.tmp"
        try:
            with open(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb"):
                pass  # readable by the owner only: it holds the secret of the link
            connection = sqlite3.connect(temporary, isolation_level=None)
            try:
                connection.executescript(_FACTS + kind.tables)
                connection.execute(f"PRAGMA application_id = {kind.application}")
                connection.execute(f"PRAGMA user_version = {kind.version}")
                with transaction(connection):
                    yield connection
            except sqlite3.OperationalError as error:
                raise QueueError(
                    f"{folder}: the {kind.name} could not be written ({error}); make room on this "
                    f"disk{', or give another folder' * (kind is QUEUE)}"
                ) from error
            finally:
                connection.close()
            check_free(folder, kind)
            try:
                move_to_new_name(temporary, folder / kind.file)
            except FileExistsError:
                check_free(folder, kind)  # names the queue that was made meanwhile
                raise
        finally:
            temporary.unlink(missing_ok=True)


def connect(folder: Path, kind: Kind = QUEUE) -> sqlite3.Connection:
    """Open a database, with a log that is flushed to the disk at every commit."""
    path = folder / kind.file
    for draft in folder.glob(".*.tmp"):  # a second name, if making the queue was interrupted
        with contextlib.suppress(OSError):
            if draft.samefile(path):
                draft.unlink()
    for name in kind.files:
        refuse_links(folder / name)
    if not path.is_file():
        raise QueueError(f"{folder}: no {kind.name} here; {kind.missing}")
    connection: _Connection = sqlite3.connect(
        path, timeout=_TIMEOUT, isolation_level=None, check_same_thread=False, factory=_Connection
    )
    connection.path, connection.kind = path, kind
    try:
        _check_version(connection, path, kind)
        connection.execute("PRAGMA journal_mode = WAL")
        settings = (
            "synchronous = FULL",
            "fullfsync = ON",
            "foreign_keys = ON",
            "trusted_schema = OFF",
        )
        for setting in settings:
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    return connection


def _reporting(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a cursor's method report damage, and numbers beyond SQLite's range, as a QueueError."""

    @functools.wraps(method)
    def reporting(cursor: sqlite3.Cursor, *arguments: Any) -> Any:
        try:
            return method(cursor, *arguments)
        except (OverflowError, sqlite3.DatabaseError, UnicodeDecodeError) as error:
            assert isinstance(cursor.connection, _Connection)
            path, kind = cursor.connection.path, cursor.connection.kind
            if isinstance(error, OverflowError):
                raise UnknownError(f"the {kind.name} has nothing of this number") from error
            if not _is_damage(error):
                raise
            words = f"damaged, or no {kind.name} ({error}); {kind.remedy}"
            raise QueueError(f"{path}: {words}") from error

    return reporting


class _Cursor(sqlite3.Cursor):
    execute = _reporting(sqlite3.Cursor.execute)
    executemany = _reporting(sqlite3.Cursor.executemany)
    fetchone = _reporting(sqlite3.Cursor.fetchone)
    fetchall = _reporting(sqlite3.Cursor.fetchall)
    __next__ = _reporting(sqlite3.Cursor.__next__)


def _is_damage(error: sqlite3.DatabaseError | UnicodeDecodeError) -> bool:
    """Return whether a file is damaged, and not only in use, read-only or on a full disk."""
    if isinstance(error, UnicodeDecodeError):  # of damaged text that SQLite quotes
        return True
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # of the module sqlite3, such as text that is not UTF-8
        return isinstance(error, sqlite3.OperationalError)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)  # the primary code


class _Connection(sqlite3.Connection):
    path: Path
    kind: Kind

    def execute(self, *arguments: Any) -> Any:
        return self.cursor(_Cursor).execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self.cursor(_Cursor).executemany(*arguments)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit all writes of a block or none; others wait with theirs until its end."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _check_version(connection: sqlite3.Connection, path: Path, kind: Kind) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != kind.application:
        raise QueueError(f"{path}: a database, but not a {kind.name} of hypervlad")
    if version != kind.version:
        raise QueueError(
            f"{path}: a {kind.name} of version {version}; this hypervlad reads {kind.version}. Use "
            f"the hypervlad that made it, or make a new {kind.name}"
        )


class Database:
    """A database in a folder, from several threads and processes.

    Parameters
    ----------
    folder : path
    """

    kind: ClassVar[Kind]

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.now: Callable[[], float] = time.time
        self._own = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        _ = self.connection  # raises now if it cannot be opened

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = connect(self.folder, self.kind)
            with self._guard:
                self._opened.append(found)
        return found

    def execute(self, query: str, *values: object) -> sqlite3.Cursor:
        """Run a statement of SQL with values for its question marks."""
        found: sqlite3.Cursor = self.connection.execute(query, values)
        return found

    def row(self, query: str, *values: object) -> sqlite3.Row | None:
        """Return the first row that a query finds, if any."""
        found: sqlite3.Row | None = self.execute(query, *values).fetchone()
        return found

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Return all rows that a query finds."""
        return self.execute(query, *values).fetchall()

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Commit all writes of a block or none; see `transaction`."""
        return transaction(self.connection)

    def close(self) -> None:
        """Close all connections; it cannot be used afterwards."""
        with self._guard:
            while self._opened:
                self._opened.pop().close()

    def fact(self, name: str, default: str | None = None) -> str | None:
        """Return the fact stored under a name."""
        row = self.row("SELECT value FROM facts WHERE name = ?", name)
        return default if row is None else str(row["value"])

    def secret(self) -> str:
        """Return the secret of the link of its page, which the first process creates."""
        with self.writing():
            token = secrets.token_urlsafe(24)
            self.execute("INSERT INTO facts VALUES ('token', ?) ON CONFLICT DO NOTHING", token)
        return str(self.fact("token"))

    def set_facts(self, **facts: str) -> None:
        """Store facts by their names, such as the port of its page."""
        with self.writing():
            write_facts(self.connection, facts)


# --- whole queues -------------------------------------------------------------------------------


def make_queue(
    folder: str | os.PathLike[str],
    classes: Sequence[str],
    entries: Iterable[Entry],
    training: Iterable[TrainingImage],
    facts: dict[str, str],
    more: Sequence[str] = (),
) -> None:
    """Write a new queue, completely or not at all.

    `classes` are in the order of their keys on the page, `training` are the rows that
    `Entry.nearest` refers to, and `facts` are kept by name, such as the path of the model. `more`
    are categories that the model does not have.
    """
    with created(Path(folder)) as connection:
        write_facts(connection, facts)
        _write_training(connection, training)
        category_ids = _add_categories(connection, classes)
        _add_categories(connection, more, "person")
        connection.executemany(
            "INSERT INTO items (path, name, place, kind, scores, predicted, confidence, reason, "
            "novelty, nearest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (stored(entry.image), os.fsencode(entry.name), *_entry_values(entry, category_ids))
                for entry in entries
            ),
        )


def update_queue(
    connection: sqlite3.Connection,
    classes: Sequence[str],
    entries: Iterable[Entry],
    training: Iterable[TrainingImage],
    facts: dict[str, str],
) -> None:
    """Replace the predictions in a queue by those of another model; see `make_queue`.

    An image that a person has labelled keeps its previous prediction: a model trained on that label
    would only repeat it. An image that a person skipped stays doubtful.
    """
    with transaction(connection):
        write_facts(connection, facts)
        connection.execute("DELETE FROM training")
        connection.execute("UPDATE items SET nearest = '[]'")
        _write_training(connection, training)
        category_ids = _add_categories(connection, classes)
        connection.executemany(
            "UPDATE items SET place = COALESCE(?, CASE state WHEN 'skipped' THEN place END), "
            "kind = ?, scores = ?, predicted = ?, confidence = ?, reason = ?, novelty = ?, "
            "nearest = ? "
            "WHERE path = ? AND state != 'labelled'",
            ((*_entry_values(entry, category_ids), stored(entry.image)) for entry in entries),
        )


def write_facts(connection: sqlite3.Connection, facts: dict[str, str]) -> None:
    """Store facts of a queue by their names, in a transaction of the caller."""
    connection.executemany(
        "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        list(facts.items()),
    )


@contextlib.contextmanager
def reporting_damage(what: str, kind: Kind = QUEUE) -> Iterator[None]:
    """Turn errors in the content of cells, which SQLite does not check, into a QueueError."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise QueueError(
            f"the {kind.name} is damaged: what it holds of {what} cannot be read ({error}); "
            f"{kind.remedy}"
        ) from error


def shown_name(name: bytes) -> str:
    """Return a file's name as text; bytes that are no text become question marks."""
    return os.fsdecode(name).encode("utf-8", "replace").decode("utf-8")


def _entry_values(entry: Entry, category_ids: dict[str, int]) -> tuple[object, ...]:
    scores = [(category_ids[name], share) for name, share in entry.scores[:_MAX_SCORES]]
    judged = entry.place, entry.kind, json.dumps(scores), *scores[0]
    return *judged, entry.reason, entry.novelty, json.dumps(entry.nearest)


def _write_training(connection: sqlite3.Connection, training: Iterable[TrainingImage]) -> None:
    rows = list[tuple[object, ...]]()
    for row, image in enumerate(training):
        name = image.name.encode("utf-8", "replace").decode("utf-8")
        rows.append((row, name, image.label, None if image.image is None else stored(image.image)))
    connection.executemany("INSERT INTO training VALUES (?, ?, ?, ?)", rows)


def _add_categories(
    connection: sqlite3.Connection, classes: Sequence[str], origin: str = "model"
) -> dict[str, int]:
    connection.executemany(
        "INSERT INTO categories (name, folded, origin) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO NOTHING",
        [(name, name.casefold(), origin) for name in classes],
    )
    return {row[1]: row[0] for row in connection.execute("SELECT id, name FROM categories")}
