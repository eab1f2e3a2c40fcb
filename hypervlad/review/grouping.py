"""Groups of training images and of a queue's images, from a table or from the model before."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier.assessment import TrainingImages, relative_names
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
    of_file = {
        Path(image).resolve(): f"group {code} of the model"
        for image, code in zip(training, _codes_of(known, training), strict=True)
        if code is not None
    }
    is_grouped = len(np.unique(known.groups)) < len(known)
    if is_grouped and 2 * len(of_file) < len(training):
        warnings.warn(
            f"the model was trained with groups, and of {len(training)} training images only "
            f"{len(of_file)} are known to it by their paths; the others are each a group of their "
            "own: give a table of groups",
            UserWarning,
            stacklevel=3,
        )
    files = [*(Path(training[i]) for i in kept), *added]
    return np.array([of_file.get(file.resolve(), _alone(file)) for file in files])


def _codes_of(known: TrainingImages, training: Sequence[str]) -> list[int | None]:
    """Return the group of each image that a model knows, by paths whose ends are alike."""
    by_name: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    for name, code in zip(known.names, known.groups.tolist(), strict=True):
        if name:
            by_name[_parts(name)[-1]].append((_parts(name), code))
    found: list[int | None] = []
    for image, below in zip(training, relative_names(training), strict=True):
        whole, short = _parts(Path(image).absolute().as_posix()), _parts(below)
        fitting = [
            code
            for parts, code in by_name[whole[-1]]
            if whole[-len(parts) :] == parts or parts[-len(short) :] == short
        ]
        found.append(fitting[0] if len(set(fitting)) == 1 else None)
    return found


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
