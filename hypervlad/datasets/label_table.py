"""Tables of labelled images: one line per image, with path, label and optionally group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypervlad.datasets.folder import FolderLayout
from hypervlad.datasets.groups import (
    MODEL_SOURCE,
    ImageFolderError,
    ImageFolderWarning,
    check_text,
    encoding_hint,
    find_columns,
    read_cells,
)
from hypervlad.images.files import composed, find_as_named
from hypervlad.user_warnings import warn_user
from hypervlad.wording import counted, name_some, verb

_EXPECTED = "Expected path and label, and optionally group, in the first line"


@dataclass(frozen=True)
class _Row:
    """One line of the table, and the file that it means."""

    line: int
    path: str
    label: str
    group: str | None
    by_model: bool
    file: Path


def scan_table(table: str | os.PathLike[str]) -> FolderLayout:
    """List the images of a table; that they exist is checked, but none is opened.

    Raises
    ------
    ImageFolderError
        As `load_image_folder`, except for the number of labels.
    """
    path = Path(table).expanduser()
    rows = _distinct(path, _read_rows(path))
    missing = [f"{row.path} (line {row.line})" for row in rows if not os.path.isfile(row.file)]
    if missing:
        raise ImageFolderError(
            f"{path}: {len(missing)} of {counted(len(rows), 'image')} "
            f"{verb(len(missing), 'does', 'do')} not exist: {name_some(missing)}"
            f"{encoding_hint(missing)}. Paths are relative to the folder of the table, "
            f"{path.absolute().parent}."
        )
    layout = FolderLayout(path.parent, [], [], [], [], table=path)
    rows.sort(key=lambda row: layout.relative(row.file))
    layout.files.extend(row.file for row in rows)
    layout.labels.extend(row.label for row in rows)
    layout.by_model = [row.by_model for row in rows]
    if rows[0].group is not None:
        layout.groups = [str(row.group) for row in rows]
    return layout


def _read_rows(table: Path) -> list[_Row]:
    lines = read_cells(table, "path, label")
    if not lines:
        raise ImageFolderError(f"{table}: empty. {_EXPECTED}.")
    (_, header), *lines = lines
    columns = find_columns(header)
    lacking = [name for name in ("path", "label") if name not in columns]
    if lacking:
        raise ImageFolderError(
            f"{table}: no column is called {' or '.join(lacking)}; its columns are "
            f"{', '.join(header)}. {_EXPECTED}."
        )
    if not lines:
        raise ImageFolderError(f"{table}: a header and nothing below it. {_EXPECTED}.")
    cells = {
        name: [row[column] if column < len(row) else "" for _, row in lines]
        for name, column in columns.items()
    }
    numbers = [number for number, _ in lines]
    sources = cells.pop("source", [""] * len(numbers))
    for name, values in cells.items():
        _check_filled(table, name, numbers, values)
    if "group" in columns and "group" not in header[columns["group"]].lower():
        warn_user(
            f"{table}: images with the same {header[columns['group']].strip()} are taken for one "
            "group; call this column group to confirm it, or give it a name of another meaning.",
            ImageFolderWarning,
        )
    groups = cells.get("group", [None] * len(numbers))
    return [
        _Row(
            number,
            path,
            composed(label.strip()),
            group and composed(group.strip()),
            source.strip().lower() == MODEL_SOURCE,
            _file_at(table.parent, path),
        )
        for number, path, label, group, source in zip(
            numbers, cells["path"], cells["label"], groups, sources, strict=True
        )
    ]


def _check_filled(table: Path, name: str, numbers: Sequence[int], values: Sequence[str]) -> None:
    pairs = list(zip(numbers, values, strict=True))
    lacking = [str(number) for number, value in pairs if not value.strip()]
    if lacking:
        raise ImageFolderError(
            f"{table}: no {name} in {verb(len(lacking), 'line', 'lines')} {name_some(lacking)}. "
            f"Give each line a {name}, or delete it."
        )
    if name != "path":
        for number, value in pairs:
            check_text(table, number, value)


def _file_at(folder: Path, text: str) -> Path:
    """Return the file that a path means.

    As written, without spaces around it, with slashes, or in another Unicode form.
    """
    clean = text.strip().replace("\\", "/")
    tried = [folder / each for each in (text, text.strip(), clean)]
    found = next((file for file in tried if os.path.exists(file)), None)
    return found or find_as_named(folder, clean) or tried[-1]


def _distinct(table: Path, rows: Sequence[_Row]) -> list[_Row]:
    """Return each image once; an image with two labels or groups is an error."""
    first: dict[str, _Row] = {}
    repeated, contradictions = [], []
    for row in rows:
        before = first.setdefault(os.path.normcase(os.path.abspath(row.file)), row)
        if before is row:
            continue
        repeated.append(f"{row.path} (lines {before.line} and {row.line})")
        for one, other in ((before.label, row.label), (before.group, row.group)):
            if one != other:
                contradictions.append(
                    f"{row.path} is {one} (line {before.line}) and {other} (line {row.line})"
                )
    if contradictions:
        raise ImageFolderError(
            f"{table}: {name_some(contradictions)}. An image has one label and one group; delete "
            "the wrong lines."
        )
    if repeated:
        warn_user(
            f"{table}: {counted(len(repeated), 'line')} that "
            f"{verb(len(repeated), 'repeats', 'repeat')} an earlier one ignored: "
            f"{name_some(repeated)}.",
            ImageFolderWarning,
        )
    return list(first.values())
