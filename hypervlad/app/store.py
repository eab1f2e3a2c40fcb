"""``Queue``: the images that windows show, and the effect of every click."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from hypervlad.app.database import (
    QUEUE,
    ClickResult,
    Database,
    Outcome,
    QueueError,
    UnknownError,
    reporting_damage,
    shown_name,
)
from hypervlad.app.particles import QueuedImage, QueuedParticle, is_stored_particle, restored
from hypervlad.common.files import parse_json
from hypervlad.common.limits import MAX_CATEGORIES, MAX_CATEGORY_NAME, MAX_LEASED
from hypervlad.common.wording import of_particles
from hypervlad.images import ReadOptions
from hypervlad.images.options import make_options
from hypervlad.objects.particle import NOT_A_PARTICLE

_ITEM = "SELECT id, name, kind, reason, novelty, scores, nearest FROM items"
NOTHING_TO_UNDO = ClickResult("nothing", "there is nothing to undo in this window", None)


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
        row = self.row("SELECT path FROM items LIMIT 1")
        return "particle" if row is not None and is_stored_particle(row["path"]) else "image"

    @cached_property
    def key(self) -> str:
        """A short text that no other queue has, for links."""
        return hashlib.sha256(self.secret().encode()).hexdigest()[:8]

    def categories(self) -> list[Category]:
        """Return all categories, in the order of their keys."""
        rows = self.rows("SELECT id, name, origin FROM categories ORDER BY id")
        return [Category(*row) for row in rows]

    def images(self) -> list[LabelledImage]:
        """Return all images in order, with the model's prediction and a person's label."""
        rows = self.rows(
            "SELECT items.*, c.name AS label FROM items LEFT JOIN categories c ON c.id = category "
            "ORDER BY items.id"
        )
        names = {each.id: each.name for each in self.categories()}
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
        query = "SELECT id, name, origin FROM categories WHERE name = ? OR folded = ? "
        query += "ORDER BY name = ? DESC LIMIT 1"
        own = checked, checked.casefold(), checked
        with self.writing():
            if (found := self.row(query, *own)) is None:
                if (known := len(self.categories())) >= MAX_CATEGORIES:
                    raise QueueError(f"there are {known} classes already, which is the maximum")
                self.execute(
                    "INSERT INTO categories (name, folded, origin) VALUES (?, ?, 'person')",
                    *own[:2],
                )
                found = self.row(query, *own)
        assert found is not None
        return Category(*found)

    def next(self, client: str, want: int) -> Answer:
        """Lease images to a window, up to `want` in all, and renew its leases."""
        with self.writing():
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
        self.row_of("categories", category)
        return self._click(client, click, item, category, want)

    def skip(self, client: str, click: str, item: int, want: int = 0) -> Answer:
        """Skip an image; see `label`."""
        return self._click(client, click, item, None, want)

    def undo(self, client: str, click: str, want: int = 0) -> Answer:
        """Undo a window's last label or skip that took effect; the window gets the image again."""
        with self.writing():
            result = self.earlier_result(click) or self._undo_last(client, click)
            return self._answer(client, want, result)

    def again(self, client: str, click: str, want: int = 0) -> Answer:
        """Return all skipped images to the queue."""
        with self.writing():
            if (result := self.earlier_result(click)) is None:
                result = ClickResult("kept", "", None)
                number = self.log(client, click, "again", result)
                self.execute(
                    "UPDATE items SET state = 'open', event = ? WHERE state = 'skipped'", number
                )
            return self._answer(client, want, result)

    def release(self, client: str) -> None:
        """End all leases of a window that is closed."""
        with self.writing():
            self.execute(
                "UPDATE items SET client = NULL, leased_until = NULL WHERE client = ?", client
            )

    def image_of(self, item: int) -> QueuedImage:
        """Return the file of an image of the queue, or the particle that it is."""
        row = self.row_of("items", item)
        with reporting_damage(f"image {item}"):
            return restored(row["path"])

    def image_of_training(self, row: int) -> QueuedImage:
        """Return the file of a training image, or the particle that it is."""
        found = self.row_of("training", row, key="row")["path"]
        if found is None:
            raise UnknownError(f"the file of training image {row} is not known")
        with reporting_damage(f"training image {row}"):
            return restored(found)

    def progress(self, client: str = "") -> Progress:
        """Count images; `client` is the window that requests this."""
        counts = dict(self.execute("SELECT state, COUNT(*) FROM items GROUP BY state").fetchall())
        (waiting,) = self.execute(
            "SELECT COUNT(*) FROM items WHERE state = 'open' AND place IS NOT NULL"
        ).fetchone()
        (elsewhere,) = self.execute(
            "SELECT COUNT(*) FROM items WHERE client IS NOT NULL AND client != ? "
            "AND leased_until >= ? AND +state = 'open' AND +place IS NOT NULL",
            *(client, self.now()),
        ).fetchone()
        by_model = counts.get("open", 0) - waiting
        return Progress(
            counts.get("labelled", 0), counts.get("skipped", 0), waiting, elsewhere, by_model
        )

    def _click(self, client: str, click: str, item: int, category: int | None, want: int) -> Answer:
        """Log a label (or a skip, without category), which takes effect if it is the first."""
        what, state = ("skip", "skipped") if category is None else ("label", "labelled")
        with self.writing():
            if (result := self.earlier_result(click)) is None:
                row = self.row_of("items", item)
                result = ClickResult("kept", "", item)
                if row["state"] == "labelled":
                    name = self.row_of("categories", row["category"])["name"]
                    message = (
                        f"this image was already labelled “{name}”; that label is kept, yours is "
                        "in the log"
                    )
                    result = ClickResult("late", message, item)
                number = self.log(client, click, what, result, category)
                if result.outcome == "kept":
                    self.execute(
                        "UPDATE items SET state = ?, category = ?, event = ?, client = NULL, "
                        "leased_until = NULL WHERE id = ?",
                        *(state, category, number, item),
                    )
            return self._answer(client, want, result)

    def _undo_last(self, client: str, click: str) -> ClickResult:
        if (last := self.last_click(client, "label", "skip")) is None:
            self.log(client, click, "undo", NOTHING_TO_UNDO)
            return NOTHING_TO_UNDO
        if self.row_of("items", last["item"])["event"] == last["number"]:
            result = ClickResult("kept", "", last["item"])
        else:
            message = "the image has been changed since and stays as it is"
            result = ClickResult("late", message, last["item"])
        number = self.log(client, click, "undo", result, undone=last["number"])
        if result.outcome == "kept":
            self.execute(
                "UPDATE items SET state = 'open', category = NULL, event = ?, client = ?, "
                "leased_until = ? WHERE id = ?",
                *(number, client, self.now() + self.lease, last["item"]),
            )
        return result

    # --- the log of clicks ----------------------------------------------------------------------

    def log(
        self,
        client: str,
        click: str,
        what: str,
        result: ClickResult,
        category: int | None = None,
        *,
        undone: int | None = None,
    ) -> int:
        """Log a click of a window (client), in the transaction of its effect; return its number.

        `undone` is the number of the click that it undoes.
        """
        number = self.execute(
            "INSERT INTO events (click, client, time, what, category, outcome, message, item) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(click, client, self.now(), what, category, *result),
        ).lastrowid
        assert number is not None
        if undone is not None:
            self.execute("UPDATE events SET undone_by = ? WHERE number = ?", number, undone)
        return number

    def last_click(self, client: str, *kinds: str) -> sqlite3.Row | None:
        """Return the last click of a window that took effect and is not undone."""
        wanted = ", ".join("?" * len(kinds))
        return self.row(
            f"SELECT number, item FROM events WHERE client = ? AND what IN ({wanted}) "
            "AND outcome = 'kept' AND undone_by IS NULL ORDER BY number DESC LIMIT 1",
            *(client, *kinds),
        )

    def earlier_result(self, click: str) -> ClickResult | None:
        """Return the result of a click that is sent again, because its answer was lost."""
        row = self.row("SELECT outcome, message, item FROM events WHERE click = ?", click)
        return None if row is None else ClickResult(*row)

    def row_of(
        self, table: str, number: int, *, key: str = "id", columns: str = "*"
    ) -> sqlite3.Row:
        """Return a line of a table; an UnknownError if there is none."""
        if (row := self.row(f"SELECT {columns} FROM {table} WHERE {key} = ?", number)) is None:
            kind = {"items": "image", "categories": "class", "training": "training image"}[table]
            raise UnknownError(f"the queue has no {kind} {number}")
        return row

    # --- leases ---------------------------------------------------------------------------------

    def _answer(self, client: str, want: int, result: ClickResult) -> Answer:
        return Answer(*result, self._lease(client, min(want, MAX_LEASED)), self.progress(client))

    def _lease(self, client: str, want: int) -> list[Item]:
        """Renew a window's leases, lease images up to `want` in all, and return all of them."""
        now = self.now()
        # The "+" lets SQLite use the index of clients.
        mine = "client = ? AND +state = 'open' AND +place IS NOT NULL"
        (held,) = self.execute(f"SELECT COUNT(*) FROM items WHERE {mine}", client).fetchone()
        self.execute(
            "UPDATE items SET client = ? WHERE id IN (SELECT id FROM items "
            "WHERE state = 'open' AND place IS NOT NULL AND client IS NOT ? "
            "AND (client IS NULL OR leased_until < ?) ORDER BY place LIMIT ?)",
            *(client, client, now, max(0, want - held)),
        )
        self.execute(f"UPDATE items SET leased_until = ? WHERE {mine}", now + self.lease, client)
        rows = self.rows(f"{_ITEM} WHERE {mine} ORDER BY place", client)
        return [self._item(row) for row in rows]

    def _item(self, row: sqlite3.Row) -> Item:
        with reporting_damage(f"image {row['id']}"):
            nearest = [
                Neighbour(row["row"], row["name"], row["label"], row["path"] is not None)
                for number in parse_json(row["nearest"])
                for row in self.rows("SELECT * FROM training WHERE row = ?", number)
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


def checked_name(name: str, of: str = "class") -> str:
    """Return the name of a class, or of something else, with single spaces between its words."""
    words = " ".join(unicodedata.normalize("NFC", name).split())
    if not words:
        raise QueueError(f"the name of the {of} is empty")
    if len(words) > MAX_CATEGORY_NAME:
        raise QueueError(f"the name of the {of} is longer than {MAX_CATEGORY_NAME} characters")
    if not words.isprintable():
        raise QueueError(f"the name of the {of} has characters that cannot be printed")
    return words
