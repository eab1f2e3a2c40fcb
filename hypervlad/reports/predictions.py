"""The table of predictions, one row per image, as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.classifier import Judgement
from hypervlad.images import SkippedImage
from hypervlad.reports.files import as_utf8


class Predictions(NamedTuple):
    """What a model says of images.

    Attributes
    ----------
    read : ndarray of int, shape (m,)
        Positions of the images that could be read.
    proba : ndarray of shape (m, n_classes)
    columns : dict from str to list of m values
    judged : Judgement or None
        Of the m images; None if it was not asked for.
    skipped : list of SkippedImage
        Those that could not be read, and why.
    possible : list of m lists of str, or None
        The classes of `predict_set`; None if they were not asked for.
    """

    read: NDArray[np.intp]
    proba: NDArray[np.float64]
    columns: dict[str, list[Any]]
    judged: Judgement | None = None
    skipped: Sequence[SkippedImage] = ()
    possible: list[list[str]] | None = None


def predictions_of(
    model: Any, images: Sequence[Any], coverage: float | None, max_error: float | None
) -> Predictions:
    """Classify images, each encoded once, with what is asked for of their doubts.

    Parameters
    ----------
    model : fitted MicrographClassifier
    images : sequence of n images
    coverage : float, optional
        Adds the column "possible": the classes of `predict_set`, parted by "|"; that sign and
        the backslash in a name have a backslash before them.
    max_error : float, optional
        Adds the columns "kind" and "reason" of `judge`.
    """
    found = model.classify(images, coverage=coverage, max_error=max_error)
    found.images.warn()
    columns, possible = dict[str, list[Any]](), None
    if found.sets is not None:
        names = np.array([str(name) for name in model.classes_], dtype=object)
        possible = [names[row].tolist() for row in found.sets]
        columns["possible"] = [
            "|".join(re.sub(r"([\\|])", r"\\\1", name) for name in own) for own in possible
        ]
    judged = found.judgement
    if judged is not None:
        columns |= {"kind": judged.kind.tolist(), "reason": judged.reasons}
    return Predictions(
        found.images.positions, found.proba, columns, judged, found.images.skipped, possible
    )


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
