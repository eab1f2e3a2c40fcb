"""The labels of a queue, by the model and by people: browsed, corrected, exported as a table."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hypervlad.app.database import ClickResult, QueueError, reporting_damage, shown_name
from hypervlad.app.particles import QueuedParticle
from hypervlad.app.store import NOTHING_TO_UNDO, LabelledImage, Queue
from hypervlad.common.limits import MAX_LABELS_AT_ONCE
from hypervlad.common.tables import MODEL_SOURCE, PERSON_SOURCE, table_as_bytes
from hypervlad.common.wording import counted, name_some, warn_user

# Labelled: by a person, or by a model that is sure.
_IS_LABELLED = "(items.state = 'labelled' OR items.state = 'open' AND items.place IS NULL)"
_SOURCES = {
    "model": "items.state = 'open' AND items.place IS NULL",
    "person": "items.state = 'labelled'",
    "all": _IS_LABELLED,
}
_ORDERS = {
    "least_sure": "items.confidence, items.id",
    "most_sure": "items.confidence DESC, items.id",
    "name": "items.name, items.id",
    "latest": "items.event IS NULL, items.event DESC, items.id",
}
_LABEL = "COALESCE(items.category, items.predicted)"


@dataclass(frozen=True)
class GivenLabel:
    """The label of an image, and its last event, if any, with the time in seconds since 1970."""

    id: int
    name: str
    category: int
    predicted: int
    confidence: float
    by: Literal["model", "person"]
    event: int | None
    time: float | None


@dataclass(frozen=True)
class LabelPage:
    """Some labelled images of a queue, their total number, and the number of each category."""

    labels: list[GivenLabel]
    total: int
    counts: list[tuple[int, int]]


class Labels:
    """The labels of a queue: those that the model was sure of, and those that people gave.

    A correction is the label of a person; the window that made it can undo it.

    Parameters
    ----------
    queue : Queue

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad.apps.review import Labels, Queue
    >>> from hypervlad.app.database import make_queue
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_queue(f"{folder}/queue", ["fibre", "tube"], [], [], {})
    ...     queue = Queue(f"{folder}/queue")
    ...     page = Labels(queue).page(source="model", order="least_sure")
    ...     queue.close()
    >>> page.labels
    []
    """

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def page(
        self,
        *,
        category: int = 0,
        source: str = "model",
        order: str = "least_sure",
        start: int = 0,
        n: int = MAX_LABELS_AT_ONCE,
    ) -> LabelPage:
        """Return some of the labelled images.

        Parameters
        ----------
        category : int, default=0
            Only images with this label; 0 for all.
        source : {"model", "person", "all"}
            Who gave the label.
        order : {"least_sure", "most_sure", "name", "latest"}
            By the model's confidence, by name, or the latest labels of people first.
        start, n : int, default=0 and 120
            Number of images to leave out, in this order, and to return at most.
        """
        for value, known in ((source, _SOURCES), (order, _ORDERS)):
            if value not in known:
                raise QueueError(f"expected one of {', '.join(known)}; got {value!r}")
        of_source = _SOURCES[source]
        counts = self.queue.rows(
            f"SELECT {_LABEL}, COUNT(*) FROM items WHERE {of_source} GROUP BY 1 ORDER BY 1"
        )
        rows = self.queue.rows(
            f"SELECT items.*, {_LABEL} AS label, events.time FROM items "
            f"LEFT JOIN events ON events.number = items.event WHERE {of_source} "
            f"AND ? IN (0, {_LABEL}) ORDER BY {_ORDERS[order]} LIMIT ? OFFSET ?",
            *(category, max(0, min(n, MAX_LABELS_AT_ONCE)), max(0, start)),
        )
        return LabelPage(
            [_given_label(row) for row in rows],
            sum(number for label, number in counts if category in (0, label)),
            [(label, number) for label, number in counts],
        )

    def correct(
        self, client: str, click: str, items: Mapping[int, int | None], category: int
    ) -> ClickResult:
        """Label images again, "kept" if one changes; a click sent again has no further effect.

        Parameters
        ----------
        client, click : str
            The window, and its unique name for the click.
        items : mapping of int to int or None
            The images, each with the event that the window knows (`event` in `page`). An image that
            has changed since stays as it is.
        category : int
            The label. That of the model confirms it.
        """
        if not 1 <= len(items) <= MAX_LABELS_AT_ONCE:
            raise QueueError(
                f"label 1 to {counted(MAX_LABELS_AT_ONCE, self.queue.unit)} at a time; "
                f"got {len(items)}"
            )
        queue = self.queue
        name = queue.row_of("categories", category)["name"]
        with queue.writing():
            if (result := queue.earlier_result(click)) is None:
                known = f"items.*, {_IS_LABELLED} AS labelled"
                rows = [queue.row_of("items", each, columns=known) for each in items]
                fresh = [
                    row for row in rows if row["event"] == items[row["id"]] and row["labelled"]
                ]
                result = self._result_of(
                    f"{counted(len(fresh), self.queue.unit)} labelled “{name}”",
                    len(fresh),
                    len(rows) - len(fresh),
                    rows[0]["id"] if len(rows) == 1 else None,
                )
                number = queue.log(client, click, "correct", result, category)
                queue.connection.executemany(
                    "INSERT INTO corrected VALUES (?, ?, ?, ?, ?)",
                    [
                        (number, row["id"], row["state"], row["category"], row["event"])
                        for row in fresh
                    ],
                )
                queue.connection.executemany(
                    "UPDATE items SET state = 'labelled', category = ?, event = ? WHERE id = ?",
                    [(category, number, row["id"]) for row in fresh],
                )
        return result

    def undo(self, client: str, click: str) -> ClickResult:
        """Undo a window's last correction; images that have changed since stay as they are."""
        with self.queue.writing():
            return self.queue.earlier_result(click) or self._undo_last(client, click)

    def _undo_last(self, client: str, click: str) -> ClickResult:
        queue = self.queue
        if (last := queue.last_click(client, "correct")) is None:
            queue.log(client, click, "undo", NOTHING_TO_UNDO)
            return NOTHING_TO_UNDO
        before = queue.rows(
            "SELECT corrected.*, items.event = corrected.event AS fresh FROM corrected "
            "JOIN items ON items.id = corrected.item WHERE corrected.event = ?",
            last["number"],
        )
        fresh = [row for row in before if row["fresh"]]
        words = f"{counted(len(fresh), self.queue.unit)} labelled as before"
        result = self._result_of(words, len(fresh), len(before) - len(fresh), last["item"])
        queue.log(client, click, "undo", result, undone=last["number"])
        queue.connection.executemany(
            "UPDATE items SET state = ?, category = ?, event = ? WHERE id = ?",
            [(row["state"], row["category"], row["previous"], row["item"]) for row in fresh],
        )
        return result

    def _result_of(self, words: str, n_changed: int, n_late: int, item: int | None) -> ClickResult:
        late = f"{counted(n_late, self.queue.unit)} changed in another window: not labelled here"
        if not n_changed:
            return ClickResult("late", late, item)
        return ClickResult("kept", f"{words}; {late}" if n_late else words, item)


def _given_label(row: sqlite3.Row) -> GivenLabel:
    with reporting_damage(f"image {row['id']}"):
        return GivenLabel(
            id=row["id"],
            name=shown_name(row["name"]),
            category=int(row["label"]),
            predicted=int(row["predicted"]),
            confidence=float(row["confidence"]),
            by="person" if row["state"] == "labelled" else "model",
            event=row["event"],
            time=row["time"],
        )


def export_labels(queue: Queue, source: str = "all") -> tuple[bytes, int]:
    """Return the labels of a queue as CSV, and the number of images without a label.

    Columns: ``path``, the name in the queue, ``label``, ``source`` ("person" or "model"),
    ``confidence``, the model's (empty for a person's label), and ``file``, the absolute path. Of
    particles: ``micrograph``, ``particle``, its number, ``class``, ``source`` and ``confidence``.
    Labels of outlines that have changed since are left out with a warning.

    Parameters
    ----------
    queue : Queue
    source : {"all", "person", "model"}, default="all"
        Whose labels to write.

    Returns
    -------
    table : bytes
        UTF-8; file names that are not valid text keep their bytes.
    n_open : int
        Doubtful images without a label, which have no line.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad.apps.review import Queue, export_labels
    >>> from hypervlad.app.database import make_queue
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_queue(f"{folder}/queue", ["fibre", "tube"], [], [], {})
    ...     queue = Queue(f"{folder}/queue")
    ...     table, n_open = export_labels(queue)
    ...     queue.close()
    >>> table.splitlines()[0], n_open
    (b'path,label,source,confidence,file', 0)
    """
    # Not above: it imports pandas, which the server of the page does not need.
    from hypervlad.folders.groups import PARTICLE_HEADER, REVIEW_HEADER

    images = queue.images()
    labelled = [image for image in images if image.label is not None or not image.doubtful]
    header, rows = REVIEW_HEADER, []
    for image in _with_same_outlines(labelled):
        own: tuple[object, ...] = image.predicted, MODEL_SOURCE, round(image.confidence, 6)
        if image.label is not None:
            own = image.label, PERSON_SOURCE, ""
        if source not in ("all", own[1]):
            continue
        if isinstance(image.image, QueuedParticle):
            header = PARTICLE_HEADER
            rows.append((image.image.field, image.image.number, *own))
        else:
            rows.append((image.name, *own, str(image.image)))
    return table_as_bytes(header, rows), len(images) - len(labelled)


def write_classes(queue: Queue, folder: str | os.PathLike[str]) -> tuple[int, int]:
    """Write the classes that people gave into a folder of particles, and remove wrong outlines.

    Return their numbers, as `FoundFolder.correct` does. Outlines that have changed since are left
    out with a warning. The folder may have been moved since the queue was made; a QueueError if the
    queue does not have its particles.
    """
    from hypervlad.objects.found_folder import FoundFolder

    images = queue.images()
    folders = {image.image.found for image in images if isinstance(image.image, QueuedParticle)}
    is_own = any(os.path.realpath(each) == os.path.realpath(folder) for each in folders)
    is_moved = not any(map(os.path.exists, folders))
    if not folders or not (is_own or is_moved):
        has = f"the particles of {', '.join(folders)}" if folders else "images"
        raise QueueError(f"{folder}: a folder, but {queue.folder} has {has}")
    here = os.path.abspath(folder)
    labelled = [
        replace(image, image=replace(image.image, found=here))
        for image in images
        if image.label is not None and isinstance(image.image, QueuedParticle)
    ]
    given = {
        (image.image.field, image.image.number): str(image.label)
        for image in _with_same_outlines(labelled)
        if isinstance(image.image, QueuedParticle)
    }
    return FoundFolder(folder).correct(given)


def _with_same_outlines(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Leave out particles whose outline has changed, unless a wrong one is gone; warn of them."""
    kept, changed = [], []
    for image in images:
        is_gone = isinstance(image.image, QueuedParticle) and image.image.outline_now() is None
        if image.is_there or (is_gone and image.is_wrong_outline):
            kept.append(image)
        else:
            changed.append(image.name)
    if changed:
        warn_user(
            f"{counted(len(changed), 'label')} left out, of outlines that have changed since the "
            f"queue was made: {name_some(changed)}; start another queue to label what is there now"
        )
    return kept
