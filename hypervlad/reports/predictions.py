"""The table of predictions, one row per image, as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.classifier import Classification
from hypervlad.reports.files import as_utf8


def prediction_columns(found: Classification, classes: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the columns of the table for prediction sets and judgements, if there are any.

    Parameters
    ----------
    found : Classification
        Of n images that could be read.
    classes : sequence of n_classes labels

    Returns
    -------
    dict of str to list of n values
        "possible", the classes of each prediction set, separated by "|" (a backslash precedes that
        sign, and a backslash, in a name); "kind" and "reason" of each judgement.
    """
    columns: dict[str, list[Any]] = {}
    if found.sets is not None:
        columns["possible"] = [
            "|".join(re.sub(r"([\\|])", r"\\\1", name) for name in names)
            for names in possible_classes(found.sets, classes)
        ]
    if found.judgement is not None:
        columns["kind"] = found.judgement.kind.tolist()
        columns["reason"] = found.judgement.reasons
    return columns


def possible_classes(sets: NDArray[np.bool_], classes: Sequence[Any]) -> list[list[str]]:
    """Return the names of the classes of each prediction set, shape (n, n_classes)."""
    names = np.array([str(name) for name in classes], dtype=object)
    return [names[row].tolist() for row in sets]


def write_predictions(
    stream: IO[str],
    names: Sequence[str],
    proba: ArrayLike,
    classes: Sequence[Any],
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write ``path, label, confidence``, any further columns, and a ``p_CLASS`` for each class.

    Parameters
    ----------
    stream : text stream
        Opened with ``newline=""``.
    names : sequence of n str
        The path, or another name, of each image.
    proba : array-like of shape (n, n_classes)
        Written with all digits.
    classes : sequence of n_classes labels
    columns : mapping of str to sequence of n values, optional

    Examples
    --------
    >>> import sys
    >>> write_predictions(sys.stdout, ["a.png"], [[0.25, 0.75]], ["SEM", "TEM"])
    path,label,confidence,p_SEM,p_TEM
    a.png,TEM,0.75,0.25,0.75
    """
    table, columns = np.asarray(proba), columns or {}
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "label", "confidence", *columns, *(f"p_{name}" for name in classes)])
    for index, name in enumerate(names):
        row = table[index]
        further = (values[index] for values in columns.values())
        writer.writerow([name, classes[row.argmax()], row.max(), *further, *row])


def predictions_as_bytes(
    names: Sequence[str],
    proba: ArrayLike,
    classes: Sequence[Any],
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> bytes:
    """Return what `write_predictions` writes, in UTF-8.

    File names that are not valid text, which Linux allows, keep their bytes.
    """
    stream = io.StringIO(newline="")
    write_predictions(stream, names, proba, classes, columns=columns)
    return as_utf8(stream.getvalue())
