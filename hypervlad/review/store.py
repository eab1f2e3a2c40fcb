"""``Queue``: what windows are shown, and what becomes of every click."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hypervlad.review.records import (
    Answer,
    Category,
    Item,
    Neighbour,
    Outcome,
    Progress,
    QueueError,
    UnknownError,
)
from hypervlad.review.schema import connect, transaction

LEASE = 90.0  # seconds that an image stays with a window that says nothing
_LONGEST_NAME = 80
_MOST_CATEGORIES = 500
_MOST_IN_HAND = 32


class Told(NamedTuple):
    """What became of a click, in a word and in a sentence, and the image that it was about."""

    outcome: Outcome
    words: str
    item: int | None


_ITEM = "SELECT id, name, kind, reason, novelty, scores, nearest FROM items"


class Queue:
    """The images that a person is to look at, in a folder; every click is on disk when told so.

    Any number of threads and processes of one machine may use a folder at once. A window (client)
    gets images on a lease that expires, so that no two windows are shown the same one. The first
    label of an image holds; a later one of another window is kept in the log of events, and the
    window is told.

    Parameters
    ----------
    folder : path
        Made by `hypervlad.review.start_queue`.
    lease : float, default=90
        Seconds that an image stays with a window that says nothing.
    clock : callable, default=time.time
        Seconds; the same in all processes.

    Raises
    ------
    QueueError
        A ValueError: no queue there, or one of another version.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        lease: float = LEASE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.lease, self._clock = Path(folder), lease, clock
        self._own = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        _ = self.connection  # what is wrong is told now

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's own connection."""
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = connect(self.folder)
            with self._guard:
                self._opened.append(found)
        return found

    def close(self) -> None:
        """Close all connections; the queue is not to be used after."""
        with self._guard:
            while self._opened:
                self._opened.pop().close()

    def fact(self, name: str, default: str | None = None) -> str | None:
        """Return what is noted under a name."""
        row = self.connection.execute("SELECT value FROM facts WHERE name = ?", [name]).fetchone()
        return default if row is None else str(row["value"])

    def secret(self) -> str:
        """Return the secret of the queue's link: the same in all processes, drawn by the first."""
        with transaction(self.connection):
            self.connection.execute(
                "INSERT INTO facts VALUES ('token', ?) ON CONFLICT DO NOTHING",
                [secrets.token_urlsafe(24)],
            )
        return str(self.fact("token"))

    def note(self, **facts: str) -> None:
        """Note facts of the queue, such as its link."""
        with transaction(self.connection):
            self.connection.executemany(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                list(facts.items()),
            )

    def categories(self) -> list[Category]:
        """Return all categories, in the order of their keys."""
        rows = self.connection.execute("SELECT id, name, origin FROM categories ORDER BY id")
        return [Category(*row) for row in rows]

    def add_category(self, name: str) -> Category:
        """Return a category of that name, new if there is none (upper and lower case are alike).

        Raises
        ------
        QueueError
            If the name is empty, too long or has characters that cannot be printed.
        """
        words = checked_name(name)
        connection = self.connection
        with transaction(connection):
            found = _category_named(connection, words)
            if found is None:
                (known,) = connection.execute("SELECT COUNT(*) FROM categories").fetchone()
                if known >= _MOST_CATEGORIES:
                    raise QueueError(f"there are {known} categories already, the most there may be")
                connection.execute(
                    "INSERT INTO categories (name, folded, origin) VALUES (?, ?, 'person')",
                    [words, words.casefold()],
                )
                found = _category_named(connection, words)
        assert found is not None
        return found

    def next(self, client: str, want: int) -> Answer:
        """Put images into a window's hands, up to `want` of them, and renew its leases."""
        with transaction(self.connection):
            return self._answer(client, want, Told("kept", "", None))

    def label(self, client: str, click: str, item: int, category: int, want: int = 0) -> Answer:
        """Label an image, once and for all clicks of the same name.

        Parameters
        ----------
        client : str
            The window.
        click : str
            A name of this very click, drawn by the window: sent again, it changes nothing.
        item, category : int
        want : int, default=0
            Images to have in hand afterwards.

        Returns
        -------
        Answer

        Raises
        ------
        UnknownError
            If there is no such image or category.
        """

        _known(self.connection, "categories", category)
        return self._click(client, click, item, category, want)

    def skip(self, client: str, click: str, item: int, want: int = 0) -> Answer:
        """Put an image aside, as `label` labels one."""

        return self._click(client, click, item, None, want)

    def undo(self, client: str, click: str, want: int = 0) -> Answer:
        """Take back a window's last label or skip that still holds; the image is its to label."""
        with transaction(self.connection):
            told = self._told_before(click) or self._take_back(client, click)
            return self._answer(client, want, told)

    def again(self, client: str, click: str, want: int = 0) -> Answer:
        """Bring back into the queue all images that were skipped."""
        with transaction(self.connection):
            told = self._told_before(click)
            if told is None:
                told = Told("kept", "", None)
                number = self._log(client, click, "again", told)
                self.connection.execute(
                    "UPDATE items SET state = 'open', event = ? WHERE state = 'skipped'", [number]
                )
            return self._answer(client, want, told)

    def release(self, client: str) -> None:
        """Take all images out of a window's hands: it is closed."""
        with transaction(self.connection):
            self.connection.execute(
                "UPDATE items SET client = NULL, leased_until = NULL WHERE client = ?", [client]
            )

    def path_of(self, item: int) -> Path:
        """Return the file of an image of the queue.

        Raises
        ------
        UnknownError
        """
        return Path(os.fsdecode(_known(self.connection, "items", item)["path"]))

    def path_of_training(self, row: int) -> Path:
        """Return the file of a training image.

        Raises
        ------
        UnknownError
            If there is no such image, or its file is not known.
        """
        found = _known(self.connection, "training", row, key="row")["path"]
        if found is None:
            raise UnknownError(f"the file of training image {row} is not known")
        return Path(os.fsdecode(found))

    def progress(self, client: str = "") -> Progress:
        """Count images; `client` is the window that asks."""
        counts = dict(
            self.connection.execute("SELECT state, COUNT(*) FROM items GROUP BY state").fetchall()
        )
        (waiting,) = self.connection.execute(
            "SELECT COUNT(*) FROM items WHERE state = 'open' AND place IS NOT NULL"
        ).fetchone()
        (elsewhere,) = self.connection.execute(
            "SELECT COUNT(*) FROM items WHERE client IS NOT NULL AND client != ? "
            "AND leased_until >= ? AND +state = 'open' AND +place IS NOT NULL",
            [client, self._clock()],
        ).fetchone()
        by_model = counts.get("open", 0) - waiting
        return Progress(
            counts.get("labelled", 0), counts.get("skipped", 0), waiting, elsewhere, by_model
        )

    def _click(self, client: str, click: str, item: int, category: int | None, want: int) -> Answer:
        """Log a label (or a skip, without category), and let it take effect if it is the first."""
        connection = self.connection
        with transaction(connection):
            told = self._told_before(click)
            if told is None:
                what, state = ("skip", "skipped") if category is None else ("label", "labelled")
                is_late = _known(connection, "items", item)["state"] == "labelled"
                told = (
                    Told("late", self._too_late(item), item) if is_late else Told("kept", "", item)
                )
                number = self._log(client, click, what, told, category)
                if not is_late:
                    connection.execute(
                        "UPDATE items SET state = ?, category = ?, event = ?, client = NULL, "
                        "leased_until = NULL WHERE id = ?",
                        [state, category, number, item],
                    )
            return self._answer(client, want, told)

    def _take_back(self, client: str, click: str) -> Told:
        """Undo a window's last click that took effect, if its image is still as it left it."""
        connection = self.connection
        last = connection.execute(
            "SELECT number, item FROM events WHERE client = ? AND what IN ('label', 'skip') "
            "AND outcome = 'kept' AND undone_by IS NULL ORDER BY number DESC LIMIT 1",
            [client],
        ).fetchone()
        if last is None:
            told = Told("nothing", "there is nothing to undo in this window", None)
            self._log(client, click, "undo", told)
            return told
        if _known(connection, "items", last["item"])["event"] == last["number"]:
            told = Told("kept", "", last["item"])
        else:
            told = Told("late", "the image was changed since, and stays as it is", last["item"])
        number = self._log(client, click, "undo", told)
        connection.execute(
            "UPDATE events SET undone_by = ? WHERE number = ?", [number, last["number"]]
        )
        if told.outcome == "kept":
            connection.execute(
                "UPDATE items SET state = 'open', category = NULL, event = ?, client = ?, "
                "leased_until = ? WHERE id = ?",
                [number, client, self._clock() + self.lease, last["item"]],
            )
        return told

    def _log(
        self,
        client: str,
        click: str,
        what: str,
        told: Told,
        category: int | None = None,
    ) -> int:
        outcome, words, item = told
        cursor = self.connection.execute(
            "INSERT INTO events (click, client, time, what, item, category, outcome, told) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [click, client, self._clock(), what, item, category, outcome, words],
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _told_before(self, click: str) -> Told | None:
        """Return what was answered to a click that comes again: its answer got lost."""
        row = self.connection.execute(
            "SELECT outcome, told, item FROM events WHERE click = ?", [click]
        ).fetchone()
        return None if row is None else Told(row["outcome"], row["told"], row["item"])

    def _too_late(self, item: int) -> str:
        (name,) = self.connection.execute(
            "SELECT c.name FROM items JOIN categories c ON c.id = category WHERE items.id = ?",
            [item],
        ).fetchone()
        return f"this image was labelled “{name}” before; that holds, yours is in the log"

    def _answer(self, client: str, want: int, told: Told) -> Answer:
        outcome, words, item = told
        items = self._in_hand(client, min(want, _MOST_IN_HAND))
        return Answer(outcome, words, item, items, self.progress(client))

    def _in_hand(self, client: str, want: int) -> list[Item]:
        """Renew a window's leases, add images up to `want`, and return them all."""
        connection, now = self.connection, self._clock()
        mine = "client = ? AND +state = 'open' AND +place IS NOT NULL"  # "+": by the client's index
        (held,) = connection.execute(
            f"SELECT COUNT(*) FROM items WHERE {mine}", [client]
        ).fetchone()
        connection.execute(
            "UPDATE items SET client = ? WHERE id IN (SELECT id FROM items "
            "WHERE state = 'open' AND place IS NOT NULL AND client IS NOT ? "
            "AND (client IS NULL OR leased_until < ?) ORDER BY place LIMIT ?)",
            [client, client, now, max(0, want - held)],
        )
        connection.execute(
            f"UPDATE items SET leased_until = ? WHERE {mine}", [now + self.lease, client]
        )
        rows = connection.execute(f"{_ITEM} WHERE {mine} ORDER BY place", [client]).fetchall()
        return [self._item(row) for row in rows]

    def _item(self, row: sqlite3.Row) -> Item:
        nearest = [
            Neighbour(row["row"], row["name"], row["label"], row["path"] is not None)
            for number in json.loads(row["nearest"])
            for row in self.connection.execute("SELECT * FROM training WHERE row = ?", [number])
        ]
        scores = [(int(category), float(share)) for category, share in json.loads(row["scores"])]
        name = os.fsdecode(row["name"]).encode("utf-8", "replace").decode("utf-8")
        return Item(row["id"], name, row["kind"], row["reason"], row["novelty"], scores, nearest)


def checked_name(name: str) -> str:
    """Return a category's name with plain single spaces.

    Raises
    ------
    QueueError

    Examples
    --------
    >>> checked_name("  carbon   onion ")
    'carbon onion'
    """
    words = " ".join(unicodedata.normalize("NFC", name).split())
    if not words:
        raise QueueError("the name of the category is empty")
    if len(words) > _LONGEST_NAME:
        raise QueueError(f"the name of the category is longer than {_LONGEST_NAME} characters")
    if not words.isprintable():
        raise QueueError("the name of the category has characters that cannot be printed")
    return words


def _category_named(connection: sqlite3.Connection, name: str) -> Category | None:
    row = connection.execute(
        "SELECT id, name, origin FROM categories WHERE name = ? OR folded = ? "
        "ORDER BY name = ? DESC LIMIT 1",
        [name, name.casefold(), name],
    ).fetchone()
    return None if row is None else Category(*row)


def _known(
    connection: sqlite3.Connection, table: str, number: int, *, key: str = "id"
) -> sqlite3.Row:
    row: sqlite3.Row | None = None
    if -(2**63) <= number < 2**63:  # what SQLite can count to
        row = connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", [number]).fetchone()
    if row is None:
        kind = {"items": "image", "categories": "category", "training": "training image"}[table]
        raise UnknownError(f"the queue has no {kind} {number}")
    return row
