"""Labels out of a queue, as a table: a person's, and those that the model was sure of."""

from __future__ import annotations

from hypervlad.reports.files import table_as_bytes
from hypervlad.review.filling import contents
from hypervlad.review.store import Queue

HEADER = ("path", "label", "source", "confidence", "file")


def exported(queue: Queue) -> tuple[bytes, int]:
    """Return the labels of a queue as CSV, and how many images have none yet.

    Columns: ``path`` as it was given, ``label``, ``source`` ("person" or "model"),
    ``confidence``, the probability that the model gave to what it said (empty for a person's
    label), and ``file``, the path from the root of the file system.

    Parameters
    ----------
    queue : Queue

    Returns
    -------
    table : bytes
        UTF-8; file names that are no valid text keep their bytes.
    n_open : int
        Images that are doubtful and not labelled, which have no line.
    """
    images = contents(queue)
    rows = [
        (image.name, image.said, "model", image.confidence, str(image.path))
        if image.label is None
        else (image.name, image.label, "person", "", str(image.path))
        for image in images
        if image.label is not None or not image.doubtful
    ]
    return table_as_bytes(HEADER, rows), len(images) - len(rows)
