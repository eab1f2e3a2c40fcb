"""A folder of results that grows image by image, with tables that are complete at any moment."""

from __future__ import annotations

import csv
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from hypervlad.common.tables import read_table, write_table
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.pages.files import folded, is_below

SECONDS_BETWEEN_TABLES = 20.0  # the most that a power failure can cost
_MAX_WRITING = 1 / 20  # of the time, which tables of many lines take

Row: TypeAlias = Mapping[str, Any]


class ResultsFolder:
    """A folder to which the results of images are added one by one, in a ``with`` block.

    However the block ends, the tables are complete. If it ends without an error, the results that
    only an earlier run had are removed.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    images_table, details_table : str
        Names of the tables with one line per image, and with any number of lines per image; both
        have a column ``path``.
    columns : sequence of str
        Those of the second table, which may have no lines.
    files_of : callable
        From the name of an image to the files that a run may have written for it.

    Raises
    ------
    ValueError
        If the folder has such a table that is not of an earlier run.
    """

    def __init__(
        self,
        folder: Path,
        images_table: str,
        details_table: str,
        columns: Sequence[str],
        files_of: Callable[[str], Iterable[Path]],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._columns, self._files_of = folder, columns, files_of
        self._images_table, self._details_table = folder / images_table, folder / details_table
        self._earlier = {row["path"]: row for row in _rows_of(self._images_table)}
        self._earlier_details = defaultdict[str, list[Row]](list)
        for row in _rows_of(self._details_table):
            self._earlier_details[row["path"]].append(row)
        if self._earlier_details and not self._earlier:
            raise _foreign(self._details_table)
        self._replaced: list[Path] = []
        self._images: dict[str, Row] = {}
        self._details: list[Row] = []
        self._write_next = time.monotonic() + SECONDS_BETWEEN_TABLES

    def __enter__(self) -> ResultsFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        if not self._images:
            return
        stale = [] if kind else [name for name in self._earlier if name not in self._images]
        for name in stale:
            del self._earlier[name]
        self._write_tables()
        self._remove_all(stale)
        report_removed(self._replaced)

    def earlier(self, name: str) -> tuple[Row, list[Row]] | None:
        """Return the lines of an image that an earlier run has written, as text, if it has."""
        return (self._earlier[name], self._earlier_details[name]) if name in self._earlier else None

    def add(self, name: str, row: Row, details: Iterable[Row], files: Collection[Path]) -> None:
        """Add the lines of an image; `files` are those that were written for it."""
        self._images[name] = row
        self._details += details
        if self._earlier.pop(name, None) is not None:
            # What an earlier run made of this image, with other options.
            self._replaced += self._remove(p for p in self._files_of(name) if p not in files)
        if time.monotonic() >= self._write_next:
            self._write_tables()

    def _write_tables(self) -> None:
        started = time.monotonic()
        kept = [row for name in self._earlier for row in self._earlier_details[name]]
        rows = [*self._images.values(), *self._earlier.values()]
        write_rows(self._images_table, (), rows)
        write_rows(self._details_table, self._columns, [*self._details, *kept])
        ended = time.monotonic()
        self._write_next = ended + max(SECONDS_BETWEEN_TABLES, (ended - started) / _MAX_WRITING)

    def _remove_all(self, names: Sequence[str]) -> None:
        # On a file system that does not distinguish A and a, the files are those of this run.
        own = {folded(name) for name in self._images}
        # The names are from a table, which may have been edited.
        gone = [name for name in names if is_below(name) and folded(name) not in own]
        self._remove(path for name in gone for path in self._files_of(name))
        if gone:
            many = f"{counted(len(gone), 'image')}, such as " if len(gone) > 1 else ""
            warn_user(
                f"{self._folder}: removed the results of an earlier run for {many}{gone[0]}: this "
                "run has none."
            )

    def _remove(self, paths: Iterable[Path]) -> list[Path]:
        """Remove those files that exist, with folders that are empty then, and return them."""
        found = [path for path in paths if path.is_file()]
        for path in found:
            path.unlink()
            self._remove_empty(path.parent)
        return found

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._folder and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def report_removed(paths: Sequence[Path]) -> None:
    """Warn that files of an earlier run, which this run would not have made, are gone."""
    if paths:
        warn_user(
            f"removed {counted(len(paths), 'file')} of an earlier run with other options: "
            f"{name_some(list(map(str, paths)))}"
        )


def _rows_of(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        return
    try:
        header, *lines = read_table(path) or [[]]
    except csv.Error as error:
        raise _foreign(path) from error
    for cells in filter(None, lines):
        row = dict.fromkeys(header, "") | dict(zip(header, cells, strict=False))
        if not row.get("path") or len(cells) > len(header):
            raise _foreign(path)
        yield row


def _foreign(path: Path) -> ValueError:
    return ValueError(
        f"{path} is not a table of an earlier run, and would be overwritten; choose another folder."
    )


def write_rows(path: Path, columns: Iterable[str], rows: Sequence[Row]) -> None:
    """Write a table of these columns and of all others of the rows."""
    header = dict.fromkeys([*columns, *(column for row in rows for column in row)])
    lines = [[_cell(row.get(column)) for column in header] for row in rows]
    write_table(path, list(header), lines)


def _cell(value: Any) -> Any:
    """Format a value: empty if unknown, and with six digits, more than any value is precise to."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
