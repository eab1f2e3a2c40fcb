"""``Queue``: the images that windows show, and the effect of every click."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from hypervlad.app.database import (
    NOTHING_TO_UNDO,
    QUEUE,
    ClickResult,
    Database,
    Outcome,
    QueueError,
    UnknownError,
    earlier_result,
    last_click,
    log_event,
    reporting_damage,
    shown_name,
    transaction,
)
from hypervlad.app.particles import QueuedImage, QueuedParticle, is_stored_particle, restored
from hypervlad.common.files import parse_json
from hypervlad.common.limits import MAX_CATEGORIES, MAX_CATEGORY_NAME, MAX_LEASED
from hypervlad.common.wording import of_particles
from hypervlad.images import ReadOptions
from hypervlad.images.options import make_options
from hypervlad.objects.particle import NOT_A_PARTICLE

_ITEM = "SELECT id, name, kind, reason, novelty, scores, nearest FROM items"


@dataclass(frozen=True)
class LabelledImage:
    """An image with its prediction and label; `doubtful`: it is or was in the queue."""

    item: int
    name: str
    image: QueuedImage
    predicted: str
    confidence: float
    doubtful: bool
    label: str | None
    skipped: bool = False

    @property
    def is_wrong_outline(self) -> bool:
        return isinstance(self.image, QueuedParticle) and self.label == NOT_A_PARTICLE

    @property
    def is_there(self) -> bool:
        """Whether the outline of a particle is still what it was when it was queued."""
        own = self.image
        return not isinstance(own, QueuedParticle) or own.outline_now() == own.outline


@dataclass(frozen=True)
class Category:
    """A category of images; `origin` is "model" or "person"."""

    id: int
    name: str
    origin: str


@dataclass(frozen=True)
class Neighbour:
    """One of the training images nearest to an item."""

    row: int
    name: str
    label: str
    has_picture: bool


@dataclass(frozen=True)
class Item:
    """An image of the queue, with all that the page shows of it; `scores` has category ids."""

    id: int
    name: str
    kind: str
    reason: str
    novelty: float
    scores: list[tuple[int, float]]
    nearest: list[Neighbour]


@dataclass(frozen=True)
class Progress:
    """Numbers of images: `elsewhere` are leased by other windows, `by_model` not in the queue."""

    labelled: int
    skipped: int
    waiting: int
    elsewhere: int
    by_model: int


@dataclass(frozen=True)
class Answer:
    """The result of a click, and all images that the window has leased now, in order."""

    outcome: Outcome
    message: str
    item: int | None
    items: list[Item]
    progress: Progress


class Queue(Database):
    """The images that people label, in a folder; a click is on disk when it is answered.

    Any number of threads and processes of one machine may use a folder at once. A window (client)
    leases images for a few seconds, so that no two windows show the same one. The first label of an
    image counts.

    Parameters
    ----------
    folder : path
        Created by `hypervlad.apps.review.start_queue`.

    Raises
    ------
    QueueError
        A ValueError: no queue there, or one of another version.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad.apps.review import Queue
    >>> from hypervlad.app.database import make_queue
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_queue(f"{folder}/queue", ["fibre", "tube"], [], [], {})
    ...     queue = Queue(f"{folder}/queue")
    ...     [category.name for category in queue.categories()]
    ...     queue.close()
    ['fibre', 'tube']
    """

    kind = QUEUE
    lease = 12.0  # seconds that an image stays with a window that sends nothing

    def read_options(self) -> ReadOptions:
        """Return how the model of the queue reads images."""
        with reporting_damage("the reading of images"):
            return make_options(parse_json(self.fact("reading", "{}") or "{}"))

    @cached_property
    def unit(self) -> str:
        """What is labelled, "image" or "particle"."""
        row = self.connection.execute("SELECT path FROM items LIMIT 1").fetchone()
        return "particle" if row is not None and is_stored_particle(row["path"]) else "image"

    @cached_property
    def key(self) -> str:
        """A short text that no other queue has, for links."""
        return hashlib.sha256(self.secret().encode()).hexdigest()[:8]

    def categories(self) -> list[Category]:
        """Return all categories, in the order of their keys."""
        rows = self.connection.execute("SELECT id, name, origin FROM categories ORDER BY id")
        return [Category(*row) for row in rows]

    def images(self) -> list[LabelledImage]:
        """Return all images in order, with the model's prediction and a person's label."""
        rows = self.connection.execute(
            "SELECT items.*, c.name AS label FROM items LEFT JOIN categories c ON c.id = category "
            "ORDER BY items.id"
        ).fetchall()
        names = dict(self.connection.execute("SELECT id, name FROM categories").fetchall())
        found = []
        for row in rows:
            with reporting_damage(f"image {row['id']}"):
                found.append(
                    LabelledImage(
                        item=row["id"],
                        name=os.fsdecode(row["name"]),
                        image=restored(row["path"]),
                        predicted=names[row["predicted"]],
                        confidence=float(row["confidence"]),
                        doubtful=row["place"] is not None or row["state"] == "skipped",
                        label=row["label"],
                        skipped=row["state"] == "skipped",
                    )
                )
        return found

    def add_category(self, name: str) -> Category:
        """Return the category of a name, and add it if it is new (case is ignored)."""
        checked = checked_name(name)
        connection = self.connection
        with transaction(connection):
            found = _category_named(connection, checked)
            if found is None:
                (known,) = connection.execute("SELECT COUNT(*) FROM categories").fetchone()
                if known >= MAX_CATEGORIES:
                    raise QueueError(f"there are {known} classes already, which is the maximum")
                connection.execute(
                    "INSERT INTO categories (name, folded, origin) VALUES (?, ?, 'person')",
                    [checked, checked.casefold()],
                )
                found = _category_named(connection, checked)
        assert found is not None
        return found

    def next(self, client: str, want: int) -> Answer:
        """Lease images to a window, up to `want` in all, and renew its leases."""
        with transaction(self.connection):
            return self._answer(client, want, ClickResult("kept", "", None))

    def label(self, client: str, click: str, item: int, category: int, want: int = 0) -> Answer:
        """Label an image; a click that is sent again has no further effect.

        Parameters
        ----------
        client, click : str
            The window, and its unique name for the click.
        item, category : int
            Of `next` and `categories`.
        want : int, default=0
            Number of images to lease in all afterwards.
        """
        row_of(self.connection, "categories", category)
        return self._click(client, click, item, category, want)

    def skip(self, client: str, click: str, item: int, want: int = 0) -> Answer:
        """Skip an image; see `label`."""
        return self._click(client, click, item, None, want)

    def undo(self, client: str, click: str, want: int = 0) -> Answer:
        """Undo a window's last label or skip that took effect; the window gets the image again."""
        with transaction(self.connection):
            result = earlier_result(self.connection, click) or self._undo_last(client, click)
            return self._answer(client, want, result)

    def again(self, client: str, click: str, want: int = 0) -> Answer:
        """Return all skipped images to the queue."""
        with transaction(self.connection):
            result = earlier_result(self.connection, click)
            if result is None:
                result = ClickResult("kept", "", None)
                number = log_event(self.connection, self.now(), client, click, "again", result)
                self.connection.execute(
                    "UPDATE items SET state = 'open', event = ? WHERE state = 'skipped'", [number]
                )
            return self._answer(client, want, result)

    def release(self, client: str) -> None:
        """End all leases of a window that is closed."""
        with transaction(self.connection):
            self.connection.execute(
                "UPDATE items SET client = NULL, leased_until = NULL WHERE client = ?", [client]
            )

    def image_of(self, item: int) -> QueuedImage:
        """Return the file of an image of the queue, or the particle that it is."""
        row = row_of(self.connection, "items", item)
        with reporting_damage(f"image {item}"):
            return restored(row["path"])

    def image_of_training(self, row: int) -> QueuedImage:
        """Return the file of a training image, or the particle that it is."""
        found = row_of(self.connection, "training", row, key="row")["path"]
        if found is None:
            raise UnknownError(f"the file of training image {row} is not known")
        with reporting_damage(f"training image {row}"):
            return restored(found)

    def progress(self, client: str = "") -> Progress:
        """Count images; `client` is the window that requests this."""
        counts = dict(
            self.connection.execute("SELECT state, COUNT(*) FROM items GROUP BY state").fetchall()
        )
        (waiting,) = self.connection.execute(
            "SELECT COUNT(*) FROM items WHERE state = 'open' AND place IS NOT NULL"
        ).fetchone()
        (elsewhere,) = self.connection.execute(
            "SELECT COUNT(*) FROM items WHERE client IS NOT NULL AND client != ? "
            "AND leased_until >= ? AND +state = 'open' AND +place IS NOT NULL",
            [client, self.now()],
        ).fetchone()
        by_model = counts.get("open", 0) - waiting
        return Progress(
            counts.get("labelled", 0), counts.get("skipped", 0), waiting, elsewhere, by_model
        )

    def _click(self, client: str, click: str, item: int, category: int | None, want: int) -> Answer:
        """Log a label (or a skip, without category), which takes effect if it is the first."""
        connection = self.connection
        what, state = ("skip", "skipped") if category is None else ("label", "labelled")
        with transaction(connection):
            result = earlier_result(connection, click)
            if result is None:
                row = row_of(connection, "items", item)
                result = ClickResult("kept", "", item)
                if row["state"] == "labelled":
                    name = row_of(connection, "categories", row["category"])["name"]
                    message = (
                        f"this image was already labelled “{name}”; that label is kept, yours is "
                        "in the log"
                    )
                    result = ClickResult("late", message, item)
                number = log_event(connection, self.now(), client, click, what, result, category)
                if result.outcome == "kept":
                    connection.execute(
                        "UPDATE items SET state = ?, category = ?, event = ?, client = NULL, "
                        "leased_until = NULL WHERE id = ?",
                        [state, category, number, item],
                    )
            return self._answer(client, want, result)

    def _undo_last(self, client: str, click: str) -> ClickResult:
        connection = self.connection
        last = last_click(connection, client, "label", "skip")
        if last is None:
            log_event(connection, self.now(), client, click, "undo", NOTHING_TO_UNDO)
            return NOTHING_TO_UNDO
        if row_of(connection, "items", last["item"])["event"] == last["number"]:
            result = ClickResult("kept", "", last["item"])
        else:
            result = ClickResult(
                "late", "the image has been changed since and stays as it is", last["item"]
            )
        number = log_event(
            connection, self.now(), client, click, "undo", result, undone=last["number"]
        )
        if result.outcome == "kept":
            connection.execute(
                "UPDATE items SET state = 'open', category = NULL, event = ?, client = ?, "
                "leased_until = ? WHERE id = ?",
                [number, client, self.now() + self.lease, last["item"]],
            )
        return result

    def _answer(self, client: str, want: int, result: ClickResult) -> Answer:
        items = self._lease(client, min(want, MAX_LEASED))
        return Answer(*result, items, self.progress(client))

    def _lease(self, client: str, want: int) -> list[Item]:
        """Renew a window's leases, lease images up to `want` in all, and return all of them."""
        connection, now = self.connection, self.now()
        # The "+" lets SQLite use the index of clients.
        mine = "client = ? AND +state = 'open' AND +place IS NOT NULL"
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
        with reporting_damage(f"image {row['id']}"):
            nearest = [
                Neighbour(row["row"], row["name"], row["label"], row["path"] is not None)
                for number in parse_json(row["nearest"])
                for row in self.connection.execute("SELECT * FROM training WHERE row = ?", [number])
            ]
            scores = [(int(number), float(share)) for number, share in parse_json(row["scores"])]
            reason = row["reason"]
            if self.unit == "particle":
                labels = [own.name for own in self.categories()] + [own.label for own in nearest]
                reason = of_particles(reason, labels)
            return Item(
                id=row["id"],
                name=shown_name(row["name"]),
                kind=row["kind"],
                reason=reason,
                novelty=row["novelty"],
                scores=scores,
                nearest=nearest,
            )


def checked_name(name: str) -> str:
    """Return a category's name with single spaces between its words."""
    words = " ".join(unicodedata.normalize("NFC", name).split())
    if not words:
        raise QueueError("the name of the class is empty")
    if len(words) > MAX_CATEGORY_NAME:
        raise QueueError(f"the name of the class is longer than {MAX_CATEGORY_NAME} characters")
    if not words.isprintable():
        raise QueueError("the name of the class has characters that cannot be printed")
    return words


def _category_named(connection: sqlite3.Connection, name: str) -> Category | None:
    row = connection.execute(
        "SELECT id, name, origin FROM categories WHERE name = ? OR folded = ? "
        "ORDER BY name = ? DESC LIMIT 1",
        [name, name.casefold(), name],
    ).fetchone()
    return None if row is None else Category(*row)


def row_of(
    connection: sqlite3.Connection, table: str, number: int, *, key: str = "id", columns: str = "*"
) -> sqlite3.Row:
    """Return a line of a table of the queue; an UnknownError if there is none."""
    row: sqlite3.Row | None = connection.execute(
        f"SELECT {columns} FROM {table} WHERE {key} = ?", [number]
    ).fetchone()
    if row is None:
        kind = {"items": "image", "categories": "class", "training": "training image"}[table]
        raise UnknownError(f"the queue has no {kind} {number}")
    return row
