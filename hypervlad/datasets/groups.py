"""Groups of images from a CSV file, and the errors of labelled folders."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hypervlad.tables import original_cell
from hypervlad.wording import counted, name_some, verb

#: Names, in lower case, of the columns of tables of groups and of labels.
PATH_HEADERS = frozenset(["path", "file", "filename", "file_name", "image", "name"])
GROUP_HEADERS = frozenset(["group", "groups", "group_id", "sample", "specimen", "source"])
LABEL_HEADERS = frozenset(["label", "labels", "class", "category", "target"])


class ImageFolderError(ValueError):
    """A folder, or its file of groups, does not describe a labelled set of images."""


class ImageFolderWarning(UserWarning):
    """Something in a folder is ignored that its owner may have meant to be used."""


@dataclass(frozen=True)
class GroupRow:
    """One line of the file: a path, or the end of a path, and the group of that image."""

    path: str
    group: str
    line: int


def read_group_rows(csv_path: str | os.PathLike[str]) -> list[GroupRow]:
    """Read a file of two columns, path and group.

    Comma, semicolon or tab between them; a header line is optional, and with one (``path`` and
    ``group``) the columns may be in any order among others. Empty lines are skipped. Apostrophes
    that `FolderReport.write_groups` puts before text like a formula are removed.

    Raises
    ------
    ImageFolderError
        If the file is missing, is not text, is empty, has a line without a path or a group, or is
        another kind of table, such as labels.
    """
    path = Path(csv_path).expanduser()
    lines = [
        (number, [original_cell(cell.strip()) for cell in row])
        for number, row in read_cells(path, "path, group")
        if any(cell.strip() for cell in row)
    ]
    if not lines:
        raise ImageFolderError(f"{path}: empty; expected lines of two columns, path and group.")
    path_column, group_column, has_header = _find_columns(lines[0][1], path)
    rows = []
    for number, cells in lines[has_header:]:
        if max(path_column, group_column) >= len(cells) or not (
            cells[path_column] and cells[group_column]
        ):
            raise ImageFolderError(
                f"{path}, line {number}: expected a path and a group, got {','.join(cells)!r}. "
                "Columns are separated by a comma, a semicolon or a tab; a path that contains one "
                "goes into double quotes."
            )
        rows.append(GroupRow(cells[path_column], cells[group_column], number))
    if not rows:
        raise ImageFolderError(f"{path}: a header and nothing below it; expected path and group.")
    return rows


def match_groups(
    files: Sequence[Path], root: Path, rows: Sequence[GroupRow], csv_path: str | os.PathLike[str]
) -> NDArray[np.str_]:
    """Give each image the group of the row with a matching path.

    A row matches an image if its path is the end of the image's full path, or if it ends in the
    image's path under ``root`` (a file of groups from another machine). Only whole names match:
    ``1.png`` does not match ``11.png``. Backslashes count as slashes.

    Parameters
    ----------
    files : sequence of Path
        Images under ``root``.
    root : Path
    rows : sequence of GroupRow
    csv_path : path
        Its name appears in errors.

    Returns
    -------
    array of shape (n_files,), str

    Raises
    ------
    ImageFolderError
        If a row matches several images, or an image has no row, or rows of different groups. Rows
        that match no image are ignored with a warning.
    """
    by_name: dict[str, list[int]] = defaultdict(list)
    for i, file in enumerate(files):
        by_name[file.name].append(i)
    full = [file.absolute().parts for file in files]
    short = [parts_below(file, root) for file in files]
    matched: dict[int, GroupRow] = {}
    unused = []
    for row in rows:
        parts = path_parts(row.path)
        hits = [
            i
            for i in (by_name.get(parts[-1], []) if parts else [])
            if _ends_with(full[i], parts) or _ends_with(parts, short[i])
        ]
        exact = [i for i in hits if short[i] == parts]
        hits = exact or hits
        if not hits:
            unused.append(f"{row.path} (line {row.line})")
        elif len(hits) > 1:
            _raise_ambiguous(csv_path, row, ["/".join(short[i]) for i in hits])
        else:
            _set_group(matched, hits[0], row, csv_path)
    missing = ["/".join(short[i]) for i in range(len(files)) if i not in matched]
    _check_unmatched(csv_path, root, unused, missing)
    return np.array([matched[i].group for i in range(len(files))])


def load_groups(
    files: Sequence[Path], root: Path, groups: str | os.PathLike[str]
) -> NDArray[np.str_]:
    """Return the groups of images, from the path of a CSV file."""
    if not isinstance(groups, (str, os.PathLike)):
        raise ImageFolderError(
            f"groups: expected the path of a CSV file with columns path and group, got "
            f"{type(groups).__name__}. An array of groups goes to fit(images, y, groups=...) "
            "as it is."
        )
    return match_groups(files, root, read_group_rows(groups), groups)


def read_cells(path: Path, columns: str) -> list[tuple[int, list[str]]]:
    """Return the lines of a CSV file with their numbers, separated by comma, semicolon or tab.

    Parameters
    ----------
    path : Path
    columns : str
        The names of the columns that are expected, for errors.

    Raises
    ------
    ImageFolderError
        If it is no file, no text in UTF-8, or no CSV.
    """
    if path.is_dir():
        raise ImageFolderError(f"{path}: a folder; expected a CSV file with columns {columns}.")
    if not path.exists():
        raise ImageFolderError(
            f"{path}: no such file; expected a CSV file with columns {columns} (looked in "
            f"{Path.cwd()})."
        )
    try:
        # "-sig": spreadsheets begin a UTF-8 file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImageFolderError(
            f"{path}: not UTF-8 text ({error}); in a spreadsheet, save as 'CSV UTF-8'."
        ) from error
    if "\0" in text:
        raise ImageFolderError(f"{path}: not a text file; expected a CSV with {columns}.")
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ImageFolderError(f"{path}, line {reader.line_num}: {error}.") from error


def _find_columns(first: list[str], csv_path: Path) -> tuple[int, int, bool]:
    """Return the columns of path and group, and whether the first line is a header."""
    names = [cell.lower() for cell in first]
    paths = [i for i, name in enumerate(names) if name in PATH_HEADERS]
    groups = [i for i, name in enumerate(names) if name in GROUP_HEADERS]
    has_labels = not LABEL_HEADERS.isdisjoint(names)
    if has_labels:  # then "source" is the source of the label
        groups = [i for i in groups if names[i] != "source"]
    if paths and groups:
        return paths[0], groups[0], True
    if paths and (has_labels or sum(map(bool, names)) > 2):
        raise ImageFolderError(
            f"{csv_path}: no column is called group; its columns are {', '.join(first)}. Expected "
            "path and group: what was cut from one micrograph, sample or paper has one group."
        )
    # Another word in the header's second column: no image is called "path".
    return 0, 1, bool(paths and paths[0] == 0) or bool(groups and groups[0] == 1)


def parts_below(file: Path, root: Path) -> tuple[str, ...]:
    """Return the parts of a file's path relative to a folder, which need not contain it."""
    try:
        return Path(os.path.relpath(file, root)).parts
    except ValueError:  # on another drive, on Windows
        return file.absolute().parts


def path_parts(path: str) -> tuple[str, ...]:
    """Return the parts of a path in a table, whichever slashes it is written with."""
    clean = PurePosixPath(path.replace("\\", "/"))
    return tuple(part for part in clean.parts if part not in ("/", "."))


def _ends_with(parts: tuple[str, ...], end: tuple[str, ...]) -> bool:
    return len(end) <= len(parts) and parts[len(parts) - len(end) :] == end


def _set_group(
    matched: dict[int, GroupRow], i: int, row: GroupRow, csv_path: str | os.PathLike[str]
) -> None:
    before = matched.setdefault(i, row)
    if before.group != row.group:
        raise ImageFolderError(
            f"{csv_path}: {row.path} is in group {before.group!r} (line {before.line}) and in "
            f"group {row.group!r} (line {row.line}); an image has one group. Delete one line."
        )


def _raise_ambiguous(csv_path: str | os.PathLike[str], row: GroupRow, hits: list[str]) -> None:
    raise ImageFolderError(
        f"{csv_path}, line {row.line}: {row.path} fits {counted(len(hits), 'image')} "
        f"({name_some(hits)}); write more of the path, such as the class folder before the file's "
        "name."
    )


def _check_unmatched(
    csv_path: str | os.PathLike[str], root: Path, unused: list[str], missing: list[str]
) -> None:
    """Raise for images without a group; warn of lines without an image."""
    n = len(unused)
    idle = f"{n} of its paths {verb(n, 'fits', 'fit')} no image in {root}: {name_some(unused)}"
    if missing:
        problems = [f"{idle}. Delete these lines, or check folder and spelling"] if unused else []
        problems.append(
            f"{counted(len(missing), 'image')} {verb(len(missing), 'has', 'have')} no line: "
            f"{name_some(missing)}. Add a line path,group for each; an image that belongs with no "
            "other gets a group of its own"
        )
        raise ImageFolderError(f"{csv_path}: {'; '.join(problems)}.")
    if unused:
        warnings.warn(
            f"{csv_path}: {idle}. These lines were ignored.", ImageFolderWarning, stacklevel=2
        )
