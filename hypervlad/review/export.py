"""The labels of a queue as a table: those of people, and the sure answers of the model."""

from __future__ import annotations

from hypervlad.datasets.groups import MODEL_SOURCE, REVIEW_HEADER
from hypervlad.review.store import Queue
from hypervlad.tables import table_as_bytes


def export_labels(queue: Queue, source: str = "all") -> tuple[bytes, int]:
    """Return the labels of a queue as CSV, and the number of images without a label.

    Columns: ``path``, the name of the image in the queue, ``label``, ``source`` ("person" or
    "model"), ``confidence``, the probability of the model's answer (empty for a person's label),
    and ``file``, the absolute path.

    Parameters
    ----------
    queue : Queue
    source : {"all", "person", "model"}
        Whose labels to write.

    Returns
    -------
    table : bytes
        UTF-8; file names that are not valid text keep their bytes.
    n_open : int
        Doubtful images without a label, which have no line.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.review import Queue, export_labels
    >>> from hypervlad.review.database import make_queue
    >>> from hypervlad.review.records import Entry
    >>> entry = Entry("a.png", pathlib.Path("/a.png"), None, "sure", [("tube", 0.9)], "", 0.2, [])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_queue(f"{folder}/queue", ["fibre", "tube"], [entry], [], {})
    ...     queue = Queue(f"{folder}/queue")
    ...     table, n_open = export_labels(queue)
    ...     queue.close()
    >>> table.splitlines()[0], n_open
    (b'path,label,source,confidence,file', 0)
    """
    images = queue.images()
    rows = [
        (image.name, image.predicted, MODEL_SOURCE, round(image.confidence, 6), str(image.path))
        if image.label is None
        else (image.name, image.label, "person", "", str(image.path))
        for image in images
        if image.label is not None or not image.doubtful
    ]
    chosen = [row for row in rows if source in ("all", row[2])]
    return table_as_bytes(REVIEW_HEADER, chosen), len(images) - len(rows)
