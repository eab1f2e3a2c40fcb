"""CSV files of groups and labels: how they are read, and which image a line means."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hypervlad.common import tables
from hypervlad.common.tables import SAVE_AS_UTF8
from hypervlad.common.wording import counted, is_utf8, name_some, verb, warn_user
from hypervlad.images.files import composed, find_as_named, parts_below, path_parts

#: Names, in lower case, of the columns of tables of groups and of labels, the usual one first.
HEADERS = {
    "path": ("path", "file", "filename", "file_name", "image", "name"),
    "label": ("label", "labels", "class", "category", "target"),
    "group": ("group", "groups", "group_id", "sample", "specimen", "source"),
}
_SAMPLES = ("sample", "specimen", "source", "group", "groups", "group_id")  # the first one counts
#: The header of the labels of a review. Its ``path`` is as it was given, and ``file`` complete.
REVIEW_HEADER = ("path", "label", "source", "confidence", "file")
#: The same of particles, whose table lies in their folder, or for other purposes anywhere.
PARTICLE_HEADER = ("micrograph", "particle", "class", "source", "confidence")


class ImageFolderError(ValueError):
    """A folder, or its file of groups, does not describe a labelled set of images."""


class ImageFolderWarning(UserWarning):
    """Part of a folder is ignored, although its owner may have meant to use it."""


@dataclass(frozen=True)
class GroupRow:
    path: str
    group: str
    line: int

    @property
    def ends(self) -> list[tuple[str, ...]]:
        """The parts of the path, as it is written and without spaces around it."""
        found = map(path_parts, dict.fromkeys((self.path, self.path.strip())))
        return [parts for parts in found if parts]


def read_group_rows(csv_path: str | os.PathLike[str], what: str = "group") -> list[GroupRow]:
    """Read a file with the columns path and group, or sample; the header is optional."""
    path = Path(csv_path).expanduser()
    lines = read_cells(path, f"path, {what}")
    if not lines:
        raise ImageFolderError(f"{path}: empty; expected lines of two columns, path and {what}.")
    path_column, group_column, has_header = _group_columns(lines[0][1], path, what)
    rows = []
    for number, cells in lines[has_header:]:
        filled = max(path_column, group_column) < len(cells)
        if not filled or not (cells[path_column].strip() and cells[group_column].strip()):
            raise ImageFolderError(
                f"{path}, line {number}: expected a path and a {what}, got {','.join(cells)!r}. "
                "Columns are separated by a comma, a semicolon or a tab; a path that contains one "
                "goes into double quotes."
            )
        check_text(path, number, cells[group_column])
        rows.append(GroupRow(cells[path_column], composed(cells[group_column].strip()), number))
    if not rows:
        raise ImageFolderError(f"{path}: a header and nothing below it; expected path and {what}.")
    return rows


def match_groups(
    files: Sequence[Path], root: Path, rows: Sequence[GroupRow], csv_path: str | os.PathLike[str]
) -> NDArray[np.str_]:
    """Return for each image the group of the row with a matching path, shape (n_files,).

    A row matches an image if its path is the end of the image's full path; or, if none does (a file
    of groups from another machine), if its path ends in the image's path under ``root``. Names
    match as a whole, with any slashes, in any Unicode form unless there is an image of each. Unused
    rows cause a warning.
    """
    by_name: dict[str, list[int]] = defaultdict(list)
    for i, file in enumerate(files):
        by_name[composed(file.name)].append(i)
    full = [path_parts(file.absolute().as_posix()) for file in files]
    short = [path_parts("/".join(parts_below(file, root))) for file in files]
    matched: dict[int, GroupRow] = {}
    unused = []

    def hits_of(row: GroupRow, is_from_here: bool) -> list[int]:
        hits: list[int] = []
        for parts in row.ends:
            named = by_name.get(parts[-1], [])
            pairs = ((full[i], parts) if is_from_here else (parts, short[i]) for i in named)
            fit = [path[-len(end) :] == end for path, end in pairs]
            hits = hits or list(compress(named, fit))
            hits = [i for i in hits if short[i] == parts] or hits
        return hits

    # Otherwise B/1.png of a table of A and B would be the line of 1.png in A.
    is_from_here = any(hits_of(row, True) for row in rows)
    for row in rows:
        hits = hits_of(row, is_from_here)
        if len(hits) > 1:
            stored = row.path.strip().replace("\\", "/")
            hits = [i for i in hits if files[i].as_posix().endswith(stored)] or hits
        if not hits:
            unused.append(f"{row.path} (line {row.line})")
        elif len(hits) > 1:
            names = name_some(["/".join(short[i]) for i in hits])
            raise ImageFolderError(
                f"{csv_path}, line {row.line}: {row.path} fits {counted(len(hits), 'image')} "
                f"({names}); write more of the path, such as the class folder."
            )
        elif (before := matched.setdefault(hits[0], row)).group != row.group:
            raise ImageFolderError(
                f"{csv_path}: {row.path} is in group {before.group!r} (line {before.line}) and in "
                f"group {row.group!r} (line {row.line}); an image has one group. Delete one line."
            )
    missing = ["/".join(short[i]) for i in range(len(files)) if i not in matched]
    _check_unmatched(csv_path, root, unused, missing)
    return np.array([matched[i].group for i in range(len(files))])


def load_groups(
    files: Sequence[Path], root: Path, groups: str | os.PathLike[str], what: str = "group"
) -> NDArray[np.str_]:
    """Return the group, or `what` is "sample", of each image; see `match_groups`."""
    if not isinstance(groups, (str, os.PathLike)):
        raise ImageFolderError(
            f"groups: expected the path of a CSV file with columns path and group, got "
            f"{type(groups).__name__}. An array of groups goes to fit(images, y, groups=...) "
            "as it is."
        )
    return match_groups(files, root, read_group_rows(groups, what), groups)


def read_cells(path: Path, columns: str) -> list[tuple[int, list[str]]]:
    """Return the lines of a CSV file that are not blank, with their numbers.

    Errors name the expected `columns`; see `read_separated`.
    """
    return read_separated(path, columns)[1]


def read_separated(path: Path, columns: str) -> tuple[str, list[tuple[int, list[str]]]]:
    """Do the same, and return first what separates the cells."""
    if path.is_dir():
        raise ImageFolderError(f"{path}: a folder; expected a CSV file with columns {columns}.")
    if not path.exists():
        raise ImageFolderError(
            f"{path}: no such file; expected a CSV file with columns {columns} (looked in "
            f"{Path.cwd()})."
        )
    try:
        return tables.read_separated(path, columns)
    except ValueError as error:
        raise ImageFolderError(str(error)) from error


def file_at(folder: Path, text: str) -> Path:
    """Return the file of a path, maybe without spaces around it or in another Unicode form."""
    clean = text.strip().replace("\\", "/")
    tried = [folder / each for each in (text, text.strip(), clean)]
    found = next((file for file in tried if os.path.exists(file)), None)
    return found or find_as_named(folder, clean) or tried[-1]


def check_text(table: Path, line: int, text: str) -> None:
    if not is_utf8(text):
        raise ImageFolderError(f"{table}, line {line}: not UTF-8 text{SAVE_AS_UTF8}.")


def encoding_hint(names: Sequence[str]) -> str:
    return "" if all(map(is_utf8, names)) else f" (some are not UTF-8 text{SAVE_AS_UTF8})"


def alike_classes(labels: Iterable[str]) -> list[str]:
    """Return the names that differ from another one only in upper and lower case."""
    spellings = defaultdict(list)
    for name in sorted(set(labels)):
        spellings[name.casefold()].append(name)
    return [name for names in spellings.values() if len(names) > 1 for name in names]


def find_columns(header: Sequence[str], what: str = "group") -> dict[str, int]:
    """Return the columns by what they have; that of the group, or of the sample, is "group"."""
    names = [cell.strip().lower() for cell in header]
    found = {}
    for kind, known in HEADERS.items():
        if places := [i for i, name in enumerate(names) if name in known]:
            # Only the usual name precedes the others.
            found[kind] = names.index(known[0]) if known[0] in names else places[0]
    is_of_label = "label" in found and "source" in names
    own = [name for name in _SAMPLES if name in names and not (is_of_label and name == "source")]
    if what == "sample" and own:
        found["group"] = names.index(own[0])
    if is_of_label:
        found["source"] = names.index("source")
        if found.get("group") == found["source"]:
            del found["group"]  # it is the source of the label
    if set(REVIEW_HEADER) <= set(names):
        found["path"] = names.index("file")
    return found


def _group_columns(first: Sequence[str], csv_path: Path, what: str) -> tuple[int, int, bool]:
    """Return the columns of path and group, or sample, and whether the first line is a header."""
    found = find_columns(first, what)
    if "path" in found and "group" in found:
        names = [cell.strip().lower() for cell in first]
        taken, is_one = names[found["group"]], len({*names} & {*_SAMPLES}) == 1
        is_usual = "group" in taken or is_one if what == "group" else taken in _SAMPLES[:2]
        if not is_usual:
            warn_user(
                f"{csv_path}: no column is called {what}, so {taken} is taken for it; call the "
                f"right one {what}.",
                ImageFolderWarning,
            )
        return found["path"], found["group"], True
    if "path" in found and ("label" in found or sum(bool(cell.strip()) for cell in first) > 2):
        raise ImageFolderError(
            f"{csv_path}: no column is called {what}; its columns are {', '.join(first)}. Expected "
            f"path and {what}: what was cut from one micrograph, sample or paper has one {what}."
        )
    # Another word in the header's second column: no image is called "path".
    return 0, 1, found.get("path") == 0 or found.get("group") == 1


def _check_unmatched(
    csv_path: str | os.PathLike[str], root: Path, unused: list[str], missing: list[str]
) -> None:
    n = len(unused)
    idle = f"{n} of its paths {verb(n, 'fits', 'fit')} no image in {root}: {name_some(unused)}"
    remedy = "Delete these lines, or check folder and spelling"
    if not all(map(is_utf8, unused)):
        remedy = f"Some are not UTF-8 text{SAVE_AS_UTF8}"
    if missing:
        problems = [f"{idle}. {remedy}"] if unused else []
        problems.append(
            f"{counted(len(missing), 'image')} {verb(len(missing), 'has', 'have')} no line: "
            f"{name_some(missing)}. Add a line path,group for each, also for files that cannot be "
            "read; an image that belongs to, or is compared with, no other gets a group of its own"
        )
        raise ImageFolderError(f"{csv_path}: {'; '.join(problems)}.")
    if unused:
        warn_user(f"{csv_path}: {idle}. These lines were ignored.", ImageFolderWarning)
