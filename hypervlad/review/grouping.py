"""Groups of training images and of a queue's images, from a table or from the model before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier.training import TrainingImages, names_below
from hypervlad.datasets.groups import GroupRow, match_groups, read_group_rows


def groups_of(
    training: Sequence[str],
    root: str | os.PathLike[str],
    added: Sequence[Path],
    table: str | os.PathLike[str],
) -> NDArray[np.str_]:
    """Return the groups of training images and, after them, of images that came from a queue.

    Parameters
    ----------
    training : sequence of n paths under `root`
        Each needs a line in the table.
    root : path
    added : sequence of m Path
        Absolute. One with a line, whose path is the end of its own, is of that group; the others
        are each a group of their own.
    table : path
        CSV file with the columns path and group.

    Returns
    -------
    ndarray of str, shape (n + m,)

    Raises
    ------
    ImageFolderError
        If a training image has no line, or a line fits several of them.
    """
    rows = read_group_rows(table)
    found = [_row_of(path, rows) for path in added]
    of_added = {id(row) for row in found if row is not None}
    ends = {_parts(os.fspath(path))[-1] for path in training}
    # A line of the queue's own images alone is no line without an image.
    kept = [row for row in rows if id(row) not in of_added or _parts(row.path)[-1] in ends]
    own = match_groups([Path(path) for path in training], Path(root), kept, table)
    names = [
        _alone(path) if row is None else row.group for path, row in zip(added, found, strict=True)
    ]
    return np.array([*own.tolist(), *names])


def groups_kept(
    known: TrainingImages,
    training: Sequence[str],
    kept: Sequence[int],
    added: Sequence[Path],
) -> NDArray[np.str_]:
    """Return groups as `groups_of`, of training images those that a model was fitted with.

    Parameters
    ----------
    known : TrainingImages
        Those of the model.
    training : sequence of paths
        All images of the folder, from which those of the model are told by their names.
    kept : sequence of n int
        Which of them are wanted.
    added : sequence of m Path
        Each a group of its own unless it is a training image too, as is a training image that
        the model does not know.
    """
    codes = dict(zip(known.names, known.groups.tolist(), strict=True))
    of_file = {
        Path(image).resolve(): f"group {codes[name]} of the model"
        for image, name in zip(training, names_below(training), strict=True)
        if name in codes
    }
    files = [*(Path(training[i]) for i in kept), *added]
    return np.array([of_file.get(file.resolve(), _alone(file)) for file in files])


def _alone(path: Path) -> str:
    return f"group of {path} alone"


def _row_of(path: Path, rows: Sequence[GroupRow]) -> GroupRow | None:
    """Return the line whose path is the longest end of an image's, if there is one."""
    whole = _parts(path.as_posix())
    fitting = [row for row in rows if (parts := _parts(row.path)) and whole[-len(parts) :] == parts]
    return max(fitting, key=lambda row: len(_parts(row.path)), default=None)


def _parts(path: str) -> tuple[str, ...]:
    clean = PurePosixPath(path.replace("\\", "/"))
    return tuple(part for part in clean.parts if part not in ("/", "."))
