"""The log of a queue: who clicked what and when, and with which effect."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from hypervlad.review.records import Outcome


class ClickResult(NamedTuple):
    """The outcome of a click in a word and in a sentence, and the image that was clicked."""

    outcome: Outcome
    message: str
    item: int | None


def log_event(
    connection: sqlite3.Connection,
    time: float,
    client: str,
    click: str,
    what: str,
    result: ClickResult,
    category: int | None = None,
) -> int:
    """Log a click.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction, which the effect of the click is part of.
    time : float
        Seconds since 1970.
    client : str
        The window.
    click : str
        Unique name of the click, chosen by the window.
    what : {"label", "skip", "undo", "again", "correct"}
    result : ClickResult
    category : int, optional

    Returns
    -------
    int
        The number of the event.
    """
    outcome, message, item = result
    cursor = connection.execute(
        "INSERT INTO events (click, client, time, what, item, category, outcome, message) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [click, client, time, what, item, category, outcome, message],
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def earlier_result(connection: sqlite3.Connection, click: str) -> ClickResult | None:
    """Return the result of a click that is sent again, because its answer was lost."""
    row = connection.execute(
        "SELECT outcome, message, item FROM events WHERE click = ?", [click]
    ).fetchone()
    return None if row is None else ClickResult(row["outcome"], row["message"], row["item"])
