"""What a model says goes into a queue, and what persons said comes out of it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from hypervlad.review.records import Entry, Labelled, TrainingImage
from hypervlad.review.schema import create, transaction
from hypervlad.review.store import Queue

_MOST_SCORES = 9  # of a category's keys on the page, too


def make_queue(
    folder: str | os.PathLike[str],
    classes: Sequence[str],
    entries: Iterable[Entry],
    training: Iterable[TrainingImage],
    facts: dict[str, str],
) -> None:
    """Write a new queue, whole or not at all.

    Parameters
    ----------
    folder : path
        Made if need be.
    classes : sequence of str
        The model's categories, in the order of their keys.
    entries : iterable of Entry
    training : iterable of TrainingImage
        What `Entry.nearest` counts.
    facts : dict of str to str
        Such as where the model lies.

    Raises
    ------
    QueueError
        If the folder holds a queue already.
    """
    with create(Path(folder)) as connection:
        connection.executemany("INSERT INTO facts VALUES (?, ?)", list(facts.items()))
        _write_training(connection, training)
        numbers = _categories(connection, classes)
        connection.executemany(
            "INSERT INTO items (path, name, place, kind, scores, reason, novelty, nearest) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (os.fsencode(entry.path), os.fsencode(entry.name), *_judgement(entry, numbers))
                for entry in entries
            ),
        )


def refill_queue(
    queue: Queue,
    classes: Sequence[str],
    entries: Iterable[Entry],
    training: Iterable[TrainingImage],
    facts: dict[str, str],
) -> None:
    """Put another model's answers into a queue, in one step, also while windows are open.

    Labels and the log stay. An image that a person has labelled keeps what was said of it before:
    a model that learnt from that label would only repeat it. One that a person skipped stays
    doubtful, however sure the new model is.

    Parameters
    ----------
    queue : Queue
    classes, training, facts
        As for `make_queue`.
    entries : iterable of Entry
        Images that are not in the queue are left out.
    """
    connection = queue.connection
    with transaction(connection):
        connection.executemany(
            "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            list(facts.items()),
        )
        connection.execute("DELETE FROM training")
        connection.execute("UPDATE items SET nearest = '[]'")
        _write_training(connection, training)
        numbers = _categories(connection, classes)
        connection.executemany(
            "UPDATE items SET place = COALESCE(?, CASE state WHEN 'skipped' THEN place END), "
            "kind = ?, scores = ?, reason = ?, novelty = ?, nearest = ? "
            "WHERE path = ? AND state != 'labelled'",
            ((*_judgement(entry, numbers), os.fsencode(entry.path)) for entry in entries),
        )


def contents(queue: Queue) -> list[Labelled]:
    """Return every image of a queue, with what the model and a person said, in their order."""
    rows = queue.connection.execute(
        "SELECT items.*, c.name AS label FROM items LEFT JOIN categories c ON c.id = category "
        "ORDER BY items.id"
    ).fetchall()
    names = {category.id: category.name for category in queue.categories()}
    found = []
    for row in rows:
        (said, share), *_ = json.loads(row["scores"])
        found.append(
            Labelled(
                item=row["id"],
                name=os.fsdecode(row["name"]),
                path=Path(os.fsdecode(row["path"])),
                said=names[said],
                confidence=float(share),
                doubtful=row["place"] is not None,
                label=row["label"],
                skipped=row["state"] == "skipped",
            )
        )
    return found


def _judgement(entry: Entry, numbers: dict[str, int]) -> tuple[object, ...]:
    scores = [(numbers[name], share) for name, share in entry.scores[:_MOST_SCORES]]
    return (
        entry.place,
        entry.kind,
        json.dumps(scores),
        entry.reason,
        entry.novelty,
        json.dumps(entry.nearest),
    )


def _write_training(connection: sqlite3.Connection, training: Iterable[TrainingImage]) -> None:
    connection.executemany(
        "INSERT INTO training VALUES (?, ?, ?, ?)",
        (
            (
                row,
                image.name.encode("utf-8", "replace").decode("utf-8"),
                image.label,
                None if image.path is None else os.fsencode(image.path),
            )
            for row, image in enumerate(training)
        ),
    )


def _categories(connection: sqlite3.Connection, classes: Sequence[str]) -> dict[str, int]:
    """Return the number of each of a model's classes, new ones added."""
    connection.executemany(
        "INSERT INTO categories (name, folded, origin) VALUES (?, ?, 'model') "
        "ON CONFLICT (name) DO NOTHING",
        [(name, name.casefold()) for name in classes],
    )
    return {row[1]: row[0] for row in connection.execute("SELECT id, name FROM categories")}
