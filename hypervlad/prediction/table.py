"""A table of predictions that grows line by line, in one run and in the next."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypervlad.classifier import Classification
from hypervlad.files import refuse_links, replace_when_complete
from hypervlad.prediction.sorting import numbered_names
from hypervlad.reports.predictions import (
    column_names,
    prediction_columns,
    prediction_header,
    predictions_as_bytes,
)
from hypervlad.tables import original_cell, table_as_bytes


class GrowingTable:
    r"""A table of predictions to which lines are added, also in a later run.

    What made it, the model and the options, is in a file beside it (see `record_of`), so that its
    lines are all of one kind. No complete line is ever removed.

    Parameters
    ----------
    path : Path
        Made with a header if it is missing or empty, also if it is removed in the meantime. The
        last line is removed if it is incomplete, because the last run was killed.
    classes : sequence of n_classes labels
    model : str
        A digest of the model.
    coverage, max_error : float or None
        As of `MicrographClassifier.classify`.

    Attributes
    ----------
    paths : set of str
        All images in the table, as `absolute_name` returns.
    n_added : int
        Number of lines that were added.

    Raises
    ------
    ValueError
        If the file is another table, or was made with another model or other options, or was
        changed so that a line has other columns.
    OSError
        If it is a link, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "predictions.csv")
    ...     _ = GrowingTable(path, ["SEM", "TEM"], model="1f0a", coverage=None, max_error=None)
    ...     path.read_text()
    'path,label,confidence,unlike_training,novelty,p_SEM,p_TEM\n'
    """

    def __init__(
        self,
        path: Path,
        classes: Sequence[Any],
        *,
        model: str,
        coverage: float | None,
        max_error: float | None,
    ) -> None:
        refuse_links(path)
        self.path, self.classes, self.n_added = path, list(classes), 0
        columns = column_names(has_sets=coverage is not None, is_judged=max_error is not None)
        header = prediction_header(columns, classes)
        self._header = table_as_bytes(header, [])
        kept = path.read_bytes() if path.exists() else b""
        made_by = {"model": model, "coverage": coverage, "max_error": max_error}
        self._keep_record(json.dumps(made_by), is_new=not kept)
        whole, tail = kept[: kept.rfind(b"\n") + 1], kept[kept.rfind(b"\n") + 1 :]
        rows = self._read(whole, header) if kept else [header]
        if tail and (last := self._complete_row(tail, header)):
            rows.append(last)
        elif tail:
            os.truncate(path, len(whole))
        self.paths = {absolute_name(row[0]) for row in rows[1:]}
        self._waiting = b""
        self._append(b"\n" if tail and last else b"")

    def _keep_record(self, text: str, *, is_new: bool) -> None:
        """Write what makes the lines; raise if other lines are in the table."""
        record = record_of(self.path)
        if is_new:
            with replace_when_complete(record) as stream:
                stream.write(text.encode())
        elif not record.exists():
            raise ValueError(
                f"{self.path} is another table: {record.name}, with the model and the options of "
                "its lines, is not beside it; give another name."
            )
        elif record.read_bytes() != text.encode():
            raise ValueError(
                f"{self.path} was made by another model or with other options, which are in "
                f"{record.name}; give another name, or the model and the options of the run that "
                "is to be continued."
            )

    def _read(self, table: bytes, header: list[str]) -> list[list[str]]:
        """Return all rows; raise if one has other columns."""
        text = table.decode("utf-8-sig", "surrogateescape")
        reader = csv.reader((f"{line}\n" for line in text.split("\n")[:-1]), strict=True)
        rows: list[list[str]] = []
        first, reason = 1, ""
        try:
            for cells in reader:
                row = [original_cell(cell) for cell in cells]
                if (row != header) if not rows else row and len(row) != len(header):
                    reason = f"{len(row)} columns instead of {len(header)}, or other ones"
                    break
                rows += [row] if row else []
                first = reader.line_num + 1
        except csv.Error as error:
            reason = str(error)
        if reason or not rows:
            raise ValueError(
                f"{self.path} was changed by another program: line {first} is not one of this "
                f"table, with commas between the columns ({reason or 'no header'}); correct it, or "
                "give another name."
            )
        return rows

    def _complete_row(self, tail: bytes, header: list[str]) -> list[str] | None:
        """Return the last row, without a line break, if an editor removed that; else None.

        A row that was cut has too few cells, or probabilities whose sum is not 1.
        """
        try:
            (row,) = csv.reader([tail.decode("utf-8", "surrogateescape")], strict=True)
            total = sum(map(float, row[-len(self.classes) :]))
        except (csv.Error, ValueError):
            return None
        is_whole = len(row) == len(header) and abs(total - 1) < 1e-6 * len(self.classes)
        return [original_cell(cell) for cell in row] if is_whole else None

    def add(self, names: Sequence[str], found: Classification, rows: Sequence[int]) -> None:
        """Add lines.

        Parameters
        ----------
        names : sequence of str
            The paths of the images that are added.
        found : Classification
        rows : sequence of int
            Their rows in `found`.

        Warns
        -----
        UserWarning
            If the table cannot be written for now, because a spreadsheet has it open, for example.
        """
        columns = prediction_columns(found, self.classes)
        chosen = {name: [values[row] for row in rows] for name, values in columns.items()}
        lines = predictions_as_bytes(names, found.proba[list(rows)], self.classes, columns=chosen)
        if not lines.startswith(self._header):
            raise ValueError(
                "the classification has other columns than the table: give the same coverage and "
                "max_error to both."
            )
        was_written = self.is_written
        self._waiting += lines.removeprefix(self._header)
        self.paths.update(map(absolute_name, names))
        self.n_added += len(rows)
        self.write()
        if was_written and not self.is_written:
            warnings.warn(
                f"{self.path} cannot be written now, perhaps because another program has it open; "
                "its lines are written when it can",
                UserWarning,
                stacklevel=2,
            )

    @property
    def is_written(self) -> bool:
        """Whether all lines are in the file."""
        return not self._waiting

    def write(self) -> None:
        """Write the lines that wait, unless another program keeps the file to itself."""
        if self._waiting:
            with contextlib.suppress(PermissionError):  # a spreadsheet on Windows
                self._append(self._waiting)
                self._waiting = b""

    def close(self) -> Path | None:
        """Write the lines that wait; to a new file, which is returned, if the table is not free."""
        self.write()
        if not self._waiting:
            return None
        for path in numbered_names(self.path.with_stem(f"{self.path.stem}-unsaved")):
            with contextlib.suppress(FileExistsError), open(path, "xb") as stream:
                stream.write(self._header + self._waiting)
                return path
        raise AssertionError("numbers do not end")

    def _append(self, lines: bytes) -> None:
        with open(self.path, "ab") as stream:
            stream.write(lines if stream.tell() else self._header + lines)
            stream.flush()
            os.fsync(stream.fileno())


def record_of(table: Path) -> Path:
    """Return the file beside a growing table that tells the model and the options of its lines."""
    return table.with_name(f"_{table.name}.model")


def absolute_name(file: str | os.PathLike[str]) -> str:
    """Return a path by which a file is recognised, however it was given."""
    return os.path.normcase(os.path.abspath(file))
